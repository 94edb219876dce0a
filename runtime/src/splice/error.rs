//! Why segments could not be captured, placed or moved.

/// What is wrong with a segment, a placement or its surroundings.
#[derive(Debug, thiserror::Error)]
pub enum SpliceError {
    /// A segment without tokens.
    #[error("a segment needs at least one token")]
    EmptySegment,
    /// A prompt without tokens has no row to answer from.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// A block table does not reach as far as the tokens it should hold.
    #[error("the block table has {got} blocks, {expected} are needed")]
    BlockTable {
        /// Blocks needed.
        expected: usize,
        /// Blocks given.
        got: usize,
    },
    /// A segment's bytes are not those of its tokens in this pool's layout.
    #[error("the segment has {got} bytes of keys and values, {expected} are needed")]
    SegmentBytes {
        /// Bytes that its tokens need.
        expected: usize,
        /// Bytes that it has.
        got: usize,
    },
    /// A segment is placed where the prompt has other tokens, or ends.
    #[error("placement {placement} puts {len} tokens at {at}, where the prompt of {prompt_len} tokens has others")]
    NotThere {
        /// Index of the placement.
        placement: usize,
        /// Where the segment should begin.
        at: usize,
        /// Its tokens.
        len: usize,
        /// Tokens of the prompt.
        prompt_len: usize,
    },
    /// Placements overlap, are out of order, or reach into what is cached already.
    #[error("placement {placement} begins at {at}, before {free_from} where the one before it ends")]
    Overlap {
        /// Index of the placement.
        placement: usize,
        /// Where it begins.
        at: usize,
        /// Where it may begin at the earliest.
        free_from: usize,
    },
    /// A share of rows that is none.
    #[error("the share of rows to compute again is {got}, expected a number from 0 to 1")]
    Ratio {
        /// The share asked for.
        got: f32,
    },
    /// Other tokens were given than the plan was made for.
    #[error("{what} is {got}, expected {expected}")]
    Mismatch {
        /// Which size.
        what: &'static str,
        /// What the plan calls for.
        expected: usize,
        /// What was given.
        got: usize,
    },
    /// The model refused the rows or the move.
    #[error(transparent)]
    Model(#[from] models::ModelError),
    /// The pool refused a block or a slot.
    #[error(transparent)]
    Kernel(#[from] kernels::KernelError),
}
