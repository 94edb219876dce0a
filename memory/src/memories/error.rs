//! What can go wrong at the boundary, in the terms of its callers.

use std::path::PathBuf;

use crate::cube::{CubeError, CubeName};
use crate::exchange::ExchangeError;
use crate::governance::GovernanceError;
use crate::ingest::IngestError;
use crate::search::SearchError;
use crate::store::StoreError;

/// Why an operation on memories failed.
#[derive(Debug, thiserror::Error)]
pub enum MemoriesError {
    /// No such thing is there for this caller: it does not exist, or the caller may not know that it does.
    #[error("no {what} has the name or id {id:?}")]
    NotFound {
        /// What was looked for: `cube`, `memory`.
        what: &'static str,
        /// Under which name or id.
        id: String,
    },
    /// The cube is mounted already.
    #[error("a cube named {name} is mounted already")]
    AlreadyMounted {
        /// Its name.
        name: CubeName,
    },
    /// As many cubes are mounted as may be.
    #[error("{limit} cubes are mounted, which is the limit")]
    TooManyCubes {
        /// The limit.
        limit: usize,
    },
    /// A request is larger than one request may be.
    #[error("{what}: {found} are too many, the limit is {limit}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// The embedder failed, so the memory could not be made searchable.
    #[error("the embedder {embedder} failed: {reason}")]
    Embedder {
        /// Which one.
        embedder: String,
        /// What it said.
        reason: String,
    },
    /// A language model is needed and there is none.
    #[error("there is no language model to ask: the server was started without --extractor")]
    NoLanguageModel,
    /// The index in memory was lost in a failure and could not be rebuilt.
    #[error("the index of the cube cannot be used: {reason}")]
    Index {
        /// Why.
        reason: String,
    },
    /// The policy refused, or governance found something else wrong.
    #[error(transparent)]
    Governance(#[from] GovernanceError),
    /// The cube as a whole.
    #[error(transparent)]
    Cube(#[from] CubeError),
    /// The store.
    #[error(transparent)]
    Store(StoreError),
    /// The search.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// Reading text into memories.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// A file of memories.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// An import failed after a part of it had been added.
    #[error("{num_added} memories were added before the import failed: {source}")]
    ImportStopped {
        /// How many are there now.
        num_added: usize,
        /// Why it went no further.
        source: Box<Self>,
    },
    /// A packed cube is older than what this server has signed of it.
    #[error(
        "the cube's audit log has {found} entries, but {} proves that it had {signed}: the file is older than the cube was \
         here. To go back to it all the same, move the heads away first",
        .heads.display()
    )]
    OlderThanHeads {
        /// The file of signed heads.
        heads: PathBuf,
        /// Entries under the newest of them.
        signed: u64,
        /// Entries in the file that was to be unpacked.
        found: u64,
    },
}

impl From<StoreError> for MemoriesError {
    /// Errors of other modules that travelled through a transaction come out as what they were.
    fn from(error: StoreError) -> Self {
        let StoreError::Step(step) = error else { return Self::Store(error) };
        match step.downcast::<GovernanceError>() {
            Ok(governance) => Self::Governance(*governance),
            Err(step) => match step.downcast::<Self>() {
                Ok(own) => *own,
                Err(step) => Self::Store(StoreError::Step(step)),
            },
        }
    }
}

impl MemoriesError {
    pub(super) fn no_cube(name: &CubeName) -> Self {
        Self::NotFound { what: "cube", id: name.to_string() }
    }

    /// A refusal that hides whether the cube exists, with the name that was asked for.
    pub(super) fn of_cube(error: GovernanceError, name: &CubeName) -> Self {
        match error {
            GovernanceError::NotFound { .. } => Self::no_cube(name),
            error => Self::Governance(error),
        }
    }

    /// The same for an error of any kind.
    pub(super) fn naming(self, name: &CubeName) -> Self {
        match self {
            Self::Governance(error) => Self::of_cube(error, name),
            error => error,
        }
    }

    pub(super) fn no_memory(id: crate::ItemId) -> Self {
        Self::NotFound { what: "memory", id: id.to_string() }
    }
}
