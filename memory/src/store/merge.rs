//! Merging memories into one, and undoing it: the parents are kept, and come back.

use super::StoreError;
use super::content::By;
use super::graph::EdgeKind;
use super::items::ItemRow;
use super::write::{WriteTransaction, check_not_held};
use crate::ItemId;
use crate::item::{Change, Item, NewItem, Source};
use crate::lifecycle::ItemState;

/// Fewest memories that make a merge.
pub const NUM_PARENTS_MIN: usize = 2;
/// Most memories in one merge.
pub const NUM_PARENTS_MAX: usize = 256;

/// A merge that was undone.
#[derive(Debug, Clone, PartialEq)]
pub struct Unmerged {
    /// What the merge had made, archived now.
    pub merged: Item,
    /// The memories that came back.
    pub parents: Vec<Item>,
}

impl WriteTransaction<'_> {
    /// Writes a memory that stands for several; they go to [`ItemState::Merged`] and are kept. Its source becomes
    /// those memories, whatever `into` says.
    ///
    /// # Errors
    /// When there are too few or too many, one is unknown, held or in a state that cannot be merged, or a field of
    /// `into` is out of bounds.
    pub fn merge(&self, parents: &[ItemId], into: NewItem, by: By<'_>) -> Result<Item, StoreError> {
        self.whole(|| {
            by.check()?;
            let mut distinct = parents.to_vec();
            distinct.sort_unstable();
            distinct.dedup();
            let num = distinct.len();
            if num != parents.len() || !(NUM_PARENTS_MIN..=NUM_PARENTS_MAX).contains(&num) {
                return Err(StoreError::MergeSize { num, min: NUM_PARENTS_MIN, max: NUM_PARENTS_MAX });
            }
            let loaded = parents.iter().map(|&id| self.load(id)).collect::<Result<Vec<_>, _>>()?;
            for (_row, parent) in &loaded {
                check_not_held(parent)?;
                if !parent.state.may_become(ItemState::Merged) {
                    let (id, from) = (parent.id, parent.state);
                    return Err(StoreError::IllegalTransition { id, from, to: ItemState::Merged });
                }
            }
            let merged = self.insert(NewItem { source: Source::Derived { from: parents.to_vec() }, ..into }, by)?;
            let (merged_row, _item) = self.load(merged.id)?;
            for (row, parent) in loaded {
                let after = Item { state: ItemState::Merged, ..parent.clone() };
                self.record(row, &parent, after, &Change::MergedInto { into: merged.id }, by)?;
                self.insert_edge(row, merged_row, EdgeKind::MergedInto)?;
            }
            Ok(merged)
        })
    }

    /// Undoes a merge: the parents are activated again and what it made is archived. A parent that was archived in
    /// the meantime has left the merge and stays so. They come back as activated even if they were generated before, because nothing returns
    /// to that state.
    ///
    /// # Errors
    /// When the memory is unknown, frozen, held, part of another merge or no merge at all, or a parent is held.
    pub fn unmerge(&self, id: ItemId, by: By<'_>) -> Result<Unmerged, StoreError> {
        self.whole(|| {
            by.check()?;
            let (merged_row, merged) = self.load(id)?;
            let parents = self.parents_of(merged_row)?;
            if parents.is_empty() {
                return Err(StoreError::NotAMerge { id });
            }
            check_not_held(&merged)?;
            match merged.state {
                ItemState::Frozen => return Err(StoreError::Frozen { id }),
                ItemState::Merged => {
                    return Err(StoreError::OnlyByMerge { id, from: ItemState::Merged, to: ItemState::Archived });
                }
                _ => {}
            }
            for (_row, parent) in &parents {
                check_not_held(parent)?;
            }
            let mut back = Vec::new();
            for (row, parent) in parents {
                back.push(self.bring_back(row, &parent, id, by)?);
            }
            let merged = if merged.state == ItemState::Archived {
                merged
            } else {
                let (from, to) = (merged.state, ItemState::Archived);
                let after = Item { state: to, ..merged.clone() };
                self.record(merged_row, &merged, after, &Change::Transitioned { from, to }, by)?
            };
            Ok(Unmerged { merged, parents: back })
        })
    }

    /// The memories that are merged into the one in this row now.
    pub(super) fn parents_of(&self, merged: ItemRow) -> Result<Vec<(ItemRow, Item)>, StoreError> {
        let sql = "SELECT from_row FROM edges WHERE to_row = ? AND kind = 'merged_into' AND ended_at IS NULL
                   ORDER BY from_row";
        let mut statement = self.connection().prepare_cached(sql)?;
        let rows = statement.query_map([merged.get()], |row| row.get(0).map(ItemRow::from_number))?;
        let mut parents = Vec::new();
        for row in rows {
            let row = row?;
            let parent = self.get_row(row)?.ok_or_else(|| StoreError::Damaged {
                reason: format!("an edge names row {row}, which does not exist"),
            })?;
            parents.push((row, parent));
        }
        Ok(parents)
    }

    /// Ends the edge by which a memory is part of a merge.
    pub(super) fn end_merge_of(&self, parent: ItemRow) -> Result<(), StoreError> {
        let sql = "UPDATE edges SET ended_at = ? WHERE from_row = ? AND kind = 'merged_into' AND ended_at IS NULL";
        self.connection().prepare_cached(sql)?.execute([self.now().unix_ms(), parent.get()])?;
        Ok(())
    }

    /// Activates a merged memory again because what it went into is gone or undone.
    pub(super) fn bring_back(&self, row: ItemRow, parent: &Item, from: ItemId, by: By<'_>) -> Result<Item, StoreError> {
        self.end_merge_of(row)?;
        let after = Item { state: ItemState::Activated, ..parent.clone() };
        self.record(row, parent, after, &Change::Unmerged { from }, by)
    }
}
