//! A cube's folder: made, locked, opened, checked.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::archive::SCRATCH_PREFIX;
use super::{CubeError, CubeName, Manifest};
use crate::durable;
use crate::governance::TenantName;
use crate::store::{Finding, Store};
use crate::{Clock, CubeId};

const LOCK_FILE: &str = "lock";
const STORE_FILE: &str = "memory.sqlite";
/// What is in the folder of a cube before its manifest.
const UNFINISHED_FILES: [&str; 6] =
    [LOCK_FILE, STORE_FILE, "memory.sqlite-wal", "memory.sqlite-shm", "memory.sqlite-journal", "manifest.tmp"];
const SNAPSHOTS_FOLDER: &str = "snapshots";
const SNAPSHOT_EXTENSION: &str = "sqlite";

/// Name of a snapshot: what a cube's name may be.
pub type SnapshotName = CubeName;

/// An open cube: its folder is locked until this is dropped.
pub struct CubeDirectory {
    folder: PathBuf,
    manifest: Manifest,
    store: Store,
    _lock: File,
}

/// What a check of a cube found.
#[derive(Debug)]
pub struct CubeReport {
    /// What the cube says about itself.
    pub manifest: Manifest,
    /// What is wrong with its store; empty when all is well.
    pub findings: Vec<Finding>,
}

impl CubeDirectory {
    /// Makes the cube `name` of `owner` in a new folder of that name below `parent`, and opens it.
    ///
    /// # Errors
    /// The folder is there already, or the operating system refuses.
    pub fn create(
        parent: &Path,
        name: CubeName,
        owner: TenantName,
        clock: Clock,
        extra_schema: &[&str],
    ) -> Result<Self, CubeError> {
        let folder = parent.join(name.as_str());
        let is_new = match durable::create_folder(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            made => made.map(|()| true).map_err(CubeError::io("make", &folder))?,
        };
        if !is_new && !is_unfinished(&folder)? {
            return Err(CubeError::Exists { path: folder });
        }
        // The manifest comes last: a folder without one is no cube yet, so a crash before leaves no half-made cube.
        let manifest = Manifest::new(name, owner, clock.now());
        let lock = lock(&folder)?;
        if !is_new {
            clear_unfinished(&folder)?;
        }
        let store = open_store(&folder, manifest.id, clock, extra_schema)?;
        manifest.write(&folder)?;
        Ok(Self { folder, manifest, store, _lock: lock })
    }

    /// Opens the cube in `folder`.
    ///
    /// # Errors
    /// It is no cube, newer, damaged, or open in another process.
    pub fn open(folder: &Path, clock: Clock, extra_schema: &[&str]) -> Result<Self, CubeError> {
        let manifest = Manifest::read(folder)?;
        let lock = lock(folder)?;
        let store_path = folder.join(STORE_FILE);
        // An empty store in place of a lost one would look like a cube that forgot everything.
        if !store_path.exists() {
            return Err(CubeError::Damaged { path: store_path, problem: "it is not there".to_owned() });
        }
        let store = open_store(folder, manifest.id, clock, extra_schema)?;
        Ok(Self { folder: folder.to_owned(), manifest, store, _lock: lock })
    }

    /// What the cube says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its plaintext memory.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Checks everything that can be checked without other cubes.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub fn verify(&self) -> Result<CubeReport, CubeError> {
        let findings = self.store.check().map_err(|source| self.store_error(source))?;
        Ok(CubeReport { manifest: self.manifest.clone(), findings })
    }

    /// Keeps a copy of the store as it is now under this name, in the folder `snapshots` of the cube.
    ///
    /// # Errors
    /// There is one of this name, or the operating system refuses.
    pub fn snapshot(&self, name: &SnapshotName) -> Result<(), CubeError> {
        let folder = self.folder.join(SNAPSHOTS_FOLDER);
        if !folder.exists() {
            durable::create_folder(&folder).map_err(CubeError::io("make", &folder))?;
        }
        let path = folder.join(format!("{name}.{SNAPSHOT_EXTENSION}"));
        if path.exists() {
            return Err(CubeError::Exists { path });
        }
        self.copy_store(&path)
    }

    /// The file of a snapshot.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn snapshot_path(&self, name: &SnapshotName) -> Result<PathBuf, CubeError> {
        let path = self.folder.join(SNAPSHOTS_FOLDER).join(format!("{name}.{SNAPSHOT_EXTENSION}"));
        if path.exists() { Ok(path) } else { Err(CubeError::Missing { path }) }
    }

    /// The files of all snapshots, in the order of their names.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn snapshot_paths(&self) -> Result<Vec<PathBuf>, CubeError> {
        let folder = self.folder.join(SNAPSHOTS_FOLDER);
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let mut paths = Vec::new();
        for entry in fs::read_dir(&folder).map_err(CubeError::io("list", &folder))? {
            let path = entry.map_err(CubeError::io("list", &folder))?.path();
            if path.extension().is_some_and(|extension| extension == SNAPSHOT_EXTENSION) {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// The names of all snapshots.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn snapshots(&self) -> Result<Vec<String>, CubeError> {
        let name = |path: PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        Ok(self.snapshot_paths()?.into_iter().filter_map(name).collect())
    }

    pub(super) fn copy_store(&self, path: &Path) -> Result<(), CubeError> {
        self.store.snapshot_to(path).map_err(|source| self.store_error(source))
    }

    fn store_error(&self, source: crate::store::StoreError) -> CubeError {
        CubeError::Store { cube: self.manifest.id, source }
    }
}

