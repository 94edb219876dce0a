//! The key file on disk: its format, its checks when read, and its atomic replacement. `keys` decides what is in it.
//!
//! ```json
//! {"format": "memos-keys", "version": 1, "keys": [
//!   {"id": "key-1f0c…", "hash": "64 hex digits", "tenant": "default", "role": "user", "created_unix_s": 1, "revoked_unix_s": null}]}
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::keys::KeyRecord;
use crate::MemoryError;

/// Latest version of the format, and the one that is written.
pub(super) const FORMAT_VERSION: u64 = 1;
/// Greatest number of records, revoked ones included: a presented key is compared with each of them.
pub(super) const NUM_KEYS_MAX: usize = 10_000;
/// A larger file is refused unread.
const FILE_BYTES_MAX: u64 = 8 << 20;
const FORMAT_NAME: &str = "memos-keys";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    format: String,
    version: u64,
    keys: Vec<KeyRecord>,
}

/// What tells one state of the file from another without reading it. Every write makes a new file, so that the
/// inode changes even where the clock of the file system is coarse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileStamp {
    modified: Option<SystemTime>,
    num_bytes: u64,
    inode: u64,
}

/// The stamp of the file, `None` where there is no file.
pub(super) fn stamp(path: &Path) -> Result<Option<FileStamp>, MemoryError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(stamp_of(&metadata))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(MemoryError::io("look at", path, error)),
    }
}

/// Reads and checks the file, `None` where there is none.
pub(super) fn read(path: &Path) -> Result<Option<(Vec<KeyRecord>, FileStamp)>, MemoryError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(MemoryError::io("open", path, error)),
    };
    let metadata = file.metadata().map_err(|error| MemoryError::io("look at", path, error))?;
    check_permissions(path, &metadata)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| MemoryError::io("read", path, error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(broken(path, format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(Some((parse(path, &bytes)?, stamp_of(&metadata))))
}

/// Replaces the file: a temporary file of mode 0600 is written, synced and renamed over it, and the folder synced.
/// A crash leaves the old file or the new one.
pub(super) fn write(path: &Path, keys: Vec<KeyRecord>) -> Result<(), MemoryError> {
    let contents = KeyFile { format: FORMAT_NAME.to_owned(), version: FORMAT_VERSION, keys };
    let mut bytes = serde_json::to_vec_pretty(&contents).map_err(|error| broken(path, error.to_string()))?;
    bytes.push(b'\n');
    let temporary = sibling(path, "tmp");
    let result = write_and_rename(&temporary, path, &bytes);
    if result.is_err() {
        // The temporary file holds nothing that the error does not already tell; failing to remove it changes nothing.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Takes the lock that one writer at a time holds; it is released when the file is dropped.
pub(super) fn lock(path: &Path) -> Result<File, MemoryError> {
    let lock_path = sibling(path, "lock");
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|error| MemoryError::io("create", folder, error))?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    owner_only(&mut options);
    let file = options.open(&lock_path).map_err(|error| MemoryError::io("open", &lock_path, error))?;
    file.lock().map_err(|error| MemoryError::io("lock", &lock_path, error))?;
    Ok(file)
}

fn write_and_rename(temporary: &Path, path: &Path, bytes: &[u8]) -> Result<(), MemoryError> {
    // What a crashed writer left would keep its old mode, so the file is always made anew.
    match fs::remove_file(temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(MemoryError::io("remove", temporary, error)),
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    owner_only(&mut options);
    let mut file = options.open(temporary).map_err(|error| MemoryError::io("create", temporary, error))?;
    file.write_all(bytes).map_err(|error| MemoryError::io("write", temporary, error))?;
    file.sync_all().map_err(|error| MemoryError::io("sync", temporary, error))?;
    fs::rename(temporary, path).map_err(|error| MemoryError::io("replace", path, error))?;
    sync_folder(path)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<KeyRecord>, MemoryError> {
    // serde_json's messages quote values of the file; hashes and tenant names stay out of logs, so only the place is told.
    let place = |error: serde_json::Error| {
        broken(path, format!("it does not parse at line {} column {}", error.line(), error.column()))
    };
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(place)?;
    if value.get("format").and_then(serde_json::Value::as_str) != Some(FORMAT_NAME) {
        return Err(broken(path, format!("its \"format\" is not {FORMAT_NAME:?}")));
    }
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(FORMAT_VERSION) => {}
        Some(version) if version > FORMAT_VERSION => {
            return Err(MemoryError::KeyFileNewer { path: path.to_owned(), version, supported: FORMAT_VERSION });
        }
        _ => return Err(broken(path, "its \"version\" is not a version".to_owned())),
    }
    let file: KeyFile = serde_json::from_slice(bytes).map_err(place)?;
    if file.keys.len() > NUM_KEYS_MAX {
        return Err(broken(path, format!("it holds {} keys, more than {NUM_KEYS_MAX}", file.keys.len())));
    }
    for (index, record) in file.keys.iter().enumerate() {
        if file.keys[..index].iter().any(|earlier| earlier.id == record.id) {
            return Err(broken(path, format!("two keys have the id {:?}", record.id)));
        }
    }
    Ok(file.keys)
}

fn broken(path: &Path, reason: String) -> MemoryError {
    MemoryError::KeyFileBroken { path: path.to_owned(), reason }
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

#[cfg(unix)]
fn owner_only(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600);
}

#[cfg(not(unix))]
fn owner_only(_options: &mut OpenOptions) {}

#[cfg(unix)]
fn check_permissions(path: &Path, metadata: &fs::Metadata) -> Result<(), MemoryError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    // Reading hashes of 256-bit keys is harmless; writing a hash of one's own is an open door.
    if mode & 0o022 != 0 {
        return Err(MemoryError::KeyFilePermissions { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_permissions(_path: &Path, _metadata: &fs::Metadata) -> Result<(), MemoryError> {
    Ok(())
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> Result<(), MemoryError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let opened = File::open(folder).map_err(|error| MemoryError::io("open", folder, error))?;
    opened.sync_all().map_err(|error| MemoryError::io("sync", folder, error))
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> Result<(), MemoryError> {
    Ok(())
}

fn stamp_of(metadata: &fs::Metadata) -> FileStamp {
    FileStamp { modified: metadata.modified().ok(), num_bytes: metadata.len(), inode: inode_of(metadata) }
}

#[cfg(unix)]
fn inode_of(metadata: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    metadata.ino()
}

#[cfg(not(unix))]
fn inode_of(_metadata: &fs::Metadata) -> u64 {
    0
}
