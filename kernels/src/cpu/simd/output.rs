//! Outputs cut into disjoint tiles, one for each part of a job.

use std::marker::PhantomData;
use std::ops::Range;

use super::tile::Strided;
use crate::cpu::threads::ThreadPool;

/// How a row-major output is cut: every tile is one block of rows by one block of columns.
#[derive(Clone, Copy)]
pub(crate) struct Grid<'a> {
    /// Elements of a row.
    pub width: usize,
    pub rows: RowBlocks<'a>,
    /// Columns of a tile; the last one may be narrower.
    pub columns_per_tile: usize,
}

/// How rows are cut into blocks.
#[derive(Clone, Copy)]
pub(crate) enum RowBlocks<'a> {
    /// Blocks of this many rows; the last one may be shorter.
    Every(usize),
    /// Block `i` is rows `bounds[i]..bounds[i + 1]`; bounds rise from 0 to the number of rows.
    Bounds(&'a [usize]),
}

/// A block of rows and columns of a row-major output, owned by one part of a job.
pub(crate) struct TileMut<'a> {
    /// The tile's first element.
    ptr: *mut f32,
    /// Elements between rows.
    stride: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    borrow: PhantomData<&'a mut [f32]>,
}

impl TileMut<'_> {
    /// Which rows of the output these are.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Which columns of the output these are.
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    pub fn num_rows(&self) -> usize {
        self.rows.len()
    }

    /// The tile's part of its row `row`, counted from the tile's first.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows.len());
        // SAFETY: the row is inside the tile, whose elements nobody else has.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(row * self.stride), self.columns.len()) }
    }

    /// From column `at` of the tile on, for a kernel: all of the tile's rows may be accessed there, up to its last
    /// column.
    pub(super) fn strided_at(&mut self, at: usize) -> Strided<*mut f32> {
        assert!(at < self.columns.len());
        // SAFETY: the column is inside the tile's first row.
        Strided { ptr: unsafe { self.ptr.add(at) }, stride: self.stride }
    }
}

/// A base pointer that the parts of a job share; each forms slices of its own elements only.
struct Base<T>(*mut T);

// SAFETY: the functions below hand out disjoint ranges, once each.
unsafe impl<T: Send> Sync for Base<T> {}

