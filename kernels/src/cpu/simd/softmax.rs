//! The online softmax under attention: a query's running state, its update by one tile of scores, and the merge of
//! states over consecutive parts of a context.

use std::ops::Range;

use super::aligned::AlignedVec;
use super::math::exp_of_nonpositive;
use super::{Kernel, LANES, Simd};

/// Keys of a tile.
pub(super) const TILE_KEYS: usize = 64;
/// Groups of 16 keys in a tile; each lies inside one block.
pub(super) const TILE_GROUPS: usize = TILE_KEYS / LANES;
/// Tiles of a segment.
pub(super) const SEGMENT_TILES: usize = 8;
/// Keys of a segment.
pub(crate) const SEGMENT_KEYS: usize = SEGMENT_TILES * TILE_KEYS;

/// Elements of a query's state: weighted values `[padded_dim]`, lane sums of weights `[16]`, largest score `[1]` and
/// padding to a cache line.
pub(crate) const fn state_len(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES) + 2 * LANES
}

/// Sets states to "no key seen".
#[inline(always)]
pub(super) fn reset_states(states: &mut [f32], state_len: usize, padded_dim: usize) {
    for state in states.chunks_exact_mut(state_len) {
        state.fill(0.0);
        state[padded_dim + LANES] = f32::NEG_INFINITY;
    }
}

/// `total` with the keys of a later `segment`.
#[inline(always)]
pub(super) fn merge<S: Simd>(s: S, total: &mut [f32], segment: &[f32], padded_dim: usize) {
    let max_at = padded_dim + LANES;
    let (of_total, of_segment) = (total[max_at], segment[max_at]);
    let max = if of_total > of_segment { of_total } else { of_segment };
    let keep = exp_of_nonpositive(s, s.splat(of_total - max));
    let join = exp_of_nonpositive(s, s.splat(of_segment - max));
    for (total, segment) in total[..max_at].chunks_exact_mut(LANES).zip(segment[..max_at].chunks_exact(LANES)) {
        let sum = s.fma(s.load(total), keep, s.mul(s.load(segment), join));
        s.store(sum, total);
    }
    total[max_at] = max;
}

/// Divides the weighted values by the sum of the weights.
#[inline(always)]
pub(super) fn finish<S: Simd>(s: S, state: &[f32], padded_dim: usize, out: &mut [f32]) {
    let sum = s.sum_lanes(s.load(&state[padded_dim..padded_dim + LANES]));
    let inverse = s.splat(1.0 / sum);
    for (out, values) in out.chunks_mut(LANES).zip(state[..padded_dim].chunks_exact(LANES)) {
        s.store(s.mul(s.load(values), inverse), out);
    }
}

/// Turns scores into weights relative to the largest score so far, and rescales the state when that has grown.
/// Keys outside of `keys` get weight 0, whatever their score is.
#[inline(always)]
pub(super) fn soften<S: Simd>(s: S, scores: &mut [f32], state: &mut [f32], padded_dim: usize, keys: Range<usize>) {
    const LANE_INDEX: [f32; LANES] =
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
    let minus_infinity = s.splat(f32::NEG_INFINITY);
    let mut groups: [S::V; TILE_GROUPS] = std::array::from_fn(|group| s.load(&scores[group * LANES..]));
    if keys != (0..TILE_KEYS) {
        for (group, scores) in groups.iter_mut().enumerate() {
            let index = s.add(s.load(&LANE_INDEX), s.splat((group * LANES) as f32));
            let from_start = s.select_less(index, s.splat(keys.start as f32), minus_infinity, *scores);
            *scores = s.select_less(index, s.splat(keys.end as f32), from_start, minus_infinity);
        }
    }
    let largest = groups.iter().fold(minus_infinity, |largest, scores| s.max(largest, *scores));
    let (sums, max) = state.split_at_mut(padded_dim + LANES);
    let tile_max = s.max_lanes(largest);
    if tile_max > max[0] {
        let keep = exp_of_nonpositive(s, s.splat(max[0] - tile_max));
        for sums in sums.chunks_exact_mut(LANES) {
            s.store(s.mul(s.load(sums), keep), sums);
        }
        max[0] = tile_max;
    }
    let lane_sums = &mut sums[padded_dim..];
    let mut sum = s.load(lane_sums);
    let max = s.splat(max[0]);
    for (group, scores_of_group) in groups.into_iter().enumerate() {
        let weights = exp_of_nonpositive(s, s.sub(scores_of_group, max));
        sum = s.add(sum, weights);
        s.store(weights, &mut scores[group * LANES..(group + 1) * LANES]);
    }
    s.store(sum, lane_sums);
}

/// Merges the states that [`super::attention::AttentionSegment`] made of one row, in order, into the row's output.
pub(crate) struct MergeSegments<'a> {
    pub head_dim: usize,
    /// Segments that the row sees.
    pub segments: Range<usize>,
    /// `[num_segments][heads][state_len]`, segment 0 first.
    pub states: &'a [f32],
    /// `[heads][head_dim]`.
    pub out: &'a mut [f32],
    pub scratch: &'a mut AlignedVec,
}

impl Kernel for MergeSegments<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (state_len, padded_dim) = (state_len(self.head_dim), self.head_dim.next_multiple_of(LANES));
        let heads = self.out.len() / self.head_dim;
        let total = self.scratch.at_least(state_len);
        for (head, out) in self.out.chunks_exact_mut(self.head_dim).enumerate() {
            reset_states(total, state_len, padded_dim);
            for segment in self.segments.clone() {
                let at = (segment * heads + head) * state_len;
                merge(s, total, &self.states[at..at + state_len], padded_dim);
            }
            finish(s, total, padded_dim, out);
        }
    }
}
