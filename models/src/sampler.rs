//! Chooses a sequence's next token from its logits; depends on nothing but that sequence, its parameters and the step.
//!
//! Order: logit bias, repetition penalty, presence and frequency penalties, temperature, top-k, top-p, min-p, draw.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use crate::{InvalidParameter, ModelError, SamplingParams};

/// Candidates that top-p sorts at first; it takes four times more when these do not reach the mass.
const FIRST_HEAD_LEN: usize = 64;

/// The sampler of one sequence.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    vocab_size: usize,
    seed: u64,
    /// Tokens drawn so far.
    step: u64,
    /// Tokens that penalties apply to; empty when there are none.
    seen: HashMap<u32, Seen>,
    logits: Vec<f32>,
    candidates: Vec<u64>,
}

/// Where a token has occurred.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Times in the output; a token of the prompt only has 0.
    output_count: u32,
}

impl Sampler {
    /// A sampler for a sequence that begins with `prompt`.
    ///
    /// # Errors
    /// [`InvalidParameter`] when a value is out of range, or a bias is for a token that does not exist.
    pub fn new(params: SamplingParams, prompt: &[u32], vocab_size: usize) -> Result<Self, InvalidParameter> {
        params.validate()?;
        if let Some((token, _)) = params.logit_bias.iter().find(|(token, _)| *token as usize >= vocab_size) {
            let allowed = "token ids of the model's vocabulary";
            return Err(InvalidParameter { name: "logit_bias", value: token.to_string(), allowed });
        }
        let seen = match params.penalizes() {
            true => prompt.iter().map(|token| (*token, Seen::default())).collect(),
            false => HashMap::new(),
        };
        // The standard library's hasher is keyed by the operating system's randomness.
        let seed = params.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        Ok(Self { params, vocab_size, seed, step: 0, seen, logits: Vec::new(), candidates: Vec::new() })
    }

    /// Chooses the next token and records it.
    ///
    /// # Errors
    /// [`ModelError::LogitCount`] when there are not `vocab_size` logits, [`ModelError::NotFiniteLogit`] when one is
    /// NaN or infinite, or all are negative infinity. Nothing is recorded then.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, ModelError> {
        if logits.len() != self.vocab_size {
            return Err(ModelError::LogitCount { expected: self.vocab_size, got: logits.len() });
        }
        let (best, _) = largest_logit(logits)?;
        let is_plain = self.params.logit_bias.is_empty() && self.seen.is_empty();
        let token = if is_plain && self.params.temperature == 0.0 {
            best
        } else {
            let mut adjusted = std::mem::take(&mut self.logits);
            adjusted.clear();
            adjusted.extend_from_slice(logits);
            self.adjust(&mut adjusted);
            let token = self.choose(&adjusted);
            self.logits = adjusted;
            token?
        };
        self.record(token);
        Ok(token)
    }

    /// Takes note of a token that was chosen otherwise, as if it had been sampled.
    pub fn record(&mut self, token: u32) {
        self.step += 1;
        if self.params.penalizes() {
            self.seen.entry(token).or_default().output_count += 1;
        }
    }

    /// Applies bias and penalties.
    fn adjust(&self, logits: &mut [f32]) {
        for (token, bias) in &self.params.logit_bias {
            logits[*token as usize] += bias;
        }
        for (token, seen) in &self.seen {
            let Some(logit) = logits.get_mut(*token as usize) else { continue };
            let repetition = self.params.repetition_penalty;
            *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
            if seen.output_count > 0 {
                *logit -= self.params.frequency_penalty * seen.output_count as f32 + self.params.presence_penalty;
            }
        }
    }

    fn choose(&mut self, logits: &[f32]) -> Result<u32, ModelError> {
        let (best, max) = largest_logit(logits)?;
        let SamplingParams { temperature, top_p, top_k, min_p, .. } = self.params;
        if temperature == 0.0 {
            return Ok(best);
        }
        let draw = uniform(self.seed, self.step);
        let weight = |logit: f32| ((logit - max) / temperature).exp();
        let top_k = top_k.map(|k| k as usize).filter(|k| *k < logits.len());
        if top_k.is_none() && top_p == 1.0 {
            let weights = logits.iter().map(|logit| weight(*logit)).map(|w| if w < min_p { 0.0 } else { w });
            return Ok(draw_index(weights, draw).map_or(best, |index| index as u32));
        }
        let candidates = &mut self.candidates;
        candidates.clear();
        candidates.extend(logits.iter().enumerate().map(|(id, logit)| order_key(*logit, id as u32)));
        let kept = keep_most_likely(candidates, top_k, top_p, &weight);
        let weights = kept.iter().map(|key| weight(logit_of(*key))).map(|w| if w < min_p { 0.0 } else { w });
        Ok(draw_index(weights, draw).map_or(best, |index| kept[index] as u32))
    }
}

