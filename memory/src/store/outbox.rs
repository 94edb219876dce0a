//! The outbox: work that has to be done later and must not be forgotten, kept in the transaction that asks for it.

use rusqlite::{Row, params};

use super::StoreError;
use super::content::{checked_line, checked_text};
use super::graph::stored_moment;
use super::items::{Reader, checked_limit};
use super::write::WriteTransaction;
use crate::Timestamp;
use crate::item::LABEL_BYTES_MAX;

/// Most tasks that wait at once, those given up included.
pub const NUM_TASKS_MAX: usize = 10_000;
/// Greatest size of a task's payload in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 10;
/// After so many attempts a task is given up: it stays to be seen, but is not taken any more.
pub const NUM_ATTEMPTS_MAX: u32 = 20;
/// Greatest length of the message of a failed attempt that is kept.
const ERROR_CHARS_MAX: usize = 1_000;

/// One task.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Which.
    pub id: i64,
    /// What sort of work.
    pub kind: String,
    /// What it is about.
    pub payload: serde_json::Value,
    /// How often it was taken.
    pub num_attempts: u32,
    /// When it may be taken again.
    pub next_attempt_at: Timestamp,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

impl Task {
    /// Whether it is not taken any more.
    pub fn is_given_up(&self) -> bool {
        self.num_attempts >= NUM_ATTEMPTS_MAX
    }
}

const COLUMNS: &str = "task, kind, payload, num_attempts, next_attempt_at, created_at, last_error";

impl WriteTransaction<'_> {
    /// Asks for work. It is due at once.
    ///
    /// # Errors
    /// When the outbox is full or the payload too large.
    pub fn enqueue(&self, kind: &str, payload: &serde_json::Value) -> Result<i64, StoreError> {
        self.insert_task(kind, payload, 0, self.now())
    }

    /// Asks for work that the caller begins itself, which is the first attempt: until `retry_at` nobody else gets it.
    ///
    /// # Errors
    /// When the outbox is full or the payload too large.
    pub fn enqueue_taken(
        &self,
        kind: &str,
        payload: &serde_json::Value,
        retry_at: Timestamp,
    ) -> Result<i64, StoreError> {
        self.insert_task(kind, payload, 1, retry_at)
    }

    fn insert_task(
        &self,
        kind: &str,
        payload: &serde_json::Value,
        num_attempts: u32,
        next_attempt_at: Timestamp,
    ) -> Result<i64, StoreError> {
        self.whole(|| {
            let kind = checked_line("kind", kind, LABEL_BYTES_MAX)?;
            let payload = serde_json::to_string(payload).map_err(StoreError::step)?;
            if payload.len() > PAYLOAD_BYTES_MAX {
                let bytes = payload.len();
                return Err(StoreError::TooLong { field: "payload", bytes, limit: PAYLOAD_BYTES_MAX });
            }
            let mut count = self.connection().prepare_cached("SELECT count(*) FROM outbox")?;
            let num: i64 = count.query_row([], |row| row.get(0))?;
            if num >= NUM_TASKS_MAX as i64 {
                return Err(StoreError::OutboxFull { limit: NUM_TASKS_MAX });
            }
            let sql = "INSERT INTO outbox (kind, payload, num_attempts, next_attempt_at, created_at)
                       VALUES (?, ?, ?, ?, ?)";
            let values = params![kind, payload, num_attempts, next_attempt_at.unix_ms(), self.now().unix_ms()];
            self.connection().prepare_cached(sql)?.execute(values)?;
            Ok(self.connection().last_insert_rowid())
        })
    }

    /// Takes the tasks of a kind that are due at `now`, the longest due first, and counts the attempt. Until `retry_at` nobody
    /// else gets them; after it they are due again, so that what a crash interrupted is not lost.
    ///
    /// # Errors
    /// When the file fails or the limit is out of bounds.
    pub fn take_tasks(
        &self,
        kind: &str,
        now: Timestamp,
        retry_at: Timestamp,
        limit: usize,
    ) -> Result<Vec<Task>, StoreError> {
        self.whole(|| {
            let sql = format!(
                "SELECT {COLUMNS} FROM outbox WHERE kind = ? AND next_attempt_at <= ? AND num_attempts < ?
                 ORDER BY next_attempt_at, task LIMIT ?"
            );
            let mut statement = self.connection().prepare_cached(&sql)?;
            let mut rows = statement.query(params![kind, now.unix_ms(), NUM_ATTEMPTS_MAX, checked_limit(limit)?])?;
            let mut tasks = Vec::new();
            while let Some(row) = rows.next()? {
                tasks.push(task_from(row)?);
            }
            for task in &mut tasks {
                task.num_attempts += 1;
                task.next_attempt_at = retry_at;
                let sql = "UPDATE outbox SET num_attempts = ?, next_attempt_at = ? WHERE task = ?";
                let values = params![task.num_attempts, retry_at.unix_ms(), task.id];
                self.connection().prepare_cached(sql)?.execute(values)?;
            }
            Ok(tasks)
        })
    }

    /// Forgets a task that is done. One that was erased in the meantime is no error.
    ///
    /// # Errors
    /// When the file fails.
    pub fn complete_task(&self, id: i64) -> Result<(), StoreError> {
        self.connection().prepare_cached("DELETE FROM outbox WHERE task = ?")?.execute([id])?;
        Ok(())
    }

    /// Records that an attempt failed and when the next may be made. Returns the task as it is now;
    /// [`Task::is_given_up`] tells whether there is a next.
    ///
    /// # Errors
    /// When there is no such task.
    pub fn fail_task(&self, id: i64, error: &str, retry_at: Timestamp) -> Result<Task, StoreError> {
        self.whole(|| {
            let error: String = error.chars().filter(|&c| !c.is_control()).take(ERROR_CHARS_MAX).collect();
            let error = checked_text("error", &error, ERROR_CHARS_MAX * 4).unwrap_or_else(|_empty| "failed".to_owned());
            let sql = "UPDATE outbox SET last_error = ?, next_attempt_at = ? WHERE task = ?";
            self.connection().prepare_cached(sql)?.execute(params![error, retry_at.unix_ms(), id])?;
            self.task(id)?.ok_or(StoreError::UnknownTask { id })
        })
    }
}

