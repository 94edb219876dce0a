//! Changes of one memory's standing: superseded by a newer one, brought back to an earlier version, held.

use super::StoreError;
use super::content::By;
use super::graph::EdgeKind;
use super::write::{WriteTransaction, check_editable, check_version};
use crate::ItemId;
use crate::item::{Change, Item};

impl WriteTransaction<'_> {
    /// Records that `new` says what is so instead of `old`: `old` ceases to be valid when `new` begins to be, or now,
    /// and never before it began itself. Nothing is lost, and erasing `new` later does not make `old` valid again:
    /// that what it said has ended remains known.
    ///
    /// # Errors
    /// When one is unknown, `old` is held or not editable, or `old` supersedes `new` already.
    pub fn supersede(&self, old: ItemId, new: ItemId, by: By<'_>) -> Result<Item, StoreError> {
        self.whole(|| {
            by.check()?;
            let (old_row, before) = self.load(old)?;
            let (new_row, newer) = self.load(new)?;
            check_editable(&before)?;
            if self.is_superseded(new_row, old_row)? {
                return Err(StoreError::SupersedeCycle { old, new });
            }
            if self.has_open_edge(new_row, old_row, EdgeKind::Supersedes)? {
                return Ok(before);
            }
            let ends_at = newer.valid_from.unwrap_or(self.now());
            let ends_at = before.valid_to.map_or(ends_at, |earlier| earlier.min(ends_at));
            let ends_at = before.valid_from.map_or(ends_at, |begins_at| begins_at.max(ends_at));
            let after = Item { valid_to: Some(ends_at), ..before.clone() };
            let after = self.record(old_row, &before, after, &Change::Superseded { by: new }, by)?;
            self.insert_edge(new_row, old_row, EdgeKind::Supersedes)?;
            Ok(after)
        })
    }

    /// Makes a new version with the content of an earlier one. State, scope, origin and legal hold stay as they are.
    /// A supersession that came after that version is undone with it. Where nothing differs, no version is made.
    ///
    /// # Errors
    /// When the memory or version is unknown, or the memory has moved on, is held or not editable.
    pub fn restore(
        &self,
        id: ItemId,
        expected_version: Option<u64>,
        version: u64,
        by: By<'_>,
    ) -> Result<Item, StoreError> {
        self.whole(|| {
            by.check()?;
            let (row, before) = self.load(id)?;
            check_version(&before, expected_version)?;
            check_editable(&before)?;
            let earlier = self.version(id, version)?.ok_or(StoreError::UnknownVersion { id, version })?.item;
            let after = Item {
                kind: earlier.kind,
                text: earlier.text,
                tags: earlier.tags,
                entities: earlier.entities,
                valid_from: earlier.valid_from,
                valid_to: earlier.valid_to,
                expires_at: earlier.expires_at,
                salience: earlier.salience,
                metadata: earlier.metadata,
                ..before.clone()
            };
            if after == before {
                return Ok(before);
            }
            for newer in self.superseded_after(id, version)? {
                // The newer memory may have been erased since.
                if let Some(newer_row) = self.row_of(newer)? {
                    self.end_edge(newer_row, row, EdgeKind::Supersedes)?;
                }
            }
            self.record(row, &before, after, &Change::Restored { version }, by)
        })
    }

    /// Puts a memory under legal hold, in whatever state it is. One that is held already stays as it is.
    ///
    /// # Errors
    /// When the memory is unknown.
    pub fn set_legal_hold(&self, id: ItemId, by: By<'_>) -> Result<Item, StoreError> {
        self.change_hold(id, true, by)
    }

    /// Lifts the legal hold of a memory. One that is not held stays as it is.
    ///
    /// # Errors
    /// When the memory is unknown.
    pub fn lift_legal_hold(&self, id: ItemId, by: By<'_>) -> Result<Item, StoreError> {
        self.change_hold(id, false, by)
    }

    fn change_hold(&self, id: ItemId, hold: bool, by: By<'_>) -> Result<Item, StoreError> {
        self.whole(|| {
            by.check()?;
            let (row, before) = self.load(id)?;
            if before.legal_hold == hold {
                return Ok(before);
            }
            let after = Item { legal_hold: hold, ..before.clone() };
            self.record(row, &before, after, &Change::Held { hold }, by)
        })
    }

    /// Who superseded the memory after that version.
    fn superseded_after(&self, id: ItemId, version: u64) -> Result<Vec<ItemId>, StoreError> {
        let sql = "SELECT v.change FROM versions AS v JOIN items AS item ON item.row = v.row
                   WHERE item.id = ? AND v.version > ? AND v.change LIKE '{\"type\":\"superseded\"%'";
        let mut statement = self.connection().prepare_cached(sql)?;
        let mut rows = statement.query(rusqlite::params![id.as_bytes(), version.cast_signed()])?;
        let mut newer = Vec::new();
        while let Some(row) = rows.next()? {
            let change: String = row.get(0)?;
            if let Ok(Change::Superseded { by }) = serde_json::from_str(&change) {
                newer.push(by);
            }
        }
        Ok(newer)
    }
}