/// The `top_k` most likely candidates, and of those the fewest whose weights reach `top_p` of their sum; sorted.
fn keep_most_likely<'a>(
    candidates: &'a mut [u64],
    top_k: Option<usize>,
    top_p: f32,
    weight: &impl Fn(f32) -> f32,
) -> &'a [u64] {
    let candidates = match top_k {
        Some(k) => {
            candidates.select_nth_unstable(k - 1);
            &mut candidates[..k]
        }
        None => candidates,
    };
    if top_p == 1.0 {
        candidates.sort_unstable();
        return candidates;
    }
    let weight_of = |key: &u64| f64::from(weight(logit_of(*key)));
    let mass = f64::from(top_p) * candidates.iter().map(weight_of).sum::<f64>();
    let mut reached = 0.0;
    let mut sorted_len = 0;
    let mut head_len = FIRST_HEAD_LEN;
    // The head that holds the mass is short as a rule, so the tail is never sorted.
    while sorted_len < candidates.len() {
        let rest = &mut candidates[sorted_len..];
        let take = head_len.min(rest.len());
        if take < rest.len() {
            rest.select_nth_unstable(take - 1);
        }
        rest[..take].sort_unstable();
        for (index, key) in rest[..take].iter().enumerate() {
            reached += weight_of(key);
            if reached >= mass {
                return &candidates[..sorted_len + index + 1];
            }
        }
        sorted_len += take;
        head_len *= 4;
    }
    candidates
}

/// An index with probability in proportion to its weight; `draw` is uniform in 0..1. `None` when all weights are 0.
fn draw_index(weights: impl Iterator<Item = f32> + Clone, draw: f64) -> Option<usize> {
    let target = draw * weights.clone().map(f64::from).sum::<f64>();
    let mut passed = 0.0;
    let mut last = None;
    for (index, weight) in weights.enumerate().filter(|(_, weight)| *weight > 0.0) {
        passed += f64::from(weight);
        last = Some(index);
        if passed > target {
            break;
        }
    }
    last
}

/// The largest logit and its token, the lowest id on a tie.
fn largest_logit(logits: &[f32]) -> Result<(u32, f32), ModelError> {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &value) in logits.iter().enumerate() {
        if value.is_nan() || value == f32::INFINITY {
            return Err(ModelError::NotFiniteLogit { token: token as u32, value });
        }
        if value > best.1 {
            best = (token as u32, value);
        }
    }
    if best.1 == f32::NEG_INFINITY {
        return Err(ModelError::NotFiniteLogit { token: 0, value: best.1 });
    }
    Ok(best)
}

/// A number whose ascending order is: larger logit first, then lower id. The id is its lower half.
pub(crate) fn order_key(logit: f32, id: u32) -> u64 {
    // Adding zero makes -0 and 0 equal. Flipping all bits of negative numbers and the sign of others orders them.
    let bits = (logit + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(!ascending) << 32 | u64::from(id)
}

/// The logit in an order key.
fn logit_of(key: u64) -> f32 {
    let ascending = !((key >> 32) as u32);
    f32::from_bits(if ascending >> 31 == 1 { ascending & !(1 << 31) } else { !ascending })
}

/// A number in 0..1 that is a function of seed and step alone, so that batching cannot change a request's choices:
/// SplitMix64's finalizer (Steele et al., OOPSLA 2014) over both.
fn uniform(seed: u64, step: u64) -> f64 {
    let bits = mix(seed.wrapping_add(mix(step.wrapping_add(0x9e37_79b9_7f4a_7c15))));
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
