//! Opening a cache directory: lock, leftovers of a crash, every header checked, what is wrong set aside.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::store::{State, open_cached};
use super::{
    Disk, Kept, KvStore, KvStoreError, KvStoreOptions, OsDisk, RefusedFile, SEGMENT_SUFFIX, SEGMENTS_MAX, SegmentFault,
    SegmentFile, SegmentId, TEMPORARY_SUFFIX, quarantine,
};

/// Held while a store is open.
pub(super) const LOCK_FILE: &str = "lock";

/// A store, and what was found in its directory.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: KvStore,
    /// The segments that can be read, in the order of their ids. There may be more of them than the budget allows.
    pub segments: Vec<SegmentFile>,
    /// Files that look like segments and cannot be used.
    pub refused: Vec<RefusedFile>,
    /// Files that a crash left half-written; they are gone.
    pub num_leftovers: usize,
}

impl KvStore {
    /// Opens the directory, which is made when it is missing. Tokens and blocks are checked when they are read.
    ///
    /// # Errors
    /// Another process has it open, or the operating system refuses. A file that is wrong is no error.
    pub fn open(folder: &Path, options: KvStoreOptions) -> Result<Opened, KvStoreError> {
        Self::open_on(Box::new(OsDisk), folder, options)
    }

    /// [`KvStore::open`] with all files on this disk.
    ///
    /// # Errors
    /// As for [`KvStore::open`].
    pub fn open_on(disk: Box<dyn Disk>, folder: &Path, options: KvStoreOptions) -> Result<Opened, KvStoreError> {
        let lock = make_and_lock(folder)?;
        let num_leftovers = remove_leftovers(&*disk, folder)?;
        let mut segments = BTreeMap::new();
        let mut refused = Vec::new();
        let mut unlisted = Vec::new();
        for name in segment_names(folder)? {
            let opened = match segments.len() {
                SEGMENTS_MAX => Err(SegmentFault::TooMany { max: SEGMENTS_MAX }),
                _ => open_cached(&*disk, folder, &name, options.master_key.as_ref()),
            };
            match opened {
                Ok(reader) => {
                    segments.insert(reader.header().id, reader.listed().clone());
                }
                Err(fault) => {
                    let file = refuse(&*disk, folder, &name, fault);
                    if file.kept == Kept::Left {
                        unlisted.push(name);
                    }
                    refused.push(file);
                }
            }
        }
        let listed = segments.values().cloned().collect();
        let store = KvStore::new(folder.to_owned(), options, disk, State::new(lock, segments, unlisted));
        Ok(Opened { store, segments: listed, refused, num_leftovers })
    }
}

/// Makes the folder if it is missing, and locks it for this process.
pub(super) fn make_and_lock(folder: &Path) -> Result<File, KvStoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(KvStoreError::io("make", folder))?;
    let path = folder.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    let lock = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = lock.map_err(KvStoreError::io("open", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(KvStoreError::Locked { path: folder.to_owned() }),
        Err(TryLockError::Error(source)) => Err(KvStoreError::io("lock", &path)(source)),
    }
}

/// The names of all that looks like a segment, in order.
pub(super) fn segment_names(folder: &Path) -> Result<Vec<OsString>, KvStoreError> {
    let is_segment = |name: &OsString| name.to_string_lossy().ends_with(SEGMENT_SUFFIX);
    let mut names: Vec<OsString> = names(folder)?.into_iter().filter(is_segment).collect();
    names.sort();
    Ok(names)
}

fn names(folder: &Path) -> Result<Vec<OsString>, KvStoreError> {
    let entries = fs::read_dir(folder).map_err(KvStoreError::io("list", folder))?;
    let names: io::Result<Vec<OsString>> = entries.map(|entry| Ok(entry?.file_name())).collect();
    names.map_err(KvStoreError::io("list", folder))
}

fn remove_leftovers(disk: &dyn Disk, folder: &Path) -> Result<usize, KvStoreError> {
    // Only what this store names so: another program's file is not ours to remove.
    let is_leftover = |name: &OsString| {
        let stem = name.to_str().and_then(|name| name.strip_suffix(TEMPORARY_SUFFIX));
        stem.and_then(SegmentId::parse).is_some()
    };
    let leftovers: Vec<OsString> = names(folder)?.into_iter().filter(is_leftover).collect();
    for name in &leftovers {
        let path = folder.join(name);
        disk.remove(&path).map_err(KvStoreError::io("remove", &path))?;
    }
    Ok(leftovers.len())
}

fn refuse(disk: &dyn Disk, folder: &Path, name: &OsStr, fault: SegmentFault) -> RefusedFile {
    let kept = match fault {
        // The file may be good; the next start will tell.
        SegmentFault::Missing | SegmentFault::Io { .. } => Kept::Left,
        // A key was configured so that no text of this kind is readable on this disk.
        SegmentFault::NotEncrypted => match disk.remove(&folder.join(name)) {
            Ok(()) => Kept::Deleted,
            Err(_refused) => Kept::Left,
        },
        _ => quarantine::set_aside(folder, name, &fault),
    };
    RefusedFile { file_name: name.to_string_lossy().into_owned(), fault, kept }
}
