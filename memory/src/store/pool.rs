//! The connections for reading: a few, opened when first needed, each lent to one read at a time.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::{StoreError, schema};

/// Most reads at once.
pub const NUM_READERS_MAX: usize = 8;
/// How long a read waits for a connection.
const READER_WAIT_MS: u64 = 10_000;

pub(super) struct ReaderPool {
    path: PathBuf,
    state: Mutex<PoolState>,
    returned: Condvar,
}

struct PoolState {
    idle: Vec<Connection>,
    num_lent: usize,
}

/// A connection on loan; dropping it gives it back.
pub(super) struct LentReader<'a> {
    pool: &'a ReaderPool,
    /// Taken out when dropped.
    connection: Option<Connection>,
}

impl ReaderPool {
    pub(super) fn new(path: &Path) -> Self {
        let state = PoolState { idle: Vec::new(), num_lent: 0 };
        Self { path: path.to_owned(), state: Mutex::new(state), returned: Condvar::new() }
    }

    /// A connection for one read, waiting for one where all are lent.
    pub(super) fn lend(&self) -> Result<LentReader<'_>, StoreError> {
        let deadline = Instant::now() + Duration::from_millis(READER_WAIT_MS);
        let mut state = self.lock();
        while state.num_lent == NUM_READERS_MAX {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StoreError::ReadersBusy { limit: NUM_READERS_MAX, waited_ms: READER_WAIT_MS });
            }
            (state, _) = self.returned.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        state.num_lent += 1;
        let idle = state.idle.pop();
        drop(state);
        let mut lent = LentReader { pool: self, connection: idle };
        if lent.connection.is_none() {
            lent.connection = Some(self.open()?);
        }
        Ok(lent)
    }

    fn open(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        schema::prepare(&connection)?;
        Ok(connection)
    }

    /// A panic while the lock is held leaves nothing half-done: each holder changes the state by one step.
    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for LentReader<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("a lent connection is there until it is dropped: this is a bug")
    }
}

impl Drop for LentReader<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.num_lent -= 1;
        // One that is still inside a transaction would show old data to the next reader.
        if let Some(connection) = self.connection.take().filter(Connection::is_autocommit) {
            state.idle.push(connection);
        }
        drop(state);
        self.pool.returned.notify_one();
    }
}