impl<T> Base<T> {
    /// (A method, so that closures capture the whole wrapper.)
    ///
    /// # Safety
    /// `offset` must be inside the slice that the base was made of.
    unsafe fn at(&self, offset: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

/// Calls `part(tile, thread)` once for every tile of `out`: row block by row block, and in a row block column by column.
///
/// # Panics
/// When the grid does not fit `out`.
pub(crate) fn for_each_tile(
    pool: &ThreadPool,
    out: &mut [f32],
    grid: Grid<'_>,
    part: impl Fn(TileMut<'_>, usize) + Sync,
) {
    let Grid { width, rows, columns_per_tile } = grid;
    if out.is_empty() {
        return;
    }
    assert!(out.len().is_multiple_of(width) && columns_per_tile > 0);
    let num_rows = out.len() / width;
    let num_blocks = match rows {
        RowBlocks::Every(count) => num_rows.div_ceil(count),
        RowBlocks::Bounds(bounds) => {
            assert!(bounds.is_sorted() && bounds.first() == Some(&0) && bounds.last() == Some(&num_rows));
            bounds.len() - 1
        }
    };
    let tiles_across = width.div_ceil(columns_per_tile);
    let base = Base(out.as_mut_ptr());
    pool.run(num_blocks * tiles_across, |index, thread| {
        let block = index / tiles_across;
        let rows = match rows {
            RowBlocks::Every(count) => block * count..num_rows.min((block + 1) * count),
            RowBlocks::Bounds(bounds) => bounds[block]..bounds[block + 1],
        };
        let first_column = index % tiles_across * columns_per_tile;
        let columns = first_column..width.min(first_column + columns_per_tile);
        if rows.is_empty() {
            return;
        }
        // SAFETY: row and column are inside `out`. Blocks of rows and of columns do not overlap (checked above), and
        // the pool calls each index once, so no two tiles share an element; `out` is borrowed until all have returned.
        let ptr = unsafe { base.at(rows.start * width + columns.start) };
        part(TileMut { ptr, stride: width, rows, columns, borrow: PhantomData }, thread);
    });
}

/// Calls `part(index, chunk, thread)` once for every chunk of `chunk_len` elements; the last one may be shorter.
pub(crate) fn for_each_chunk<T: Send>(
    pool: &ThreadPool,
    data: &mut [T],
    chunk_len: usize,
    part: impl Fn(usize, &mut [T], usize) + Sync,
) {
    assert!(chunk_len > 0);
    let len = data.len();
    let base = Base(data.as_mut_ptr());
    pool.run(len.div_ceil(chunk_len), |index, thread| {
        let first = index * chunk_len;
        // SAFETY: chunks lie inside `data`, do not overlap, and each index is called once while `data` is borrowed.
        let chunk = unsafe { std::slice::from_raw_parts_mut(base.at(first), chunk_len.min(len - first)) };
        part(index, chunk, thread);
    });
}

/// As [`for_each_chunk`], for two slices of the same length that are cut alike.
pub(crate) fn for_each_chunk_pair<T: Send>(
    pool: &ThreadPool,
    (a, b): (&mut [T], &mut [T]),
    chunk_len: usize,
    part: impl Fn(usize, &mut [T], &mut [T]) + Sync,
) {
    assert!(chunk_len > 0 && a.len() == b.len());
    let len = a.len();
    let (a, b) = (Base(a.as_mut_ptr()), Base(b.as_mut_ptr()));
    pool.run(len.div_ceil(chunk_len), |index, _| {
        let first = index * chunk_len;
        let count = chunk_len.min(len - first);
        // SAFETY: as in `for_each_chunk`, for each of the two slices, which are distinct borrows.
        unsafe {
            let a = std::slice::from_raw_parts_mut(a.at(first), count);
            let b = std::slice::from_raw_parts_mut(b.at(first), count);
            part(index, a, b);
        }
    });
}

/// The chunks that no part of a [`for_each_listed_chunk`] writes.
pub(crate) struct OtherChunks<'a> {
    base: Base<u8>,
    len: usize,
    chunk_len: usize,
    /// Chunks that parts write, ascending.
    written: &'a [usize],
    borrow: PhantomData<&'a [u8]>,
}

impl OtherChunks<'_> {
    /// A chunk to read.
    ///
    /// # Panics
    /// When there is no such whole chunk, or a part writes it.
    pub fn chunk(&self, index: usize) -> &[u8] {
        let first = index.checked_mul(self.chunk_len).filter(|first| self.len - self.chunk_len >= *first);
        let first = first.expect("a chunk that is read is there: this is a bug");
        assert!(self.written.binary_search(&index).is_err(), "chunk {index} is read and written: this is a bug");
        // SAFETY: the chunk lies inside the slice (just checked), which is borrowed for as long as `self`, and parts
        // write other chunks only (just checked), so nobody changes it.
        unsafe { std::slice::from_raw_parts(self.base.at(first), self.chunk_len) }
    }
}

/// Calls `part(index, chunk, others)` once for the chunk of `chunk_len` bytes at every `written[index]`; all other chunks
/// can be read meanwhile.
///
/// # Panics
/// When `written` does not rise, or names a chunk that is not there.
pub(crate) fn for_each_listed_chunk(
    pool: &ThreadPool,
    data: &mut [u8],
    chunk_len: usize,
    written: &[usize],
    part: impl Fn(usize, &mut [u8], &OtherChunks<'_>) + Sync,
) {
    let Some(&last) = written.last() else { return };
    assert!(chunk_len > 0 && chunk_len <= data.len() && last < data.len() / chunk_len);
    assert!(written.windows(2).all(|pair| pair[0] < pair[1]));
    let base = Base(data.as_mut_ptr());
    let others = OtherChunks { base: Base(base.0), len: data.len(), chunk_len, written, borrow: PhantomData };
    pool.run(written.len(), |index, _| {
        // SAFETY: the chunk lies inside `data` (the last one does), listed chunks differ, and each index is called once
        // while `data` is borrowed; `others` gives access to chunks that are not listed only.
        let chunk = unsafe { std::slice::from_raw_parts_mut(base.at(written[index] * chunk_len), chunk_len) };
        part(index, chunk, &others);
    });
}
