//! Softmax over a vocabulary in pieces: the largest logits, exponentials and sums, for the sampler and for logprobs.
//!
//! A step does this for every sequence, so the loops are written to be vectorised. They use no library function whose
//! result differs between platforms: the same logits give the same choice everywhere.

use crate::ModelError;

/// Weights that are summed before the sum is compared with what is looked for.
const BLOCK_LEN: usize = 1024;
/// Independent sums (or maxima) that are kept side by side, so that operations need not wait for each other.
const LANES: usize = 8;

/// The largest logit and its token, the lowest id on a tie.
///
/// # Errors
/// [`ModelError::NotFiniteLogit`] when one is NaN or positive infinity, or all are negative infinity (or none is there).
pub(crate) fn largest_logit(logits: &[f32]) -> Result<(u32, f32), ModelError> {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut num_unusable = [0u32; LANES];
    let mut take = |lane: usize, logit: f32| {
        num_unusable[lane] |= u32::from(logit.is_nan() | (logit == f32::INFINITY));
        lanes[lane] = if logit > lanes[lane] { logit } else { lanes[lane] };
    };
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        chunk.iter().enumerate().for_each(|(lane, logit)| take(lane, *logit));
    }
    rest.iter().enumerate().for_each(|(lane, logit)| take(lane, *logit));
    let max = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let all_usable = num_unusable == [0; LANES];
    let is_wanted = |logit: &&f32| if all_usable { **logit == max } else { logit.is_nan() || **logit == f32::INFINITY };
    let found =
        logits.iter().enumerate().find(|(_, logit)| is_wanted(logit)).map(|(token, logit)| (token as u32, *logit));
    match found {
        Some((token, logit)) if all_usable && max > f32::NEG_INFINITY => Ok((token, logit)),
        _ => {
            let (token, value) = found.unwrap_or((0, max));
            Err(ModelError::NotFiniteLogit { token, value })
        }
    }
}

/// `e^x` for `x <= 0`, with a relative error below 3e-7; exactly 0 below -87, where f32 loses precision.
#[inline]
pub(crate) fn exp_nonpositive(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves a whole number in the low bits.
    const LN_2_HIGH: f32 = 0.693_359_4; // Few enough bits that its multiples by small whole numbers are exact.
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // x = n ln 2 + r with |r| <= ln(2) / 2.
    let shifted = x.max(-87.0) * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x.max(-87.0) - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut sum = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * r + coefficient;
    }
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let value = sum * f32::from_bits(exponent << 23);
    if x < -87.0 { 0.0 } else { value }
}

/// The sum of `e^(logit - max)` over all logits, in f64.
pub(crate) fn exp_sum(logits: &[f32], max: f32) -> f64 {
    let mut weights = [0.0f32; BLOCK_LEN];
    let block = |logits: &[f32]| {
        let weights = &mut weights[..logits.len()];
        for (weight, logit) in weights.iter_mut().zip(logits) {
            *weight = exp_nonpositive(logit - max);
        }
        block_sum(weights)
    };
    logits.chunks(BLOCK_LEN).map(block).sum()
}

/// The sum of weights, in f64.
pub(crate) fn sum(weights: &[f32]) -> f64 {
    weights.chunks(BLOCK_LEN).map(block_sum).sum()
}

/// An index with probability in proportion to its weight; `draw` is uniform in 0..1. `None` when all weights are 0.
pub(crate) fn draw_index(weights: &[f32], draw: f64) -> Option<usize> {
    let target = draw * sum(weights);
    let mut passed = 0.0;
    let mut last = None;
    for (block, block_weights) in weights.chunks(BLOCK_LEN).enumerate() {
        let block_sum = block_sum(block_weights);
        if passed + block_sum <= target {
            passed += block_sum;
            continue;
        }
        for (index, weight) in block_weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            passed += f64::from(*weight);
            last = Some(block * BLOCK_LEN + index);
            if passed > target {
                return last;
            }
        }
    }
    // Rounding can leave the target just above what has been passed.
    last.or_else(|| weights.iter().rposition(|weight| *weight > 0.0))
}

