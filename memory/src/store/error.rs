//! What can go wrong in the store, and which of it ends writing until the store is opened again.

use std::path::PathBuf;

use rusqlite::ErrorCode;

use crate::lifecycle::ItemState;
use crate::{CubeId, ItemId, Timestamp};

/// Why an operation of the store failed. Whatever it is, the transaction it happened in left nothing behind.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be created or opened.
    #[error("cannot open the store {path}: {reason}", path = path.display())]
    CannotOpen {
        /// The file.
        path: PathBuf,
        /// What the system or SQLite answered.
        reason: String,
    },
    /// The file or its folder cannot be written.
    #[error("the store {path} is read-only", path = path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else than a store of this program.
    #[error("{path} is not a memory store: {reason}", path = path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What gave it away.
        reason: String,
    },
    /// The file was written by a later version of this program.
    #[error("the store {path} has schema version {version}, but this program reads up to {supported}", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Version that it claims.
        version: i64,
        /// Latest version that is understood here.
        supported: i64,
    },
    /// The file belongs to another cube.
    #[error("the store {path} belongs to cube {found}, not to {expected}", path = path.display())]
    OtherCube {
        /// The file.
        path: PathBuf,
        /// The cube that was to be opened.
        expected: CubeId,
        /// The cube that the file names.
        found: CubeId,
    },
    /// What is stored contradicts itself or cannot be read.
    #[error("the store is damaged: {reason}")]
    Damaged {
        /// What was found.
        reason: String,
    },
    /// Somebody else holds the database.
    #[error("the store is in use: waited {waited_ms} ms for it")]
    Busy {
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// All connections for reading are taken.
    #[error("all {limit} readers of the store are busy: waited {waited_ms} ms for one")]
    ReadersBusy {
        /// How many there are.
        limit: usize,
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// The disk has no space left, or the file may not grow.
    #[error("the disk is full: the change was not made, and the store takes no more changes until it is opened again")]
    DiskFull,
    /// A read or write of the file failed.
    #[error(
        "the store's file failed ({reason}): the change was not made, and the store takes no more until it is opened again"
    )]
    Io {
        /// What SQLite said.
        reason: String,
    },
    /// An earlier write failed, so that nothing is written any more.
    #[error("the store takes no changes until it is opened again, because of an earlier failure: {cause}")]
    ClosedForWriting {
        /// That failure.
        cause: String,
    },
    /// SQLite refused a statement; the transaction was rolled back and the store goes on.
    #[error("the database refused a statement: {0}")]
    Sql(rusqlite::Error),
    /// A step that another module took in the same transaction failed.
    #[error(transparent)]
    Step(Box<dyn std::error::Error + Send + Sync>),
    /// An operation failed after it had written, and the change went on all the same.
    #[error("an operation of the change failed half-way: the change was not made")]
    HalfDone,
    /// The clock shows a time that cannot be recorded.
    #[error("the clock is beyond the last moment that can be recorded")]
    ClockOutOfRange,
    /// Readers kept the write-ahead log in use, so that what was erased may still be in it.
    #[error("readers kept the write-ahead log in use: what was erased is purged at the next attempt")]
    PurgeBusy,
    /// The copy's target is there already.
    #[error("{path} exists already", path = path.display())]
    SnapshotExists {
        /// The target.
        path: PathBuf,
    },

    /// No memory has this id.
    #[error("no memory has the id {id}")]
    UnknownItem {
        /// The id.
        id: ItemId,
    },
    /// The memory has no such version.
    #[error("memory {id} has no version {version}")]
    UnknownVersion {
        /// The memory.
        id: ItemId,
        /// The version that was asked for.
        version: u64,
    },
    /// The memory changed since the caller read it.
    #[error("memory {id} is at version {found}, not at {expected}")]
    VersionConflict {
        /// The memory.
        id: ItemId,
        /// Version that the caller knew.
        expected: u64,
        /// Version that it has.
        found: u64,
    },
    /// The lifecycle has no such transition.
    #[error("memory {id} is {from} and cannot become {to}")]
    IllegalTransition {
        /// The memory.
        id: ItemId,
        /// Its state.
        from: ItemState,
        /// The state asked for.
        to: ItemState,
    },
    /// The transition exists, but only as part of a merge or of its undoing.
    #[error("memory {id} goes from {from} to {to} only by merging or by undoing a merge")]
    OnlyByMerge {
        /// The memory.
        id: ItemId,
        /// Its state.
        from: ItemState,
        /// The state asked for.
        to: ItemState,
    },
    /// No memory begins in this state.
    #[error("a new memory cannot be {state}")]
    IllegalFirstState {
        /// The state asked for.
        state: ItemState,
    },
    /// A frozen memory takes no change but erasure and redaction.
    #[error("memory {id} is frozen")]
    Frozen {
        /// The memory.
        id: ItemId,
    },
    /// A memory in this state takes no edits.
    #[error("memory {id} is {state} and cannot be edited")]
    NotEditable {
        /// The memory.
        id: ItemId,
        /// Its state.
        state: ItemState,
    },
    /// A legal hold forbids every change, erasure and redaction included.
    #[error("memory {id} is under legal hold")]
    LegalHold {
        /// The memory.
        id: ItemId,
    },
    /// There is no merge to undo.
    #[error("memory {id} is not the result of a merge that can be undone")]
    NotAMerge {
        /// The memory.
        id: ItemId,
    },
    /// A merge takes several different memories.
    #[error("a merge takes {min} to {max} different memories, not {num}")]
    MergeSize {
        /// How many there were.
        num: usize,
        /// Fewest.
        min: usize,
        /// Most.
        max: usize,
    },
    /// The older memory supersedes the newer one already, or both are the same.
    #[error("memory {new} cannot supersede {old}: it is superseded by it, or is the same")]
    SupersedeCycle {
        /// The one that was to be superseded.
        old: ItemId,
        /// The one that was to supersede it.
        new: ItemId,
    },
    /// A memory to be rebuilt does not derive from what is erased.
    #[error("memory {id} does not derive from what is erased, so it is not rebuilt")]
    NotDerived {
        /// The memory.
        id: ItemId,
    },

    /// A text that needs content has none.
    #[error("{field} is empty")]
    Empty {
        /// Which field.
        field: &'static str,
    },
    /// A text or value is too long.
    #[error("{field} takes {bytes} bytes, more than {limit}")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Its size.
        bytes: usize,
        /// Greatest size.
        limit: usize,
    },
    /// A list is too long, or zero where it must not be.
    #[error("{what}: {num} is not in 1 to {limit}")]
    OutOfLimit {
        /// Which list or number.
        what: &'static str,
        /// How many there were.
        num: usize,
        /// The most.
        limit: usize,
    },
    /// A character that no text may hold.
    #[error("{field} holds the control character U+{code_point:04X}")]
    ControlCharacter {
        /// Which field.
        field: &'static str,
        /// The character.
        code_point: u32,
    },
    /// A salience that is none.
    #[error("salience {value} is not in 0 to 1")]
    Salience {
        /// The value.
        value: f32,
    },
    /// A time of validity that ends before it begins.
    #[error("the memory would be valid from {from} until {to}, which is never")]
    EmptyValidity {
        /// Its beginning.
        from: Timestamp,
        /// Its end.
        to: Timestamp,
    },
    /// A part of a document that ends before it begins.
    #[error("the document span {start}..{end} is not a span")]
    InvalidSpan {
        /// Its first byte.
        start: u64,
        /// One past its last.
        end: u64,
    },
    /// Metadata nested deeper than can be read back.
    #[error("the metadata is nested deeper than {limit} levels")]
    TooDeep {
        /// Deepest.
        limit: usize,
    },
    /// A private relation without an owner would be everybody's.
    #[error("a private relation needs an owner")]
    NoOwner,
    /// No relation has this id.
    #[error("no relation has the id {id}")]
    UnknownRelation {
        /// The id.
        id: i64,
    },
    /// A cursor that this store did not give out.
    #[error("{text:?} is not a cursor of this listing")]
    InvalidCursor {
        /// The text that was given, cut.
        text: String,
    },
    /// A vector of another length than its embedder's others.
    #[error("embedder {embedder:?} gives vectors of {expected} numbers, not {found}")]
    VectorLength {
        /// The embedder.
        embedder: String,
        /// Length of its vectors.
        expected: usize,
        /// Length of this one.
        found: usize,
    },
    /// A vector with a part that is no finite number.
    #[error("the vector's number {index} is {value}")]
    VectorNotFinite {
        /// Which number.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// The outbox holds as many tasks as it may.
    #[error("the outbox holds {limit} tasks, which is the limit")]
    OutboxFull {
        /// The limit.
        limit: usize,
    },
    /// No task has this id.
    #[error("no task in the outbox has the id {id}")]
    UnknownTask {
        /// The id.
        id: i64,
    },
}

/// How long a statement waits for a database that is in use.
pub(super) const BUSY_TIMEOUT_MS: u64 = 5_000;

impl StoreError {
    /// Wraps the error of another module's step in a shared transaction.
    pub fn step(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Step(Box::new(error))
    }

    /// Whether the file itself failed: what it holds on disk is then unknown until it is opened and checked again.
    pub(super) fn is_of_file(&self) -> bool {
        matches!(self, Self::DiskFull | Self::Io { .. } | Self::Damaged { .. })
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { waited_ms: BUSY_TIMEOUT_MS },
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged { reason: error.to_string() },
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly) => {
                Self::Io { reason: error.to_string() }
            }
            _ => Self::Sql(error),
        }
    }
}