/// Whether the folder is what a crash leaves of a cube in the making: no manifest, and nothing that is not ours.
fn is_unfinished(folder: &Path) -> Result<bool, CubeError> {
    for entry in fs::read_dir(folder).map_err(CubeError::io("list", folder))? {
        let name = entry.map_err(CubeError::io("list", folder))?.file_name();
        if !UNFINISHED_FILES.iter().any(|known| name == *known) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn clear_unfinished(folder: &Path) -> Result<(), CubeError> {
    // Asked again under the lock: another process may have finished it meanwhile.
    if !is_unfinished(folder)? {
        return Err(CubeError::Exists { path: folder.to_owned() });
    }
    for name in UNFINISHED_FILES.iter().filter(|name| **name != LOCK_FILE) {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(CubeError::io("remove", &path)(error)),
            _ => {}
        }
    }
    Ok(())
}

fn open_store(folder: &Path, id: CubeId, clock: Clock, extra_schema: &[&str]) -> Result<Store, CubeError> {
    Store::open(&folder.join(STORE_FILE), id, clock, extra_schema)
        .map_err(|source| CubeError::Store { cube: id, source })
}

fn lock(folder: &Path) -> Result<File, CubeError> {
    let path = folder.join(LOCK_FILE);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(CubeError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(CubeError::Locked { path: folder.to_owned() }),
        Err(TryLockError::Error(source)) => Err(CubeError::Io { action: "lock", path, source }),
    }
}

/// A folder that says it is a cube.
#[derive(Debug)]
pub struct ListedCube {
    /// The folder.
    pub folder: PathBuf,
    /// What it says about itself, or why that cannot be read.
    pub manifest: Result<Manifest, CubeError>,
}

/// Removes what crashes have left of cubes that were packed or unpacked here. Nobody else may be working below `parent`.
///
/// # Errors
/// The folder cannot be listed, or something in it not be removed.
pub fn remove_leftovers(parent: &Path) -> Result<usize, CubeError> {
    let mut num_removed = 0;
    for entry in fs::read_dir(parent).map_err(CubeError::io("list", parent))? {
        let folder = entry.map_err(CubeError::io("list", parent))?.path();
        let is_scratch = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SCRATCH_PREFIX));
        // A link is not followed: what it leads to was not left by us.
        if is_scratch && folder.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            fs::remove_dir_all(&folder).map_err(CubeError::io("remove", &folder))?;
            num_removed += 1;
        }
    }
    Ok(num_removed)
}

/// The folders below `parent` that hold a manifest, in the order of their names. What an unpacking has not finished, or has
/// left in a crash, is no cube.
///
/// # Errors
/// The folder cannot be listed.
pub fn list(parent: &Path) -> Result<Vec<ListedCube>, CubeError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(parent).map_err(CubeError::io("list", parent))? {
        let folder = entry.map_err(CubeError::io("list", parent))?.path();
        let is_scratch = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SCRATCH_PREFIX));
        if !is_scratch && folder.join(super::MANIFEST_FILE).exists() {
            let manifest = Manifest::read(&folder);
            found.push(ListedCube { folder, manifest });
        }
    }
    found.sort_by(|left, right| left.folder.cmp(&right.folder));
    Ok(found)
}
