//! The folder `quarantine` of a cache directory: files that are wrong, each with the reason in a text beside it.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use memory::durable;

use super::{KvStoreError, SEGMENT_SUFFIX, SegmentFault, SegmentId};

/// Most files in quarantine; the oldest goes first.
pub const QUARANTINE_FILES_MAX: usize = 16;
/// Most bytes in quarantine.
pub const QUARANTINE_BYTES_MAX: u64 = 256 << 20;
/// Most reasons that are kept, also of files that are gone.
pub const REASONS_MAX: usize = 64;
const QUARANTINE_FOLDER: &str = "quarantine";
const REASON_SUFFIX: &str = ".reason";

/// A file that looked like a segment and could not be used.
#[derive(Debug)]
pub struct RefusedFile {
    /// Its name in the directory.
    pub file_name: String,
    /// Why.
    pub fault: SegmentFault,
    /// Where it is now.
    pub kept: Kept,
}

/// What became of a file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was moved here.
    Quarantined(PathBuf),
    /// It is gone.
    Deleted,
    /// It is where it was: it may be good, or the operating system refused.
    Left,
}

/// Moves a file into quarantine. When that is not possible it is removed, and when neither is, it is left.
pub(super) fn set_aside(folder: &Path, name: &OsStr, reason: &dyn fmt::Display) -> Kept {
    let path = folder.join(name);
    match move_aside(folder, name, reason) {
        Ok(moved) => {
            trim(&folder.join(QUARANTINE_FOLDER));
            // A file that is larger than all that is kept is gone again.
            if moved.symlink_metadata().is_ok() { Kept::Quarantined(moved) } else { Kept::Deleted }
        }
        Err(_refused) => match remove_whatever(&path) {
            Ok(()) => Kept::Deleted,
            Err(_refused) => Kept::Left,
        },
    }
}

/// Removes all files in quarantine but the reasons, for good, and counts them.
pub(super) fn clear(folder: &Path) -> Result<usize, KvStoreError> {
    let quarantine = folder.join(QUARANTINE_FOLDER);
    let entries = match list(&quarantine) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        listed => listed.map_err(KvStoreError::io("list", &quarantine))?,
    };
    let mut num_removed = 0;
    for Entry { path, .. } in entries.iter().filter(|entry| !entry.is_reason()) {
        remove_whatever(path).map_err(KvStoreError::io("remove", path))?;
        num_removed += 1;
    }
    if num_removed > 0 {
        let entry = quarantine.join(REASON_SUFFIX);
        durable::sync_folder_of(&entry).map_err(KvStoreError::io("sync", &quarantine))?;
    }
    Ok(num_removed)
}

fn move_aside(folder: &Path, name: &OsStr, reason: &dyn fmt::Display) -> io::Result<PathBuf> {
    let quarantine = folder.join(QUARANTINE_FOLDER);
    DirBuilder::new().recursive(true).mode(0o700).create(&quarantine)?;
    // A foreign name may be as long as a name can be, so it gets one of ours and is told in the reason.
    let id = match name.to_str().and_then(SegmentId::of_file_name) {
        Some(id) => id,
        None => SegmentId::random()?,
    };
    let moved = quarantine.join(format!("{id}{SEGMENT_SUFFIX}"));
    fs::rename(folder.join(name), &moved)?;
    let text = format!("{}: {reason}\n", name.to_string_lossy());
    // On a full disk the file is still out of the way; whoever asked has the reason too.
    let _written = durable::write(&quarantine.join(format!("{id}{REASON_SUFFIX}")), text.as_bytes());
    Ok(moved)
}

struct Entry {
    path: PathBuf,
    metadata: Metadata,
}

impl Entry {
    fn is_reason(&self) -> bool {
        self.path.to_string_lossy().ends_with(REASON_SUFFIX)
    }
}

fn list(quarantine: &Path) -> io::Result<Vec<Entry>> {
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        // Of a link itself, not of what it points to.
        Ok(Entry { path: entry.path(), metadata: entry.metadata()? })
    };
    fs::read_dir(quarantine)?.map(entry).collect()
}

/// Removes what is over the limits, the oldest first. What the system refuses to remove is tried again next time.
fn trim(quarantine: &Path) {
    let Ok(mut entries) = list(quarantine) else { return };
    // Moving a file changes this time, and not the one of its last change of contents.
    entries.sort_by_key(|entry| std::cmp::Reverse((entry.metadata.ctime(), entry.metadata.ctime_nsec())));
    let (reasons, files): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(Entry::is_reason);
    let mut num_bytes = 0;
    for (place, file) in files.iter().enumerate() {
        num_bytes += file.metadata.len();
        if place >= QUARANTINE_FILES_MAX || num_bytes > QUARANTINE_BYTES_MAX {
            let _removed = remove_whatever(&file.path);
        }
    }
    for reason in reasons.iter().skip(REASONS_MAX) {
        let _removed = fs::remove_file(&reason.path);
    }
}

/// Removes a file, a link (not what it points to) or a folder.
pub(super) fn remove_whatever(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}
