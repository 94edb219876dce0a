//! What is done between requests: counting recalls, activating what was recalled, retention, missing vectors, sealing the audit log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::mounted::{Entry, MountedCube};
use super::{MemoriesError, Purpose, TurnsWritten};
use crate::ItemId;
use crate::governance::quota::{Reservation, Storage};
use crate::governance::retention::RetentionAction;
use crate::governance::{Actor, Identity, Role};
use crate::item::NewItem;
use crate::lifecycle::ItemState;
use crate::store::{By, ItemRow, NUM_ITEMS_PER_CALL_MAX};

/// Recalls that wait to be counted; further ones are not counted, since counting must not hold up an answer.
const NUM_RECALLS_MAX: usize = 10_000;
/// Memories that one round of housekeeping looks at for retention, and most that are embedded by one call.
const NUM_PER_ROUND: usize = 256;
/// Memories that one round of housekeeping embeds: few enough for a round to end within seconds. Whoever finds that as
/// many were embedded starts the next round at once.
pub const NUM_EMBEDDED_PER_ROUND: usize = 32;
/// Texts that are embedded at once.
const NUM_PER_EMBEDDING: usize = 32;
/// Name of the actor in versions and audit entries of housekeeping.
const HOUSEKEEPER: &str = "memos";

/// What one round of housekeeping did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Housekept {
    /// Memories that became active because they were recalled.
    pub num_activated: usize,
    /// Memories that retention archived.
    pub num_archived: usize,
    /// Memories that retention erased.
    pub num_erased: usize,
    /// Erasures that had not been through and are now.
    pub num_completed: usize,
    /// Memories that got a vector.
    pub num_embedded: usize,
    /// Turns of conversations whose first attempt had failed and that were tried again.
    pub turns: TurnsWritten,
}

impl MountedCube {
    /// Notes that these memories went into a prompt. They are counted by the next round of housekeeping.
    pub fn note_recalled(&self, ids: impl IntoIterator<Item = ItemId>) {
        let mut recalled = self.recalled.lock().unwrap_or_else(PoisonError::into_inner);
        let room = NUM_RECALLS_MAX.saturating_sub(recalled.len());
        recalled.extend(ids.into_iter().take(room));
    }

    /// One round. To be called every second or so from a thread that may wait.
    ///
    /// # Errors
    /// The store, the audit log or the embedder failed. What was done before stays done.
    pub fn housekeep(&self) -> Result<Housekept, MemoriesError> {
        let mut done = Housekept { num_activated: self.count_recalls()?, ..Housekept::default() };
        done.turns = self.write_due_turns()?;
        done.num_completed = self.complete_erasures()?;
        (done.num_archived, done.num_erased) = self.retain()?;
        self.seal()?;
        // Last: an embedder that is out of reach keeps nothing else from being done.
        done.num_embedded = self.embed_missing(NUM_EMBEDDED_PER_ROUND)?;
        Ok(done)
    }

    /// How many memories retention has erased since this was last asked. Whoever keeps something computed over memories
    /// asks after each round, whether it failed or not, and drops that.
    pub fn take_erased_by_retention(&self) -> usize {
        self.erased_by_retention.swap(0, Ordering::Relaxed)
    }

