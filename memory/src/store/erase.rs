//! Erasure: a memory, all its versions and everything that was made from it leave the store.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rusqlite::params;
use serde_json::Value;

use super::StoreError;
use super::content::{By, checked_content};
use super::items::{ItemRow, NUM_ITEMS_PER_CALL_MAX};
use super::redact::VersionContent;
use super::write::{WriteTransaction, check_not_held};
use crate::ItemId;
use crate::item::{Item, Source};

/// Length of an id as text.
const ID_TEXT_LEN: usize = 36;

/// A memory made from an erased one that is kept: with content that was made anew from what is left. Its old content
/// goes from all its versions.
#[derive(Debug, Clone, PartialEq)]
pub struct Rebuild {
    /// Which.
    pub id: ItemId,
    /// Its new text.
    pub text: String,
    /// Its new tags.
    pub tags: Vec<String>,
    /// Its new entities.
    pub entities: Vec<String>,
    /// Its new metadata.
    pub metadata: BTreeMap<String, Value>,
}

/// What an erasure did, for the receipt and for the indexes. It is complete after [`super::Store::purge`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Erased {
    /// The memories that were named, with the rows that they had.
    pub items: Vec<(ItemRow, ItemId)>,
    /// Memories erased with them, because they were made from them.
    pub derived: Vec<(ItemRow, ItemId)>,
    /// Memories made from them that were rebuilt and kept.
    pub rebuilt: Vec<Item>,
    /// Memories that had been merged into an erased one and are active again.
    pub came_back: Vec<Item>,
    /// Versions that were removed; those of rebuilt memories were rewritten.
    pub num_versions: u64,
    /// Edges that were removed.
    pub num_edges: u64,
    /// Names that nothing else mentions.
    pub num_entities: u64,
    /// Mentions that were removed.
    pub num_mentions: u64,
    /// Relations between names that came from an erased memory.
    pub num_relations: u64,
    /// Vectors that were removed.
    pub num_vectors: u64,
    /// Tasks in the outbox that named an erased memory.
    pub num_tasks: u64,
}

