//! How often memories were recalled. Counted apart from their versions: being read does not change a memory.

use rusqlite::{OptionalExtension, params};

use super::StoreError;
use super::items::{ItemRow, Reader};
use super::write::WriteTransaction;
use crate::{ItemId, Timestamp};

/// How often a memory was recalled, and when last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// How often.
    pub num_accesses: u64,
    /// When last.
    pub last_accessed_at: Timestamp,
}

impl WriteTransaction<'_> {
    /// Counts a recall of each of the memories at `moment`. Those that are gone since are passed over. Not a recorded
    /// change: it has no moment of its own.
    ///
    /// # Errors
    /// When the file fails.
    pub fn count_accesses(&self, ids: &[ItemId], moment: Timestamp) -> Result<(), StoreError> {
        self.whole(|| {
            let sql = "INSERT INTO access (row, num_accesses, last_accessed_at) SELECT row, 1, ?2 FROM items
                       WHERE id = ?1 ON CONFLICT (row) DO UPDATE SET num_accesses = num_accesses + 1,
                       last_accessed_at = max(last_accessed_at, excluded.last_accessed_at)";
            let mut statement = self.connection().prepare_cached(sql)?;
            for id in ids {
                statement.execute(params![id.as_bytes(), moment.unix_ms()])?;
            }
            Ok(())
        })
    }
}

impl Reader<'_> {
    /// How often a memory was recalled; `None`: never, or it is unknown.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn access(&self, id: ItemId) -> Result<Option<Access>, StoreError> {
        let sql = "SELECT num_accesses, last_accessed_at FROM access JOIN items ON items.row = access.row
                   WHERE items.id = ?";
        let mut statement = self.connection().prepare_cached(sql)?;
        let found = statement.query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        found.map(|(num, moment)| access_from(num, moment)).transpose()
    }

    /// Calls with every memory that was ever recalled, in order of rows.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn for_each_access(
        &self,
        mut visit: impl FnMut(ItemRow, Access) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let sql = "SELECT row, num_accesses, last_accessed_at FROM access ORDER BY row";
        let mut statement = self.connection().prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            visit(ItemRow::from_number(row.get(0)?), access_from(row.get(1)?, row.get(2)?)?)?;
        }
        Ok(())
    }
}

fn access_from(num: i64, moment: i64) -> Result<Access, StoreError> {
    Ok(Access { num_accesses: num.unsigned_abs(), last_accessed_at: super::graph::stored_moment(moment)? })
}
