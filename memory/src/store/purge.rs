//! Purging: making sure that what was erased or redacted is in no byte of the store's files any more.
//!
//! `secure_delete` overwrites what is deleted, but not the copies that SQLite leaves in the unused part of a page when
//! it moves records to another page, and the write-ahead log keeps whole pages as they were. So the file is written
//! anew from its rows, and the log is cut to nothing.

use rusqlite::{Transaction, TransactionBehavior};

use super::{Store, StoreError, Writer, close_after_failure};

/// What a purge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purged {
    /// Erasures and redactions that are complete now; 0 when there was nothing to do.
    pub num_erasures: u64,
    /// Size of the file before.
    pub bytes_before: u64,
    /// Its size after.
    pub bytes_after: u64,
}

impl Store {
    /// Completes every erasure and redaction so far: afterwards their old text is in no byte of the store's files.
    /// Costs a rewriting of the file, in memory first, so it is worth doing once for many erasures. Other changes wait
    /// meanwhile; reads go on. Does nothing where nothing was erased.
    ///
    /// # Errors
    /// [`StoreError::PurgeBusy`] when a read that began before went on for too long: try again. Or that the file
    /// failed.
    pub fn purge(&self) -> Result<Purged, StoreError> {
        let mut writer = self.lock_writer()?;
        let result = purge(&mut writer);
        close_after_failure(&mut writer, &result);
        result
    }
}

fn purge(writer: &mut Writer) -> Result<Purged, StoreError> {
    let connection = &writer.connection;
    let number = |sql: &str| -> Result<u64, StoreError> {
        Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))?.unsigned_abs())
    };
    let file_bytes = || number("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size");
    let bytes_before = file_bytes()?;
    let num_erasures = number("SELECT count(*) FROM erasures WHERE purged_at IS NULL")?;
    if num_erasures == 0 {
        return Ok(Purged { num_erasures, bytes_before, bytes_after: bytes_before });
    }
    connection.execute_batch("VACUUM")?;
    let is_busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if is_busy != 0 {
        return Err(StoreError::PurgeBusy);
    }
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let now = writer.meta.last_recorded_at.map_or(0, crate::Timestamp::unix_ms);
    transaction.execute("UPDATE erasures SET purged_at = ? WHERE purged_at IS NULL", [now])?;
    transaction.commit()?;
    Ok(Purged { num_erasures, bytes_before, bytes_after: file_bytes()? })
}
