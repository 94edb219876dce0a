//! Operations on single rows on the CPU: rows are cut into runs for the threads when there are enough of them.

use super::simd::element::with_element;
use super::simd::output::{for_each_chunk, for_each_chunk_pair};
use super::simd::rowwise::{Add, HeadRmsNorm, RmsNorm, Rope, SiluMul};
use crate::ops::HeadLayout;
use crate::{Device, Matrix, RopeTable, Tensor, Vector};

/// Elements' worth of work that one part does at least: below, waking a worker costs more than it saves.
const PART_COST: usize = 16 << 10;
/// A gathered element stands in a cache line of its own.
const GATHER_COST: usize = 8;
/// An exponential and a division, against a plain sum.
const SILU_COST: usize = 4;

/// Rows of a part: about two parts a thread, and enough work in each. `row_cost` is in elements of a plain sum.
fn rows_per_part(device: &Device, num_rows: usize, row_cost: usize) -> usize {
    num_rows.div_ceil(2 * device.num_threads()).max(PART_COST.div_ceil(row_cost))
}

/// Specification: `out[r] = w[tokens[r]]`.
pub(crate) fn embedding(device: &Device, weight: &Matrix, tokens: &[u32], out: &mut Tensor) {
    let width = out.width();
    let part_rows = rows_per_part(device, tokens.len(), width * GATHER_COST);
    for_each_chunk(device.pool(), out.as_mut_slice(), part_rows * width, |index, rows, _| {
        let first = index * part_rows;
        for (row, token) in rows.chunks_exact_mut(width).zip(&tokens[first..]) {
            with_element!(weight.dtype(), E => weight.row_into::<E>(*token as usize, row));
        }
    });
}

/// Specification: `residual += delta`.
pub(crate) fn add(device: &Device, residual: &mut Tensor, delta: &Tensor) {
    let part = rows_per_part(device, residual.num_rows(), residual.width()) * residual.width();
    for_each_chunk(device.pool(), residual.as_mut_slice(), part, |index, x, _| {
        let delta = &delta.as_slice()[index * part..][..x.len()];
        device.level().run(Add { x, delta });
    });
}

/// Specification: `out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight`, all in f32.
pub(crate) fn rms_norm(device: &Device, x: &Tensor, weight: &Vector, eps: f32, out: &mut Tensor) {
    let width = x.width();
    let part = rows_per_part(device, x.num_rows(), width) * width;
    let weight = weight.as_slice();
    for_each_chunk(device.pool(), out.as_mut_slice(), part, |index, out, _| {
        let x = &x.as_slice()[index * part..][..out.len()];
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            device.level().run(RmsNorm { x, weight, eps, out });
        }
    });
}

/// Specification: `residual += delta`, then `out = rms_norm(residual)`.
pub(crate) fn add_rms_norm(
    device: &Device,
    residual: &mut Tensor,
    delta: &Tensor,
    (weight, eps): (&Vector, f32),
    out: &mut Tensor,
) {
    let width = residual.width();
    let part = rows_per_part(device, residual.num_rows(), width) * width;
    let weight = weight.as_slice();
    let outputs = (residual.as_mut_slice(), out.as_mut_slice());
    for_each_chunk_pair(device.pool(), outputs, part, |index, residual, out| {
        let delta = &delta.as_slice()[index * part..][..out.len()];
        let rows = residual.chunks_exact_mut(width).zip(delta.chunks_exact(width)).zip(out.chunks_exact_mut(width));
        for ((x, delta), out) in rows {
            device.level().run(Add { x, delta });
            device.level().run(RmsNorm { x, weight, eps, out });
        }
    });
}

/// Specification: [`rms_norm`] of every query head and every key head of every row.
pub(crate) fn head_rms_norm(
    device: &Device,
    qkv: &mut Tensor,
    layout: HeadLayout,
    (q_weight, k_weight): (&Vector, &Vector),
    eps: f32,
) {
    let width = qkv.width();
    let part = rows_per_part(device, qkv.num_rows(), width) * width;
    for_each_chunk(device.pool(), qkv.as_mut_slice(), part, |_, rows, _| {
        for row in rows.chunks_exact_mut(width) {
            let (q, k) = row[..layout.rotated_width()].split_at_mut(layout.num_heads * layout.head_dim);
            device.level().run(HeadRmsNorm { heads: q, weight: q_weight.as_slice(), eps });
            device.level().run(HeadRmsNorm { heads: k, weight: k_weight.as_slice(), eps });
        }
    });
}

/// Specification: in every query and key head, `(x[d], x[d + half]) = (x[d] cos[d] - x[d + half] sin[d],
/// x[d + half] cos[d] + x[d] sin[d])` for `d < half`, with the row's position's cos and sin.
pub(crate) fn rope(device: &Device, qkv: &mut Tensor, layout: HeadLayout, positions: &[u32], table: &RopeTable) {
    let width = qkv.width();
    let part = rows_per_part(device, qkv.num_rows(), width) * width;
    for_each_chunk(device.pool(), qkv.as_mut_slice(), part, |index, rows, _| {
        let first = index * part / width;
        for (row, position) in rows.chunks_exact_mut(width).zip(&positions[first..]) {
            let (cos, sin) = table.row(*position as usize);
            let heads = &mut row[..layout.rotated_width()];
            device.level().run(Rope { heads, head_dim: layout.head_dim, cos, sin });
        }
    });
}

/// Specification: `out[r, i] = silu(x[r, i]) * x[r, f + i]`.
pub(crate) fn silu_mul(device: &Device, gate_up: &Tensor, out: &mut Tensor) {
    let width = out.width();
    let part = rows_per_part(device, gate_up.num_rows(), width * SILU_COST) * width;
    for_each_chunk(device.pool(), out.as_mut_slice(), part, |index, out, _| {
        let gate_up = &gate_up.as_slice()[2 * index * part..][..2 * out.len()];
        for (row, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
            let (gate, up) = row.split_at(width);
            device.level().run(SiluMul { gate, up, out });
        }
    });
}

/// Specification: `out[i] = x[rows[i]]`.
pub(crate) fn gather_rows(x: &Tensor, rows: &[u32], out: &mut Tensor) {
    let width = x.width();
    for (out, row) in out.as_mut_slice().chunks_exact_mut(width).zip(rows) {
        out.copy_from_slice(x.row(*row as usize));
    }
}
