//! Log-probabilities of raw logits, before penalties and temperature: what clients see as `logprobs`.

use crate::softmax::{exp_sum, largest_keys};

/// The log-probability of one token and of the most likely ones at its place.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: u32,
    /// Its natural log-probability.
    pub logprob: f32,
    /// The most likely tokens with theirs, most likely first; on a tie the lower id first.
    pub top: Vec<(u32, f32)>,
}

/// Log-softmax of `logits` (`[vocab_size]`) at `token` and at the `num_top` largest.
///
/// # Panics
/// When `token` is not below `logits.len()`.
pub fn log_softmax_top(logits: &[f32], token: u32, num_top: usize) -> TokenLogprob {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let normalizer = f64::from(max) + exp_sum(logits, max).ln();
    let logprob = |token: u32| (f64::from(logits[token as usize]) - normalizer) as f32;
    let mut keys = Vec::with_capacity(num_top);
    largest_keys(logits, num_top, &mut keys);
    let top = keys.into_iter().map(|key| (key as u32, logprob(key as u32))).collect();
    TokenLogprob { token, logprob: logprob(token), top }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logprobs_are_the_exact_log_softmax() {
        let logits = [1.0f32, -2.0, 0.5, 3.0, f32::NEG_INFINITY];
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let exact = |id: usize| f64::from(logits[id]) - sum.ln();
        let got = log_softmax_top(&logits, 2, 3);
        assert!((f64::from(got.logprob) - exact(2)).abs() < 1e-6);
        assert_eq!(got.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [3, 0, 2]);
        for (id, logprob) in got.top {
            assert!((f64::from(logprob) - exact(id as usize)).abs() < 1e-6);
        }
        assert_eq!(log_softmax_top(&logits, 4, 0).logprob, f32::NEG_INFINITY);
    }

    #[test]
    fn ties_list_the_lower_id_first_and_all_can_be_asked_for() {
        let logits = [2.0f32, 5.0, 2.0, 5.0, 2.0];
        let ids = |count| log_softmax_top(&logits, 0, count).top.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        assert_eq!(ids(3), [1, 3, 0]);
        assert_eq!(ids(20), [1, 3, 0, 2, 4]);
    }
}
