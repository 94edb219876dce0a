//! What is done with a cube as a whole: looked at, checked, packed, copied, compared, its audit log read.

use std::path::Path;

use super::mounted::{Entry, MountedCube};
use super::{EXTRA_SCHEMA, MemoriesError};
use crate::cube::{self, CubeReport, SnapshotName};
use crate::governance::audit::{self, AuditEntry, AuditFilter, ConsistencyProof, InclusionProof, Outcome, TreeHead};
use crate::governance::{Action, Actor, GrantSet};
use crate::lifecycle::ItemState;
use crate::store::{self, Counts, DiffEntry, Store};

/// What a cube holds.
#[derive(Debug, Clone)]
pub struct CubeFacts {
    /// Rows by table, and the size of the file.
    pub counts: Counts,
    /// Entries of the audit log.
    pub num_audit_entries: u64,
    /// Different words in the index.
    pub num_terms: usize,
    /// Vectors of the present embedder.
    pub num_vectors: usize,
    /// Snapshots, by name.
    pub snapshots: Vec<String>,
    /// Why nothing can be written any more.
    pub closed_for_writing: Option<String>,
}

impl CubeFacts {
    fn of_seen(states: impl Iterator<Item = ItemState>) -> Self {
        let mut counts = Counts::default();
        for state in states {
            counts.usage.num_items += 1;
            if let Some(place) = ItemState::ALL.iter().position(|other| *other == state) {
                counts.num_by_state[place] += 1;
            }
        }
        Self {
            counts,
            num_audit_entries: 0,
            num_terms: 0,
            num_vectors: 0,
            snapshots: Vec::new(),
            closed_for_writing: None,
        }
    }
}