impl WriteTransaction<'_> {
    /// Erases memories, and with them every memory made from them (derived or merged), directly or through others,
    /// except those that `rebuild` gives a new content. Memories that were merged into an erased one and are not
    /// erased themselves become active again. What an erased memory had superseded stays superseded. The reasons
    /// that were given for merges and supersessions with it are removed. Reaches frozen memories.
    ///
    /// # Errors
    /// When one is unknown, one that would be erased or changed is under legal hold, or what is to be rebuilt does
    /// not derive from what is erased or is out of bounds.
    pub fn erase(&self, ids: &[ItemId], rebuild: Vec<Rebuild>, by: By<'_>) -> Result<Erased, StoreError> {
        self.whole(|| {
            by.check()?;
            if ids.len() > NUM_ITEMS_PER_CALL_MAX {
                return Err(StoreError::OutOfLimit { what: "ids", num: ids.len(), limit: NUM_ITEMS_PER_CALL_MAX });
            }
            let plan = self.plan_erasure(ids, rebuild)?;
            let mut erased = Erased { items: plan.named.clone(), derived: plan.derived.clone(), ..Erased::default() };
            let gone: HashSet<ItemId> = plan.gone().map(|(_row, id)| id).collect();
            for (row, id) in plan.gone() {
                self.forget_reasons(row, id)?;
            }
            for (row, before, rebuild) in plan.rebuild {
                let rewrite = |version| rebuilt_version(version, &rebuild, &gone);
                let rewritten = self.rewrite_versions(row, &before, by, &rewrite)?;
                erased.rebuilt.push(rewritten.item);
                erased.num_vectors += rewritten.num_vectors;
                erased.num_relations += rewritten.num_relations;
                erased.num_entities += rewritten.num_entities;
            }
            for (row, id, from) in plan.come_back {
                // Read again, because it may have been rebuilt just now.
                let (_row, parent) = self.load(id)?;
                erased.came_back.push(self.bring_back(row, &parent, from, by)?);
            }
            let rows: Vec<(ItemRow, ItemId)> = plan.named.into_iter().chain(plan.derived).collect();
            let mut entities = BTreeSet::new();
            for &(row, id) in &rows {
                entities.extend(self.entities_touched_by(row)?);
                self.delete_item(row, id, &mut erased)?;
                self.note_erasure(id, "erased", by)?;
            }
            erased.num_entities += self.drop_unmentioned(&entities)?;
            erased.num_tasks = self.delete_tasks_naming(&gone)?;
            Ok(erased)
        })
    }

    /// The memories made from those in the rows, directly or through others, without those themselves.
    pub(super) fn derived_from(&self, rows: &[ItemRow]) -> Result<Vec<(ItemRow, Item)>, StoreError> {
        // Edges that have ended count too: the content went over them all the same.
        let sql = "SELECT from_row FROM edges WHERE to_row = ?1 AND kind = 'derived_from'
                   UNION SELECT to_row FROM edges WHERE from_row = ?1 AND kind = 'merged_into'";
        let mut statement = self.connection().prepare_cached(sql)?;
        let mut seen: HashSet<ItemRow> = rows.iter().copied().collect();
        let mut queue = rows.to_vec();
        let mut derived = Vec::new();
        while let Some(row) = queue.pop() {
            let next = statement.query_map([row.get()], |row| row.get(0).map(ItemRow::from_number))?;
            for next in next.collect::<Result<Vec<_>, _>>()? {
                if seen.insert(next) {
                    queue.push(next);
                    derived.push(next);
                }
            }
        }
        derived.sort_unstable();
        let item_of = |row| {
            self.get_row(row)?
                .map(|item| (row, item))
                .ok_or_else(|| StoreError::Damaged { reason: format!("an edge names row {row}, which does not exist") })
        };
        derived.into_iter().map(item_of).collect()
    }

    /// Decides what happens to which memory, and refuses before anything is written.
    fn plan_erasure(&self, ids: &[ItemId], rebuild: Vec<Rebuild>) -> Result<Plan, StoreError> {
        let mut named = BTreeMap::new();
        for &id in ids {
            let (row, item) = self.load(id)?;
            check_not_held(&item)?;
            named.insert(row, id);
        }
        let mut to_rebuild: HashMap<ItemId, Rebuild> =
            rebuild.into_iter().map(|rebuild| (rebuild.id, rebuild)).collect();
        let mut plan = Plan { named: named.into_iter().collect(), ..Plan::default() };
        let rows: Vec<ItemRow> = plan.named.iter().map(|&(row, _id)| row).collect();
        for (row, item) in self.derived_from(&rows)? {
            check_not_held(&item)?;
            match to_rebuild.remove(&item.id) {
                Some(rebuild) => {
                    checked_content(with_content(item.clone(), &rebuild))?;
                    plan.rebuild.push((row, item, rebuild));
                }
                None => plan.derived.push((row, item.id)),
            }
        }
        if let Some(&id) = to_rebuild.keys().next() {
            return Err(StoreError::NotDerived { id });
        }
        let gone: HashSet<ItemRow> = plan.gone().map(|(row, _id)| row).collect();
        for (merged, from) in plan.gone().collect::<Vec<_>>() {
            for (row, parent) in self.parents_of(merged)? {
                if !gone.contains(&row) {
                    check_not_held(&parent)?;
                    plan.come_back.push((row, parent.id, from));
                }
            }
        }
        Ok(plan)
    }

    /// Removes the reasons that versions of other memories give for a change that names this one: they may quote it.
    fn forget_reasons(&self, row: ItemRow, id: ItemId) -> Result<(), StoreError> {
        let sql = "UPDATE versions SET reason = NULL WHERE reason IS NOT NULL AND instr(change, ?2) > 0 AND row IN
                   (SELECT from_row FROM edges WHERE to_row = ?1 UNION SELECT to_row FROM edges WHERE from_row = ?1)";
        self.connection().prepare_cached(sql)?.execute(params![row.get(), id.to_string()])?;
        Ok(())
    }

    fn delete_item(&self, row: ItemRow, id: ItemId, erased: &mut Erased) -> Result<(), StoreError> {
        let content_bytes = self.content_bytes_of(row)?;
        erased.num_edges += self.delete_for(row, "DELETE FROM edges WHERE from_row = ?")?;
        erased.num_edges += self.delete_for(row, "DELETE FROM edges WHERE to_row = ?")?;
        erased.num_mentions += self.delete_for(row, "DELETE FROM mentions WHERE row = ?")?;
        erased.num_relations += self.delete_for(row, "DELETE FROM relations WHERE source_row = ?")?;
        erased.num_vectors += self.delete_vectors(row)?;
        let num_versions = self.delete_for(row, "DELETE FROM versions WHERE row = ?")?;
        erased.num_versions += num_versions;
        // Tags and access counts, and whatever other modules hang on the row, go by cascade.
        self.delete_for(row, "DELETE FROM items WHERE row = ?")?;
        let mut usage = self.usage();
        usage.num_items -= 1;
        usage.num_versions -= num_versions;
        usage.content_bytes -= content_bytes;
        self.set_usage(usage);
        self.touch(row, id);
        Ok(())
    }

    fn delete_tasks_naming(&self, ids: &HashSet<ItemId>) -> Result<u64, StoreError> {
        let names: HashSet<String> = ids.iter().map(ItemId::to_string).collect();
        let mut doomed: Vec<i64> = Vec::new();
        let mut statement = self.connection().prepare_cached("SELECT task, payload FROM outbox")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if names_any(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?, &names) {
                doomed.push(row.get(0)?);
            }
        }
        for &task in &doomed {
            self.connection().prepare_cached("DELETE FROM outbox WHERE task = ?")?.execute([task])?;
        }
        Ok(doomed.len() as u64)
    }
}

