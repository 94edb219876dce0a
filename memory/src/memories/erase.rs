//! Erasure: what was asked for and everything made from it leaves the cube, its snapshots and the files' bytes; the receipt says
//! what went where.

use serde_json::json;

use super::mounted::{Entry, MountedCube};
use super::{MemoriesError, Purged};
use crate::governance::audit::{self, AuditFilter};
use crate::governance::receipt::{ErasurePlace, ErasureReceipt, PlaceCount, SignedReceipt};
use crate::governance::{Action, Actor, CubeRef, GovernanceError, grants};
use crate::store::{By, Erased, Store, StoreError};
use crate::{ItemId, Timestamp};

/// Most memories that are erased by one call.
pub const NUM_ERASED_MAX: usize = 1_000;

/// What an erasure did.
#[derive(Debug)]
pub struct Erasure {
    /// In the cube itself.
    pub erased: Erased,
    /// Memories removed from snapshots of the cube.
    pub num_in_snapshots: u64,
    /// Grants that named an erased memory.
    pub num_grants: u64,
    /// Audit entries whose names and reasons were removed; their proofs stay valid.
    pub num_audit_entries: u64,
    /// Number of the audit entry that tells of it.
    pub audit_seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// Whether no byte of it is left in any file of the cube. `false`: a reader still holds an old view; the next erasure or
    /// mount completes it.
    pub is_final: bool,
}

impl Erasure {
    /// All memories that are gone: those that were named and those made from them.
    pub fn gone(&self) -> impl Iterator<Item = ItemId> {
        self.erased.items.iter().chain(&self.erased.derived).map(|(_row, id)| *id)
    }
}

impl MountedCube {
    /// Erases memories and everything that was made from them.
    ///
    /// # Errors
    /// The actor may not, a memory is unknown, or one is under legal hold; then nothing was erased.
    pub fn erase(&self, actor: &Actor, ids: &[ItemId], reason: Option<&str>) -> Result<Erasure, MemoriesError> {
        if ids.len() > NUM_ERASED_MAX {
            return Err(MemoriesError::TooMany { what: "memories", found: ids.len(), limit: NUM_ERASED_MAX });
        }
        let name = actor.to_string();
        let (erased, num_grants, num_audit_entries, audit_seq, at) = self.change(actor, |tx| {
            for &id in ids {
                self.permit_item(tx, actor, Action::EraseItems, id)?;
            }
            let erased = tx.erase(ids, Vec::new(), By { actor: &name, reason })?;
            let gone: Vec<ItemId> = erased.items.iter().chain(&erased.derived).map(|(_row, id)| *id).collect();
            let (mut num_grants, mut num_entries) = (0, 0);
            for id in &gone {
                num_grants += grants::erase_for_item(tx.connection(), &self.reference().id, id)? as u64;
                num_entries += self.erase_audit_of(tx.connection(), actor, *id)?;
            }
            let came_back = erased.came_back.iter().map(|item| item.id);
            let details = json!({ "named": erased.items.len(), "derived": erased.derived.len(),
                "came_back": erased.came_back.len() });
            let objects = gone.into_iter().chain(came_back).collect();
            // The entry is appended next, in the same transaction, so this is its number.
            let audit_seq = audit::size(tx.connection())?;
            let entry = Entry { action: "item.erase", objects, reason, details: Some(details) };
            Ok(((erased, num_grants, num_entries, audit_seq, tx.now()), entry))
        })?;
        let gone: Vec<ItemId> = erased.items.iter().chain(&erased.derived).map(|(_row, id)| *id).collect();
        let num_in_snapshots = self.erase_in_snapshots(&gone, By { actor: &name, reason })?;
        let is_final = self.purge_everywhere()? == Purged::Completely;
        self.seal()?;
        self.refresh_usage()?;
        Ok(Erasure { erased, num_in_snapshots, num_grants, num_audit_entries, audit_seq, at, is_final })
    }

