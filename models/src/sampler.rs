//! Chooses a sequence's next token from its logits; depends on nothing but that sequence, its parameters and the step.
//!
//! Order: logit bias, repetition penalty, presence and frequency penalties, temperature, top-k, top-p, min-p, draw.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use crate::softmax::{draw_index, exp_nonpositive, largest_keys, largest_logit, logit_of, order_key, sum};
use crate::top_p::{Distribution, is_behind};
use crate::{InvalidParameter, ModelError, SamplingParams};

/// Largest top-k for which candidates are inserted into a sorted list instead of being selected from all.
const INSERTION_MAX: usize = 256;

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
    // Buffers, kept from token to token.
    logits: Vec<f32>,
    weights: Vec<f32>,
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
        Ok(Self {
            params,
            vocab_size,
            seed,
            step: 0,
            seen,
            logits: Vec::new(),
            weights: Vec::new(),
            candidates: Vec::new(),
        })
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
        let is_plain = self.params.logit_bias.is_empty() && self.seen.is_empty();
        let token = if is_plain && self.params.temperature == 0.0 {
            largest_logit(logits)?.0
        } else if is_plain {
            self.choose(logits)?
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
        let weight = |logit: f32| exp_nonpositive((logit - max) / temperature);
        let weights = &mut self.weights;
        weights.clear();
        if let Some(k) = top_k.map(|k| k as usize).filter(|k| *k < logits.len()) {
            most_likely(logits, k, &mut self.candidates);
            weights.extend(self.candidates.iter().map(|key| weight(logit_of(*key))));
            weights.truncate(num_reaching(top_p, weights));
            drop_below(min_p, weights);
            return Ok(draw_index(weights, draw).map_or(best, |index| self.candidates[index] as u32));
        }
        weights.resize(logits.len(), 0.0);
        for (weight_of_token, logit) in weights.iter_mut().zip(logits) {
            *weight_of_token = weight(*logit);
        }
        if top_p < 1.0 {
            let distribution = Distribution { logits, weights, max, temperature };
            let last_kept = distribution.last_kept(top_p, &mut self.candidates);
            for (token, (weight, logit)) in weights.iter_mut().zip(logits).enumerate() {
                *weight = if is_behind(*logit, token as u32, last_kept) { 0.0 } else { *weight };
            }
        }
        drop_below(min_p, weights);
        Ok(draw_index(weights, draw).map_or(best, |index| index as u32))
    }
}

/// Order keys of the `k` most likely tokens, sorted.
fn most_likely(logits: &[f32], k: usize, candidates: &mut Vec<u64>) {
    if k <= INSERTION_MAX {
        largest_keys(logits, k, candidates);
        return;
    }
    candidates.clear();
    candidates.extend(logits.iter().enumerate().map(|(id, logit)| order_key(*logit, id as u32)));
    candidates.select_nth_unstable(k - 1);
    candidates.truncate(k);
    candidates.sort_unstable();
}

/// How many of the first weights it takes to reach `top_p` of their sum; at least one.
fn num_reaching(top_p: f32, weights: &[f32]) -> usize {
    if top_p == 1.0 {
        return weights.len();
    }
    let target = f64::from(top_p) * sum(weights);
    let mut reached = 0.0;
    let is_short = |weight: &&f32| {
        reached += f64::from(**weight);
        reached < target
    };
    (weights.iter().take_while(is_short).count() + 1).min(weights.len())
}

/// Min-p: weights are relative to the largest, which is 1.
fn drop_below(min_p: f32, weights: &mut [f32]) {
    if min_p > 0.0 {
        weights.iter_mut().for_each(|weight| *weight = if *weight < min_p { 0.0 } else { *weight });
    }
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
