//! The store of a cube's plaintext memory: one SQLite file that holds every memory, every version of it, and what
//! follows from them. `write` changes it, one transaction per change; `read` looks at one moment of it.
//!
//! Who may do what is decided a layer above. Other modules keep their tables in the same file and write them in the
//! same transaction ([`WriteTransaction`] gives them the connection), so that nothing is stored and not found, or
//! done and not audited.

mod access;
mod change;
mod check;
mod content;
mod erase;
mod error;
mod filter;
mod graph;
mod history;
mod items;
mod list;
mod merge;
mod outbox;
mod pool;
mod purge;
mod redact;
mod relations;
mod schema;
mod snapshot;
#[cfg(test)]
mod tests;
mod traverse;
mod usage;
mod vectors;
mod write;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

pub use access::Access;
pub use check::{Finding, NUM_FINDINGS_MAX};
pub use content::{By, METADATA_DEPTH_MAX, NUM_SOURCES_MAX, REASON_BYTES_MAX, SOURCE_NAME_BYTES_MAX};
pub use erase::{Erased, Rebuild};
pub use error::StoreError;
pub use filter::{ItemFilter, Restriction};
pub use graph::{Edge, EdgeKind, Entity, EntityId, fold_name};
pub use history::overlay;
pub use items::{ItemRow, NUM_ITEMS_PER_CALL_MAX, Reader};
pub use list::{Cursor, ListOrder, ListRequest, NUM_TAGS_ALL_MAX, Page};
pub use merge::{NUM_PARENTS_MAX, NUM_PARENTS_MIN, Unmerged};
pub use outbox::{NUM_ATTEMPTS_MAX, NUM_TASKS_MAX, PAYLOAD_BYTES_MAX, Task};
pub use pool::NUM_READERS_MAX;
pub use purge::Purged;
pub use redact::Redacted;
pub use relations::{NewRelation, Relation, RelationId, Visibility};
pub use snapshot::{DiffEntry, Difference, diff};
pub use traverse::{DEPTH_MAX, FANOUT_MAX, Link, NUM_NODES_MAX, Node, Reached, Start, Traversal, Walk};
pub use usage::{Counts, Usage};
pub use vectors::{StoredEmbedder, VECTOR_LEN_MAX, VectorWrite};
pub use write::WriteTransaction;

use crate::{Clock, CubeId, Timestamp};
use pool::ReaderPool;
use usage::Meta;

/// How every SQLite file begins.
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The store of one cube. See the module's description.
pub struct Store {
    path: PathBuf,
    cube: CubeId,
    clock: Clock,
    /// Closed before the writer, which as the last one copies the write-ahead log into the file and removes it.
    readers: ReaderPool,
    writer: Mutex<Writer>,
}

struct Writer {
    connection: Connection,
    meta: Meta,
    /// Why nothing is written any more.
    closed: Option<String>,
}