impl MountedCube {
    /// Whether the actor may read anything here. Asking leaves no trace: it is how listings are made.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn may_read(&self, actor: &Actor) -> Result<bool, MemoriesError> {
        let grants =
            self.read(|reader| Ok(GrantSet::load(reader.connection(), self.reference(), actor, self.now())?))?;
        let decision = self.shared().policy.decide(actor, Action::ReadItems, self.reference(), &grants)?;
        Ok(matches!(decision, crate::governance::Decision::Allowed(_)))
    }

    /// What the cube holds. Whoever may not read all of it is told of the memories that it may read alone.
    ///
    /// # Errors
    /// The actor may not read here, or the store cannot be read.
    pub fn inspect(&self, actor: &Actor) -> Result<CubeFacts, MemoriesError> {
        let allowed = self.permit(actor, Action::ReadItems)?;
        if !allowed.access().is_whole_cube() {
            // Whoever may read some memories learns how many those are, and nothing of the others.
            let index = self.index();
            let seen = index.heads().filter(|head| allowed.access().allows(&head.id, &head.scope));
            return Ok(CubeFacts::of_seen(seen.map(|head| head.state)));
        }
        let (counts, num_audit_entries) =
            self.read(|reader| Ok((reader.counts()?, audit::size(reader.connection())?)))?;
        let index = self.index();
        Ok(CubeFacts {
            counts,
            num_audit_entries,
            num_terms: index.lexical().num_terms(),
            num_vectors: index.vectors().map_or(0, |vectors| vectors.len()),
            snapshots: self.directory().snapshots()?,
            closed_for_writing: self.directory().store().closed_for_writing(),
        })
    }

    /// Checks the cube's store.
    ///
    /// # Errors
    /// The actor may not read here, or the store cannot be read at all.
    pub fn verify(&self, actor: &Actor) -> Result<CubeReport, MemoriesError> {
        self.permit(actor, Action::ReadItems)?;
        Ok(self.directory().verify()?)
    }

    /// Packs the cube into one file.
    ///
    /// # Errors
    /// The actor may not, or the file is there already.
    pub fn pack(&self, actor: &Actor, path: &Path) -> Result<(), MemoriesError> {
        self.permit_whole(actor, Action::ExportCube)?;
        self.note_export(actor, "cube.pack")?;
        Ok(cube::pack(self.directory(), path)?)
    }

    /// Keeps a copy of the cube as it is now inside its folder, to compare with. Erasures reach it.
    ///
    /// # Errors
    /// The actor may not, or there is a snapshot of this name.
    pub fn snapshot(&self, actor: &Actor, name: &SnapshotName) -> Result<(), MemoriesError> {
        self.permit_whole(actor, Action::ExportCube)?;
        self.note_export(actor, "cube.snapshot")?;
        Ok(self.directory().snapshot(name)?)
    }

    /// What has changed since a snapshot.
    ///
    /// # Errors
    /// The actor may not export, or there is no such snapshot.
    pub fn diff(&self, actor: &Actor, snapshot: &SnapshotName) -> Result<Vec<DiffEntry>, MemoriesError> {
        self.permit_whole(actor, Action::ExportCube)?;
        let path = self.directory().snapshot_path(snapshot)?;
        let earlier = Store::open(&path, self.reference().id, self.shared().clock.clone(), &EXTRA_SCHEMA)?;
        Ok(store::diff(&earlier, self.directory().store())?)
    }

    /// What the other cube has otherwise than this one.
    ///
    /// # Errors
    /// The actor may not export one of them.
    pub fn diff_with(&self, actor: &Actor, other: &Self) -> Result<Vec<DiffEntry>, MemoriesError> {
        self.permit(actor, Action::ExportCube)?;
        other.permit(actor, Action::ExportCube)?;
        Ok(store::diff(self.directory().store(), other.directory().store())?)
    }

    /// Entries of the audit log, oldest first.
    ///
    /// # Errors
    /// The actor may not read it.
    pub fn audit(&self, actor: &Actor, filter: &AuditFilter, limit: usize) -> Result<Vec<AuditEntry>, MemoriesError> {
        self.permit_whole(actor, Action::ReadAudit)?;
        self.read(|reader| Ok(audit::list(reader.connection(), filter, limit)?))
    }

    /// The latest signed head of the audit log, after signing the present one.
    ///
    /// # Errors
    /// The actor may not read it.
    pub fn audit_head(&self, actor: &Actor) -> Result<Option<TreeHead>, MemoriesError> {
        self.permit_whole(actor, Action::ReadAudit)?;
        self.seal()?;
        self.read(|reader| Ok(audit::latest_head(reader.connection())?))
    }

    /// A proof that the entry is in the log as the latest head signs it.
    ///
    /// # Errors
    /// The actor may not read the log, or it has no such entry.
    pub fn audit_inclusion(&self, actor: &Actor, seq: u64) -> Result<Option<InclusionProof>, MemoriesError> {
        let Some(head) = self.audit_head(actor)? else { return Ok(None) };
        self.read(|reader| Ok(Some(audit::inclusion_proof(reader.connection(), seq, &head)?)))
    }

    /// A proof that the log as `earlier` signed it is the beginning of the log as the latest head signs it.
    ///
    /// # Errors
    /// The actor may not read the log, or `earlier` is no head of it.
    pub fn audit_consistency(
        &self,
        actor: &Actor,
        earlier: &TreeHead,
    ) -> Result<Option<ConsistencyProof>, MemoriesError> {
        let Some(head) = self.audit_head(actor)? else { return Ok(None) };
        self.read(|reader| Ok(Some(audit::consistency_proof(reader.connection(), earlier, &head)?)))
    }

    /// The same from the head that was signed over this many entries; `None` where none was.
    ///
    /// # Errors
    /// The actor may not read the log.
    pub fn audit_consistency_from(&self, actor: &Actor, size: u64) -> Result<Option<ConsistencyProof>, MemoriesError> {
        self.permit(actor, Action::ReadAudit)?;
        match self.witnessed_head(size) {
            Some(earlier) => self.audit_consistency(actor, &earlier),
            None => Ok(None),
        }
    }

    pub(super) fn note_export(&self, actor: &Actor, action: &'static str) -> Result<(), MemoriesError> {
        let entry = Entry { action, objects: Vec::new(), reason: None, details: None };
        self.record_read(self.event(actor, entry, Outcome::Allowed))
    }
}
