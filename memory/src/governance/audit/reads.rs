//! Group commit for reads of others' memory: they wait in a bounded buffer and are recorded in one transaction. A read
//! is answered only once its entry is durable.
//!
//! ```text
//! reader:  ticket = reads.record(event)?   …search…   ticket.wait(timeout)?   answer
//! writer:  batch = reads.take();  batch.append_to(&transaction)?;  commit;  batch.confirm()
//! ```

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::super::error::GovernanceError;
use super::append::append;
use super::{AuditEvent, StoredFields};

/// Most reads that may wait to be recorded, over all threads.
pub const NUM_READS_WAITING_MAX: usize = 4096;

/// The reads that wait to be recorded.
#[derive(Debug)]
pub struct ReadAudit {
    waiting: Mutex<Waiting>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    events: Vec<AuditEvent>,
    result: Arc<BatchResult>,
}

/// What became of a batch; its tickets wait for it.
#[derive(Debug, Default)]
struct BatchResult {
    recorded: Mutex<Option<bool>>,
    decided: Condvar,
}

/// A read that waits. To drop it without waiting is to not answer the read; it is recorded all the same.
#[must_use = "a read may be answered only after its ticket was waited for"]
#[derive(Debug)]
pub struct ReadTicket(Arc<BatchResult>);

/// Reads taken out of the buffer to be recorded. When it is dropped without [`ReadBatch::confirm`], all of them fail.
#[must_use = "the reads of a dropped batch fail"]
#[derive(Debug)]
pub struct ReadBatch {
    events: Vec<AuditEvent>,
    result: Arc<BatchResult>,
}

impl ReadAudit {
    /// A buffer for this many reads, at most [`NUM_READS_WAITING_MAX`].
    pub fn new(capacity: usize) -> Self {
        Self { waiting: Mutex::default(), capacity: capacity.min(NUM_READS_WAITING_MAX) }
    }

    /// Puts a read into the buffer. The read must not be answered when this fails.
    ///
    /// # Errors
    /// The buffer is full, or the event is one that could not be recorded.
    pub fn record(&self, event: AuditEvent) -> Result<ReadTicket, GovernanceError> {
        // Checked here, so that one reader's bad reason does not make the others of its batch fail.
        StoredFields::from_event(&event)?;
        let mut waiting = lock(&self.waiting);
        if waiting.events.len() >= self.capacity {
            return Err(GovernanceError::ReadAuditFull { limit: self.capacity });
        }
        waiting.events.push(event);
        Ok(ReadTicket(Arc::clone(&waiting.result)))
    }

    /// Number of reads that wait.
    pub fn num_waiting(&self) -> usize {
        lock(&self.waiting).events.len()
    }

    /// Takes all that wait; later reads make the next batch.
    pub fn take(&self) -> ReadBatch {
        let Waiting { events, result } = std::mem::take(&mut *lock(&self.waiting));
        ReadBatch { events, result }
    }
}

impl ReadBatch {
    /// Whether there is nothing to record.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Appends the reads in the order in which they came. On failure the transaction must be rolled back.
    ///
    /// # Errors
    /// As [`append`].
    pub fn append_to(&self, conn: &Connection) -> Result<(), GovernanceError> {
        self.events.iter().try_for_each(|event| append(conn, event).map(|_seq| ()))
    }

    /// Lets the reads be answered. To be called once the transaction is durable.
    pub fn confirm(self) {
        self.result.decide(true);
    }
}

impl Drop for ReadBatch {
    fn drop(&mut self) {
        self.result.decide(false);
    }
}

impl ReadTicket {
    /// Waits until the read is recorded.
    ///
    /// # Errors
    /// It could not be recorded, or not in time: the read must not be answered.
    pub fn wait(self, timeout: Duration) -> Result<(), GovernanceError> {
        let undecided = |recorded: &mut Option<bool>| recorded.is_none();
        let (recorded, _) = self
            .0
            .decided
            .wait_timeout_while(lock(&self.0.recorded), timeout, undecided)
            .unwrap_or_else(PoisonError::into_inner);
        match *recorded {
            Some(true) => Ok(()),
            Some(false) => Err(GovernanceError::ReadAuditFailed),
            None => {
                let waited_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                Err(GovernanceError::ReadAuditTimeout { waited_ms })
            }
        }
    }
}

impl BatchResult {
    /// The first decision stays.
    fn decide(&self, recorded: bool) {
        lock(&self.recorded).get_or_insert(recorded);
        self.decided.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while these locks are held; were it to, what they guard would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
