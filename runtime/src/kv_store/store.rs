//! The cache directory of one server: segments are written, read, removed and set aside.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::mem;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::draft::Draft;
use super::layout::Form;
use super::open_segments::OpenSegments;
use super::reader::SegmentReader;
use super::{
    Disk, Encryption, Kept, KvReadError, KvStoreError, MasterKey, NewSegment, SegmentFault, SegmentHeader, SegmentId,
    TenantTag, check_identity, quarantine, start,
};

/// Most files in a cache directory.
pub const SEGMENTS_MAX: usize = 1 << 18;

/// How a store is kept.
#[derive(Clone, Debug)]
pub struct KvStoreOptions {
    /// Most bytes of all files together, those in quarantine not counted.
    pub max_bytes: u64,
    /// Encrypts everything that is written; what is not encrypted under it is not taken.
    pub master_key: Option<MasterKey>,
}

/// A segment that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// What it says about itself.
    pub header: Arc<SegmentHeader>,
    /// Size of its file.
    pub file_bytes: u64,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Segments that are no more.
    pub num_segments: usize,
    /// Bytes of their files.
    pub num_bytes: u64,
    /// Files in quarantine, or left because they could not be read, that are no more.
    pub num_quarantined: usize,
}

/// An open cache directory; its lock is held until this is dropped. Threads can share it.
pub struct KvStore {
    pub(super) folder: PathBuf,
    pub(super) options: KvStoreOptions,
    pub(super) disk: Box<dyn Disk>,
    state: Mutex<State>,
}

pub(super) struct State {
    lock: File,
    segments: BTreeMap<SegmentId, SegmentFile>,
    /// Bytes of the files of `segments`.
    num_bytes: u64,
    /// Files that are being written, and their bytes.
    num_reserved: usize,
    reserved_bytes: u64,
    open: OpenSegments,
    /// Names of files that look like segments, are not used, and could not be moved aside.
    unlisted: Vec<OsString>,
}

impl KvStore {
    pub(super) fn new(folder: PathBuf, options: KvStoreOptions, disk: Box<dyn Disk>, state: State) -> Self {
        Self { folder, options, disk, state: Mutex::new(state) }
    }

    /// Writes a segment of these blocks. It is durable and readable when this returns. A directory that was removed
    /// meanwhile is made anew, and what was in it is forgotten.
    ///
    /// # Errors
    /// Numbers that are out of their limits or do not belong together, no room in the budget or on the disk, or the
    /// operating system refuses. No file stays then.
    pub fn write<B: AsRef<[u8]>>(&self, new: &NewSegment<'_>, blocks: &[B]) -> Result<SegmentFile, KvStoreError> {
        let draft = Draft::new(new, blocks.len(), Form::Cache, self.options.master_key.as_ref())?;
        let file_bytes = draft.file_bytes();
        self.reserve(file_bytes)?;
        let written = match draft.write(&*self.disk, &self.folder, blocks) {
            Err(error @ KvStoreError::Io { .. }) => match self.remake_folder() {
                Ok(Remade::WasThere) => Err(error),
                Ok(Remade::Made) => draft.write(&*self.disk, &self.folder, blocks),
                Err(error) => Err(error),
            },
            written => written,
        };
        let mut state = self.state();
        state.num_reserved -= 1;
        state.reserved_bytes -= file_bytes;
        let written = written?;
        state.num_bytes += file_bytes;
        state.segments.insert(written.header.id, written.clone());
        Ok(written)
    }

    /// Reads blocks of a segment, `blocks` being their indexes in it, one into each buffer. Each is checked.
    ///
    /// # Errors
    /// The call does not fit the segment, or the file is missing, replaced or damaged; [`SegmentFault::is_damage`]
    /// tells whether it should be set aside. The buffers hold anything then.
    pub fn read_blocks<B: AsMut<[u8]>>(
        &self,
        id: SegmentId,
        blocks: Range<u32>,
        into: &mut [B],
    ) -> Result<(), KvReadError> {
        let reader = self.opened(id)?;
        let header = reader.header();
        let Range { start, end } = blocks;
        if start > end || end > header.num_blocks {
            return Err(KvReadError::Range { id, start, end, num_blocks: header.num_blocks });
        }
        let (expected, found) = (blocks.len(), into.len());
        if expected != found {
            return Err(KvReadError::NumBuffers { id, expected, found });
        }
        let expected = header.identity.block_bytes;
        for (block, buffer) in blocks.zip(into) {
            let buffer = buffer.as_mut();
            if buffer.len() != expected {
                return Err(KvReadError::BufferBytes { id, block, expected, found: buffer.len() });
            }
            reader.read_block(&*self.disk, block, buffer).map_err(|fault| self.failed(id, fault))?;
        }
        Ok(())
    }