    fn count_recalls(&self) -> Result<usize, MemoriesError> {
        let recalled = std::mem::take(&mut *self.recalled.lock().unwrap_or_else(PoisonError::into_inner));
        if recalled.is_empty() {
            return Ok(0);
        }
        self.directory().store().write(|tx| {
            recalled.chunks(NUM_ITEMS_PER_CALL_MAX).try_for_each(|ids| tx.count_accesses(ids, self.now()))
        })?;
        let generated: Vec<ItemId> = {
            let index = self.index();
            let is_generated = |id: &ItemId| {
                index.row(*id).and_then(|row| index.head(row)).is_some_and(|head| head.state == ItemState::Generated)
            };
            let mut ids: Vec<ItemId> = recalled.into_iter().filter(is_generated).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        if generated.is_empty() {
            return Ok(0);
        }
        let by = By::actor(HOUSEKEEPER).because("it was recalled");
        self.change(&self.housekeeper(), |tx| {
            let mut activated = Vec::new();
            for id in generated {
                let is_still = tx.get(id)?.is_some_and(|item| item.state == ItemState::Generated && !item.legal_hold);
                if is_still {
                    tx.transition(id, None, ItemState::Activated, by)?;
                    activated.push(id);
                }
            }
            let (num, reason) = (activated.len(), by.reason);
            activated.truncate(crate::governance::audit::NUM_OBJECTS_MAX);
            Ok((num, Entry { action: "item.activate", objects: activated, reason, details: None }))
        })
    }

    fn retain(&self) -> Result<(usize, usize), MemoriesError> {
        let (now, rules) = (self.now(), &self.shared().retention);
        // A memory may be found by its own end and by a rule.
        let mut due: BTreeMap<RetentionAction, BTreeSet<ItemId>> = BTreeMap::new();
        let mut cursor = self.retention_cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let items = self.read(|reader| {
            let unmoved = |state: &ItemState| {
                rules.at_expiry() == RetentionAction::Archive && !state.may_become(ItemState::Archived)
            };
            // What retention has archived, or cannot archive, would hide what is still due.
            let passed_over: Vec<ItemState> = ItemState::ALL.into_iter().filter(unmoved).collect();
            let mut items = reader.expired(now, &passed_over, NUM_PER_ROUND)?;
            // Rules look at every memory in turn, a few in each round.
            if !rules.rules().is_empty() {
                items.extend(reader.rows_after(*cursor, NUM_PER_ROUND)?.into_iter().map(|(row, item)| {
                    *cursor = Some(row);
                    item
                }));
            }
            Ok(items)
        })?;
        if items.len() < NUM_PER_ROUND {
            *cursor = None;
        }
        drop(cursor);
        for item in &items {
            if let Some(action) = rules.due(now, item.into()) {
                due.entry(action.action).or_default().insert(item.id);
            }
        }
        let archived = due.remove(&RetentionAction::Archive).unwrap_or_default();
        let erased: Vec<ItemId> = due.remove(&RetentionAction::Erase).unwrap_or_default().into_iter().collect();
        let (actor, reason) = (self.housekeeper(), Some("retention"));
        for &id in &archived {
            self.transition(&actor, id, None, ItemState::Archived, reason)?;
        }
        if !erased.is_empty() {
            let erasure = self.erase(&actor, &erased, reason)?;
            self.erased_by_retention.fetch_add(erasure.gone().count(), Ordering::Relaxed);
        }
        Ok((archived.len(), erased.len()))
    }

    /// Makes vectors for memories that have none of the present embedder, at most `limit`; says how many it made. After a
    /// change of the embedder this is called until it returns 0; with the last ones, the vectors of other embedders go.
    ///
    /// # Errors
    /// The embedder or the store failed.
    pub fn embed_missing(&self, limit: usize) -> Result<usize, MemoriesError> {
        let Some(embedder) = self.shared().embedder() else { return Ok(0) };
        let space = embedder.id().as_str();
        // This is asked every second, and finding those without a vector reads every row.
        if self.num_without_vector() == 0 {
            self.drop_other_spaces(space)?;
            return Ok(0);
        }
        let missing = self.read(|reader| Ok(reader.without_vector(space, None, limit.min(NUM_PER_ROUND))?))?;
        for batch in missing.chunks(NUM_PER_EMBEDDING) {
            let texts: Vec<&str> = batch.iter().map(|(_row, item)| item.text.as_str()).collect();
            let Some(vectors) = self.embed(&texts, Purpose::Passage)? else { return Ok(0) };
            self.put_vectors(batch.iter().map(|(_row, item)| (item.id, item.version)).zip(vectors), &*embedder)?;
        }
        Ok(missing.len())
    }

    /// Removes the vectors of embedders that are not the present one. Until all memories have their new vector they are
    /// kept: the embedder may be changed back.
    fn drop_other_spaces(&self, space: &str) -> Result<(), MemoriesError> {
        let mut others = self.read(|reader| Ok(reader.embedder_names()?))?;
        others.retain(|name| name != space);
        if others.is_empty() {
            return Ok(());
        }
        self.change_unrecorded(|tx| {
            others.iter().try_for_each(|name| tx.drop_embedder(name).map(|_num_vectors| ()))?;
            Ok(Vec::new())
        })
    }

    /// How many memories have no vector of the present embedder.
    pub fn num_without_vector(&self) -> usize {
        self.index().num_without_vector()
    }

    fn housekeeper(&self) -> Actor {
        Actor::of_tenant(Identity { tenant: self.reference().owner.clone(), role: Role::Admin })
    }

    /// Sets storage aside in the owner's quota for what is to be written.
    pub(super) fn reserve_quota(&self, items: &[NewItem]) -> Result<Reservation<'_>, MemoriesError> {
        let bytes = items.iter().map(|item| item.text.len() as u64).sum();
        let asked = Storage { num_items: items.len() as u64, bytes };
        Ok(self.shared().quotas.reserve(&self.reference().owner, asked)?)
    }

    /// Brings the owner's quota to what the store says: reservations were estimates.
    pub(super) fn refresh_usage(&self) -> Result<(), MemoriesError> {
        let usage = self.read(|reader| Ok(reader.stored_usage()?))?;
        let now = Storage { num_items: usage.num_items, bytes: usage.content_bytes };
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let (quotas, owner) = (&self.shared().quotas, &self.reference().owner);
        quotas.add(owner, now);
        quotas.remove(owner, std::mem::replace(&mut *counted, now));
        Ok(())
    }

    pub(super) fn note_created(&self, actor: &Actor) -> Result<(), MemoriesError> {
        let details = Some(json!({ "name": self.reference().name }));
        self.change(actor, |_tx| Ok(((), Entry { action: "cube.create", objects: Vec::new(), reason: None, details })))
    }

    pub(super) fn put_vectors(
        &self,
        vectors: impl Iterator<Item = ((ItemId, u64), Vec<f32>)>,
        embedder: &dyn super::Embedder,
    ) -> Result<(), MemoriesError> {
        let vectors: Vec<((ItemId, u64), Vec<f32>)> = vectors.collect();
        self.change_unrecorded(|tx| {
            let mut rows: Vec<(ItemRow, Vec<f32>)> = Vec::new();
            for ((id, version), vector) in &vectors {
                let written = tx.put_vector(*id, *version, embedder.id().as_str(), vector)?;
                if let (crate::store::VectorWrite::Stored, Some(row)) = (written, tx.row_of(*id)?) {
                    rows.push((row, vector.clone()));
                }
            }
            Ok(rows)
        })
    }
}
