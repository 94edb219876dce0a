//! Erasure: what was asked for and everything made from it leaves the cube, its snapshots and the files' bytes; the receipt says
//! what went where.

use serde_json::json;

use super::mounted::{Entry, MountedCube};
use super::{MemoriesError, Purged};
use crate::governance::audit::{self, AuditFilter};
use crate::governance::receipt::NUM_ITEMS_MAX;
use crate::governance::{Action, Actor, GovernanceError, grants, receipt_rows};
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
    /// Whether no byte of it is left in any file of the cube. `false`: a reader still held an old view, or a file could not
    /// be rewritten; housekeeping completes it, and the receipt is not final before.
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
    /// The actor may not, a memory is unknown, or one is under legal hold; then nothing was erased. What fails after the
    /// memories are gone is no error: [`Erasure::is_final`] says so.
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
            if erased.items.len() + erased.derived.len() <= NUM_ITEMS_MAX {
                let begun = (audit_seq, tx.now());
                let receipt = self.begun_receipt(&erased, (num_grants, num_entries), begun)?;
                receipt_rows::put(tx.connection(), &receipt)?;
            }
            Ok(((erased, num_grants, num_entries, audit_seq, tx.now()), entry))
        })?;
        let gone: Vec<ItemId> = erased.items.iter().chain(&erased.derived).map(|(_row, id)| *id).collect();
        // The memories are gone: whatever fails from here on is tried again by housekeeping, and told as not final.
        let in_snapshots = self.erase_in_snapshots(&gone, By { actor: &name, reason });
        let num_in_snapshots = *in_snapshots.as_ref().unwrap_or(&0);
        let is_purged = matches!(self.purge_everywhere(), Ok(Purged::Completely));
        let is_final = in_snapshots.is_ok() && is_purged;
        let _ = self.seal().and_then(|()| self.refresh_usage());
        Ok(Erasure { erased, num_in_snapshots, num_grants, num_audit_entries, audit_seq, at, is_final })
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

    pub(super) fn erase_in_snapshots(&self, ids: &[ItemId], by: By<'_>) -> Result<u64, MemoriesError> {
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
