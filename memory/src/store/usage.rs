//! What a store holds, counted: kept with every change, so that a quota is checked without a scan.

use rusqlite::{Connection, Row};

use super::StoreError;
use super::items::Reader;
use crate::Timestamp;
use crate::lifecycle::ItemState;

/// What quotas are about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memories.
    pub num_items: u64,
    /// Their versions, all together.
    pub num_versions: u64,
    /// Text, labels and metadata of all versions.
    pub content_bytes: u64,
}

/// What is in which table, and how large the file is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// What quotas are about.
    pub usage: Usage,
    /// Memories by state, in the order of [`ItemState::ALL`].
    pub num_by_state: [u64; ItemState::ALL.len()],
    /// Links between memories.
    pub num_edges: u64,
    /// Names that memories mention.
    pub num_entities: u64,
    /// Links between names.
    pub num_relations: u64,
    /// Vectors of all embedders.
    pub num_vectors: u64,
    /// Tasks that wait or were given up.
    pub num_tasks: u64,
    /// Erasures and redactions whose old text may still be in the file.
    pub num_to_purge: u64,
    /// Size of the database without its write-ahead log.
    pub file_bytes: u64,
}

impl Reader<'_> {
    /// Erasures and redactions whose old text may still be in the file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn counts_to_purge(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM erasures WHERE purged_at IS NULL";
        Ok(self.connection().query_row(sql, [], |row| row.get::<_, i64>(0))?.unsigned_abs())
    }
}

/// The one row that changes with every recorded change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    /// `None` before the first change.
    pub(super) last_recorded_at: Option<Timestamp>,
    pub(super) usage: Usage,
}

impl Meta {
    /// From the columns after the first of `meta`.
    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let count = |index| row.get::<_, i64>(index).map(i64::unsigned_abs);
        let usage = Usage { num_items: count(2)?, num_versions: count(3)?, content_bytes: count(4)? };
        Ok(Self { last_recorded_at: Timestamp::from_unix_ms(row.get(1)?), usage })
    }

    /// Writes it into the transaction that is open.
    pub(super) fn write(&self, connection: &Connection) -> Result<(), StoreError> {
        let moment = self.last_recorded_at.map_or(i64::MIN, Timestamp::unix_ms);
        connection
            .prepare_cached("UPDATE meta SET last_recorded_at = ?, num_items = ?, num_versions = ?, content_bytes = ?")?
            .execute([
                moment,
                self.usage.num_items.cast_signed(),
                self.usage.num_versions.cast_signed(),
                self.usage.content_bytes.cast_signed(),
            ])?;
        Ok(())
    }
}

impl Reader<'_> {
    /// What quotas are about, as of the last commit or, inside a change, of its beginning.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn stored_usage(&self) -> Result<Usage, StoreError> {
        let sql = "SELECT cube, last_recorded_at, num_items, num_versions, content_bytes FROM meta";
        Ok(self.connection().prepare_cached(sql)?.query_row([], Meta::from_row)?.usage)
    }

    /// What is in which table. Scans the index of some of them.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn counts(&self) -> Result<Counts, StoreError> {
        let count = |sql: &str| -> Result<u64, StoreError> {
            let num: i64 = self.connection().prepare_cached(sql)?.query_row([], |row| row.get(0))?;
            Ok(num.unsigned_abs())
        };
        let mut num_by_state = [0; ItemState::ALL.len()];
        for (num, state) in num_by_state.iter_mut().zip(ItemState::ALL) {
            let sql = "SELECT count(*) FROM items WHERE state = ?";
            let found: i64 = self.connection().prepare_cached(sql)?.query_row([state.as_str()], |row| row.get(0))?;
            *num = found.unsigned_abs();
        }
        Ok(Counts {
            usage: self.stored_usage()?,
            num_by_state,
            num_edges: count("SELECT count(*) FROM edges")?,
            num_entities: count("SELECT count(*) FROM entities")?,
            num_relations: count("SELECT count(*) FROM relations")?,
            num_vectors: count("SELECT count(*) FROM vectors")?,
            num_tasks: count("SELECT count(*) FROM outbox")?,
            num_to_purge: count("SELECT count(*) FROM erasures WHERE purged_at IS NULL")?,
            file_bytes: count("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")?,
        })
    }
}
