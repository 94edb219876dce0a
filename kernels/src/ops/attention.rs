//! Operations on the paged KV pool: writing keys and values, attention over them.

use super::check::{below, offsets, same};
use crate::{Device, KernelError, KvPool, Tensor, cpu};

/// A fused row: `num_heads` query heads, then `num_kv_heads` key heads, then as many value heads, `head_dim` each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLayout {
    /// Query heads: a multiple of `num_kv_heads`.
    pub num_heads: usize,
    /// Key and value heads; query head `h` uses `h / (num_heads / num_kv_heads)`.
    pub num_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl HeadLayout {
    /// Elements of a fused row.
    pub const fn width(&self) -> usize {
        (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
    }

    /// Elements of the query and key heads.
    pub(crate) const fn rotated_width(&self) -> usize {
        (self.num_heads + self.num_kv_heads) * self.head_dim
    }

    pub(super) fn validate(&self, op: &'static str) -> Result<(), KernelError> {
        let value = |what, got, allowed| Err(KernelError::Value { op, what, got, allowed });
        if self.head_dim == 0 {
            return value("head_dim", 0, "at least 1");
        }
        if self.num_kv_heads == 0 {
            return value("num_kv_heads", 0, "at least 1");
        }
        if self.num_heads == 0 || !self.num_heads.is_multiple_of(self.num_kv_heads) {
            return value("num_heads", self.num_heads, "a multiple of num_kv_heads");
        }
        Ok(())
    }
}

/// Which rows belong to which sequence, where they stand in it, and which blocks hold its keys and values.
///
/// Sequence `s` owns rows `cu_rows[s]..cu_rows[s + 1]` and blocks
/// `block_tables[block_table_offsets[s]..block_table_offsets[s + 1]]`; entry `i` of its context is in its block
/// `i / block_size` at offset `i % block_size`.
#[derive(Clone, Copy, Debug)]
pub struct AttentionBatch<'a> {
    /// `[num_sequences + 1]`, rising from 0 to the number of rows.
    pub cu_rows: &'a [u32],
    /// `[num_rows]`: row `r` sees entries `0..=positions[r]`. In any order, with or without gaps.
    pub positions: &'a [u32],
    /// Blocks of all sequences, one table after the other.
    pub block_tables: &'a [u32],
    /// `[num_sequences + 1]`, rising from 0 to the length of `block_tables`.
    pub block_table_offsets: &'a [u32],
}

impl AttentionBatch<'_> {
    fn validate(&self, op: &'static str, num_rows: usize, pool: &KvPool) -> Result<(), KernelError> {
        same(op, "number of positions", self.positions.len(), num_rows)?;
        offsets(op, "cu_rows", self.cu_rows, num_rows)?;
        offsets(op, "block_table_offsets", self.block_table_offsets, self.block_tables.len())?;
        same(op, "number of block tables", self.block_table_offsets.len(), self.cu_rows.len())?;
        below(op, "block", self.block_tables, pool.num_blocks())?;
        let block_size = pool.shape().block_size;
        let tables = self.block_table_offsets.windows(2);
        for (sequence, (rows, table)) in self.cu_rows.windows(2).zip(tables).enumerate() {
            let covered = (table[1] - table[0]) as usize * block_size;
            let rows = rows[0] as usize..rows[1] as usize;
            for (row, &position) in rows.clone().zip(&self.positions[rows]) {
                let position = position as usize;
                if position >= covered {
                    return Err(KernelError::NotCovered { op, row, sequence, position, covered });
                }
            }
        }
        Ok(())
    }
}

/// What one layer's attention needs to know beside the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionParams {
    /// Index of the layer in the pool.
    pub layer: usize,
    /// Factor of the dot products, commonly `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// With a window of `w`, the row at position `p` sees keys `j` with `p - w < j <= p` only.
    pub sliding_window: Option<u32>,
}

pub(super) fn validate_pool(
    op: &'static str,
    layout: HeadLayout,
    pool: &KvPool,
    layer: usize,
) -> Result<(), KernelError> {
    layout.validate(op)?;
    same(op, "num_kv_heads", layout.num_kv_heads, pool.shape().num_kv_heads)?;
    same(op, "head_dim", layout.head_dim, pool.shape().head_dim)?;
    let len = pool.shape().num_layers;
    if layer >= len {
        return Err(KernelError::OutOfRange { op, what: "layer", index: layer, at: 0, len });
    }
    Ok(())
}

/// Writes the keys and values of `qkv` `[num_rows, layout.width()]` to `slots` `[num_rows]` of one layer, rounded to
/// the pool's type (to nearest, ties to even). Slot `block * block_size + offset`; where a slot stands twice, the later
/// row wins.
///
/// # Errors
/// [`KernelError::Shape`] or [`KernelError::Value`] when layout, rows and pool do not agree,
/// [`KernelError::OutOfRange`] for a slot or layer that the pool does not have.
pub fn kv_write(
    _device: &Device,
    qkv: &Tensor,
    layout: HeadLayout,
    slots: &[u32],
    pool: &mut KvPool,
    layer: usize,
) -> Result<(), KernelError> {
    let op = "kv_write";
    validate_pool(op, layout, pool, layer)?;
    same(op, "width of qkv", qkv.width(), layout.width())?;
    same(op, "number of slots", slots.len(), qkv.num_rows())?;
    below(op, "slot", slots, pool.num_blocks() * pool.shape().block_size)?;
    cpu::attention::kv_write(qkv, layout, slots, pool, layer);
    Ok(())
}

/// Attention of the query heads of `qkv` `[num_rows, layout.width()]` over the pool; `out` `[num_rows, num_heads *
/// head_dim]`. The keys and values that rows of this batch see must be in the pool already ([`kv_write`]); entries
/// beyond a row's position are never read with a weight, so what stale blocks hold does not matter.
///
/// # Errors
/// [`KernelError::Shape`] or [`KernelError::Value`] when layout, rows, batch and pool do not agree,
/// [`KernelError::OutOfRange`] for a block or layer that the pool does not have, [`KernelError::Offsets`] for offsets
/// that do not rise, [`KernelError::NotCovered`] for a position beyond its sequence's blocks.
pub fn paged_attention(
    device: &Device,
    qkv: &Tensor,
    layout: HeadLayout,
    batch: &AttentionBatch<'_>,
    pool: &KvPool,
    params: AttentionParams,
    out: &mut Tensor,
) -> Result<(), KernelError> {
    let op = "paged_attention";
    validate_pool(op, layout, pool, params.layer)?;
    same(op, "width of qkv", qkv.width(), layout.width())?;
    batch.validate(op, qkv.num_rows(), pool)?;
    if params.sliding_window == Some(0) {
        return Err(KernelError::Value { op, what: "sliding_window", got: 0, allowed: "at least 1" });
    }
    out.reset(qkv.num_rows(), layout.num_heads * layout.head_dim);
    cpu::attention::paged_attention(device, qkv, layout, batch, pool, params, out);
    Ok(())
}

#[cfg(test)]
mod tests;
