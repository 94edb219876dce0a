//! Attention of a block of query rows over the paged keys and values of one kv head, with an online softmax.
//!
//! Keys are visited in tiles of [`TILE_KEYS`] that begin at multiples of it, whatever rows and blocks are at hand, and
//! [`SEGMENT_TILES`] tiles make a segment with sums of its own; segments are merged in order. A row's result therefore
//! depends on its position, its window and its keys only, and segments can be computed by different threads.
//! (Online softmax: Milakov and Gimelshein, arXiv 1805.02867; tiles: FlashAttention-2, arXiv 2307.08691, section 3.1.)

use std::ops::Range;

use super::aligned::AlignedVec;
use super::attention_tile::{TilePointers, score, weigh};
use super::element::Element;
use super::output::TileMut;
use super::softmax::{SEGMENT_TILES, TILE_KEYS, finish, merge, reset_states, soften, state_len};
use super::tile::{MAX_TILE_ROWS, Strided, with_tile_rows};
use super::{Kernel, LANES, Simd};

/// From this number of queries on, 16-bit keys and values are widened once for all of them.
const WIDEN_FROM_QUERIES: usize = MAX_TILE_ROWS + 1;

/// Where the keys and values of one kv head in one layer lie in the pool (layout: `kv_pool.rs`).
#[derive(Clone, Copy)]
pub(crate) struct HeadCache<'a, E> {
    /// The whole pool and its read slack.
    pub pool: &'a [E],
    /// Elements from one block to the next.
    pub block_elements: usize,
    /// Where this head's keys begin in a block.
    pub keys_at: usize,
    /// Where this head's values begin in a block.
    pub values_at: usize,
    pub block_size: usize,
    pub head_dim: usize,
}

/// The queries of some rows of one sequence, all heads that share one kv head.
#[derive(Clone, Copy)]
pub(crate) struct Queries<'a> {
    /// Fused rows of the batch, `[num_rows, row_width]`.
    pub qkv: &'a [f32],
    pub row_width: usize,
    /// Where in a row the first of these heads begins.
    pub first_column: usize,
    pub heads: usize,
    /// Positions of all rows of the batch.
    pub positions: &'a [u32],
    /// Blocks of the sequence.
    pub block_table: &'a [u32],
    pub scale: f32,
    pub window: Option<u32>,
}

/// `out[rows, heads * head_dim] = attention`, for a tile of `out` that holds the heads of one kv head.
pub(crate) struct AttentionTile<'a, E> {
    pub cache: HeadCache<'a, E>,
    pub queries: Queries<'a>,
    pub out: TileMut<'a>,
    pub scratch: &'a mut AlignedVec,
}

impl<E: Element> Kernel for AttentionTile<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let rows = self.out.rows();
        let mut work = Work::new(self.cache, self.queries, rows.clone(), self.scratch);
        work.load_queries(s);
        reset_states(work.totals, work.state_len, work.padded_dim);
        let tiles = work.visible_tiles();
        let mut first = tiles.start;
        while first < tiles.end {
            let end = tiles.end.min((first / SEGMENT_TILES + 1) * SEGMENT_TILES);
            work.segment(s, first..end);
            work.merge_segment(s, first..end);
            first = end;
        }
        for row in 0..rows.len() {
            for (head, out) in self.out.row_mut(row).chunks_exact_mut(self.cache.head_dim).enumerate() {
                let query = row * self.queries.heads + head;
                let state = &work.totals[query * work.state_len..(query + 1) * work.state_len];
                finish(s, state, work.padded_dim, out);
            }
        }
    }
}

/// Computes one segment of a block of rows into states: a part of a decode over a long context.
pub(crate) struct AttentionSegment<'a, E> {
    pub cache: HeadCache<'a, E>,
    pub queries: Queries<'a>,
    pub rows: Range<usize>,
    /// Index of the segment.
    pub segment: usize,
    /// `[num_rows * heads][state_len]`.
    pub states: &'a mut [f32],
    pub scratch: &'a mut AlignedVec,
}

impl<E: Element> Kernel for AttentionSegment<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut work = Work::new(self.cache, self.queries, self.rows, self.scratch);
        let visible = work.visible_tiles();
        let first = visible.start.max(self.segment * SEGMENT_TILES);
        let end = visible.end.min((self.segment + 1) * SEGMENT_TILES);
        if first < end {
            work.load_queries(s);
            work.segment(s, first..end);
            self.states.copy_from_slice(work.states);
        }
    }
}

/// Keys that a row of the batch sees.
#[inline(always)]
pub(crate) fn visible_keys(queries: &Queries<'_>, row: usize) -> Range<usize> {
    let end = queries.positions[row] as usize + 1;
    let start = queries.window.map_or(0, |window| end.saturating_sub(window as usize));
    start..end
}

