//! The physical KV pool and THE block layout; export and import of one block.
//!
//! A block holds the keys and values of `block_size` tokens for all layers, in one contiguous run:
//!
//! ```text
//! block = layer 0 | layer 1 | ..
//! layer = keys | values
//! keys   = kv head 0 | kv head 1 | ..    each [head_dim][block_size]   (transposed: 16 tokens side by side)
//! values = kv head 0 | kv head 1 | ..    each [block_size][head_dim]
//! ```
//!
//! Attention then needs no sum across lanes: scores run over 16 tokens at a time, outputs over 16 dimensions. A swap
//! of a block is one copy of one run.

use crate::cpu::simd::LANES;
use crate::cpu::simd::element::Element;
use crate::mmap::PageBuffer;
use crate::{DType, Device, KernelError};

/// Sizes that decide the layout of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvShape {
    /// Layers of the model.
    pub num_layers: usize,
    /// Key and value heads of a layer.
    pub num_kv_heads: usize,
    /// Elements of a head: a multiple of 8.
    pub head_dim: usize,
    /// Tokens of a block: a multiple of 16, at most 256.
    pub block_size: usize,
    /// Type of the stored elements.
    pub dtype: DType,
}

/// Largest number of tokens in a block.
const MAX_BLOCK_SIZE: usize = 256;
/// Largest head.
const MAX_HEAD_DIM: usize = 1024;

impl KvShape {
    /// Elements of the keys (or of the values) of one head in one block.
    pub(crate) const fn head_elements(&self) -> usize {
        self.head_dim * self.block_size
    }

    /// Elements of one layer in one block.
    pub(crate) const fn layer_elements(&self) -> usize {
        2 * self.num_kv_heads * self.head_elements()
    }

    /// Elements of one block.
    pub(crate) const fn block_elements(&self) -> usize {
        self.num_layers * self.layer_elements()
    }

    /// Bytes of one block, all layers.
    pub const fn block_bytes(&self) -> usize {
        self.block_elements() * self.dtype.size_bytes()
    }

    /// Bytes of one token, all layers.
    pub const fn token_bytes(&self) -> usize {
        self.block_bytes() / self.block_size
    }

    fn validate(&self) -> Result<(), KernelError> {
        let op = "kv pool";
        let value = |what, got, allowed| Err(KernelError::Value { op, what, got, allowed });
        if self.num_layers == 0 {
            return value("num_layers", 0, "at least 1");
        }
        if self.num_kv_heads == 0 {
            return value("num_kv_heads", 0, "at least 1");
        }
        if self.head_dim == 0 || !self.head_dim.is_multiple_of(8) || self.head_dim > MAX_HEAD_DIM {
            return value("head_dim", self.head_dim, "a multiple of 8 from 8 to 1024");
        }
        if self.block_size == 0 || !self.block_size.is_multiple_of(LANES) || self.block_size > MAX_BLOCK_SIZE {
            return value("block_size", self.block_size, "a multiple of 16 from 16 to 256");
        }
        let fits = [2, self.num_kv_heads, self.head_dim, self.block_size, self.dtype.size_bytes()]
            .into_iter()
            .try_fold(self.num_layers, usize::checked_mul)
            .is_some();
        if fits { Ok(()) } else { Err(KernelError::Overflow { what: "kv block size" }) }
    }
}

/// Key and value memory for `num_blocks` blocks. Reserved at once, taken from the system when first written.
#[derive(Debug)]
pub struct KvPool {
    memory: PageBuffer,
    shape: KvShape,
    num_blocks: usize,
}

impl KvPool {
    /// Reserves the pool.
    ///
    /// # Errors
    /// [`KernelError::Value`] for a shape that the kernels cannot work on (see the fields of [`KvShape`]) or for more
    /// blocks than a u32 slot can address, [`KernelError::Allocate`] when the address space cannot be had.
    pub fn new(_device: &Device, shape: KvShape, num_blocks: usize) -> Result<Self, KernelError> {
        shape.validate()?;
        if num_blocks == 0 || num_blocks > u32::MAX as usize / shape.block_size {
            let allowed = "at least 1, and at most 2^32 slots in all";
            return Err(KernelError::Value { op: "kv pool", what: "num_blocks", got: num_blocks, allowed });
        }
        let num_bytes =
            shape.block_bytes().checked_mul(num_blocks).ok_or(KernelError::Overflow { what: "kv pool size" })?;
        Ok(Self { memory: PageBuffer::zeroed(num_bytes, "the KV pool")?, shape, num_blocks })
    }

    /// The layout's sizes.
    pub fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// Blocks in the pool.
    pub fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    /// Copies a block out, [`KvShape::block_bytes`] bytes.
    ///
    /// # Errors
    /// [`KernelError::OutOfRange`] for a block that is not there, [`KernelError::Shape`] for a slice of another size.
    pub fn export_block(&self, block: u32, to: &mut [u8]) -> Result<(), KernelError> {
        let range = self.block_range("export block", block, to.len())?;
        to.copy_from_slice(&self.memory.as_bytes()[range]);
        Ok(())
    }

    /// Copies a block in, [`KvShape::block_bytes`] bytes as [`Self::export_block`] gave them.
    ///
    /// # Errors
    /// [`KernelError::OutOfRange`] for a block that is not there, [`KernelError::Shape`] for a slice of another size.
    pub fn import_block(&mut self, block: u32, from: &[u8]) -> Result<(), KernelError> {
        let range = self.block_range("import block", block, from.len())?;
        self.memory.as_bytes_mut()[range].copy_from_slice(from);
        Ok(())
    }

    fn block_range(&self, op: &'static str, block: u32, len: usize) -> Result<std::ops::Range<usize>, KernelError> {
        let (index, size) = (block as usize, self.shape.block_bytes());
        if index >= self.num_blocks {
            return Err(KernelError::OutOfRange { op, what: "block", index, at: 0, len: self.num_blocks });
        }
        if len != size {
            return Err(KernelError::Shape { op, what: "bytes", expected: size, got: len });
        }
        Ok(index * size..(index + 1) * size)
    }

    /// All bytes, block after block.
    pub(crate) fn as_bytes_mut(&mut self) -> &mut [u8] {
        self.memory.as_bytes_mut()
    }

    /// All elements, block after block, and the read slack behind them.
    pub(crate) fn elements_and_slack<E: Element>(&self) -> &[E] {
        assert!(E::DTYPE == self.shape.dtype, "pool of {} read as {}: this is a bug", self.shape.dtype, E::DTYPE);
        self.memory.elements_and_slack()
    }

    /// All elements, block after block.
    pub(crate) fn elements_mut<E: Element>(&mut self) -> &mut [E] {
        assert!(E::DTYPE == self.shape.dtype, "pool of {} read as {}: this is a bug", self.shape.dtype, E::DTYPE);
        self.memory.elements_mut()
    }
}
