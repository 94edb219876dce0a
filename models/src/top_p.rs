//! Top-p over a whole vocabulary without sorting it: finds the least likely token that stays.

use crate::softmax::{logit_of, order_key};

/// Tokens are grouped by how far their scaled logit lies below the largest.
const NUM_BUCKETS: usize = 1024;
/// 32 buckets for a factor of e: the last one begins at `e^-32` of the most likely token.
const BUCKETS_PER_NAT: f32 = 32.0;

/// Scaled logits of a vocabulary and their exponentials relative to the largest.
pub(crate) struct Distribution<'a> {
    pub logits: &'a [f32],
    /// `exp((logit - max) / temperature)`
    pub weights: &'a [f32],
    pub max: f32,
    pub temperature: f32,
}

impl Distribution<'_> {
    /// The order key of the last of the fewest most likely tokens whose weights reach `top_p` of their sum.
    ///
    /// Only the tokens of the bucket in which the sum is reached are sorted. `scratch` is used for them.
    pub fn last_kept(&self, top_p: f32, scratch: &mut Vec<u64>) -> u64 {
        let mut masses = [0.0f64; NUM_BUCKETS];
        for (logit, weight) in self.logits.iter().zip(self.weights) {
            masses[self.bucket(*logit)] += f64::from(*weight);
        }
        let target = f64::from(top_p) * masses.iter().sum::<f64>();
        let mut passed = 0.0;
        let mut reached_in = NUM_BUCKETS - 1;
        for (bucket, mass) in masses.iter().enumerate() {
            if passed + mass >= target {
                reached_in = bucket;
                break;
            }
            passed += mass;
        }
        scratch.clear();
        let tokens = self.logits.iter().enumerate().filter(|(_, logit)| self.bucket(**logit) == reached_in);
        scratch.extend(tokens.map(|(token, logit)| order_key(*logit, token as u32)));
        scratch.sort_unstable();
        for key in scratch.iter() {
            passed += f64::from(self.weights[*key as u32 as usize]);
            if passed >= target {
                return *key;
            }
        }
        // Sums in another order can fall short by a rounding; an empty bucket is the last one.
        scratch.last().copied().unwrap_or(u64::MAX)
    }

    /// Falls as the logit rises, so buckets are in order of likelihood.
    fn bucket(&self, logit: f32) -> usize {
        let distance = (self.max - logit) / self.temperature;
        ((distance * BUCKETS_PER_NAT) as usize).min(NUM_BUCKETS - 1)
    }
}

/// Whether a token comes after the last kept one in the order of likelihood.
pub(crate) fn is_behind(logit: f32, token: u32, last_kept: u64) -> bool {
    let last_logit = logit_of(last_kept);
    logit < last_logit || (logit == last_logit && token > last_kept as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::softmax::exp_nonpositive;

    #[test]
    fn what_stays_is_what_a_full_sort_would_keep() {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let mut scratch = Vec::new();
        for round in 0..300 {
            let len = 1 + (next() * 500.0) as usize;
            let spread = [0.0, 0.01, 1.0, 10.0, 200.0][round % 5];
            // Every third list has few different values, so that ties are cut by id.
            let coarse = |x: f32| if round % 3 == 0 { (x * 4.0).floor() / 4.0 } else { x };
            let logits: Vec<f32> = (0..len).map(|_| spread * coarse(next())).collect();
            let (top_p, temperature) = (next().max(1e-3), 0.1 + next());
            let max = logits.iter().copied().fold(f32::MIN, f32::max);
            let weights: Vec<f32> = logits.iter().map(|logit| exp_nonpositive((logit - max) / temperature)).collect();
            let mut sorted: Vec<u64> = logits.iter().enumerate().map(|(id, l)| order_key(*l, id as u32)).collect();
            sorted.sort_unstable();
            let weight_of = |key: &u64| f64::from(weights[*key as u32 as usize]);
            let target = f64::from(top_p) * sorted.iter().map(weight_of).sum::<f64>();
            let distribution = Distribution { logits: &logits, weights: &weights, max, temperature };
            let last = distribution.last_kept(top_p, &mut scratch);
            let kept: Vec<&u64> = sorted.iter().filter(|key| !is_behind(logit_of(**key), **key as u32, last)).collect();
            let mass: f64 = kept.iter().map(|key| weight_of(key)).sum();
            let tolerance = target * 1e-9;
            assert_eq!(**kept.last().expect("one stays"), last, "round {round}");
            assert!(mass >= target - tolerance, "round {round}: {mass} of {target}");
            assert!(mass - weight_of(&last) < target + tolerance, "round {round}: one token too many");
        }
    }
}
