//! What can go wrong with segments: in a file, in a call, in the store as a whole.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::is_full;
use super::{IdentityMismatch, SegmentId};

/// A part of a segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentPart {
    /// Its header, keys and checks.
    Header,
    /// Its tokens.
    Tokens,
    /// The block of this index in the segment.
    Block(u32),
}

impl fmt::Display for SegmentPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::Tokens => f.write_str("tokens"),
            Self::Block(block) => write!(f, "block {block}"),
        }
    }
}

/// A number of a segment that is outside of its limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentProblem {
    /// None, or too many.
    #[error("it has {found} blocks, expected 1 to {max}")]
    NumBlocks {
        /// How many.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// Tokens per block.
    #[error("its blocks have {found} tokens, expected 1 to {max}")]
    BlockSize {
        /// How many.
        found: u32,
        /// How many there may be.
        max: u32,
    },
    /// Size of all blocks.
    #[error("its blocks have {found} bytes, expected 1 to {max}")]
    BlockBytes {
        /// The size.
        found: usize,
        /// What it may be.
        max: usize,
    },
    /// Size of one block that was given.
    #[error("block {block} has {found} bytes, expected {expected}")]
    BlockLen {
        /// Index in the segment.
        block: usize,
        /// Size of a block of this identity.
        expected: usize,
        /// Size of what was given.
        found: usize,
    },
    /// The tokens do not end where the segment ends.
    #[error("{found} tokens were given for a chain of {expected}")]
    NumTokens {
        /// Tokens from position 0 to the segment's end.
        expected: u64,
        /// How many were given.
        found: usize,
    },
    /// A chain that is too long.
    #[error("its chain has {found} tokens, more than {max}")]
    ChainTokens {
        /// How many.
        found: u64,
        /// How many there may be.
        max: u64,
    },
    /// A name of its identity.
    #[error("its {field} has {found} bytes, more than {max}")]
    IdentityBytes {
        /// Which name.
        field: &'static str,
        /// Its size.
        found: usize,
        /// What it may be.
        max: usize,
    },
    /// Too many sources.
    #[error("it has {found} sources, more than {max}")]
    NumSources {
        /// How many.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// A source's id.
    #[error("a source of it has an id of {found} bytes, more than {max}")]
    SourceBytes {
        /// Its size.
        found: usize,
        /// What it may be.
        max: usize,
    },
    /// All of its texts together.
    #[error("its header has {found} bytes, more than {max}")]
    HeaderBytes {
        /// The size.
        found: u64,
        /// What it may be.
        max: usize,
    },
}

/// Why a file cannot be used as a segment.
#[derive(Debug, thiserror::Error)]
pub enum SegmentFault {
    /// It is gone.
    #[error("the file is not there")]
    Missing,
    /// A folder, a link, a pipe.
    #[error("it is not a regular file")]
    NotAFile,
    /// The operating system refused.
    #[error("its {part} cannot be read: {source}")]
    Io {
        /// What was being read.
        part: SegmentPart,
        /// What the system answered.
        source: io::Error,
    },
    /// The file ends before the part does.
    #[error("its {part} is cut off")]
    ShortRead {
        /// What was being read.
        part: SegmentPart,
    },
    /// Too short for the length of a header.
    #[error("it has {file_bytes} bytes, too few for a header")]
    TooShort {
        /// Its size.
        file_bytes: u64,
    },
    /// The header is no JSON of the expected shape: damaged, or with a field twice, missing or unknown.
    #[error("its header cannot be parsed: {problem}")]
    Json {
        /// What the parser said, cut.
        problem: String,
    },
    /// A later version of this program wrote it, or it is another format.
    #[error(
        "it is of format {format:?} version {version:?}, expected {:?} version {:?}",
        super::header_json::FORMAT,
        super::header_json::VERSION
    )]
    Version {
        /// Name of its format, cut.
        format: String,
        /// Version that it claims, cut.
        version: String,
    },
    /// A field of the header does not parse.
    #[error("{field} in its header is not {expected}")]
    Field {
        /// Which one.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A number is outside of its limits.
    #[error(transparent)]
    Limit(#[from] SegmentProblem),
    /// A tensor is not of the type, shape or place that the other numbers ask for.
    #[error("the tensor {name} in its header does not have the type, shape and place that its numbers give")]
    Tensor {
        /// Which one.
        name: &'static str,
    },
    /// The file's size is not what the header gives.
    #[error("it has {found} bytes, expected {expected}")]
    FileBytes {
        /// What the header gives.
        expected: u64,
        /// Its size.
        found: u64,
    },
    /// The file has another name than the segment.
    #[error("its name is not that of a segment, or of another one than it holds")]
    Name,
    /// Keys where there should be none, or none where there should be.
    #[error("it is not in the form of {expected}")]
    Form {
        /// Where it is.
        expected: &'static str,
    },
    /// It is encrypted, and no key is configured.
    #[error("it is encrypted, and no key is configured")]
    NoKey,
    /// It is encrypted under another key.
    #[error("it is encrypted under a key other than the configured one")]
    OtherKey,
    /// It is readable although a key is configured.
    #[error("it is not encrypted although a key is configured")]
    NotEncrypted,
    /// A part is not what was written.
    #[error("the checksum of its {part} does not match")]
    Checksum {
        /// Which part.
        part: SegmentPart,
    },
    /// A key that does not follow from the tokens.
    #[error("the key of block {block} does not follow from its tokens")]
    Keys {
        /// Index in the segment.
        block: u32,
    },
    /// Another segment than the one that was written or found at the start.
    #[error("it was replaced by another file")]
    Changed,
    /// A segment of another model.
    #[error(transparent)]
    Identity(#[from] IdentityMismatch),
    /// More files than the store keeps.
    #[error("there are more than {max} segments")]
    TooMany {
        /// How many there may be.
        max: usize,
    },
}

impl SegmentFault {
    /// Whether the file itself is wrong, so that reading it again, with another key or by a later version cannot help.
    pub fn is_damage(&self) -> bool {
        !matches!(
            self,
            Self::Missing
                | Self::Io { .. }
                | Self::NoKey
                | Self::OtherKey
                | Self::NotEncrypted
                | Self::Form { .. }
                | Self::Version { .. }
                | Self::TooMany { .. }
        )
    }

    /// What a failed read of this part means.
    pub(super) fn read(part: SegmentPart) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Self::ShortRead { part },
            _ => Self::Io { part, source },
        }
    }
}

