//! Search over memories, in RAM only: text and vectors to rows, fused, diversified, cut to a budget and explained.
//!
//! Everything here is derived from the rows of a store and rebuilt from them when a cube is mounted; nothing is written
//! to disk, so erasing a row and calling `remove` leaves no trace of its text behind. A search walks this list:
//!
//! ```text
//! text ─► analyzer ─► lexical ─┐
//! embedding ────────► vectors ─┼─► fusion ─► diversity ─► budget ─► what enters the prompt
//! graph (elsewhere) ───────────┘      └──────────┴───────────┴────► trace
//! ```

pub mod analyzer;
pub mod budget;
pub mod diversity;
pub mod duplicates;
mod error;
pub mod fusion;
pub mod lexical;
mod top;
pub mod trace;
pub mod vectors;

#[cfg(test)]
mod random;

use serde::{Deserialize, Serialize};

pub use error::SearchError;

/// Most results that one search returns; a larger wish is cut to it.
pub const NUM_HITS_MAX: usize = 10_000;

/// One memory inside one cube, as a small number that the store keeps stable while the cube is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Row(pub u32);

/// One result of one list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Which memory.
    pub row: Row,
    /// How well it fits; comparable within its list only, and greater is better.
    pub score: f32,
}