    /// The signed receipt of an erasure. `elsewhere` is what the caller erased outside of the cube: KV blocks, adapters.
    ///
    /// # Errors
    /// It is of more memories than one receipt names.
    pub fn receipt(
        &self,
        erasure: &Erasure,
        elsewhere: &[(ErasurePlace, PlaceCount)],
    ) -> Result<SignedReceipt, MemoriesError> {
        let CubeRef { id, owner, .. } = self.reference();
        let items = erasure.gone().collect();
        let mut receipt = ErasureReceipt::new(owner.clone(), *id, items, erasure.audit_seq, erasure.at)?;
        let erased = &erasure.erased;
        let (num_named, num_derived) = (erased.items.len() as u64, erased.derived.len() as u64);
        for (place, erased, rebuilt) in [
            (ErasurePlace::Items, num_named, erased.rebuilt.len() as u64),
            (ErasurePlace::Derived, num_derived, 0),
            (ErasurePlace::Versions, erased.num_versions, 0),
            (ErasurePlace::Edges, erased.num_edges + erased.num_mentions + erased.num_relations, 0),
            (ErasurePlace::Entities, erased.num_entities, 0),
            (ErasurePlace::Vectors, erased.num_vectors, 0),
            (ErasurePlace::IndexTerms, num_named + num_derived, 0),
            (ErasurePlace::Outbox, erased.num_tasks, 0),
            (ErasurePlace::Grants, erasure.num_grants, 0),
            (ErasurePlace::AuditEntries, erasure.num_audit_entries, 0),
            (ErasurePlace::Snapshots, erasure.num_in_snapshots, 0),
        ] {
            receipt.record(place, PlaceCount { erased, rebuilt, pending: 0 });
        }
        for (place, count) in elsewhere {
            receipt.record(*place, *count);
        }
        if erasure.is_final && receipt.num_pending() == 0 {
            // A clock that went back must not make a finished erasure look unfinished.
            receipt.finish(self.now().max(erasure.at))?;
        }
        Ok(receipt.sign(&self.shared().audit_key))
    }

    /// Removes what earlier audit entries say about an erased memory: who and why. That something happened stays.
    fn erase_audit_of(
        &self,
        connection: &rusqlite::Connection,
        actor: &Actor,
        id: ItemId,
    ) -> Result<u64, GovernanceError> {
        let filter = AuditFilter { item: Some(id), ..AuditFilter::default() };
        let mut num_erased = 0;
        loop {
            let entries = audit::list(connection, &filter, audit::LIST_LEN_MAX)?;
            let seqs: Vec<u64> = entries.into_iter().map(|entry| entry.seq).collect();
            let entry = Entry { action: audit::ERASE_ACTION, objects: Vec::new(), reason: None, details: None };
            let event = self.event(actor, entry, audit::Outcome::Allowed);
            // An erased entry names the memory no more, so the next round lists those behind it.
            match audit::erase_entries(connection, &seqs, &event)? {
                0 => return Ok(num_erased),
                num => num_erased += num as u64,
            }
        }
    }

    fn erase_in_snapshots(&self, ids: &[ItemId], by: By<'_>) -> Result<u64, MemoriesError> {
        let mut num_erased = 0;
        for path in self.directory().snapshot_paths()? {
            let store = Store::open(&path, self.reference().id, self.shared().clock.clone(), &super::EXTRA_SCHEMA)?;
            let erased = store.write(|tx| {
                let mut here = Vec::new();
                for &id in ids {
                    // A snapshot may be older than the memory, or younger than its erasure elsewhere.
                    if tx.get(id)?.is_some() {
                        here.push(id);
                    }
                }
                if here.is_empty() { Ok(Erased::default()) } else { tx.erase(&here, Vec::new(), by) }
            })?;
            num_erased += (erased.items.len() + erased.derived.len()) as u64;
            store.purge()?;
        }
        Ok(num_erased)
    }

    /// Overwrites what was erased in the store's files.
    pub(super) fn purge_everywhere(&self) -> Result<Purged, MemoriesError> {
        match self.directory().store().purge() {
            Ok(_purged) => Ok(Purged::Completely),
            // Readers hold an old view for milliseconds at most; it is tried again with the next erasure and at mount.
            Err(StoreError::PurgeBusy) => Ok(Purged::Later),
            Err(error) => Err(error.into()),
        }
    }
}
