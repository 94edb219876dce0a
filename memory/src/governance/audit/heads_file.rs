//! The file of signed heads of one cube, kept outside of it: what shows that the end of a log was cut off.
//!
//! One line of JSON for each head, synced before the append returns. When the file is full, every second of the older
//! heads is dropped: a newer head proves all that an older one does once the log was found to continue both.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::super::error::GovernanceError;
use super::super::signing::PublicKey;
use super::heads::TreeHead;

/// Most heads that a file holds.
pub const NUM_HEADS_MAX: usize = 4096;
/// Longest line of a file.
const LINE_BYTES_MAX: usize = 1024;
const FILE_BYTES_MAX: u64 = (NUM_HEADS_MAX * LINE_BYTES_MAX) as u64;

/// The open file; one process at a time may have it open.
#[derive(Debug)]
pub struct HeadsFile {
    path: PathBuf,
    file: File,
    heads: Vec<TreeHead>,
    /// A failed write may have left half a line, so the file must be opened and checked anew.
    is_writable: bool,
}

impl HeadsFile {
    /// Opens the file, or makes it with mode 0600. Half a line at its end, as a crash leaves it, is removed: it was
    /// never acknowledged.
    ///
    /// # Errors
    /// It cannot be read or written, is open elsewhere, or holds what this program does not write.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, GovernanceError> {
        let path = path.into();
        let is_new = !path.exists();
        let mut file = open_locked(&path, false)?;
        let mut bytes = Vec::new();
        let mut limited = Read::take(&mut file, FILE_BYTES_MAX + 1);
        limited.read_to_end(&mut bytes).map_err(GovernanceError::io("read", &path))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(broken(&path, NUM_HEADS_MAX, "the file is larger than it may be"));
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let heads = parse(&path, &bytes[..whole])?;
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(GovernanceError::io("repair", &path))?;
        }
        file.seek(SeekFrom::End(0)).map_err(GovernanceError::io("read", &path))?;
        file.sync_all().map_err(GovernanceError::io("sync", &path))?;
        if is_new {
            sync_folder(&path)?;
        }
        Ok(Self { path, file, heads, is_writable: true })
    }

    /// The heads, oldest first.
    pub fn heads(&self) -> &[TreeHead] {
        &self.heads
    }

    /// Appends a head and returns once it is on disk. The newest head again changes nothing.
    ///
    /// # Errors
    /// The head does not come after the newest one, or the file cannot be written; after that it must be opened anew.
    pub fn append(&mut self, head: &TreeHead) -> Result<(), GovernanceError> {
        if let Some(newest) = self.heads.last() {
            if newest.size == head.size && newest.root == head.root && newest.cube == head.cube {
                return Ok(());
            }
            if newest.size >= head.size || newest.cube != head.cube {
                return Err(GovernanceError::HeadNotNewer { newest: newest.size, size: head.size });
            }
        }
        if !self.is_writable {
            let closed = std::io::Error::other("an earlier write failed, so the file must be opened again");
            return Err(GovernanceError::io("append to", &self.path)(closed));
        }
        self.is_writable = false;
        if self.heads.len() >= NUM_HEADS_MAX {
            self.thin_out()?;
        }
        let line = line_of(head);
        self.file.write_all(&line).map_err(GovernanceError::io("append to", &self.path))?;
        self.file.sync_data().map_err(GovernanceError::io("sync", &self.path))?;
        self.heads.push(head.clone());
        self.is_writable = true;
        Ok(())
    }

    /// Checks every signature against the keys that are trusted.
    ///
    /// # Errors
    /// A head is signed by another key, or its signature does not fit.
    pub fn verify(&self, keys: &[PublicKey]) -> Result<(), GovernanceError> {
        for head in &self.heads {
            if !keys.contains(&head.public_key) {
                return Err(GovernanceError::SignatureRejected { what: "a head of the heads file" });
            }
            head.verify()?;
        }
        Ok(())
    }

    fn thin_out(&mut self) -> Result<(), GovernanceError> {
        let recent = self.heads.len() - self.heads.len() / 4;
        let kept = self.heads.iter().enumerate().filter(|(index, _)| *index >= recent || index % 2 == 0);
        let heads: Vec<TreeHead> = kept.map(|(_, head)| head.clone()).collect();
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".tmp");
        let temporary = self.path.with_file_name(name);
        let mut file = open_locked(&temporary, true)?;
        let bytes: Vec<u8> = heads.iter().flat_map(line_of).collect();
        file.write_all(&bytes).map_err(GovernanceError::io("write", &temporary))?;
        file.sync_all().map_err(GovernanceError::io("sync", &temporary))?;
        fs::rename(&temporary, &self.path).map_err(GovernanceError::io("replace", &self.path))?;
        sync_folder(&self.path)?;
        (self.file, self.heads) = (file, heads);
        Ok(())
    }
}

fn line_of(head: &TreeHead) -> Vec<u8> {
    let mut line = serde_json::to_vec(head).expect("a head has no field that JSON lacks: this is a bug");
    line.push(b'\n');
    line
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<TreeHead>, GovernanceError> {
    let mut heads: Vec<TreeHead> = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() && index == bytes.iter().filter(|byte| **byte == b'\n').count() {
            break;
        }
        let number = index + 1;
        let head: TreeHead = serde_json::from_slice(line).map_err(|_| broken(path, number, "it is not a head"))?;
        if let Some(before) = heads.last() {
            if before.size >= head.size {
                return Err(broken(path, number, "the head is not newer than the one before"));
            }
            if before.cube != head.cube {
                return Err(broken(path, number, "the head is of another cube"));
            }
        }
        if number > NUM_HEADS_MAX {
            return Err(broken(path, number, "there are more heads than there may be"));
        }
        heads.push(head);
    }
    Ok(heads)
}

fn open_locked(path: &Path, is_fresh: bool) -> Result<File, GovernanceError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(is_fresh);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(GovernanceError::io("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            let in_use = std::io::Error::new(ErrorKind::ResourceBusy, "it is in use by another process");
            Err(GovernanceError::io("open", path)(in_use))
        }
        Err(fs::TryLockError::Error(source)) => Err(GovernanceError::io("lock", path)(source)),
    }
}

fn sync_folder(path: &Path) -> Result<(), GovernanceError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if cfg!(unix) {
        let opened = File::open(folder).map_err(GovernanceError::io("open", folder))?;
        opened.sync_all().map_err(GovernanceError::io("sync", folder))?;
    }
    Ok(())
}

fn broken(path: &Path, line: usize, reason: &'static str) -> GovernanceError {
    GovernanceError::HeadsFileBroken { path: path.to_owned(), line, reason }
}
