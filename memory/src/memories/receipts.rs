//! Receipts of erasures: begun in the erasure's own transaction, completed when no byte is left, read again later.

use super::mounted::MountedCube;
use super::{Erasure, MemoriesError, Purged};
use crate::Timestamp;
use crate::governance::receipt::{ErasurePlace, ErasureReceipt, ErasureStatus, PlaceCount, SignedReceipt};
use crate::governance::receipt_rows::{self, Wanted};
use crate::governance::{Action, Actor, CubeRef, GovernanceError};
use crate::store::{By, Erased};

/// How long whoever erased has to say what was erased elsewhere, before housekeeping completes the receipt.
const COMPLETE_AFTER_MS: i64 = 60_000;
/// Receipts that one round of housekeeping completes.
const NUM_PER_ROUND: usize = 64;

impl MountedCube {
    /// The receipt of an erasure as it begins.
    pub(super) fn begun_receipt(
        &self,
        erased: &Erased,
        (num_grants, num_audit_entries): (u64, u64),
        (audit_seq, at): (u64, Timestamp),
    ) -> Result<ErasureReceipt, GovernanceError> {
        let CubeRef { id, owner, .. } = self.reference();
        let items = erased.items.iter().chain(&erased.derived).map(|(_row, id)| *id).collect();
        let mut receipt = ErasureReceipt::new(owner.clone(), *id, items, audit_seq, at)?;
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
            (ErasurePlace::Grants, num_grants, 0),
            (ErasurePlace::AuditEntries, num_audit_entries, 0),
        ] {
            receipt.record(place, PlaceCount { erased, rebuilt, pending: 0 });
        }
        Ok(receipt)
    }

    /// The signed receipt of an erasure, which is kept. `elsewhere` is what the caller erased outside of the cube: KV
    /// blocks, adapters.
    ///
    /// # Errors
    /// It is of more memories than one receipt names, or it cannot be kept.
    pub fn receipt(
        &self,
        erasure: &Erasure,
        elsewhere: &[(ErasurePlace, PlaceCount)],
    ) -> Result<SignedReceipt, MemoriesError> {
        let counts = (erasure.num_grants, erasure.num_audit_entries);
        let mut receipt = self.begun_receipt(&erasure.erased, counts, (erasure.audit_seq, erasure.at))?;
        // What is not final is not through in the files: those of snapshots are told for all of them.
        let pending = u64::from(!erasure.is_final);
        let in_snapshots = PlaceCount { erased: erasure.num_in_snapshots, rebuilt: 0, pending };
        receipt.record(ErasurePlace::Snapshots, in_snapshots);
        for (place, count) in elsewhere {
            receipt.record(*place, *count);
        }
        if erasure.is_final && receipt.num_pending() == 0 {
            // A clock that went back must not make a finished erasure look unfinished.
            receipt.finish(self.now().max(erasure.at))?;
        }
        self.keep_receipt(&receipt)?;
        Ok(receipt.sign(&self.shared().audit_key))
    }

    /// The kept receipt of the erasure with this audit entry.
    ///
    /// # Errors
    /// The actor may not read the audit log, or there is none.
    pub fn kept_receipt(&self, actor: &Actor, audit_seq: u64) -> Result<SignedReceipt, MemoriesError> {
        self.permit_whole(actor, Action::ReadAudit)?;
        let receipt = self.read(|reader| Ok(receipt_rows::get(reader.connection(), audit_seq)?))?;
        let unknown = || MemoriesError::NotFound { what: "erasure", id: audit_seq.to_string() };
        Ok(receipt.ok_or_else(unknown)?.sign(&self.shared().audit_key))
    }

    /// Kept receipts from this audit entry on.
    ///
    /// # Errors
    /// The actor may not read the audit log, or the store fails.
    pub fn kept_receipts(
        &self,
        actor: &Actor,
        wanted: Wanted,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<SignedReceipt>, MemoriesError> {
        self.permit_whole(actor, Action::ReadAudit)?;
        let receipts = self.read(|reader| Ok(receipt_rows::list(reader.connection(), wanted, from_seq, limit)?))?;
        Ok(receipts.into_iter().map(|receipt| receipt.sign(&self.shared().audit_key)).collect())
    }

    /// Completes erasures and redactions that are not through: what a failure or a crash left behind.
    ///
    /// # Errors
    /// A file cannot be rewritten yet. It is tried again with the next round.
    pub(super) fn complete_erasures(&self) -> Result<usize, MemoriesError> {
        let (num_to_purge, pending) = self.read(|reader| {
            let connection = reader.connection();
            Ok((reader.counts_to_purge()?, receipt_rows::list(connection, Wanted::Pending, 0, NUM_PER_ROUND)?))
        })?;
        let waited = |receipt: &ErasureReceipt| {
            self.now().unix_ms().saturating_sub(receipt.requested_at.unix_ms()) >= COMPLETE_AFTER_MS
        };
        let due: Vec<ErasureReceipt> = pending.into_iter().filter(waited).collect();
        let mut in_snapshots = Vec::with_capacity(due.len());
        for receipt in &due {
            let by = By::actor("memos").because("an erasure that was not through");
            in_snapshots.push(self.erase_in_snapshots(&receipt.items, by)?);
        }
        if num_to_purge > 0 && self.purge_everywhere()? == Purged::Later {
            return Ok(0);
        }
        let num_completed = due.len();
        for (mut receipt, num_in_snapshots) in due.into_iter().zip(in_snapshots) {
            receipt.record(ErasurePlace::Snapshots, PlaceCount { erased: num_in_snapshots, ..PlaceCount::default() });
            if receipt.num_pending() == 0 {
                receipt.finish(self.now().max(receipt.requested_at))?;
            }
            self.keep_receipt(&receipt)?;
        }
        Ok(num_completed)
    }

    /// A receipt that is final stays what it is.
    fn keep_receipt(&self, receipt: &ErasureReceipt) -> Result<(), MemoriesError> {
        self.change_unrecorded(|tx| {
            let kept = receipt_rows::get(tx.connection(), receipt.audit_seq)?;
            if !kept.is_some_and(|kept| matches!(kept.status, ErasureStatus::Final { .. })) {
                receipt_rows::put(tx.connection(), receipt)?;
            }
            Ok(Vec::new())
        })
    }
}