fn block_sum(weights: &[f32]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (chunks, rest) = weights.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, weight) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*weight);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|weight| f64::from(*weight)).sum::<f64>()
}

/// A number whose ascending order is: larger logit first, then lower id. The id is its lower half.
#[inline]
pub(crate) fn order_key(logit: f32, id: u32) -> u64 {
    // Adding zero makes -0 and 0 equal. Flipping all bits of negative numbers and the sign of others orders them.
    let bits = (logit + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(!ascending) << 32 | u64::from(id)
}

/// The logit in an order key.
#[inline]
pub(crate) fn logit_of(key: u64) -> f32 {
    let ascending = !((key >> 32) as u32);
    f32::from_bits(if ascending >> 31 == 1 { ascending & !(1 << 31) } else { !ascending })
}

/// Order keys of the `count` largest logits, sorted. One pass: meant for counts that are small against the vocabulary.
pub(crate) fn largest_keys(logits: &[f32], count: usize, kept: &mut Vec<u64>) {
    kept.clear();
    let mut worst = f32::NEG_INFINITY;
    for (id, &logit) in logits.iter().enumerate() {
        // An equal logit comes behind those of lower ids, which are all there already.
        if kept.len() == count && logit <= worst {
            continue;
        }
        if kept.len() == count && kept.pop().is_none() {
            return;
        }
        let key = order_key(logit, id as u32);
        kept.insert(kept.partition_point(|other| *other < key), key);
        worst = kept.last().map_or(worst, |key| logit_of(*key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_exact_to_the_stated_error() {
        let mut worst = 0.0f64;
        for step in 0..=870_000 {
            let x = step as f32 * -1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp_nonpositive(x)) / exact - 1.0).abs());
        }
        assert!(worst < 3e-7, "{worst}");
        assert_eq!(exp_nonpositive(0.0), 1.0);
        assert_eq!([exp_nonpositive(-87.1), exp_nonpositive(f32::NEG_INFINITY), exp_nonpositive(f32::MIN)], [0.0; 3]);
    }

    #[test]
    fn an_index_is_drawn_where_the_running_sum_passes_the_target() {
        let mut weights = vec![0.0f32; 3 * BLOCK_LEN + 5];
        for index in [7, BLOCK_LEN, 3 * BLOCK_LEN + 4] {
            weights[index] = 1.0;
        }
        let drawn = [0.0, 0.3333, 0.3334, 0.6666, 0.6667, 0.999_999_999_999].map(|draw| draw_index(&weights, draw));
        let expected = [7, 7, BLOCK_LEN, BLOCK_LEN, 3 * BLOCK_LEN + 4, 3 * BLOCK_LEN + 4].map(Some);
        assert_eq!(drawn, expected);
        assert_eq!(draw_index(&[0.0; 4], 0.5), None);
        assert_eq!(sum(&weights), 3.0);
    }

    #[test]
    fn order_keys_sort_by_logit_and_then_by_id_and_can_be_read_back() {
        let logits = [f32::NEG_INFINITY, -1e30, -1.0, -1e-40, 0.0, 1e-40, 0.5, 1e30, f32::MAX];
        for pair in logits.windows(2) {
            assert!(order_key(pair[1], 9) < order_key(pair[0], 0), "{pair:?}");
        }
        assert!(order_key(0.0, 1) < order_key(-0.0, 2));
        for logit in logits {
            assert_eq!(logit_of(order_key(logit, 3)), logit);
        }
    }

    #[test]
    fn the_largest_keys_are_those_of_a_full_sort() {
        // Few different values, so that ties are common.
        let logits: Vec<f32> = (0..2000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 27) as f32 - 9.0).collect();
        let mut sorted: Vec<u64> = logits.iter().enumerate().map(|(id, l)| order_key(*l, id as u32)).collect();
        sorted.sort_unstable();
        let mut kept = Vec::new();
        for count in [0, 1, 2, 20, 300, 2000, 5000] {
            largest_keys(&logits, count, &mut kept);
            assert_eq!(kept, sorted[..count.min(2000)], "{count}");
        }
    }
}
