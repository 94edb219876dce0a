//! One cube in use: its folder, the index over it, its audit log, and the one way in which it changes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use super::index::CubeIndex;
use super::{Embedder, MemoriesError};
use crate::cube::{CubeDirectory, Manifest};
use crate::governance::audit::{
    self, AuditEvent, AuditReport, HeadsFile, NUM_OBJECTS_MAX, NUM_READS_WAITING_MAX, Outcome, ReadAudit, TreeHead,
};
use crate::governance::policy::{Denied, DeniedAnswer};
use crate::governance::quota::{QuotaBook, Storage};
use crate::governance::redaction::Redactor;
use crate::governance::retention::RetentionRules;
use crate::governance::{
    Action, Actor, Allowed, AuditKey, CubeRef, Decision, GovernanceError, GrantSet, PolicyEngine, PublicKey,
};
use crate::ingest::LanguageModel;
use crate::item::Item;
use crate::store::{ItemRow, Reader, StoreError, WriteTransaction};
use crate::{Clock, CubeId, ItemId, Timestamp};

/// Changes after which a signed head of the audit log is written outside the cube without being asked for.
const CHANGES_PER_HEAD: u64 = 64;
/// Longest time that a read waits until it is recorded.
const READ_RECORD_TIMEOUT: Duration = Duration::from_secs(10);

/// What all cubes of a server share.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) policy: PolicyEngine,
    pub(super) audit_key: AuditKey,
    pub(super) heads_folder: PathBuf,
    pub(super) quotas: QuotaBook,
    pub(super) redactor: Option<Redactor>,
    pub(super) default_redactor: Redactor,
    pub(super) retention: RetentionRules,
    pub(super) embedder: RwLock<Option<Arc<dyn Embedder>>>,
    pub(super) language_model: OnceLock<Arc<dyn LanguageModel>>,
}

impl Shared {
    pub(super) fn embedder(&self) -> Option<Arc<dyn Embedder>> {
        self.embedder.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The file of signed heads of a cube.
    pub(super) fn heads_path(&self, cube: CubeId) -> PathBuf {
        self.heads_folder.join(format!("{cube}.heads"))
    }

    /// For redaction on request, which works also where nothing is redacted on the way in.
    pub(super) fn redactor_for_requests(&self) -> &Redactor {
        self.redactor.as_ref().unwrap_or(&self.default_redactor)
    }
}

/// A cube in use. All methods that take an [`Actor`] ask the policy first and leave an audit entry behind.
pub struct MountedCube {
    directory: CubeDirectory,
    reference: CubeRef,
    shared: Arc<Shared>,
    index: RwLock<CubeIndex>,
    /// Held over commit and index update, so that indexes see changes in the order of their commits.
    changing: Mutex<Changing>,
    reads: ReadAudit,
    heads: Mutex<HeadsFile>,
    /// Memories that went into prompts and are not counted yet.
    pub(super) recalled: Mutex<Vec<ItemId>>,
    /// Memories that retention erased, until somebody asks.
    pub(super) erased_by_retention: AtomicUsize,
    /// How far retention has come.
    pub(super) retention_cursor: Mutex<Option<ItemRow>>,
    /// What the owner's quota counts for this cube.
    pub(super) counted: Mutex<Storage>,
}

/// What only the thread that changes the cube looks at.
#[derive(Default)]
struct Changing {
    num_since_head: u64,
    /// A panic between commit and index left the index behind the store.
    is_index_behind: bool,
}

/// What an audit entry says beside who, when and where.
pub(super) struct Entry<'a> {
    pub(super) action: &'static str,
    pub(super) objects: Vec<ItemId>,
    pub(super) reason: Option<&'a str>,
    pub(super) details: Option<serde_json::Value>,
}

