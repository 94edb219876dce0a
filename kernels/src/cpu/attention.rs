//! Paged attention and KV writes on the CPU: which rows, heads and segments make a part.

use std::ops::Range;

use super::simd::attention::{AttentionSegment, AttentionTile, HeadCache, Queries, visible_keys};
use super::simd::element::{Element, with_element};
use super::simd::output::{Grid, RowBlocks, for_each_chunk, for_each_tile};
use super::simd::softmax::{MergeSegments, SEGMENT_KEYS, state_len};
use crate::ops::{AttentionBatch, AttentionParams, HeadLayout};
use crate::{Device, KvPool, Tensor};

/// Queries (rows times heads of a group) of a part: they share every key and value that is loaded.
const QUERIES_PER_PART: usize = 96;
/// With fewer rows times kv heads for each thread, contexts are cut as well, so that all threads have work to the end.
const PARTS_PER_THREAD: usize = 4;
/// Floating-point operations of attention that one thread does in a nanosecond, to estimate how long a call takes.
const FLOPS_PER_NS: usize = 60;

/// Specification: `out[r, h] = sum_j softmax_j(scale * q[r, h] . k[j]) * v[j]` over the keys `j` that row `r` sees.
pub(crate) fn paged_attention(
    device: &Device,
    qkv: &Tensor,
    layout: HeadLayout,
    batch: &AttentionBatch<'_>,
    pool: &KvPool,
    params: AttentionParams,
    out: &mut Tensor,
) {
    let operands = Operands { device, qkv, layout, batch, pool, params };
    with_element!(pool.shape().dtype, E => operands.run::<E>(out));
}

struct Operands<'a> {
    device: &'a Device,
    qkv: &'a Tensor,
    layout: HeadLayout,
    batch: &'a AttentionBatch<'a>,
    pool: &'a KvPool,
    params: AttentionParams,
}

impl Operands<'_> {
    /// Query heads of a kv head.
    fn heads(&self) -> usize {
        self.layout.num_heads / self.layout.num_kv_heads
    }

    fn run<E: Element>(&self, out: &mut Tensor) {
        let positions = self.batch.positions;
        let num_rows = positions.len();
        let longest = positions.iter().map(|&position| position as usize + 1).max().unwrap_or(0);
        let num_parts = num_rows * self.layout.num_kv_heads;
        let num_threads = self.device.num_threads();
        let is_split = num_threads > 1 && num_parts < PARTS_PER_THREAD * num_threads && longest > SEGMENT_KEYS;
        if is_split { self.run_split::<E>(longest.div_ceil(SEGMENT_KEYS), out) } else { self.run_whole::<E>(out) }
    }

    /// Parts are blocks of rows times kv heads, each over its whole context.
    fn run_whole<E: Element>(&self, out: &mut Tensor) {
        let group_width = self.heads() * self.layout.head_dim;
        let bounds = row_bounds(self.batch.cu_rows, (QUERIES_PER_PART / self.heads()).max(1));
        let grid = Grid { width: out.width(), rows: RowBlocks::Bounds(&bounds), columns_per_tile: group_width };
        let threads = self.device.pool_for(self.work_ns());
        for_each_tile(threads, out.as_mut_slice(), grid, |tile, thread| {
            let kv_head = tile.columns().start / group_width;
            let queries = self.queries(tile.rows().start, kv_head);
            let cache = self.head_cache::<E>(kv_head);
            let scratch = &mut *self.device.scratch(thread);
            self.device.level().run(AttentionTile { cache, queries, out: tile, scratch });
        });
    }

    /// Parts are rows times kv heads times segments of the context; the caller merges the segments. Few rows over a long
    /// context use all threads this way; the arithmetic is that of [`Self::run_whole`], in the same order.
    fn run_split<E: Element>(&self, num_segments: usize, out: &mut Tensor) {
        let num_kv_heads = self.layout.num_kv_heads;
        let part_len = self.heads() * state_len(self.layout.head_dim);
        let row_len = num_kv_heads * num_segments * part_len;
        let mut shared = self.device.shared_scratch();
        let states = shared.at_least(self.batch.positions.len() * row_len);
        for_each_chunk(self.device.pool_for(self.work_ns()), states, part_len, |index, states, thread| {
            let (row, kv_head, segment) =
                (index / num_segments / num_kv_heads, index / num_segments % num_kv_heads, index % num_segments);
            let queries = self.queries(row, kv_head);
            if !segments(&queries, row).contains(&segment) {
                return;
            }
            let cache = self.head_cache::<E>(kv_head);
            let scratch = &mut *self.device.scratch(thread);
            self.device.level().run(AttentionSegment { cache, queries, rows: row..row + 1, segment, states, scratch });
        });
        let head_dim = self.layout.head_dim;
        let scratch = &mut *self.device.scratch(0);
        let groups = out.as_mut_slice().chunks_exact_mut(self.heads() * head_dim);
        for (index, (out, states)) in groups.zip(states.chunks_exact(num_segments * part_len)).enumerate() {
            let (row, kv_head) = (index / num_kv_heads, index % num_kv_heads);
            let segments = segments(&self.queries(row, kv_head), row);
            self.device.level().run(MergeSegments { head_dim, segments, states, out, scratch });
        }
    }

    /// About how long one thread would take.
    fn work_ns(&self) -> usize {
        let keys: usize = self.batch.positions.iter().map(|&position| position as usize + 1).sum();
        keys.saturating_mul(self.layout.num_heads * self.layout.head_dim * 4) / FLOPS_PER_NS
    }

    /// The queries of a row's sequence for one kv head.
    fn queries(&self, row: usize, kv_head: usize) -> Queries<'_> {
        let batch = self.batch;
        let sequence = batch.cu_rows.partition_point(|&first| first as usize <= row) - 1;
        let table = batch.block_table_offsets[sequence] as usize..batch.block_table_offsets[sequence + 1] as usize;
        Queries {
            qkv: self.qkv.as_slice(),
            row_width: self.qkv.width(),
            first_column: kv_head * self.heads() * self.layout.head_dim,
            heads: self.heads(),
            positions: batch.positions,
            block_table: &batch.block_tables[table],
            scale: self.params.scale,
            window: self.params.sliding_window,
        }
    }

    /// Where one head's keys and values lie.
    fn head_cache<E: Element>(&self, kv_head: usize) -> HeadCache<'_, E> {
        let shape = self.pool.shape();
        let keys_at = self.params.layer * shape.layer_elements() + kv_head * shape.head_elements();
        HeadCache {
            pool: self.pool.elements_and_slack(),
            block_elements: shape.block_elements(),
            keys_at,
            values_at: keys_at + shape.num_kv_heads * shape.head_elements(),
            block_size: shape.block_size,
            head_dim: shape.head_dim,
        }
    }
}

