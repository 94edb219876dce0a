//! All cubes of a server: made, mounted, unmounted, listed. Whatever goes wrong with one leaves the others alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::mounted::{MountedCube, Shared};
use super::{EXTRA_SCHEMA, Embedder, MemoriesError};
use crate::Clock;
use crate::cube::{self, CubeDirectory, CubeError, CubeName, ListedCube, Manifest};
use crate::governance::quota::QuotaBook;
use crate::governance::redaction::{RedactionConfig, Redactor};
use crate::governance::retention::RetentionRules;
use crate::governance::{Action, Actor, AuditKey, CubeRef, GrantSet, PolicyEngine, PublicKey};
use crate::ingest::LanguageModel;

/// Most cubes that are mounted at once.
pub const NUM_CUBES_MAX: usize = 4_096;

/// What the memory of a server is put together from.
pub struct MemoriesParts {
    /// Folder of the cubes; it must be there.
    pub folder: PathBuf,
    /// Folder outside of all cubes for signed heads of their audit logs; it must be there.
    pub heads_folder: PathBuf,
    /// Where "now" comes from.
    pub clock: Clock,
    /// Who may do what.
    pub policy: PolicyEngine,
    /// Signs the audit log.
    pub audit_key: AuditKey,
    /// What tenants may keep.
    pub quotas: QuotaBook,
    /// What is blacked out before it is stored; `None`: nothing.
    pub redactor: Option<Redactor>,
    /// What is archived or erased by age.
    pub retention: RetentionRules,
    /// Turns text into vectors; `None`: search by words and graph.
    pub embedder: Option<Arc<dyn Embedder>>,
}

/// The memory of a server: the one boundary that everything passes. See the module's description.
pub struct Memories {
    folder: PathBuf,
    shared: Arc<Shared>,
    cubes: RwLock<BTreeMap<CubeName, Arc<MountedCube>>>,
}

/// A cube in a listing.
#[derive(Debug)]
pub struct CubeEntry {
    /// What it says about itself.
    pub manifest: Manifest,
    /// Whether it is mounted.
    pub is_mounted: bool,
}

impl Memories {
    /// Puts the memory together, with no cube mounted.
    pub fn new(parts: MemoriesParts) -> Self {
        let shared = Shared {
            clock: parts.clock,
            policy: parts.policy,
            audit_key: parts.audit_key,
            heads_folder: parts.heads_folder,
            quotas: parts.quotas,
            redactor: parts.redactor,
            default_redactor: Redactor::new(&RedactionConfig::default()),
            retention: parts.retention,
            embedder: RwLock::new(parts.embedder),
            language_model: OnceLock::new(),
        };
        Self { folder: parts.folder, shared: Arc::new(shared), cubes: RwLock::default() }
    }

    /// Folder of the cubes.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Mounts every cube in the folder, which nobody else may be using; what crashes left in it is removed. Those that cannot be mounted are returned with the reason; the others serve.
    ///
    /// # Errors
    /// The folder cannot be listed, or a leftover in it not be removed.
    pub fn mount_all(&self) -> Result<Vec<(PathBuf, MemoriesError)>, MemoriesError> {
        cube::remove_leftovers(&self.folder)?;
        let mut failed = Vec::new();
        for ListedCube { folder, manifest } in cube::list(&self.folder)? {
            match manifest.map_err(MemoriesError::from).and_then(|manifest| self.mount_folder(&folder, &manifest.name))
            {
                Ok(_mounted) => {}
                Err(error) => failed.push((folder, error)),
            }
        }
        Ok(failed)
    }

    /// Makes a cube for the actor's tenant and mounts it.
    ///
    /// # Errors
    /// The actor may not, or there is a cube of this name.
    pub fn create(&self, actor: &Actor, name: CubeName) -> Result<Arc<MountedCube>, MemoriesError> {
        let owner = actor.tenant().clone();
        // There is no cube to hold grants yet: what is asked is whether the tenant's role makes cubes at all.
        let asked = CubeRef { id: crate::CubeId::new(), name: name.to_string(), owner: owner.clone() };
        self.shared.policy.decide(actor, Action::CreateCube, &asked, &GrantSet::default())?.or_refuse("cube")?;
        let directory = CubeDirectory::create(&self.folder, name, owner, self.shared.clock.clone(), &EXTRA_SCHEMA)?;
        let mounted = self.insert(directory)?;
        mounted.note_created(actor)?;
        Ok(mounted)
    }

    /// Mounts the cube of this name.
    ///
    /// # Errors
    /// There is none for this actor, it is mounted, or it cannot be opened.
    pub fn mount(&self, actor: &Actor, name: &CubeName) -> Result<Arc<MountedCube>, MemoriesError> {
        let folder = self.folder.join(name.as_str());
        let manifest = match Manifest::read(&folder) {
            Err(CubeError::Missing { .. }) => return Err(MemoriesError::no_cube(name)),
            read => read?,
        };
        let reference = CubeRef { id: manifest.id, name: name.to_string(), owner: manifest.owner.clone() };
        // Grants are inside the cube: before it is mounted, only its owner can ask for it.
        let decided = self.shared.policy.decide(actor, Action::MountCube, &reference, &GrantSet::default())?;
        decided.or_refuse("cube").map_err(|error| MemoriesError::of_cube(error, name))?;
        self.mount_folder(&folder, &manifest.name)
    }

