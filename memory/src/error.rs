//! The one error type of this crate: what can go wrong with what is stored, with the values that say where.

use std::io;
use std::path::{Path, PathBuf};

use crate::governance::GovernanceError;

/// Why an operation of the memory layer failed.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The key file is not what this program writes.
    #[error("the key file {path} is broken: {reason}", path = path.display())]
    KeyFileBroken {
        /// The file.
        path: PathBuf,
        /// What is wrong; never holds key material.
        reason: String,
    },
    /// The key file was written by a later version of this program.
    #[error("the key file {path} has format version {version}, but this program reads up to {supported}", path = path.display())]
    KeyFileNewer {
        /// The file.
        path: PathBuf,
        /// Version that it claims.
        version: u64,
        /// Latest version that is understood here.
        supported: u64,
    },
    /// Others than the owner may change the key file, so it cannot be trusted.
    #[error(
        "the key file {path} may be changed by others than its owner (mode {mode:o}): make it 600",
        path = path.display()
    )]
    KeyFilePermissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file was there before and is gone now; access stays closed.
    #[error("the key file {path} has disappeared", path = path.display())]
    KeyFileGone {
        /// The file.
        path: PathBuf,
    },
    /// The key file holds as many keys as it may.
    #[error("the key file holds {limit} keys, which is the limit: revoked keys can be removed from it by hand")]
    TooManyKeys {
        /// The limit.
        limit: usize,
    },
    /// No key has this id.
    #[error("no key has the id {id:?}")]
    UnknownKey {
        /// The id that was asked for.
        id: String,
    },
    /// A name that a tenant cannot have.
    #[error("{name:?} is not a tenant name: it takes 1 to {max_len} letters, digits, '-', '_' or '.'")]
    InvalidTenant {
        /// The name that was given.
        name: String,
        /// Greatest length in bytes.
        max_len: usize,
    },
    /// A name that no role has.
    #[error("{name:?} is not a role: it must be admin, user or reader")]
    UnknownRole {
        /// The name that was given.
        name: String,
    },
    /// A text that is not an id of its kind.
    #[error("{text:?} is not {what}: it takes a UUID in lower case")]
    InvalidId {
        /// Of which kind.
        what: &'static str,
        /// The text that was given, cut.
        text: String,
    },
    /// A text that is not a moment.
    #[error("{text:?} is not a time: it takes RFC 3339 with an offset, such as 2026-03-01T12:00:00Z")]
    InvalidTime {
        /// The text that was given, cut.
        text: String,
    },
    /// A name that is none of the few that are known.
    #[error("{name:?} is not {what}: it must be one of {known}")]
    UnknownName {
        /// What was expected.
        what: &'static str,
        /// The name that was given, cut.
        name: String,
        /// The names there are.
        known: &'static str,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gave no random bytes: {reason}")]
    NoEntropy {
        /// What it said.
        reason: String,
    },
    /// Governance refused or failed.
    #[error(transparent)]
    Governance(#[from] GovernanceError),
}

impl MemoryError {
    /// An input or output error with the file it happened on.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }
}