/// Segments of the context that a row sees.
fn segments(queries: &Queries<'_>, row: usize) -> Range<usize> {
    let keys = visible_keys(queries, row);
    keys.start / SEGMENT_KEYS..keys.end.div_ceil(SEGMENT_KEYS)
}

/// Cuts every sequence's rows into blocks of at most `rows_per_block`.
fn row_bounds(cu_rows: &[u32], rows_per_block: usize) -> Vec<usize> {
    let mut bounds = vec![0];
    for rows in cu_rows.windows(2) {
        let (first, end) = (rows[0] as usize, rows[1] as usize);
        bounds.extend((first..end).step_by(rows_per_block).skip(1));
        if end > first {
            bounds.push(end);
        }
    }
    bounds
}

/// Specification: key and value of row `r` go to slot `slots[r]` of the layer, rounded to the pool's type.
pub(crate) fn kv_write(qkv: &Tensor, layout: HeadLayout, slots: &[u32], pool: &mut KvPool, layer: usize) {
    with_element!(pool.shape().dtype, E => write::<E>(qkv, layout, slots, pool, layer));
}

fn write<E: Element>(qkv: &Tensor, layout: HeadLayout, slots: &[u32], pool: &mut KvPool, layer: usize) {
    let shape = *pool.shape();
    let HeadLayout { num_heads, num_kv_heads, head_dim } = layout;
    let elements = pool.elements_mut::<E>();
    for (row, &slot) in slots.iter().enumerate() {
        let (block, offset) = (slot as usize / shape.block_size, slot as usize % shape.block_size);
        let layer_at = block * shape.block_elements() + layer * shape.layer_elements();
        let layer = &mut elements[layer_at..layer_at + shape.layer_elements()];
        let (keys, values) = layer.split_at_mut(num_kv_heads * shape.head_elements());
        let row = &qkv.row(row)[num_heads * head_dim..];
        let (key_row, value_row) = row.split_at(num_kv_heads * head_dim);
        for (head, key) in keys.chunks_exact_mut(shape.head_elements()).zip(key_row.chunks_exact(head_dim)) {
            for (to, from) in head[offset..].iter_mut().step_by(shape.block_size).zip(key) {
                *to = E::from_f32(*from);
            }
        }
        for (head, value) in values.chunks_exact_mut(shape.head_elements()).zip(value_row.chunks_exact(head_dim)) {
            for (to, from) in head[offset * head_dim..].iter_mut().zip(value) {
                *to = E::from_f32(*from);
            }
        }
    }
}
