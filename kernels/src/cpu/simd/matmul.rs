//! Matrix product of activation rows with packed weight panels (layout: `matrix.rs`).

use super::aligned::AlignedVec;
use super::element::Element;
use super::output::TileMut;
use super::tile::{MAX_TILE_ROWS, Strided, accumulate, load_sums, store_sums, with_tile_rows, zero_sums};
use super::{Kernel, LANES, Simd};
use crate::matrix::PANEL;

/// Vectors across a panel.
const PANEL_VECTORS: usize = PANEL / LANES;
/// Steps of `k` that are done for all rows before the next ones: as f32 128 * 64 * 4 bytes = 32 KiB, which stay in the
/// first-level cache.
const BLOCK_STEPS: usize = 128;
/// From this number of rows on, 16-bit weights are widened once for all of them instead of once per register tile.
const WIDEN_FROM_ROWS: usize = 2 * MAX_TILE_ROWS + 1;
/// From this number of rows on, the work on a block takes long enough to fetch the next one meanwhile.
const FETCH_NEXT_FROM_ROWS: usize = 4 * MAX_TILE_ROWS;
/// How far ahead of its use a panel is fetched while it streams from memory.
const STREAM_AHEAD_BYTES: usize = 2048;

/// `out[rows, columns] = x[rows, k_len] * panels`, for a tile of `out` whose columns begin on a panel.
pub(crate) struct MatmulTile<'a, E> {
    /// All activation rows, `[num_rows, k_len]`.
    pub x: &'a [f32],
    pub k_len: usize,
    /// The whole packed weight.
    pub panels: &'a [E],
    /// Added to each row, all columns of the weight.
    pub bias: Option<&'a [f32]>,
    pub out: TileMut<'a>,
    pub scratch: &'a mut AlignedVec,
}

impl<E: Element> Kernel for MatmulTile<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let columns = self.out.columns();
        debug_assert!(columns.start.is_multiple_of(PANEL));
        for first in columns.clone().step_by(PANEL) {
            let valid = PANEL.min(columns.end - first);
            self.panel(s, first / PANEL, first - columns.start, valid);
        }
        if let Some(bias) = self.bias {
            let bias = &bias[columns];
            for row in 0..self.out.num_rows() {
                for (y, b) in self.out.row_mut(row).chunks_mut(LANES).zip(bias.chunks(LANES)) {
                    let sum = s.add(s.load(y), s.load(b));
                    s.store(sum, y);
                }
            }
        }
    }
}

impl<E: Element> MatmulTile<'_, E> {
    /// One panel for all rows of the tile; `valid` of its columns exist and go to column `at` of the tile on.
    #[inline(always)]
    fn panel<S: Simd>(&mut self, s: S, panel: usize, at: usize, valid: usize) {
        let k_len = self.k_len;
        let num_rows = self.out.num_rows();
        let rows = self.out.rows();
        let x = &self.x[rows.start * k_len..rows.end * k_len];
        let weights = &self.panels[panel * k_len * PANEL..];
        let widen = num_rows >= WIDEN_FROM_ROWS && E::DTYPE != f32::DTYPE;
        let block_steps = if num_rows > MAX_TILE_ROWS { BLOCK_STEPS } else { k_len };
        let wide_len = if widen { BLOCK_STEPS * PANEL } else { 0 };
        let edge_len = if valid < PANEL { num_rows * PANEL } else { 0 };
        let (wide, edge) = self.scratch.at_least(wide_len + edge_len).split_at_mut(wide_len);
        let c = if valid < PANEL { Strided { ptr: edge.as_mut_ptr(), stride: PANEL } } else { self.out.strided_at(at) };
        for first in (0..k_len).step_by(block_steps) {
            let steps = block_steps.min(k_len - first);
            let (block, rest) = weights[first * PANEL..].split_at(steps * PANEL);
            // What comes after this block, in this panel or the next, is fetched while this one is worked on. With few
            // rows the product is bound by memory, and fetching from two places at once only gets in its own way.
            let next =
                if num_rows >= FETCH_NEXT_FROM_ROWS { &rest[..rest.len().min(BLOCK_STEPS * PANEL)] } else { &[] };
            let rows = RowsByBlock {
                num_rows,
                a: Strided { ptr: x[first..].as_ptr(), stride: k_len },
                steps,
                c,
                start: if first == 0 { Start::Zero } else { Start::Loaded },
                next,
            };
            // SAFETY: from `first` on, `x` holds `steps` elements of `num_rows` rows; the block holds `steps * PANEL`
            // elements and so does its widened form; `c` has room for `num_rows` rows of a panel, either in `edge` or
            // in the tile, which has `PANEL` columns from `at` on.
            if widen {
                for (wide, stored) in wide.chunks_exact_mut(LANES).zip(block.chunks_exact(LANES)) {
                    // SAFETY: both chunks have 16 elements.
                    unsafe { s.store_f32(E::load(s, stored.as_ptr()), wide.as_mut_ptr()) };
                }
                // SAFETY: see above.
                unsafe { rows.run::<S, f32, 0>(s, wide.as_ptr()) };
            } else {
                // SAFETY: see above.
                unsafe { rows.run::<S, E, STREAM_AHEAD_BYTES>(s, block.as_ptr()) };
            }
        }
        if valid < PANEL {
            for (row, sums) in edge.chunks_exact(PANEL).enumerate() {
                self.out.row_mut(row)[at..at + valid].copy_from_slice(&sums[..valid]);
            }
        }
    }
}