/// Scratch of one block of rows. Query `i` is head `i % heads` of row `i / heads`.
struct Work<'a, E> {
    cache: HeadCache<'a, E>,
    of: Queries<'a>,
    /// Rows of the batch.
    rows: Range<usize>,
    padded_dim: usize,
    state_len: usize,
    /// Scaled queries, `[num_queries][head_dim]`.
    queries: &'a mut [f32],
    /// Scores, then weights of a register tile's queries, `[MAX_TILE_ROWS][TILE_KEYS]`.
    scores: &'a mut [f32],
    /// States of the segment at hand, `[num_queries][state_len]`.
    states: &'a mut [f32],
    /// States of all segments so far.
    totals: &'a mut [f32],
    /// Widened keys `[head_dim][TILE_KEYS]`.
    wide_keys: &'a mut [f32],
    /// Widened values `[TILE_KEYS][padded_dim]`.
    wide_values: &'a mut [f32],
}

impl<'a, E: Element> Work<'a, E> {
    #[inline(always)]
    fn new(cache: HeadCache<'a, E>, of: Queries<'a>, rows: Range<usize>, scratch: &'a mut AlignedVec) -> Self {
        let num_queries = rows.len() * of.heads;
        let padded_dim = cache.head_dim.next_multiple_of(LANES);
        let state_len = state_len(cache.head_dim);
        let sizes = [
            (num_queries * cache.head_dim).next_multiple_of(LANES),
            MAX_TILE_ROWS * TILE_KEYS,
            num_queries * state_len,
            num_queries * state_len,
            cache.head_dim * TILE_KEYS,
            TILE_KEYS * padded_dim,
        ];
        let mut rest = scratch.at_least(sizes.iter().sum());
        let [queries, scores, states, totals, wide_keys, wide_values] = sizes.map(|size| {
            let (part, remainder) = std::mem::take(&mut rest).split_at_mut(size);
            rest = remainder;
            part
        });
        Self { cache, of, rows, padded_dim, state_len, queries, scores, states, totals, wide_keys, wide_values }
    }

    /// Tiles that any of the rows sees.
    #[inline(always)]
    fn visible_tiles(&self) -> Range<usize> {
        let ranges = self.rows.clone().map(|row| visible_keys(&self.of, row));
        let (start, end) = ranges.fold((usize::MAX, 0), |(start, end), r| (start.min(r.start), end.max(r.end)));
        start / TILE_KEYS..end.div_ceil(TILE_KEYS)
    }

    #[inline(always)]
    fn load_queries<S: Simd>(&mut self, s: S) {
        let head_dim = self.cache.head_dim;
        let row_len = self.of.heads * head_dim;
        for (row, queries) in self.rows.clone().zip(self.queries.chunks_exact_mut(row_len)) {
            let from = &self.of.qkv[row * self.of.row_width + self.of.first_column..][..row_len];
            for (query, from) in queries.chunks_mut(LANES).zip(from.chunks(LANES)) {
                s.store(s.mul(s.load(from), s.splat(self.of.scale)), query);
            }
        }
    }

    /// Computes the states of some tiles of one segment.
    #[inline(always)]
    fn segment<S: Simd>(&mut self, s: S, tiles: Range<usize>) {
        reset_states(self.states, self.state_len, self.padded_dim);
        for tile in tiles {
            self.tile(s, tile);
        }
    }

    /// Joins the segment's states to the totals, for rows that saw any of its tiles.
    #[inline(always)]
    fn merge_segment<S: Simd>(&mut self, s: S, tiles: Range<usize>) {
        let row_len = self.of.heads * self.state_len;
        let states = self.states.chunks_exact(row_len);
        for ((row, totals), states) in self.rows.clone().zip(self.totals.chunks_exact_mut(row_len)).zip(states) {
            let visible = visible_keys(&self.of, row);
            if visible.start < tiles.end * TILE_KEYS && visible.end > tiles.start * TILE_KEYS {
                for (total, state) in totals.chunks_exact_mut(self.state_len).zip(states.chunks_exact(self.state_len)) {
                    merge(s, total, state, self.padded_dim);
                }
            }
        }
    }

