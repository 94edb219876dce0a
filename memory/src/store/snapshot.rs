//! Copies of a store, and what differs between two.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::Row;

use super::items::{Reader, decode, item_columns};
use super::{Store, StoreError, cannot_open, sync_folder_of};
use crate::item::Item;
use crate::{CubeId, ItemId};

/// How a memory differs between two stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// Only the second has it.
    Added {
        /// Its version there.
        version: u64,
    },
    /// Only the first has it.
    Removed {
        /// Its version there.
        version: u64,
    },
    /// It differs. The versions may be the same, when the stores went different ways.
    Changed {
        /// Its version in the first.
        from_version: u64,
        /// Its version in the second.
        to_version: u64,
    },
}

/// One memory that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiffEntry {
    /// Which.
    pub id: ItemId,
    /// How.
    pub difference: Difference,
}

impl Store {
    /// Writes a copy of the store as it is at this moment, without anything that was erased, to a path where nothing
    /// is yet. It is on disk when this returns; changes and reads go on meanwhile.
    ///
    /// # Errors
    /// When there is something at `path`, or the copy cannot be written; then nothing is left of it.
    pub fn snapshot_to(&self, path: &Path) -> Result<(), StoreError> {
        let path = std::path::absolute(path).map_err(|error| cannot_open(path, &error))?;
        if fs::symlink_metadata(&path).is_ok() {
            return Err(StoreError::SnapshotExists { path });
        }
        let temporary = temporary_beside(&path);
        let result = self.copy_to(&temporary).and_then(|()| publish(&temporary, &path));
        if result.is_err() {
            // What the copy failed of is told already; a rest of it changes nothing.
            let _ = fs::remove_file(&temporary);
        }
        result
    }

    fn copy_to(&self, temporary: &Path) -> Result<(), StoreError> {
        let not_utf8 =
            || StoreError::CannotOpen { path: temporary.to_owned(), reason: "the path is not valid UTF-8".to_owned() };
        let target = temporary.to_str().ok_or_else(not_utf8)?;
        // Made here and not by SQLite, so that nobody else can read it at any moment; SQLite takes an empty file.
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(temporary).map_err(|error| cannot_open(temporary, &error))?;
        let connection = self.readers.lend()?;
        connection.execute("VACUUM INTO ?", [target])?;
        file.sync_all().map_err(|error| cannot_open(temporary, &error))
    }
}

/// What differs between two stores' memories as they are now, in order of ids. Which cube they are in does not count.
///
/// # Errors
/// When one of them cannot be read.
pub fn diff(first: &Store, second: &Store) -> Result<Vec<DiffEntry>, StoreError> {
    first.read(|first| second.read(|second| diff_readers(first, second)))
}

fn diff_readers(first: &Reader<'_>, second: &Reader<'_>) -> Result<Vec<DiffEntry>, StoreError> {
    const BY_ID: &str = concat!("SELECT ", item_columns!("item"), " FROM items AS item ORDER BY item.id");
    let mut statements = (first.connection().prepare_cached(BY_ID)?, second.connection().prepare_cached(BY_ID)?);
    let (mut first_rows, mut second_rows) = (statements.0.query([])?, statements.1.query([])?);
    // Both are read under one cube, so that it does not count as a difference.
    let item_of = |row: Option<&Row<'_>>| -> Result<Option<Item>, StoreError> {
        row.map(|row| decode(row, CubeId::from_bytes([0; 16])).map(|(_row, item)| item)).transpose()
    };
    let (mut a, mut b) = (item_of(first_rows.next()?)?, item_of(second_rows.next()?)?);
    let mut entries = Vec::new();
    loop {
        let order = match (&a, &b) {
            (None, None) => return Ok(entries),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => a.id.cmp(&b.id),
        };
        let before = if order.is_le() { a.take() } else { None };
        let after = if order.is_ge() { b.take() } else { None };
        if before.is_some() {
            a = item_of(first_rows.next()?)?;
        }
        if after.is_some() {
            b = item_of(second_rows.next()?)?;
        }
        entries.extend(entry(before.as_ref(), after.as_ref()));
    }
}

fn entry(before: Option<&Item>, after: Option<&Item>) -> Option<DiffEntry> {
    let id = before.or(after)?.id;
    let difference = match (before, after) {
        (Some(before), Some(after)) if before == after => return None,
        (Some(before), Some(after)) => Difference::Changed { from_version: before.version, to_version: after.version },
        (Some(before), None) => Difference::Removed { version: before.version },
        (None, after) => Difference::Added { version: after?.version },
    };
    Some(DiffEntry { id, difference })
}

/// Gives the copy its name, which nothing may have taken meanwhile.
fn publish(temporary: &Path, path: &Path) -> Result<(), StoreError> {
    fs::hard_link(temporary, path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => StoreError::SnapshotExists { path: path.to_owned() },
        _ => cannot_open(path, &error),
    })?;
    fs::remove_file(temporary).map_err(|error| cannot_open(temporary, &error))?;
    sync_folder_of(path)
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", ItemId::new()));
    path.with_file_name(name)
}