/// What the sums of a tile begin with.
#[derive(Clone, Copy, PartialEq)]
enum Start {
    Zero,
    /// The sums of the earlier steps of `k`.
    Loaded,
}

/// `c[num_rows, PANEL] (+)= a[num_rows, steps] * block[steps, PANEL]`.
struct RowsByBlock<'a, N> {
    num_rows: usize,
    a: Strided<*const f32>,
    steps: usize,
    c: Strided<*mut f32>,
    start: Start,
    /// Elements that will be needed next.
    next: &'a [N],
}

impl<N: Element> RowsByBlock<'_, N> {
    /// # Safety
    /// All elements of `a` and the block must be readable, those of `c` writable.
    #[inline(always)]
    unsafe fn run<S: Simd, E: Element, const AHEAD: usize>(&self, s: S, block: *const E) {
        let Self { num_rows, a, steps, c, start, next } = *self;
        let share = next.len().div_ceil(num_rows.div_ceil(S::TILE_ROWS));
        for (tile, first) in (0..num_rows).step_by(S::TILE_ROWS).enumerate() {
            let soon = &next[next.len().min(tile * share)..next.len().min((tile + 1) * share)];
            for line in soon.chunks(64 / size_of::<N>()) {
                s.prefetch_far(line.as_ptr().cast());
            }
            let rows = S::TILE_ROWS.min(num_rows - first);
            // SAFETY: the caller's promise, for the rows from `first` on.
            unsafe {
                let a = Strided { ptr: a.ptr.add(first * a.stride), stride: a.stride };
                let c = Strided { ptr: c.ptr.add(first * c.stride), stride: c.stride };
                with_tile_rows!(rows, S, ROWS => tile_by_block::<S, E, ROWS, AHEAD>(s, a, block, steps, c, start));
            }
        }
    }
}

/// `ROWS` rows by one block, in as many register tiles as the instruction set needs.
///
/// # Safety
/// As [`RowsByBlock::run`].
#[inline(always)]
unsafe fn tile_by_block<S: Simd, E: Element, const ROWS: usize, const AHEAD: usize>(
    s: S,
    a: Strided<*const f32>,
    b: *const E,
    steps: usize,
    c: Strided<*mut f32>,
    start: Start,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if ROWS * PANEL_VECTORS <= S::ACCUMULATORS {
            tile::<S, E, ROWS, PANEL_VECTORS, AHEAD>(s, a, b, steps, c, start);
        } else if ROWS * 2 <= S::ACCUMULATORS {
            for column in (0..PANEL).step_by(2 * LANES) {
                let c = Strided { ptr: c.ptr.add(column), stride: c.stride };
                tile::<S, E, ROWS, 2, AHEAD>(s, a, b.add(column), steps, c, start);
            }
        } else {
            for column in (0..PANEL).step_by(LANES) {
                let c = Strided { ptr: c.ptr.add(column), stride: c.stride };
                tile::<S, E, ROWS, 1, AHEAD>(s, a, b.add(column), steps, c, start);
            }
        }
    }
}

/// One register tile.
///
/// # Safety
/// As [`RowsByBlock::run`].
#[inline(always)]
unsafe fn tile<S: Simd, E: Element, const ROWS: usize, const VECTORS: usize, const AHEAD: usize>(
    s: S,
    a: Strided<*const f32>,
    b: *const E,
    steps: usize,
    c: Strided<*mut f32>,
    start: Start,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = match start {
            Start::Zero => zero_sums::<S, ROWS, VECTORS>(s),
            Start::Loaded => load_sums::<S, ROWS, VECTORS>(s, c),
        };
        let columns = std::array::from_fn(|vector| b.add(vector * LANES));
        accumulate::<S, E, ROWS, VECTORS, AHEAD>(s, &mut sums, a, columns, PANEL, steps);
        store_sums::<S, ROWS, VECTORS>(s, sums, c);
    }
}
