//! The register tile under matrix products and attention: `c[rows][vectors] += a[rows][k] * b[k][vectors]`.
//!
//! Every element of `c` is one chain of fused multiply-adds in the order of `k`, so how `k`, rows and columns are cut
//! into tiles never shows in the result.

use super::element::Element;
use super::{LANES, Simd};

/// Largest number of rows that one tile holds, on any instruction set.
pub(super) const MAX_TILE_ROWS: usize = 6;

/// Sums of a tile of `ROWS` rows and `VECTORS * 16` columns.
pub(super) type Sums<V, const ROWS: usize, const VECTORS: usize> = [[V; VECTORS]; ROWS];

/// Where a tile's rows of `a` begin, and how far apart they are.
#[derive(Clone, Copy)]
pub(crate) struct Strided<T> {
    pub ptr: T,
    pub stride: usize,
}

/// A tile of zeros.
#[inline(always)]
pub(super) fn zero_sums<S: Simd, const ROWS: usize, const VECTORS: usize>(s: S) -> Sums<S::V, ROWS, VECTORS> {
    [[s.splat(0.0); VECTORS]; ROWS]
}

/// Loads a tile of `c`.
///
/// # Safety
/// `ROWS` rows of `VECTORS * 16` elements, `c.stride` apart, must be readable.
#[inline(always)]
pub(super) unsafe fn load_sums<S: Simd, const ROWS: usize, const VECTORS: usize>(
    s: S,
    c: Strided<*mut f32>,
) -> Sums<S::V, ROWS, VECTORS> {
    let mut sums = zero_sums::<S, ROWS, VECTORS>(s);
    for (row, sums) in sums.iter_mut().enumerate() {
        for (vector, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *sum = unsafe { s.load_f32(c.ptr.add(row * c.stride + vector * LANES)) };
        }
    }
    sums
}

/// Stores a tile of `c`.
///
/// # Safety
/// `ROWS` rows of `VECTORS * 16` elements, `c.stride` apart, must be writable.
#[inline(always)]
pub(super) unsafe fn store_sums<S: Simd, const ROWS: usize, const VECTORS: usize>(
    s: S,
    sums: Sums<S::V, ROWS, VECTORS>,
    c: Strided<*mut f32>,
) {
    for (row, sums) in sums.iter().enumerate() {
        for (vector, sum) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { s.store_f32(*sum, c.ptr.add(row * c.stride + vector * LANES)) };
        }
    }
}

/// Adds `k_len` steps to a tile. Step `k` reads `a.ptr[row * a.stride + k]` and 16 elements from
/// `b[vector][k * b_stride]` on; `PREFETCH_BYTES` ahead of those, lines of `b` are asked for (0: none).
///
/// # Safety
/// All of these elements must be readable.
#[inline(always)]
pub(super) unsafe fn accumulate<
    S: Simd,
    E: Element,
    const ROWS: usize,
    const VECTORS: usize,
    const PREFETCH_BYTES: usize,
>(
    s: S,
    sums: &mut Sums<S::V, ROWS, VECTORS>,
    a: Strided<*const f32>,
    b: [*const E; VECTORS],
    b_stride: usize,
    k_len: usize,
) {
    for k in 0..k_len {
        let mut columns = [s.splat(0.0); VECTORS];
        for vector in 0..VECTORS {
            // SAFETY: the caller's promise.
            let ptr = unsafe { b[vector].add(k * b_stride) };
            if PREFETCH_BYTES > 0 && (vector * LANES * size_of::<E>()).is_multiple_of(64) {
                s.prefetch(ptr.cast::<u8>().wrapping_add(PREFETCH_BYTES));
            }
            // SAFETY: the caller's promise.
            columns[vector] = unsafe { E::load(s, ptr) };
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            let value = s.splat(unsafe { *a.ptr.add(row * a.stride + k) });
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = s.fma(value, column, *sum);
            }
        }
    }
}

/// Evaluates an expression with the constant `$ROWS` equal to `$rows`, which is from 1 to `$S::TILE_ROWS`.
macro_rules! with_tile_rows {
    ($rows:expr, $S:ident, $ROWS:ident => $body:expr) => {{
        debug_assert!((1..=$S::TILE_ROWS).contains(&$rows));
        with_tile_rows!(@ $rows, $S, $ROWS => $body, 1, 2, 3, 4, 5, 6)
    }};
    (@ $rows:expr, $S:ident, $ROWS:ident => $body:expr, $($count:literal),*) => {{
        $(
            // (The first condition is a constant: tiles that an instruction set has no registers for are not compiled.)
            if $count <= $S::TILE_ROWS && $rows == $count {
                const $ROWS: usize = $count;
                $body
            }
        )*
    }};
}
pub(super) use with_tile_rows;