    /// One tile for all rows: rows that see the same part of it share the loads of its keys and values.
    #[inline(always)]
    fn tile<S: Simd>(&mut self, s: S, tile: usize) {
        let first_key = tile * TILE_KEYS;
        let visible = |of: &Queries<'_>, row: usize| {
            let keys = visible_keys(of, row);
            keys.start.clamp(first_key, first_key + TILE_KEYS) - first_key
                ..keys.end.clamp(first_key, first_key + TILE_KEYS) - first_key
        };
        let mut num_keys = 0;
        for row in self.rows.clone() {
            num_keys = num_keys.max(visible(&self.of, row).end);
        }
        let stored = self.pointers(first_key, num_keys);
        let widen = E::DTYPE != f32::DTYPE && self.rows.len() * self.of.heads >= WIDEN_FROM_QUERIES;
        if widen {
            self.widen(s, stored, num_keys);
        }
        let wide = TilePointers {
            keys: std::array::from_fn(|group| self.wide_keys[group * LANES..].as_ptr()),
            key_stride: TILE_KEYS,
            values: std::array::from_fn(|group| self.wide_values[group * LANES * self.padded_dim..].as_ptr()),
            value_stride: self.padded_dim,
        };
        let mut row = self.rows.start;
        while row < self.rows.end {
            let keys = visible(&self.of, row);
            let mut end = row + 1;
            while end < self.rows.end && visible(&self.of, end) == keys {
                end += 1;
            }
            if !keys.is_empty() {
                let first = (row - self.rows.start) * self.of.heads;
                let queries = first..first + (end - row) * self.of.heads;
                if widen {
                    self.attend(s, wide, queries, keys);
                } else {
                    self.attend(s, stored, queries, keys);
                }
            }
            row = end;
        }
    }

    /// Where the first `num_keys` keys of a tile lie. Groups beyond are never used for a result; they point to the
    /// first group so that they can be read.
    #[inline(always)]
    fn pointers(&self, first_key: usize, num_keys: usize) -> TilePointers<E> {
        let cache = &self.cache;
        let block_of = |group: usize| {
            let key = if group * LANES < num_keys { first_key + group * LANES } else { first_key };
            let block = self.of.block_table[key / cache.block_size] as usize * cache.block_elements;
            (block, key % cache.block_size)
        };
        let keys = std::array::from_fn(|group| {
            let (block, offset) = block_of(group);
            self.cache.pool[block + cache.keys_at + offset..][..cache.head_dim].as_ptr()
        });
        let values = std::array::from_fn(|group| {
            let (block, offset) = block_of(group);
            self.cache.pool[block + cache.values_at + offset * cache.head_dim..].as_ptr()
        });
        TilePointers { keys, key_stride: cache.block_size, values, value_stride: cache.head_dim }
    }

    /// Widens the groups that hold the first `num_keys` keys.
    #[inline(always)]
    fn widen<S: Simd>(&mut self, s: S, from: TilePointers<E>, num_keys: usize) {
        for group in 0..num_keys.div_ceil(LANES) {
            for (d, keys) in self.wide_keys.chunks_exact_mut(TILE_KEYS).enumerate() {
                // SAFETY: a group has `head_dim` runs of 16 keys, `key_stride` apart, inside one block.
                let wide = unsafe { E::load(s, from.keys[group].add(d * from.key_stride)) };
                s.store(wide, &mut keys[group * LANES..(group + 1) * LANES]);
            }
            let values = &mut self.wide_values[group * LANES * self.padded_dim..][..LANES * self.padded_dim];
            for (key, values) in values.chunks_exact_mut(self.padded_dim).enumerate() {
                for (vector, values) in values.chunks_exact_mut(LANES).enumerate() {
                    // SAFETY: a group has 16 values of `head_dim` elements, `value_stride` apart; the last vector may
                    // pass the end of a value, but not the pool's read slack.
                    let wide = unsafe { E::load(s, from.values[group].add(key * from.value_stride + vector * LANES)) };
                    s.store(wide, values);
                }
            }
        }
    }

    /// Scores, weights and weighted values of one tile for consecutive queries that see the same `keys` of it.
    #[inline(always)]
    fn attend<S: Simd, T: Element>(&mut self, s: S, tile: TilePointers<T>, queries: Range<usize>, keys: Range<usize>) {
        let head_dim = self.cache.head_dim;
        for first in queries.clone().step_by(S::TILE_ROWS) {
            let count = S::TILE_ROWS.min(queries.end - first);
            let of_queries = Strided { ptr: self.queries[first * head_dim..].as_ptr(), stride: head_dim };
            let of_scores = Strided { ptr: self.scores.as_mut_ptr(), stride: TILE_KEYS };
            // SAFETY: `count` queries from `first` on are inside their buffer, as many rows of scores in theirs, and
            // every group has `head_dim` runs of 16 keys.
            unsafe { with_tile_rows!(count, S, ROWS => score::<S, T, ROWS>(s, of_queries, tile, head_dim, of_scores)) };
            let states = &mut self.states[first * self.state_len..(first + count) * self.state_len];
            for (scores, state) in self.scores.chunks_exact_mut(TILE_KEYS).zip(states.chunks_exact_mut(self.state_len))
            {
                soften(s, scores, state, self.padded_dim, keys.clone());
            }
            let weights = Strided { ptr: self.scores.as_ptr(), stride: TILE_KEYS };
            let sums = Strided { ptr: states.as_mut_ptr(), stride: self.state_len };
            // SAFETY: as above; `keys` is inside the tile, and states hold `padded_dim` sums. The last vector of a
            // value may pass its end, but not the pool's read slack.
            unsafe {
                with_tile_rows!(count, S, ROWS => {
                    weigh::<S, T, ROWS>(s, weights, tile, keys.clone(), sums, self.padded_dim)
                })
            };
        }
    }
}