impl MountedCube {
    /// Mounts an open cube: builds its index.
    ///
    /// # Errors
    /// The store cannot be read, or the file of heads cannot be opened.
    pub(super) fn mount(directory: CubeDirectory, shared: Arc<Shared>) -> Result<Self, MemoriesError> {
        let manifest = directory.manifest();
        let reference = CubeRef { id: manifest.id, name: manifest.name.to_string(), owner: manifest.owner.clone() };
        let heads = HeadsFile::open(shared.heads_path(manifest.id))?;
        let embedder = shared.embedder();
        let index =
            directory.store().read(|reader| CubeIndex::build(reader, embedder.as_deref()).map_err(StoreError::step))?;
        let mounted = Self {
            directory,
            reference,
            shared,
            index: RwLock::new(index),
            changing: Mutex::default(),
            reads: ReadAudit::new(NUM_READS_WAITING_MAX),
            heads: Mutex::new(heads),
            recalled: Mutex::default(),
            erased_by_retention: AtomicUsize::default(),
            retention_cursor: Mutex::default(),
            counted: Mutex::default(),
        };
        mounted.refresh_usage()?;
        Ok(mounted)
    }

    /// What the cube says about itself.
    pub fn manifest(&self) -> &Manifest {
        self.directory.manifest()
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.directory.folder()
    }

    pub(super) fn directory(&self) -> &CubeDirectory {
        &self.directory
    }

