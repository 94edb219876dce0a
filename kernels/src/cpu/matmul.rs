//! The matrix product on the CPU: which rows and panels make a part.

use super::simd::element::{Element, with_element};
use super::simd::matmul::MatmulTile;
use super::simd::output::{Grid, RowBlocks, for_each_tile};
use crate::matrix::PANEL;
use crate::{Device, Matrix, Tensor, Vector};

/// Rows of a part when there are many are so few that their activations, about this many bytes, stay in the second-level
/// cache while panel after panel passes.
const PART_BYTES: usize = 1 << 20;
/// ... but at least this many, so that widening a panel is worth it.
const PART_ROWS: usize = 96;
/// Parts for each thread when there is enough work: they even out a thread that is held up.
const PARTS_PER_THREAD: usize = 8;
/// What one thread does in a nanosecond, to estimate how long a product takes: floating-point operations on cached
/// weights, and bytes of weights from memory.
const FLOPS_PER_NS: usize = 120;
const BYTES_PER_NS: usize = 24;
/// A part should take about this long at least: claiming it costs a few dozen nanoseconds.
const PART_NS: usize = 4_000;

/// Specification: `out[r, n] = sum_k x[r, k] * w[n, k] + bias[n]`, one chain of fused multiply-adds from 0 in the order
/// of `k`, then the bias.
pub(crate) fn matmul(device: &Device, x: &Tensor, weight: &Matrix, bias: Option<&Vector>, out: &mut Tensor) {
    with_element!(weight.dtype(), E => run::<E>(device, x, weight, bias, out));
}

fn run<E: Element>(device: &Device, x: &Tensor, weight: &Matrix, bias: Option<&Vector>, out: &mut Tensor) {
    let num_rows = x.num_rows();
    let k_len = x.width();
    let panels = weight.panels::<E>();
    let work_ns = (2 * num_rows * weight.out_features() * k_len / FLOPS_PER_NS).max(weight.num_bytes() / BYTES_PER_NS);
    let threads = device.pool_for(work_ns);
    let rows = rows_per_part(num_rows, k_len);
    let num_parts = (work_ns / PART_NS).min(threads.num_threads() * PARTS_PER_THREAD).max(1);
    let parts_across = num_parts.div_ceil(num_rows.div_ceil(rows).max(1));
    let panels_per_part = weight.out_features().div_ceil(PANEL).div_ceil(parts_across);
    let columns_per_tile = panels_per_part * PANEL;
    let grid = Grid { width: out.width(), rows: RowBlocks::Every(rows), columns_per_tile };
    for_each_tile(threads, out.as_mut_slice(), grid, |tile, thread| {
        let scratch = &mut *device.scratch(thread);
        let bias = bias.map(Vector::as_slice);
        device.level().run(MatmulTile { x: x.as_slice(), k_len, panels, bias, out: tile, scratch });
    });
}

/// Rows of a part: as many as fit, but parts of nearly equal size, in whole register tiles.
fn rows_per_part(num_rows: usize, k_len: usize) -> usize {
    let at_most = (PART_BYTES / (4 * k_len)).max(PART_ROWS);
    let num_parts = num_rows.div_ceil(at_most).max(1);
    num_rows.div_ceil(num_parts).next_multiple_of(6)
}
