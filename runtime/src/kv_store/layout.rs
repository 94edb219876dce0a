//! Where the parts of a segment's file are: computed from the header's numbers when writing, and compared when reading.

use std::ops::Range;

use super::{Encryption, SegmentHeader};

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;
/// Row of the check over header, keys and the other rows.
pub(super) const HEAD_ROW: usize = 0;
/// Row of the check over the tokens.
pub(super) const TOKENS_ROW: usize = 1;
/// Row of the first block's check.
pub(super) const FIRST_BLOCK_ROW: usize = 2;
/// Bytes of a token.
const TOKEN_BYTES: u64 = size_of::<u32>() as u64;

/// Whether a segment carries addresses that hold under one server's salt only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In the cache directory of a server.
    Cache,
    /// In a cube, for any server.
    Portable,
}

/// Ranges of bytes, counted from the header's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Empty in the portable form.
    pub keys: Range<u64>,
    pub checks: Range<u64>,
    pub tokens: Range<u64>,
    pub blocks: Range<u64>,
    block_bytes: u64,
    row_bytes: usize,
}

impl Layout {
    /// The layout of a segment whose numbers are within their limits.
    pub fn of(header: &SegmentHeader, form: Form) -> Self {
        let num_blocks = u64::from(header.num_blocks);
        let row_bytes = row_bytes(header.encryption);
        let block_bytes = header.identity.block_bytes as u64;
        let keys_bytes = match form {
            Form::Cache => (1 + num_blocks) * KEY_BYTES as u64,
            Form::Portable => 0,
        };
        let mut end = 0;
        let mut next = |len: u64| {
            let start = end;
            end += len;
            start..end
        };
        Self {
            keys: next(keys_bytes),
            checks: next((FIRST_BLOCK_ROW as u64 + num_blocks) * row_bytes as u64),
            tokens: next(header.num_tokens() * TOKEN_BYTES),
            blocks: next(num_blocks * block_bytes),
            block_bytes,
            row_bytes,
        }
    }

    /// Bytes of one check.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Where the checks have this row.
    pub fn row(&self, row: usize) -> Range<usize> {
        row * self.row_bytes..(row + 1) * self.row_bytes
    }

    /// Where the segment's block of this index begins.
    pub fn block_start(&self, block: u32) -> u64 {
        self.blocks.start + u64::from(block) * self.block_bytes
    }

    /// Bytes after the header.
    pub fn data_bytes(&self) -> u64 {
        self.blocks.end
    }
}

/// Bytes of a check: a BLAKE3 hash, or a tag of AES-GCM.
pub(super) fn row_bytes(encryption: Encryption) -> usize {
    match encryption {
        Encryption::None => blake3::OUT_LEN,
        Encryption::Aes256Gcm { .. } => ring::aead::AES_256_GCM.tag_len(),
    }
}