    pub(super) fn reference(&self) -> &CubeRef {
        &self.reference
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, CubeIndex> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Reads a consistent view of the store.
    pub(super) fn read<T>(
        &self,
        look: impl FnOnce(&Reader<'_>) -> Result<T, MemoriesError>,
    ) -> Result<T, MemoriesError> {
        Ok(self.directory.store().read(|reader| look(reader).map_err(StoreError::step))?)
    }

    /// Asks the policy. What is refused is recorded as refused, together with other reads.
    ///
    /// # Errors
    /// It is refused; as not found where the actor may not even know of the cube.
    pub(super) fn permit(&self, actor: &Actor, action: Action) -> Result<Allowed, MemoriesError> {
        let grants =
            self.read(|reader| Ok(GrantSet::load(reader.connection(), &self.reference, actor, self.now())?))?;
        self.decided(actor, action, self.shared.policy.decide(actor, action, &self.reference, &grants)?)
    }

    /// The same for what concerns the cube as a whole: its copies, its audit log, whether it is in use. A grant on single
    /// memories or a name inside the tenant does not reach that far.
    ///
    /// # Errors
    /// As [`Self::permit`].
    pub(super) fn permit_whole(&self, actor: &Actor, action: Action) -> Result<Allowed, MemoriesError> {
        let allowed = self.permit(actor, action)?;
        if allowed.access().is_whole_cube() {
            return Ok(allowed);
        }
        let answer = DeniedAnswer::Forbidden;
        self.decided(actor, action, Decision::Denied(Denied { answer, action, policies: allowed.policies().to_vec() }))
    }

    /// The same within a change, where grants are those of the transaction.
    pub(super) fn permit_in(
        &self,
        reader: &Reader<'_>,
        actor: &Actor,
        action: Action,
    ) -> Result<Allowed, MemoriesError> {
        let grants = GrantSet::load(reader.connection(), &self.reference, actor, self.now())?;
        Ok(self.shared.policy.decide(actor, action, &self.reference, &grants)?.or_refuse("cube")?)
    }

    fn decided(&self, actor: &Actor, action: Action, decision: Decision) -> Result<Allowed, MemoriesError> {
        match decision {
            Decision::Allowed(allowed) => Ok(*allowed),
            Decision::Denied(denied) => {
                let details = Some(serde_json::json!({ "policies": denied.policies }));
                let entry = Entry { action: action.as_str(), objects: Vec::new(), reason: None, details };
                self.record_read(self.event(actor, entry, Outcome::Denied))?;
                Err(denied.into_error("cube").into())
            }
        }
    }

    /// Records that somebody else's memory was read, before the answer goes out. Reads of many threads share a
    /// transaction.
    ///
    /// # Errors
    /// It could not be recorded: the read must not be answered.
    pub(super) fn record_read(&self, event: AuditEvent) -> Result<(), MemoriesError> {
        let ticket = self.reads.record(event)?;
        {
            // Whoever comes second finds that the first has recorded both.
            let _changing = self.lock_changing();
            let batch = self.reads.take();
            if !batch.is_empty() {
                self.directory.store().write(|tx| batch.append_to(tx.connection()).map_err(StoreError::step))?;
                batch.confirm();
            }
        }
        Ok(ticket.wait(READ_RECORD_TIMEOUT)?)
    }

    /// Whether reading this cube is reading somebody else's memory.
    pub(super) fn is_foreign_to(&self, actor: &Actor) -> bool {
        *actor.tenant() != self.reference.owner
    }

    pub(super) fn event(&self, actor: &Actor, entry: Entry<'_>, outcome: Outcome) -> AuditEvent {
        AuditEvent {
            at: self.now(),
            actor: actor.to_string(),
            action: entry.action.to_owned(),
            objects: entry.objects,
            cube: self.reference.id,
            outcome,
            reason: entry.reason.map(str::to_owned),
            details: entry.details,
        }
    }

    /// The one way in which the cube changes: one transaction, with its audit entry, then the index. When this
    /// returns, the change is durable and searchable.
    ///
    /// `change` returns its result and the entry; both are dropped when anything fails.
    ///
    /// # Errors
    /// Those of `change`; the audit entry cannot be written; the store fails. Nothing is changed then.
    pub(super) fn change<'e, T>(
        &self,
        actor: &Actor,
        change: impl FnOnce(&WriteTransaction<'_>) -> Result<(T, Entry<'e>), MemoriesError>,
    ) -> Result<T, MemoriesError> {
        let mut changing = self.lock_changing();
        self.catch_up(&mut changing)?;
        // Before the change and not after it: where the head cannot be written, nothing must have been changed.
        if changing.num_since_head >= CHANGES_PER_HEAD {
            self.seal_locked(&mut changing)?;
        }
        let embedder = self.shared.embedder();
        let (value, touched) = self.directory.store().write(|tx| {
            let (value, entry) = change(tx).map_err(StoreError::step)?;
            self.append_entry(tx, actor, entry).map_err(StoreError::step)?;
            Ok((value, Touched::collect(tx, embedder.as_deref())?))
        })?;
        changing.num_since_head += 1;
        changing.is_index_behind = true;
        let applied =
            touched.apply(&mut self.index.write().unwrap_or_else(PoisonError::into_inner), embedder.as_deref());
        match applied {
            Ok(()) => changing.is_index_behind = false,
            // The embedder was replaced meanwhile: what is committed has to be found all the same.
            Err(_) => self.catch_up(&mut changing)?,
        }
        Ok(value)
    }

    /// Appends the entry of a change; one that names more memories than an entry may becomes several.
    fn append_entry(&self, tx: &WriteTransaction<'_>, actor: &Actor, entry: Entry<'_>) -> Result<(), GovernanceError> {
        let event = self.event(actor, entry, Outcome::Allowed);
        let mut parts = event.objects.chunks(NUM_OBJECTS_MAX).map(<[ItemId]>::to_vec);
        let first = parts.next().unwrap_or_default();
        audit::append(tx.connection(), &AuditEvent { objects: first, ..event.clone() })?;
        parts.try_for_each(|objects| {
            audit::append(tx.connection(), &AuditEvent { objects, ..event.clone() }).map(|_seq| ())
        })
    }

    /// A change that follows from what is there already and needs no entry: vectors of memories. The rows get these vectors in the index.
    pub(super) fn change_unrecorded(
        &self,
        change: impl FnOnce(&WriteTransaction<'_>) -> Result<Vec<(ItemRow, Vec<f32>)>, MemoriesError>,
    ) -> Result<(), MemoriesError> {
        let mut changing = self.lock_changing();
        self.catch_up(&mut changing)?;
        let vectors = self.directory.store().write(|tx| change(tx).map_err(StoreError::step))?;
        changing.is_index_behind = true;
        if let Some(embedder) = self.shared.embedder() {
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            vectors.iter().try_for_each(|(row, vector)| index.put_vector(*row, &*embedder, vector))?;
        }
        changing.is_index_behind = false;
        Ok(())
    }

    /// Signs the present state of the audit log and writes that outside the cube. From then on, cutting the log's end
    /// off is noticed too.
    ///
    /// # Errors
    /// The log or the file of heads cannot be written.
    pub fn seal(&self) -> Result<(), MemoriesError> {
        let mut changing = self.lock_changing();
        if changing.num_since_head > 0 { self.seal_locked(&mut changing) } else { Ok(()) }
    }

    fn seal_locked(&self, changing: &mut Changing) -> Result<(), MemoriesError> {
        let (key, id) = (&self.shared.audit_key, &self.reference.id);
        let head = self
            .directory
            .store()
            .write(|tx| audit::sign_head(tx.connection(), id, key, tx.now()).map_err(StoreError::step))?;
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).append(&head)?;
        changing.num_since_head = 0;
        Ok(())
    }

    /// Checks the audit log against itself and against the heads that are kept outside the cube.
    ///
    /// # Errors
    /// The actor may not, or the log cannot be read.
    pub fn verify_audit(&self, actor: &Actor) -> Result<AuditReport, MemoriesError> {
        self.verify_audit_trusting(actor, &[])
    }

    /// The same where further keys are trusted: those of servers that the cube came from. Without them, heads signed there
    /// are findings that name the key.
    ///
    /// # Errors
    /// The actor may not, or the log cannot be read.
    pub fn verify_audit_trusting(&self, actor: &Actor, others: &[PublicKey]) -> Result<AuditReport, MemoriesError> {
        self.permit_whole(actor, Action::ReadAudit)?;
        let heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner).heads().to_vec();
        let mut keys = vec![self.shared.audit_key.public()];
        keys.extend_from_slice(others);
        self.read(|reader| Ok(audit::verify(reader.connection(), &self.reference.id, &heads, &keys)?))
    }

