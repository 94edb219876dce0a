//! What can go wrong with the search structures: wrong vectors, wrong parameters, no room.

/// Why a search structure refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SearchError {
    /// The index holds as many memories as it can number.
    #[error("the index is full: it holds {limit} memories, which is the limit")]
    Full {
        /// The limit.
        limit: usize,
    },
    /// A parameter outside its range.
    #[error("{name} is {value}, but it must be {expected}")]
    InvalidParameter {
        /// Which parameter.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// A vector of another length than the index holds.
    #[error("the vector has {got} dimensions, but this index holds vectors of {expected}")]
    WrongDimension {
        /// Dimensions of the index.
        expected: usize,
        /// Dimensions of the vector.
        got: usize,
    },
    /// An index cannot have so many dimensions, or none.
    #[error("vectors have 1 to {limit} dimensions, not {got}")]
    InvalidDimension {
        /// The limit.
        limit: usize,
        /// What was asked for.
        got: usize,
    },
    /// A vector holds NaN or an infinity.
    #[error("the vector's element {position} is {value}, not a finite number")]
    NotFinite {
        /// Which element.
        position: usize,
        /// Its value.
        value: f32,
    },
    /// A vector without a direction.
    #[error("all elements of the vector are zero: it has no direction to compare")]
    ZeroVector,
    /// A name that an embedder cannot have.
    #[error("an embedder's id takes 1 to {limit} bytes, not {got}")]
    InvalidEmbedderId {
        /// Greatest length in bytes.
        limit: usize,
        /// Length of what was given.
        got: usize,
    },
    /// A vector from another embedder than the index's: the two spaces have nothing in common.
    #[error("the vector comes from embedder {got:?}, but this index holds vectors of {expected:?}")]
    WrongEmbedder {
        /// The index's embedder.
        expected: String,
        /// The vector's.
        got: String,
    },
}