    pub(super) fn mount_folder(&self, folder: &Path, name: &CubeName) -> Result<Arc<MountedCube>, MemoriesError> {
        if folder.file_name().is_none_or(|folder| folder != name.as_str()) {
            let problem = format!("its manifest says that its name is {name}");
            return Err(CubeError::Damaged { path: folder.to_owned(), problem }.into());
        }
        if self.lock_read().contains_key(name) {
            return Err(MemoriesError::AlreadyMounted { name: name.clone() });
        }
        self.insert(CubeDirectory::open(folder, self.shared.clock.clone(), &EXTRA_SCHEMA)?)
    }

    fn insert(&self, directory: CubeDirectory) -> Result<Arc<MountedCube>, MemoriesError> {
        let name = directory.manifest().name.clone();
        let mounted = Arc::new(MountedCube::mount(directory, Arc::clone(&self.shared))?);
        let mut cubes = self.cubes.write().unwrap_or_else(PoisonError::into_inner);
        if cubes.len() >= NUM_CUBES_MAX {
            return Err(MemoriesError::TooManyCubes { limit: NUM_CUBES_MAX });
        }
        if cubes.contains_key(&name) {
            return Err(MemoriesError::AlreadyMounted { name });
        }
        cubes.insert(name, Arc::clone(&mounted));
        Ok(mounted)
    }

    /// Takes a cube out of use. Requests that are under way finish on it.
    ///
    /// # Errors
    /// There is none for this actor, or the actor may not.
    pub fn unmount(&self, actor: &Actor, name: &CubeName) -> Result<(), MemoriesError> {
        let mounted = self.cube(name)?;
        mounted.permit_whole(actor, Action::MountCube).map_err(|error| error.naming(name))?;
        mounted.seal()?;
        self.cubes.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    /// The mounted cube of this name. Whether the caller may know of it is decided by what is then done with it.
    ///
    /// # Errors
    /// None of this name is mounted.
    pub fn cube(&self, name: &CubeName) -> Result<Arc<MountedCube>, MemoriesError> {
        self.lock_read().get(name).cloned().ok_or_else(|| MemoriesError::no_cube(name))
    }

    /// The cubes that the actor may read, by name, those that are not mounted included.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn list(&self, actor: &Actor) -> Result<Vec<CubeEntry>, MemoriesError> {
        let mounted = self.mounted();
        let mut entries = Vec::new();
        for cube in &mounted {
            if cube.may_read(actor)? {
                entries.push(CubeEntry { manifest: cube.manifest().clone(), is_mounted: true });
            }
        }
        for ListedCube { manifest, .. } in cube::list(&self.folder)? {
            // What cannot be read is told to whoever mounts it, not to everybody.
            let Ok(manifest) = manifest else { continue };
            let is_mounted = mounted.iter().any(|cube| cube.manifest().name == manifest.name);
            if !is_mounted && manifest.owner == *actor.tenant() {
                entries.push(CubeEntry { manifest, is_mounted });
            }
        }
        entries.sort_by(|left, right| left.manifest.name.cmp(&right.manifest.name));
        Ok(entries)
    }

    /// All mounted cubes.
    pub fn mounted(&self) -> Vec<Arc<MountedCube>> {
        self.lock_read().values().cloned().collect()
    }

    /// Replaces the embedder and returns the cubes that now need vectors: [`MountedCube::embed_missing`] makes them. Until then
    /// search goes by words and graph and by the vectors that there are; vectors of two embedders are never compared.
    ///
    /// # Errors
    /// The embedder has no dimensions, or an index cannot be rebuilt.
    pub fn set_embedder(&self, embedder: Option<Arc<dyn Embedder>>) -> Result<(), MemoriesError> {
        *self.shared.embedder.write().unwrap_or_else(PoisonError::into_inner) = embedder;
        self.mounted().iter().try_for_each(|cube| cube.rebuild_index())
    }

    /// The key that this server's audit logs are signed with.
    pub fn audit_key(&self) -> PublicKey {
        self.shared.audit_key.public()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What turns text into vectors.
    pub fn embedder(&self) -> Option<Arc<dyn Embedder>> {
        self.shared.embedder()
    }

    /// What is asked for facts and verdicts where rules are not enough.
    pub fn language_model(&self) -> Option<Arc<dyn LanguageModel>> {
        self.shared.language_model.get().cloned()
    }

    /// A text without what must not be stored, as it may be shown to a model.
    pub fn redacted_text(&self, text: &str) -> String {
        match &self.shared.redactor {
            Some(redactor) => redactor.redact(text).0,
            None => text.to_owned(),
        }
    }

    /// Says which model is asked. The first one stays: what one model began, another is not to finish.
    pub fn set_language_model(&self, model: Arc<dyn LanguageModel>) {
        // Setting it twice changes nothing, as documented.
        let _ = self.shared.language_model.set(model);
    }

    fn lock_read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<CubeName, Arc<MountedCube>>> {
        self.cubes.read().unwrap_or_else(PoisonError::into_inner)
    }
}
