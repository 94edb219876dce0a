//! Operations on single rows: sums, norms, rotation, activation.

use super::math::silu;
use super::{Kernel, LANES, Simd};

/// `x += delta`.
pub(crate) struct Add<'a> {
    pub x: &'a mut [f32],
    pub delta: &'a [f32],
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        debug_assert_eq!(self.x.len(), self.delta.len());
        for (x, delta) in self.x.chunks_mut(LANES).zip(self.delta.chunks(LANES)) {
            let sum = s.add(s.load(x), s.load(delta));
            s.store(sum, x);
        }
    }
}

/// Sum of squares of a row: lane `i` takes elements `i, i + 16, ..`, then the lanes are added by a fixed tree.
#[inline(always)]
fn inverse_rms<S: Simd>(s: S, x: &[f32], eps: f32) -> S::V {
    let mut squares = s.splat(0.0);
    for x in x.chunks(LANES) {
        let x = s.load(x);
        squares = s.fma(x, x, squares);
    }
    let mean = s.sum_lanes(squares) / x.len() as f32;
    s.splat(1.0 / (mean + eps).sqrt())
}

/// `out = x / sqrt(mean(x^2) + eps) * weight`, for one row.
pub(crate) struct RmsNorm<'a> {
    pub x: &'a [f32],
    pub weight: &'a [f32],
    pub eps: f32,
    pub out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        debug_assert!(self.x.len() == self.weight.len() && self.x.len() == self.out.len());
        let scale = inverse_rms(s, self.x, self.eps);
        for ((x, weight), out) in self.x.chunks(LANES).zip(self.weight.chunks(LANES)).zip(self.out.chunks_mut(LANES)) {
            let normed = s.mul(s.mul(s.load(x), scale), s.load(weight));
            s.store(normed, out);
        }
    }
}

/// [`RmsNorm`] of each head of `heads`, in place.
pub(crate) struct HeadRmsNorm<'a> {
    /// `[num_heads, head_dim]`.
    pub heads: &'a mut [f32],
    /// `[head_dim]`.
    pub weight: &'a [f32],
    pub eps: f32,
}

impl Kernel for HeadRmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for head in self.heads.chunks_exact_mut(self.weight.len()) {
            let scale = inverse_rms(s, head, self.eps);
            for (x, weight) in head.chunks_mut(LANES).zip(self.weight.chunks(LANES)) {
                let normed = s.mul(s.mul(s.load(x), scale), s.load(weight));
                s.store(normed, x);
            }
        }
    }
}

/// Rotates each head of `heads` by one position: `(x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin)`, where `x1` is
/// the first half of the rotated dimensions and `x2` the second.
pub(crate) struct Rope<'a> {
    /// `[num_heads, head_dim]`.
    pub heads: &'a mut [f32],
    pub head_dim: usize,
    /// `[half_dim]`.
    pub cos: &'a [f32],
    /// `[half_dim]`.
    pub sin: &'a [f32],
}

impl Kernel for Rope<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let half_dim = self.cos.len();
        for head in self.heads.chunks_exact_mut(self.head_dim) {
            let (first, second) = head[..2 * half_dim].split_at_mut(half_dim);
            let pairs = first.chunks_mut(LANES).zip(second.chunks_mut(LANES));
            for ((x1, x2), (cos, sin)) in pairs.zip(self.cos.chunks(LANES).zip(self.sin.chunks(LANES))) {
                let (a, b) = (s.load(x1), s.load(x2));
                let (cos, sin) = (s.load(cos), s.load(sin));
                let minus_b = s.sub(s.splat(0.0), b);
                s.store(s.fma(a, cos, s.mul(minus_b, sin)), x1);
                s.store(s.fma(b, cos, s.mul(a, sin)), x2);
            }
        }
    }
}

/// `out = silu(gate) * up`, for one row.
pub(crate) struct SiluMul<'a> {
    pub gate: &'a [f32],
    pub up: &'a [f32],
    pub out: &'a mut [f32],
}

impl Kernel for SiluMul<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        debug_assert!(self.gate.len() == self.up.len() && self.gate.len() == self.out.len());
        for ((gate, up), out) in self.gate.chunks(LANES).zip(self.up.chunks(LANES)).zip(self.out.chunks_mut(LANES)) {
            let activated = s.mul(silu(s, s.load(gate)), s.load(up));
            s.store(activated, out);
        }
    }
}