/// Why blocks were not read. What was already written into the buffers must not be used.
#[derive(Debug, thiserror::Error)]
pub enum KvReadError {
    /// There is no such segment.
    #[error("there is no segment {id}")]
    Unknown {
        /// Which one.
        id: SegmentId,
    },
    /// The segment does not have these blocks.
    #[error("segment {id} has {num_blocks} blocks; {start}..{end} were asked for")]
    Range {
        /// Which segment.
        id: SegmentId,
        /// First block asked for.
        start: u32,
        /// One past the last.
        end: u32,
        /// How many it has.
        num_blocks: u32,
    },
    /// Not one buffer for each block.
    #[error("{found} buffers were given for {expected} blocks of segment {id}")]
    NumBuffers {
        /// Which segment.
        id: SegmentId,
        /// How many blocks were asked for.
        expected: usize,
        /// How many buffers there are.
        found: usize,
    },
    /// A buffer that is not as large as a block.
    #[error("the buffer for block {block} of segment {id} has {found} bytes, expected {expected}")]
    BufferBytes {
        /// Which segment.
        id: SegmentId,
        /// Index in the segment.
        block: u32,
        /// Size of a block.
        expected: usize,
        /// Size of the buffer.
        found: usize,
    },
    /// The segment's file.
    #[error("segment {id}: {fault}")]
    File {
        /// Which segment.
        id: SegmentId,
        /// What is wrong with it.
        #[source]
        fault: SegmentFault,
    },
}

/// Why the store cannot be opened, or does not keep a segment.
#[derive(Debug, thiserror::Error)]
pub enum KvStoreError {
    /// Another process holds the lock.
    #[error("the KV cache directory {} is in use by another process", .path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// No room on the disk, or in the owner's quota.
    #[error("no room on the disk for {}", .path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// No room in the budget. The caller removes something first.
    #[error("a segment of {needed} bytes does not fit: {used} of {max} bytes are in use")]
    OverBudget {
        /// Size of the segment.
        needed: u64,
        /// What is kept already.
        used: u64,
        /// The budget.
        max: u64,
    },
    /// As many files as the store keeps.
    #[error("there are {max} segments already")]
    TooManySegments {
        /// How many there may be.
        max: usize,
    },
    /// What was given cannot be a segment.
    #[error("not a segment: {0}")]
    Segment(#[from] SegmentProblem),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

impl KvStoreError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| if is_full(&source) { Self::DiskFull { path } } else { Self::Io { action, path, source } }
    }
}
