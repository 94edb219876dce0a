//! Spliced keys and values on the CPU: every written block is a part, which takes its tokens from wherever they lie.

use std::marker::PhantomData;
use std::ops::Range;

use super::simd::element::{Element, with_element};
use super::simd::output::{for_each_chunk, for_each_listed_chunk};
use super::simd::splice::{TurnKeys, TurnKeysOf};
use crate::ops::{HeadLayout, KvSource, SpliceRun};
use crate::{Device, KeyRotation, KvPool, KvShape, Tensor};

/// Tokens of one source block that go to one target block.
#[derive(Clone, Copy)]
struct Piece {
    source_block: usize,
    target_block: usize,
    from_offset: usize,
    to_offset: usize,
    len: usize,
    rotation: Option<u32>,
}

/// Runs cut at the borders of blocks, ordered by target block.
pub(crate) struct Pieces {
    pieces: Vec<Piece>,
    /// Target blocks, ascending, and which pieces are theirs.
    targets: Vec<usize>,
    pieces_of: Vec<Range<usize>>,
}

impl Pieces {
    /// Cuts runs whose slots are known to be there.
    pub fn of(runs: &[SpliceRun], block_size: usize) -> Self {
        let mut pieces = Vec::new();
        for run in runs {
            let (mut source, mut target, mut left) = (run.source as usize, run.target as usize, run.len as usize);
            while left > 0 {
                let (from_offset, to_offset) = (source % block_size, target % block_size);
                let len = left.min(block_size - from_offset).min(block_size - to_offset);
                let (source_block, target_block) = (source / block_size, target / block_size);
                pieces.push(Piece { source_block, target_block, from_offset, to_offset, len, rotation: run.rotation });
                (source, target, left) = (source + len, target + len, left - len);
            }
        }
        pieces.sort_by_key(|piece| (piece.target_block, piece.to_offset));
        let (mut targets, mut pieces_of) = (Vec::new(), Vec::new());
        let mut first = 0;
        for group in pieces.chunk_by(|a, b| a.target_block == b.target_block) {
            targets.push(group[0].target_block);
            pieces_of.push(first..first + group.len());
            first += group.len();
        }
        Self { pieces, targets, pieces_of }
    }

    /// A block that is source and target, were the source the pool.
    pub fn block_read_and_written(&self) -> Option<usize> {
        let is_written = |block: &usize| self.targets.binary_search(block).is_ok();
        self.pieces.iter().map(|piece| piece.source_block).find(is_written)
    }
}

/// Specification: for every run and `i < len`, all layers and heads: value of target slot `target + i` = value of source
/// slot `source + i`; its key is that slot's key, turned by the run's rotation if it has one.
pub(crate) fn kv_splice(
    device: &Device,
    source: KvSource<'_>,
    pieces: &Pieces,
    rotations: &[KeyRotation],
    pool: &mut KvPool,
) {
    let shape = *pool.shape();
    let block_bytes = shape.block_bytes();
    for_each_listed_chunk(device.pool(), pool.as_bytes_mut(), block_bytes, &pieces.targets, |index, to, others| {
        for piece in &pieces.pieces[pieces.pieces_of[index].clone()] {
            let from = match source {
                KvSource::Pool => others.chunk(piece.source_block),
                KvSource::Blocks(bytes) => &bytes[piece.source_block * block_bytes..][..block_bytes],
            };
            let rotation = piece.rotation.map(|index| &rotations[index as usize]);
            with_element!(shape.dtype, E => move_piece::<E>(device, &shape, piece, rotation, (from, &mut *to)));
        }
    });
}

/// Moves one piece in all layers of a block.
fn move_piece<E: Element>(
    device: &Device,
    shape: &KvShape,
    piece: &Piece,
    rotation: Option<&KeyRotation>,
    (from, to): (&[u8], &mut [u8]),
) {
    let size = size_of::<E>();
    let head_bytes = shape.head_elements() * size;
    let Piece { from_offset, to_offset, len, .. } = *piece;
    let heads = from.chunks_exact(head_bytes).zip(to.chunks_exact_mut(head_bytes));
    for (head, (from, to)) in heads.enumerate() {
        let is_key = head % (2 * shape.num_kv_heads) < shape.num_kv_heads;
        match (is_key, rotation) {
            (false, _) => {
                let row_bytes = shape.head_dim * size;
                let values = &from[from_offset * row_bytes..][..len * row_bytes];
                to[to_offset * row_bytes..][..len * row_bytes].copy_from_slice(values);
            }
            (true, Some(rotation)) => {
                let (cos, sin) = rotation.parts();
                let block_size = shape.block_size;
                let keys = TurnKeys { from, to, block_size, from_offset, to_offset, len, cos, sin };
                device.level().run(TurnKeysOf::<E> { keys, element: PhantomData });
            }
            (true, None) => {
                let dimensions = from.chunks_exact(shape.block_size * size);
                for (from, to) in dimensions.zip(to.chunks_exact_mut(shape.block_size * size)) {
                    to[to_offset * size..][..len * size].copy_from_slice(&from[from_offset * size..][..len * size]);
                }
            }
        }
    }
}

/// Rows of a part of [`kv_deviation`].
const DEVIATION_ROWS_PER_PART: usize = 16;

/// Specification: `out[r] = sum over key and value heads of (round(qkv[r]) - pool[slots[r]])^2`, in ascending order.
pub(crate) fn kv_deviation(
    device: &Device,
    qkv: &Tensor,
    layout: HeadLayout,
    slots: &[u32],
    (pool, layer): (&KvPool, usize),
    out: &mut [f32],
) {
    for_each_chunk(device.pool(), out, DEVIATION_ROWS_PER_PART, |index, out, _| {
        for (row, out) in out.iter_mut().enumerate() {
            let row = index * DEVIATION_ROWS_PER_PART + row;
            let computed = &qkv.row(row)[layout.num_heads * layout.head_dim..];
            *out = with_element!(pool.shape().dtype, E => row_deviation::<E>(computed, slots[row], pool, layer));
        }
    });
}

/// `computed` is a row's key heads, then its value heads.
fn row_deviation<E: Element>(computed: &[f32], slot: u32, pool: &KvPool, layer: usize) -> f32 {
    let shape = pool.shape();
    let (block, offset) = (slot as usize / shape.block_size, slot as usize % shape.block_size);
    let layer_at = block * shape.block_elements() + layer * shape.layer_elements();
    let stored = &pool.elements_and_slack::<E>()[layer_at..layer_at + shape.layer_elements()];
    let (keys, values) = stored.split_at(shape.num_kv_heads * shape.head_elements());
    let (key_row, value_row) = computed.split_at(shape.num_kv_heads * shape.head_dim);
    let squared = |computed: f32, stored: E| (E::from_f32(computed).to_f32() - stored.to_f32()).powi(2);
    let mut sum = 0.0;
    for (head, key) in keys.chunks_exact(shape.head_elements()).zip(key_row.chunks_exact(shape.head_dim)) {
        let stored = head[offset..].iter().step_by(shape.block_size);
        sum += key.iter().zip(stored).map(|(computed, stored)| squared(*computed, *stored)).sum::<f32>();
    }
    for (head, value) in values.chunks_exact(shape.head_elements()).zip(value_row.chunks_exact(shape.head_dim)) {
        let stored = &head[offset * shape.head_dim..];
        sum += value.iter().zip(stored).map(|(computed, stored)| squared(*computed, *stored)).sum::<f32>();
    }
    sum
}