    /// The head over this many entries among those that are kept outside the cube.
    pub(super) fn witnessed_head(&self, size: u64) -> Option<TreeHead> {
        let heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        heads.heads().iter().rev().find(|head| head.size == size).cloned()
    }

    /// Builds the index anew, with another embedder or after a failure.
    pub(super) fn rebuild_index(&self) -> Result<(), MemoriesError> {
        let mut changing = self.lock_changing();
        changing.is_index_behind = true;
        self.catch_up(&mut changing)
    }

    fn catch_up(&self, changing: &mut Changing) -> Result<(), MemoriesError> {
        if changing.is_index_behind {
            let embedder = self.shared.embedder();
            let built = self.read(|reader| CubeIndex::build(reader, embedder.as_deref()))?;
            *self.index.write().unwrap_or_else(PoisonError::into_inner) = built;
            changing.is_index_behind = false;
        }
        Ok(())
    }

    fn lock_changing(&self) -> MutexGuard<'_, Changing> {
        // A panic while it was held is what `is_index_behind` is for.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for MountedCube {
    fn drop(&mut self) {
        let counted = std::mem::take(&mut *self.counted.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.quotas.remove(&self.reference.owner, counted);
        // Best effort: a head that could not be written only means that fewer entries are covered by it.
        let _ = self.seal();
    }
}

/// What a change touched, read inside its transaction.
struct Touched {
    items: Vec<(ItemRow, Option<Item>)>,
    vectors: HashMap<ItemRow, Vec<f32>>,
}

impl Touched {
    fn collect(tx: &WriteTransaction<'_>, embedder: Option<&dyn Embedder>) -> Result<Self, StoreError> {
        let mut touched = Self { items: Vec::new(), vectors: HashMap::new() };
        for (row, id) in tx.touched() {
            touched.items.push((row, tx.get_row(row)?));
            if let Some(embedder) = embedder
                && let Some(vector) = tx.vector(id, embedder.id().as_str())?
            {
                touched.vectors.insert(row, vector);
            }
        }
        Ok(touched)
    }

    fn apply(self, index: &mut CubeIndex, embedder: Option<&dyn Embedder>) -> Result<(), MemoriesError> {
        for (row, item) in self.items {
            match item {
                Some(item) => index.put(row, &item)?,
                None => index.remove(row),
            }
        }
        if let Some(embedder) = embedder {
            for (row, vector) in self.vectors {
                index.put_vector(row, embedder, &vector)?;
            }
        }
        Ok(())
    }
}
