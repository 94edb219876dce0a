//! The boundary: everything that is read from or written to plaintext memory passes here, and there is no path around it.
//!
//! ```text
//! Memories ─ cube(name) ─► MountedCube ─ permit (policy, grants) ─► store transaction + audit entry ─► index ─► answer
//! ```
//!
//! A write is answered when it is durable and searchable. A read of somebody else's memory is answered when it is recorded.

mod add;
mod carry;
#[cfg(test)]
mod carry_tests;
mod cube_operations;
mod embedder;
mod erase;
mod error;
mod exchange;
mod export;
mod graph;
mod housekeeping;
mod index;
mod items;
mod judged;
mod mounted;
mod receipts;
mod search;
mod set;
#[cfg(test)]
mod tests;
mod turns;

pub use add::{AddEvent, AddOptions, Added, Contradictions, Duplicates, NUM_ADDED_MAX};
pub use carry::{CarriedGrants, UnpackedCube, Unpacking};
pub use cube_operations::CubeFacts;
pub use embedder::{EmbedError, Embedder, Purpose};
pub use erase::{Erasure, NUM_ERASED_MAX};
pub use error::MemoriesError;
pub use exchange::{ExportedHistory, ImportFormat, ImportOptions, ImportReport};
pub use export::{Export, NUM_EXPORTED_PER_PAGE, NUM_SUBJECT_ITEMS_MAX, SubjectExport};
pub use housekeeping::{Housekept, NUM_EMBEDDED_PER_ROUND};
pub use items::{Hold, Listing, Share};
pub use mounted::MountedCube;
pub use search::{
    Found, Methods, NUM_PAST_ITEMS_MAX, NUM_RESULTS_MAX, QUERY_BYTES_MAX, SearchAnswer, SearchFilter, SearchRequest,
};
pub use set::{CubeEntry, Memories, MemoriesParts, NUM_CUBES_MAX};
pub use turns::{ToldTurn, TurnId, TurnsWritten};

use crate::governance::{audit, grants, receipt_rows};

/// Tables of governance in the store's file.
const EXTRA_SCHEMA: [&str; 3] = [grants::SCHEMA, audit::SCHEMA, receipt_rows::SCHEMA];

/// Whether an erasure is through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purged {
    /// No byte is left.
    Completely,
    /// A reader held an old view.
    Later,
}
