//! The matrix product on the CPU: which rows and panels make a part.

use super::simd::bf16_dot::{Bf16Dot, round_to_pairs};
use super::simd::element::{Element, with_element};
use super::simd::matmul::MatmulTile;
use super::simd::output::{Grid, RowBlocks, TileMut, for_each_chunk, for_each_tile};
use crate::device::Scratch;
use crate::matrix::PANEL;
use crate::{DType, Device, Matrix, Tensor, Vector};

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
/// Pairs of activations that are rounded to bf16 in a nanosecond.
const PAIRS_PER_NS: usize = 2;
/// A part should take about this long at least: claiming it costs a few dozen nanoseconds.
const PART_NS: usize = 4_000;

/// Specification: `out[r, n] = sum_k x[r, k] * w[n, k] + bias[n]`, one chain of fused multiply-adds from 0 in the order
/// of `k`, then the bias.
///
/// With the bf16 dot product and bf16 weights: activations are rounded to bf16, and the chain's step `j` adds
/// `x[r, 2j + 1] * w[n, 2j + 1]` and then `x[r, 2j] * w[n, 2j]`.
pub(crate) fn matmul(device: &Device, x: &Tensor, weight: &Matrix, bias: Option<&Vector>, out: &mut Tensor) {
    if x.num_rows() == 0 {
        return;
    }
    let bias = bias.map(Vector::as_slice);
    match (weight.dtype(), device.bf16_dot()) {
        (DType::BF16, Some(dot)) => run_pairs(device, dot, x, weight, bias, out),
        (dtype, _) => with_element!(dtype, E => run::<E>(device, x, weight, bias, out)),
    }
}

fn run<E: Element>(device: &Device, x: &Tensor, weight: &Matrix, bias: Option<&[f32]>, out: &mut Tensor) {
    let (x, k_len, panels) = (x.as_slice(), x.width(), weight.panels::<E>());
    for_each_part(device, weight, out, |out, scratch| {
        device.level().run(MatmulTile { x, k_len, panels, bias, out, scratch });
    });
}

fn run_pairs(device: &Device, dot: Bf16Dot, x: &Tensor, weight: &Matrix, bias: Option<&[f32]>, out: &mut Tensor) {
    let (k_len, panels) = (x.width().div_ceil(2), weight.pair_panels());
    let mut shared = device.shared_scratch();
    let pairs = shared.at_least(x.num_rows() * k_len);
    let threads = device.pool_for(pairs.len() / PAIRS_PER_NS);
    let rows = x.num_rows().div_ceil(threads.num_threads());
    for_each_chunk(threads, pairs, rows * k_len, |index, pairs, _| {
        let x = &x.as_slice()[index * rows * x.width()..];
        for (pairs, x) in pairs.chunks_exact_mut(k_len).zip(x.chunks_exact(weight.in_features())) {
            round_to_pairs(x, pairs);
        }
    });
    let x = &*pairs;
    for_each_part(device, weight, out, |out, scratch| {
        dot.run(MatmulTile { x, k_len, panels, bias, out, scratch });
    });
}

/// Calls `part` for every tile of the output.
fn for_each_part(device: &Device, weight: &Matrix, out: &mut Tensor, part: impl Fn(TileMut<'_>, &mut Scratch) + Sync) {
    let (num_rows, outputs, k_len) = (out.num_rows(), weight.out_features(), weight.in_features());
    let work_ns = (2 * num_rows * outputs * k_len / FLOPS_PER_NS).max(weight.num_bytes() / BYTES_PER_NS);
    let threads = device.pool_for(work_ns);
    let rows = rows_per_part(num_rows, k_len);
    let num_parts = (work_ns / PART_NS).min(threads.num_threads() * PARTS_PER_THREAD).max(1);
    let parts_across = num_parts.div_ceil(num_rows.div_ceil(rows));
    let panels_per_part = outputs.div_ceil(PANEL).div_ceil(parts_across);
    let columns_per_tile = panels_per_part * PANEL;
    let grid = Grid { width: outputs, rows: RowBlocks::Every(rows), columns_per_tile };
    for_each_tile(threads, out.as_mut_slice(), grid, |tile, thread| part(tile, &mut device.scratch(thread)));
}

/// Rows of a part: as many as fit, but parts of nearly equal size, in whole register tiles.
fn rows_per_part(num_rows: usize, k_len: usize) -> usize {
    let at_most = (PART_BYTES / (4 * k_len)).max(PART_ROWS);
    let num_parts = num_rows.div_ceil(at_most).max(1);
    num_rows.div_ceil(num_parts).next_multiple_of(6)
}