impl Store {
    /// Opens the store of a cube, or creates it where there is no file. `extra_schema` holds the `CREATE … IF NOT
    /// EXISTS` statements of other modules; triggers and views are refused when the file is opened again. An erasure
    /// that a crash left unpurged is purged.
    ///
    /// That nobody else writes the file is seen to by whoever holds the cube's directory.
    ///
    /// # Errors
    /// When the file cannot be opened or written, is no store, belongs to another cube or to a later version of this
    /// program, or is damaged.
    pub fn open(path: &Path, cube: CubeId, clock: Clock, extra_schema: &[&str]) -> Result<Self, StoreError> {
        // SQLite takes a name that begins with "file:" for an address; an absolute path never does.
        let path = &std::path::absolute(path).map_err(|error| cannot_open(path, &error))?;
        let created = create_or_check(path)?;
        let (connection, found, meta) =
            connect(path, cube, extra_schema).map_err(|error| error_of_opening(path, error))?;
        if found != cube {
            return Err(StoreError::OtherCube { path: path.to_owned(), expected: cube, found });
        }
        if created {
            sync_folder_of(path)?;
        }
        let writer = Mutex::new(Writer { connection, meta, closed: None });
        let store = Self { path: path.to_owned(), cube, clock, readers: ReaderPool::new(path), writer };
        match store.purge() {
            Ok(_) | Err(StoreError::PurgeBusy) => Ok(store),
            Err(error) => Err(error),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cube that this is the store of.
    pub fn cube(&self) -> CubeId {
        self.cube
    }

    /// Makes one change: all of it is on disk when this returns, or none of it ever will be. Changes are made one
    /// after the other; `change` must not start another.
    ///
    /// # Errors
    /// What `change` returns; or that the change could not be written, after which nothing is written any more until
    /// the store is opened again.
    pub fn write<T>(
        &self,
        change: impl FnOnce(&WriteTransaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = self.lock_writer()?;
        let result = self.commit(&mut writer, change);
        close_after_failure(&mut writer, &result);
        result
    }

    /// Reads from one moment of the store: changes that are committed in the meantime are not seen.
    ///
    /// # Errors
    /// What `look` returns; or that all readers are busy.
    pub fn read<T>(&self, look: impl FnOnce(&Reader<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let connection = self.readers.lend()?;
        let transaction = Transaction::new_unchecked(&connection, TransactionBehavior::Deferred)?;
        let result = look(&Reader::new(&transaction, self.cube))?;
        transaction.rollback()?;
        Ok(result)
    }

    /// Why nothing is written any more; `None` while all is well.
    pub fn closed_for_writing(&self) -> Option<String> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).closed.clone()
    }

    fn commit<T>(
        &self,
        writer: &mut Writer,
        change: impl FnOnce(&WriteTransaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let now = later_than(writer.meta.last_recorded_at, self.clock.now())?;
        // Dropping it undoes what was written, also when `change` panics.
        let transaction = Transaction::new_unchecked(&writer.connection, TransactionBehavior::Immediate)?;
        let tx = WriteTransaction::new(&transaction, self.cube, now, writer.meta);
        let value = change(&tx)?;
        let meta = tx.finish(writer.meta)?;
        if transaction.is_autocommit() {
            // SQLite undoes the whole transaction by itself after some failures; going on would commit nothing.
            return Err(StoreError::Io { reason: "the transaction was undone by the database".to_owned() });
        }
        transaction.commit().map_err(|error| match StoreError::from(error) {
            error @ StoreError::Sql(rusqlite::Error::SqliteFailure(..)) if is_constraint(&error) => error,
            error if error.is_of_file() => error,
            // Whether it is on disk is unknown, whatever the reason.
            error => StoreError::Io { reason: error.to_string() },
        })?;
        writer.meta = meta;
        Ok(value)
    }

    /// The writer, if writing is possible. A panic in an earlier change undid that change, so it does not matter.
    fn lock_writer(&self) -> Result<MutexGuard<'_, Writer>, StoreError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match &writer.closed {
            Some(cause) => Err(StoreError::ClosedForWriting { cause: cause.clone() }),
            None => Ok(writer),
        }
    }
}

fn close_after_failure<T>(writer: &mut Writer, result: &Result<T, StoreError>) {
    match result {
        Err(error) if error.is_of_file() => writer.closed = Some(error.to_string()),
        // A transaction that could not be undone would swallow the next change.
        _ if !writer.connection.is_autocommit() => {
            writer.closed = Some("a failed change could not be undone".to_owned());
        }
        _ => {}
    }
}

fn is_constraint(error: &StoreError) -> bool {
    matches!(error, StoreError::Sql(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation))
}

/// The moment of the next change: the clock's, unless that is not after the last one.
fn later_than(last: Option<Timestamp>, clock: Timestamp) -> Result<Timestamp, StoreError> {
    match last {
        Some(last) if clock <= last => Timestamp::from_unix_ms(last.unix_ms() + 1).ok_or(StoreError::ClockOutOfRange),
        _ => Ok(clock),
    }
}

/// Creates the file where there is none, for the owner alone; looks at the first bytes of one that is there. Returns
/// whether it was created.
fn create_or_check(path: &Path) -> Result<bool, StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_file) => return Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(cannot_open(path, &error)),
    }
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(SQLITE_MAGIC.len() as u64).read_to_end(&mut start));
    read.map_err(|error| cannot_open(path, &error))?;
    if !start.is_empty() && start != SQLITE_MAGIC {
        let reason = "it does not begin as an SQLite file does".to_owned();
        return Err(StoreError::NotAStore { path: path.to_owned(), reason });
    }
    if fs::metadata(path).is_ok_and(|metadata| metadata.permissions().readonly()) {
        return Err(StoreError::ReadOnly { path: path.to_owned() });
    }
    Ok(false)
}

fn connect(path: &Path, cube: CubeId, extra_schema: &[&str]) -> Result<(Connection, CubeId, Meta), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    schema::prepare(&connection)?;
    let fresh = schema::is_fresh(&connection, path)?;
    schema::prepare_writer(&connection)?;
    let (found, meta) = schema::install(&connection, cube, fresh, extra_schema)?;
    Ok((connection, found, meta))
}

fn cannot_open(path: &Path, error: &std::io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly { path: path.to_owned() },
        _ => StoreError::CannotOpen { path: path.to_owned(), reason: error.to_string() },
    }
}

/// What SQLite says while a file is opened, with the file it says it of.
fn error_of_opening(path: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Io { reason } if reason.contains("readonly") => StoreError::ReadOnly { path: path.to_owned() },
        StoreError::Io { reason } => StoreError::CannotOpen { path: path.to_owned(), reason },
        // A file of ours has every table that is asked for.
        StoreError::Sql(rusqlite::Error::SqliteFailure(_, Some(message))) if message.contains("no such") => {
            StoreError::Damaged { reason: message }
        }
        error => error,
    }
}

/// Makes a new file's name durable.
#[cfg(unix)]
fn sync_folder_of(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| cannot_open(path, &error))
}

#[cfg(not(unix))]
fn sync_folder_of(_path: &Path) -> Result<(), StoreError> {
    Ok(())
}
