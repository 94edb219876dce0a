//! Chooses a sequence's next token from its logits; depends on nothing but that sequence, its parameters and the step.
//!
//! Order: logit bias, repetition penalty, presence and frequency penalties, temperature, top-k, top-p, min-p, draw.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use crate::softmax::{draw_index, exp_nonpositive, largest_keys, largest_logit, logit_of, order_key};
use crate::{InvalidParameter, ModelError, SamplingParams};

/// Candidates that top-p sorts at first; it takes four times more when these do not reach the mass.
const FIRST_HEAD_LEN: usize = 64;
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
        let is_plain = self.params.logit_bias.is_empty() && self.seen.is_empty();
        let token = if is_plain && self.params.temperature == 0.0 {
            largest_logit(logits)?.0
        } else {
            let mut adjusted = std::mem::take(&mut self.logits);
            adjusted.clear();
            adjusted.extend_from_slice(logits);
            self.adjust(&mut adjusted);
            let token = self.choose(&mut adjusted);
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

    /// Chooses from adjusted logits, which are used up: they become weights.
    fn choose(&mut self, logits: &mut Vec<f32>) -> Result<u32, ModelError> {
        let (best, max) = largest_logit(logits)?;
        let SamplingParams { temperature, top_p, top_k, min_p, .. } = self.params;
        if temperature == 0.0 {
            return Ok(best);
        }
        let draw = uniform(self.seed, self.step);
        let weight = |logit: f32| {
            let weight = exp_nonpositive((logit - max) / temperature);
            if weight < min_p { 0.0 } else { weight }
        };
        let top_k = top_k.map(|k| k as usize).filter(|k| *k < logits.len());
        if top_k.is_none() && top_p == 1.0 {
            logits.iter_mut().for_each(|logit| *logit = weight(*logit));
            return Ok(draw_index(logits, draw).map_or(best, |index| index as u32));
        }
        let weight_of_all = |logit: f32| exp_nonpositive((logit - max) / temperature);
        let kept = keep_most_likely(logits, Limits { top_k, top_p }, &mut self.candidates, weight_of_all);
        logits.clear();
        logits.extend(kept.iter().map(|key| weight(logit_of(*key))));
        Ok(draw_index(logits, draw).map_or(best, |index| kept[index] as u32))
    }
}

/// How many candidates stay.
struct Limits {
    top_k: Option<usize>,
    top_p: f32,
}

/// The `top_k` most likely tokens, and of those the fewest whose weights reach `top_p` of their sum: order keys, sorted.
fn keep_most_likely<'a>(
    logits: &[f32],
    limits: Limits,
    candidates: &'a mut Vec<u64>,
    weight: impl Fn(f32) -> f32,
) -> &'a [u64] {
    match limits.top_k {
        Some(k) if k <= INSERTION_MAX => largest_keys(logits, k, candidates),
        _ => {
            candidates.clear();
            candidates.extend(logits.iter().enumerate().map(|(id, logit)| order_key(*logit, id as u32)));
            if let Some(k) = limits.top_k {
                candidates.select_nth_unstable(k - 1);
                candidates.truncate(k);
            }
        }
    }
    if limits.top_p == 1.0 {
        candidates.sort_unstable();
        return candidates;
    }
    let weight_of = |key: &u64| f64::from(weight(logit_of(*key)));
    let mass = f64::from(limits.top_p) * candidates.iter().map(weight_of).sum::<f64>();
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
                return &candidates[..=sorted_len + index];
            }
        }
        sorted_len += take;
        head_len *= 4;
    }
    candidates
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
