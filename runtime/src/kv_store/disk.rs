//! What the store asks of the operating system, as a trait: tests put faults here, and a slow disk can be played.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use memory::durable;
use rustix::fs::OFlags;

/// Files and folders. Every method has the real thing as its default, so that an implementation states only how it
/// differs.
pub trait Disk: Send + Sync {
    /// Opens a file for reading. A symbolic link is an error, and a pipe does not block.
    ///
    /// # Errors
    /// What the operating system says; so for all of these.
    fn open(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
    }

    /// Fills `into` from the place `offset` on.
    fn read_exact_at(&self, file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
        file.read_exact_at(into, offset)
    }

    /// A new, empty file that only its owner can read.
    fn create(&self, path: &Path) -> io::Result<File> {
        durable::create(path)
    }

    /// Writes all of `bytes` from the place `offset` on.
    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    /// Waits until the file's bytes are on the medium.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    /// Gives a file another name, in place of what has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Waits until the entry of `path` in its folder is on the medium.
    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        durable::sync_folder_of(path)
    }

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// The real one.
#[derive(Clone, Copy, Debug)]
pub struct OsDisk;

impl Disk for OsDisk {}

/// Whether a write failed because there is no room, on the disk or in the owner's quota.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
