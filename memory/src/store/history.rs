//! The time machine: every version of a memory, what was known at an earlier moment, and what-if reads.

use std::collections::{HashMap, HashSet};

use rusqlite::{Row, params};

use super::StoreError;
use super::items::{NUM_ITEM_COLUMNS, Reader, checked_limit, decode, item_columns};
use crate::item::{Change, Item, Version};
use crate::{CubeId, ItemId, Timestamp};

/// Versions that are read at once.
const HISTORY_PAGE_LEN: usize = 100;

impl Reader<'_> {
    /// All versions of a memory, oldest first; empty for an unknown one. For a memory that changes often,
    /// [`Self::history_page`] bounds how much is read.
    ///
    /// # Errors
    /// When the file cannot be read; so for every read here.
    pub fn history(&self, id: ItemId) -> Result<Vec<Version>, StoreError> {
        let mut versions: Vec<Version> = Vec::new();
        loop {
            let after = versions.last().map_or(0, |version| version.item.version);
            let page = self.history_page(id, after, HISTORY_PAGE_LEN)?;
            let is_last = page.len() < HISTORY_PAGE_LEN;
            versions.extend(page);
            if is_last {
                return Ok(versions);
            }
        }
    }

    /// At most `limit` versions of a memory that come after version `after`, oldest first.
    ///
    /// # Errors
    /// Also for a limit that no page has.
    pub fn history_page(&self, id: ItemId, after: u64, limit: usize) -> Result<Vec<Version>, StoreError> {
        let sql = concat!(
            "SELECT ",
            item_columns!("v"),
            ", v.change, v.actor, v.reason FROM versions AS v JOIN items AS item ON item.row = v.row",
            " WHERE item.id = ? AND v.version > ? ORDER BY v.version LIMIT ?"
        );
        let mut statement = self.connection().prepare_cached(sql)?;
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![id.as_bytes(), after, checked_limit(limit)?])?;
        let mut versions = Vec::new();
        while let Some(row) = rows.next()? {
            versions.push(decode_version(row, self.cube())?);
        }
        Ok(versions)
    }

    /// One version of a memory.
    pub fn version(&self, id: ItemId, version: u64) -> Result<Option<Version>, StoreError> {
        let before = version.saturating_sub(1);
        let found = self.history_page(id, before, 1)?.pop();
        Ok(found.filter(|found| found.item.version == version))
    }

    /// The memory as it was recorded at that moment; `None` where it was not yet.
    pub fn as_of(&self, id: ItemId, moment: Timestamp) -> Result<Option<Item>, StoreError> {
        let sql = concat!(
            "SELECT ",
            item_columns!("v"),
            " FROM versions AS v JOIN items AS item ON item.row = v.row WHERE item.id = ?1",
            " AND v.recorded_at <= ?2 AND (v.superseded_at IS NULL OR v.superseded_at > ?2)"
        );
        let mut statement = self.connection().prepare_cached(sql)?;
        let mut rows = statement.query(params![id.as_bytes(), moment.unix_ms()])?;
        rows.next()?.map(|row| decode(row, self.cube()).map(|(_row, item)| item)).transpose()
    }
}

/// A change as it is stored.
pub(super) fn encode_change(change: &Change) -> Result<String, StoreError> {
    serde_json::to_string(change).map_err(StoreError::step)
}

pub(super) fn decode_version(row: &Row<'_>, cube: CubeId) -> Result<Version, StoreError> {
    let (number, item) = decode(row, cube)?;
    let change: String = row.get(NUM_ITEM_COLUMNS)?;
    let change: Change = serde_json::from_str(&change).map_err(|error| StoreError::Damaged {
        reason: format!("version {} in row {number} has an unreadable change: {error}", item.version),
    })?;
    Ok(Version { item, change, actor: row.get(NUM_ITEM_COLUMNS + 1)?, reason: row.get(NUM_ITEM_COLUMNS + 2)? })
}

/// The what-if reading of some memories: those of `without` are gone, those of `instead` say something else, and the
/// rest is as it was, in the same order. Nothing is written.
pub fn overlay(items: &[Item], without: &[ItemId], instead: &[(ItemId, String)]) -> Vec<Item> {
    let without: HashSet<ItemId> = without.iter().copied().collect();
    let instead: HashMap<ItemId, &str> = instead.iter().map(|(id, text)| (*id, text.as_str())).collect();
    let kept = items.iter().filter(|item| !without.contains(&item.id));
    kept.map(|item| match instead.get(&item.id) {
        Some(&text) => Item { text: text.to_owned(), ..item.clone() },
        None => item.clone(),
    })
    .collect()
}