    /// The tokens of a segment's chain, from position 0 to the segment's end.
    ///
    /// # Errors
    /// The file is missing, replaced or damaged.
    pub fn tokens(&self, id: SegmentId) -> Result<Vec<u32>, KvReadError> {
        self.opened(id)?.read_tokens(&*self.disk).map_err(|fault| self.failed(id, fault))
    }

    /// Removes segments for good; those that are not there are passed over. A read that is under way may still finish.
    ///
    /// # Errors
    /// The operating system refuses; what could not be removed is still listed, the rest is gone.
    pub fn remove(&self, ids: &[SegmentId]) -> Result<Removed, KvStoreError> {
        let mut removed = Removed::default();
        let mut failed = None;
        for id in ids {
            let path = self.folder.join(id.file_name());
            match self.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    failed.get_or_insert(KvStoreError::io("remove", &path)(error));
                }
                _gone => {
                    if let Some(segment) = self.state().forget(*id) {
                        removed.num_segments += 1;
                        removed.num_bytes += segment.file_bytes;
                    }
                }
            }
        }
        // Otherwise a crash could bring back what was erased.
        if removed.num_segments > 0 && self.folder.is_dir() {
            self.sync_folder()?;
        }
        failed.map_or(Ok(removed), Err)
    }

    /// Removes all segments of a tenant, and everything in quarantine, where it may not be known whose it is.
    ///
    /// # Errors
    /// As for [`KvStore::remove`].
    pub fn remove_all_of(&self, tenant: TenantTag) -> Result<Removed, KvStoreError> {
        let of_tenant = |segment: &&SegmentFile| segment.header.tenant == tenant;
        let ids: Vec<SegmentId> =
            self.state().segments.values().filter(of_tenant).map(|segment| segment.header.id).collect();
        // What fails in one place must not stay in the other.
        let removed = self.remove(&ids);
        let num_quarantined = self.clear_quarantine()?;
        Ok(Removed { num_quarantined, ..removed? })
    }

    /// Removes what is in quarantine, for good, and files that were left where they are because they could not be read or
    /// moved; the reasons stay. An erasure needs this: what such a file was made of may not be known.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn clear_quarantine(&self) -> Result<usize, KvStoreError> {
        let unlisted = mem::take(&mut self.state().unlisted);
        let mut num_removed = 0;
        for (place, name) in unlisted.iter().enumerate() {
            let path = self.folder.join(name);
            match quarantine::remove_whatever(&path) {
                Ok(()) => num_removed += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.state().unlisted.extend_from_slice(&unlisted[place..]);
                    return Err(KvStoreError::io("remove", &path)(error));
                }
            }
        }
        if num_removed > 0 {
            self.sync_folder()?;
        }
        Ok(num_removed + quarantine::clear(&self.folder)?)
    }

    /// Takes a segment out of use. Its file is moved aside with the reason in a text beside it, so that it can be
    /// looked at; only a few are kept.
    pub fn quarantine(&self, id: SegmentId, reason: &dyn fmt::Display) -> Kept {
        self.state().forget(id);
        let name = OsString::from(id.file_name());
        let kept = quarantine::set_aside(&self.folder, &name, reason);
        if kept == Kept::Left {
            self.state().unlisted.push(name);
        }
        kept
    }

    /// Bytes of all segments, those in quarantine not counted.
    pub fn total_bytes(&self) -> u64 {
        self.state().num_bytes
    }

    /// All segments, in the order of their ids.
    pub fn segments(&self) -> Vec<SegmentFile> {
        self.state().segments.values().cloned().collect()
    }

    /// A segment that is open, and whose tokens and keys were checked when it was opened.
    pub(super) fn opened(&self, id: SegmentId) -> Result<Arc<SegmentReader>, KvReadError> {
        let listed = {
            let mut state = self.state();
            if let Some(reader) = state.open.get(id) {
                return Ok(reader);
            }
            state.segments.get(&id).cloned().ok_or(KvReadError::Unknown { id })?
        };
        let reader = self.open_listed(&listed).map_err(|fault| KvReadError::File { id, fault })?;
        let reader = Arc::new(reader);
        let mut state = self.state();
        // It may have been removed meanwhile; then nothing must keep it.
        if state.segments.contains_key(&id) {
            state.open.put(id, Arc::clone(&reader));
        }
        Ok(reader)
    }

    fn open_listed(&self, listed: &SegmentFile) -> Result<SegmentReader, SegmentFault> {
        let name = listed.header.id.file_name();
        let reader = open_cached(&*self.disk, &self.folder, OsStr::new(&name), self.options.master_key.as_ref())?;
        if reader.listed() != listed {
            check_identity(reader.header(), &listed.header.identity)?;
            return Err(SegmentFault::Changed);
        }
        reader.read_tokens(&*self.disk)?;
        Ok(reader)
    }

    /// The next read opens the file anew.
    fn failed(&self, id: SegmentId, fault: SegmentFault) -> KvReadError {
        self.state().open.close(id);
        KvReadError::File { id, fault }
    }

    fn reserve(&self, file_bytes: u64) -> Result<(), KvStoreError> {
        let mut state = self.state();
        if state.segments.len() + state.num_reserved >= SEGMENTS_MAX {
            return Err(KvStoreError::TooManySegments { max: SEGMENTS_MAX });
        }
        let (used, max) = (state.num_bytes + state.reserved_bytes, self.options.max_bytes);
        if file_bytes > max.saturating_sub(used) {
            return Err(KvStoreError::OverBudget { needed: file_bytes, used, max });
        }
        state.num_reserved += 1;
        state.reserved_bytes += file_bytes;
        Ok(())
    }

    fn sync_folder(&self) -> Result<(), KvStoreError> {
        let entry = self.folder.join(start::LOCK_FILE);
        self.disk.sync_folder_of(&entry).map_err(KvStoreError::io("sync", &self.folder))
    }

    fn remake_folder(&self) -> Result<Remade, KvStoreError> {
        let mut state = self.state();
        if self.folder.is_dir() {
            return Ok(Remade::WasThere);
        }
        state.lock = start::make_and_lock(&self.folder)?;
        state.segments.clear();
        state.num_bytes = 0;
        state.open = OpenSegments::default();
        state.unlisted.clear();
        Ok(Remade::Made)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Of a directory that is locked and holds these segments, and files of these names that are not used.
    pub fn new(lock: File, segments: BTreeMap<SegmentId, SegmentFile>, unlisted: Vec<OsString>) -> Self {
        let num_bytes = segments.values().map(|segment| segment.file_bytes).sum();
        let open = OpenSegments::default();
        Self { lock, segments, num_bytes, num_reserved: 0, reserved_bytes: 0, open, unlisted }
    }

    fn forget(&mut self, id: SegmentId) -> Option<SegmentFile> {
        self.open.close(id);
        let segment = self.segments.remove(&id)?;
        self.num_bytes -= segment.file_bytes;
        Some(segment)
    }
}

impl fmt::Debug for KvStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvStore").field("folder", &self.folder).field("options", &self.options).finish_non_exhaustive()
    }
}

enum Remade {
    WasThere,
    Made,
}

/// Opens a segment of a cache directory.
pub(super) fn open_cached(
    disk: &dyn Disk,
    folder: &Path,
    name: &OsStr,
    key: Option<&MasterKey>,
) -> Result<SegmentReader, SegmentFault> {
    let reader = SegmentReader::open(disk, folder, name, Form::Cache, key)?;
    // Whoever could write here could otherwise put readable files among those that only the key's owner can make.
    if key.is_some() && reader.header().encryption == Encryption::None {
        return Err(SegmentFault::NotEncrypted);
    }
    Ok(reader)
}
