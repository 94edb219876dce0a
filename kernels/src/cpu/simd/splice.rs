//! Turns the keys of a run of tokens while they move from one block to another.

use super::element::Element;
use super::{Kernel, LANES, Simd};

/// Keys of one head, some tokens of one block to some slots of another: `k'[d] = k[d] cos - k[d + half] sin`,
/// `k'[d + half] = k[d + half] cos + k[d] sin` in f32, rounded to the element type once. Dimensions beyond the rotated
/// ones are copied.
pub(crate) struct TurnKeys<'a> {
    /// Stored keys, `[head_dim][block_size]`.
    pub from: &'a [u8],
    /// Where they go, `[head_dim][block_size]`.
    pub to: &'a mut [u8],
    pub block_size: usize,
    /// First token in `from` and in `to`, and how many.
    pub from_offset: usize,
    pub to_offset: usize,
    pub len: usize,
    /// `[half_dim]`
    pub cos: &'a [f32],
    /// `[half_dim]`
    pub sin: &'a [f32],
}

/// A [`TurnKeys`] of one element type.
pub(crate) struct TurnKeysOf<'a, E> {
    pub keys: TurnKeys<'a>,
    pub element: std::marker::PhantomData<E>,
}

impl<E: Element> Kernel for TurnKeysOf<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let TurnKeys { from, to, block_size, from_offset, to_offset, len, cos, sin } = self.keys;
        let size = size_of::<E>();
        let row = |dimension: usize, offset: usize| (dimension * block_size + offset) * size;
        let half_dim = cos.len();
        for (pair, (&cos, &sin)) in cos.iter().zip(sin).enumerate() {
            let (cos, sin) = (s.splat(cos), s.splat(sin));
            for at in (0..len).step_by(LANES) {
                let count = LANES.min(len - at);
                let first = &from[row(pair, from_offset + at)..][..count * size];
                let second = &from[row(pair + half_dim, from_offset + at)..][..count * size];
                let (a, b) = (widened::<E, S>(s, first), widened::<E, S>(s, second));
                let minus_b = s.sub(s.splat(0.0), b);
                let turned = (s.fma(a, cos, s.mul(minus_b, sin)), s.fma(b, cos, s.mul(a, sin)));
                narrowed::<E, S>(s, turned.0, &mut to[row(pair, to_offset + at)..][..count * size]);
                narrowed::<E, S>(s, turned.1, &mut to[row(pair + half_dim, to_offset + at)..][..count * size]);
            }
        }
        for dimension in 2 * half_dim..from.len() / (block_size * size) {
            let kept = &from[row(dimension, from_offset)..][..len * size];
            to[row(dimension, to_offset)..][..len * size].copy_from_slice(kept);
        }
    }
}

/// At most sixteen stored elements as lanes, zeros behind them.
#[inline(always)]
fn widened<E: Element, S: Simd>(s: S, bytes: &[u8]) -> S::V {
    let mut lanes = [0.0; LANES];
    for (lane, bytes) in lanes.iter_mut().zip(bytes.chunks_exact(size_of::<E>())) {
        *lane = E::from_le_slice(bytes).to_f32();
    }
    s.load(&lanes)
}

/// As many lanes as there is room for, rounded to nearest, ties to even.
#[inline(always)]
fn narrowed<E: Element, S: Simd>(s: S, v: S::V, bytes: &mut [u8]) {
    for (bytes, lane) in bytes.chunks_exact_mut(size_of::<E>()).zip(s.to_array(v)) {
        E::from_f32(lane).write_le(bytes);
    }
}
