//! The two products of attention over one tile of keys: scores and weighted values, for a register tile of queries.

use std::ops::Range;

use super::element::Element;
use super::softmax::TILE_GROUPS;
use super::tile::{Strided, accumulate, load_sums, store_sums, zero_sums};
use super::{LANES, Simd};

/// Pointers to the groups of a tile, and the distance between consecutive dimensions of a key and consecutive values.
#[derive(Clone, Copy)]
pub(super) struct TilePointers<E> {
    pub keys: [*const E; TILE_GROUPS],
    pub key_stride: usize,
    pub values: [*const E; TILE_GROUPS],
    pub value_stride: usize,
}

/// `c[ROWS][64] = a[ROWS][head_dim] * keys`, each score one chain in the order of the dimensions.
///
/// # Safety
/// All of these elements must be readable, those of `c` writable.
#[inline(always)]
pub(super) unsafe fn score<S: Simd, T: Element, const ROWS: usize>(
    s: S,
    a: Strided<*const f32>,
    tile: TilePointers<T>,
    head_dim: usize,
    c: Strided<*mut f32>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if ROWS * TILE_GROUPS <= S::ACCUMULATORS {
            let mut sums = zero_sums::<S, ROWS, TILE_GROUPS>(s);
            accumulate::<S, T, ROWS, TILE_GROUPS, 0>(s, &mut sums, a, tile.keys, tile.key_stride, head_dim);
            store_sums(s, sums, c);
        } else {
            for (group, keys) in tile.keys.into_iter().enumerate() {
                let c = Strided { ptr: c.ptr.add(group * LANES), stride: c.stride };
                let mut sums = zero_sums::<S, ROWS, 1>(s);
                accumulate::<S, T, ROWS, 1, 0>(s, &mut sums, a, [keys], tile.key_stride, head_dim);
                store_sums(s, sums, c);
            }
        }
    }
}

/// `c[ROWS][padded_dim] += a[ROWS][keys] * values[keys]`, each sum one chain in the order of the keys.
///
/// # Safety
/// All of these elements must be readable, those of `c` writable.
#[inline(always)]
pub(super) unsafe fn weigh<S: Simd, T: Element, const ROWS: usize>(
    s: S,
    a: Strided<*const f32>,
    tile: TilePointers<T>,
    keys: Range<usize>,
    c: Strided<*mut f32>,
    padded_dim: usize,
) {
    let num_vectors = padded_dim / LANES;
    let mut vector = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while vector < num_vectors {
            let c = Strided { ptr: c.ptr.add(vector * LANES), stride: c.stride };
            if ROWS * 4 <= S::ACCUMULATORS && vector + 4 <= num_vectors {
                weigh_vectors::<S, T, ROWS, 4>(s, a, tile, keys.clone(), c, vector);
                vector += 4;
            } else {
                weigh_vectors::<S, T, ROWS, 1>(s, a, tile, keys.clone(), c, vector);
                vector += 1;
            }
        }
    }
}

/// [`weigh`] for `VECTORS` vectors of the values from `first` on.
///
/// # Safety
/// As [`weigh`].
#[inline(always)]
unsafe fn weigh_vectors<S: Simd, T: Element, const ROWS: usize, const VECTORS: usize>(
    s: S,
    a: Strided<*const f32>,
    tile: TilePointers<T>,
    keys: Range<usize>,
    c: Strided<*mut f32>,
    first: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = load_sums::<S, ROWS, VECTORS>(s, c);
        for (group, values) in tile.values.into_iter().enumerate() {
            let group_keys = group * LANES..(group + 1) * LANES;
            let start = keys.start.max(group_keys.start);
            let end = keys.end.min(group_keys.end);
            if start < end {
                let values = values.add((start - group_keys.start) * tile.value_stride + first * LANES);
                let b = std::array::from_fn(|vector| values.add(vector * LANES));
                let a = Strided { ptr: a.ptr.add(start), stride: a.stride };
                accumulate::<S, T, ROWS, VECTORS, 0>(s, &mut sums, a, b, tile.value_stride, end - start);
            }
        }
        store_sums(s, sums, c);
    }
}