/// What an erasure will do.
#[derive(Default)]
struct Plan {
    named: Vec<(ItemRow, ItemId)>,
    derived: Vec<(ItemRow, ItemId)>,
    rebuild: Vec<(ItemRow, Item, Rebuild)>,
    /// Row, memory, and the erased one that it had gone into.
    come_back: Vec<(ItemRow, ItemId, ItemId)>,
}

impl Plan {
    /// All that will not be there any more.
    fn gone(&self) -> impl Iterator<Item = (ItemRow, ItemId)> {
        self.named.iter().chain(&self.derived).copied()
    }
}

fn with_content(item: Item, rebuild: &Rebuild) -> Item {
    Item {
        text: rebuild.text.clone(),
        tags: rebuild.tags.clone(),
        entities: rebuild.entities.clone(),
        metadata: rebuild.metadata.clone(),
        ..item
    }
}

/// One version of a rebuilt memory: the new content, and no erased source.
fn rebuilt_version(version: VersionContent, rebuild: &Rebuild, gone: &HashSet<ItemId>) -> VersionContent {
    let mut item = with_content(version.item, rebuild);
    if let Source::Derived { from } = &mut item.source {
        from.retain(|id| !gone.contains(id));
    }
    // A reason may quote what was there.
    VersionContent { item, reason: None }
}

/// Whether a text holds one of the ids.
fn names_any(text: &str, ids: &HashSet<String>) -> bool {
    let bytes = text.as_bytes();
    // Only where the first hyphens stand as in an id is it worth looking.
    let candidates = (0..(bytes.len() + 1).saturating_sub(ID_TEXT_LEN))
        .filter(|&start| bytes[start + 8] == b'-' && bytes[start + 13] == b'-');
    candidates.filter_map(|start| text.get(start..start + ID_TEXT_LEN)).any(|part| ids.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_wherever_it_stands() {
        let (id, other) = (ItemId::new(), ItemId::new());
        let ids = HashSet::from([id.to_string()]);
        for text in [format!("{id}"), format!("äö-{id}-ü"), format!("{other}{id}"), format!("--------{id}")] {
            assert!(names_any(&text, &ids), "{text:?}");
        }
        for text in [String::new(), "-".repeat(100), other.to_string(), id.to_string()[1..].to_owned()] {
            assert!(!names_any(&text, &ids), "{text:?}");
        }
    }
}
