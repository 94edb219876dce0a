//! A memory's tokens and what they left in the KV pool.

use kernels::{KvPool, KvShape};

use super::SpliceError;

/// Keys and values of some neighbouring tokens, as computed behind a preamble that is not part of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    tokens: Vec<u32>,
    /// Position of the first token when it was computed.
    start: usize,
    /// Whole blocks, in the pool's layout: from the one that holds the first token to the one that holds the last.
    blocks: Vec<u8>,
    hidden: Option<Vec<f32>>,
}

impl Segment {
    /// Copies the entries `start..start + tokens.len()` of a sequence out of the pool. `hidden` is the final hidden state of
    /// the last token, where it is known.
    ///
    /// # Errors
    /// [`SpliceError::EmptySegment`]; [`SpliceError::BlockTable`] when the table does not reach that far;
    /// [`SpliceError::Kernel`] for a block that the pool does not have.
    pub fn capture(
        pool: &KvPool,
        block_table: &[u32],
        start: usize,
        tokens: Vec<u32>,
        hidden: Option<Vec<f32>>,
    ) -> Result<Self, SpliceError> {
        if tokens.is_empty() {
            return Err(SpliceError::EmptySegment);
        }
        let shape = pool.shape();
        let (first, end) = (start / shape.block_size, (start + tokens.len()).div_ceil(shape.block_size));
        let table =
            block_table.get(first..end).ok_or(SpliceError::BlockTable { expected: end, got: block_table.len() })?;
        let mut blocks = vec![0; table.len() * shape.block_bytes()];
        for (block, bytes) in table.iter().zip(blocks.chunks_exact_mut(shape.block_bytes())) {
            pool.export_block(*block, bytes)?;
        }
        Ok(Self { tokens, start, blocks, hidden })
    }

    /// A segment whose blocks were stored elsewhere.
    ///
    /// # Errors
    /// [`SpliceError::EmptySegment`]; [`SpliceError::SegmentBytes`] when the bytes are not those of the blocks that hold
    /// the tokens.
    pub fn from_parts(
        shape: &KvShape,
        tokens: Vec<u32>,
        start: usize,
        blocks: Vec<u8>,
        hidden: Option<Vec<f32>>,
    ) -> Result<Self, SpliceError> {
        if tokens.is_empty() {
            return Err(SpliceError::EmptySegment);
        }
        let segment = Self { tokens, start, blocks, hidden };
        segment.check(shape)?;
        Ok(segment)
    }

    /// Its tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Position of the first token when it was computed.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Blocks in the pool's layout.
    pub fn blocks(&self) -> &[u8] {
        &self.blocks
    }

    /// Final hidden state of the last token, `[hidden_size]`.
    pub fn hidden(&self) -> Option<&[f32]> {
        self.hidden.as_deref()
    }

    /// Its bytes must be what the pool's layout needs for its tokens.
    pub(super) fn check(&self, shape: &KvShape) -> Result<(), SpliceError> {
        let block_size = shape.block_size;
        let num_blocks = (self.start + self.tokens.len()).div_ceil(block_size) - self.start / block_size;
        let (expected, got) = (num_blocks * shape.block_bytes(), self.blocks.len());
        if expected == got { Ok(()) } else { Err(SpliceError::SegmentBytes { expected, got }) }
    }
}