impl Reader<'_> {
    /// One task.
    ///
    /// # Errors
    /// When the file cannot be read; so for every read here.
    pub fn task(&self, id: i64) -> Result<Option<Task>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM outbox WHERE task = ?");
        let mut statement = self.connection().prepare_cached(&sql)?;
        let mut rows = statement.query([id])?;
        rows.next()?.map(task_from).transpose()
    }

    /// Whether a task of this kind could be taken at `now`.
    pub fn has_due_task(&self, kind: &str, now: Timestamp) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM outbox WHERE kind = ? AND next_attempt_at <= ? AND num_attempts < ?)";
        let mut statement = self.connection().prepare_cached(sql)?;
        Ok(statement.query_row(params![kind, now.unix_ms(), NUM_ATTEMPTS_MAX], |row| row.get(0))?)
    }

    /// Tasks after the one with this id, in the order in which they were asked for, those given up included.
    pub fn tasks(&self, after: i64, limit: usize) -> Result<Vec<Task>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM outbox WHERE task > ? ORDER BY task LIMIT ?");
        let mut statement = self.connection().prepare_cached(&sql)?;
        let mut rows = statement.query([after, checked_limit(limit)?])?;
        let mut tasks = Vec::new();
        while let Some(row) = rows.next()? {
            tasks.push(task_from(row)?);
        }
        Ok(tasks)
    }
}

fn task_from(row: &Row<'_>) -> Result<Task, StoreError> {
    let id: i64 = row.get(0)?;
    let payload: String = row.get(2)?;
    let unreadable = |error: serde_json::Error| StoreError::Damaged {
        reason: format!("task {id} has an unreadable payload at {}", error.column()),
    };
    Ok(Task {
        id,
        kind: row.get(1)?,
        payload: serde_json::from_str(&payload).map_err(unreadable)?,
        num_attempts: row.get(3)?,
        next_attempt_at: stored_moment(row.get(4)?)?,
        created_at: stored_moment(row.get(5)?)?,
        last_error: row.get(6)?,
    })
}
