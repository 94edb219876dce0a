//! What a request may say about sampling, with the ranges that are allowed.

/// How tokens are chosen from logits. [`Default`]: from the model's own distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Logits are divided by it; 0 always takes the most likely token. 0 to 2.
    pub temperature: f32,
    /// Only the most likely tokens that together reach this probability stay. Above 0, at most 1 (all).
    pub top_p: f32,
    /// Only so many of the most likely tokens stay; `None`: all. At least 1.
    pub top_k: Option<u32>,
    /// Tokens less likely than this share of the most likely one go. 0 (none go) to 1.
    pub min_p: f32,
    /// Subtracted from the logit of every token that was generated. -2 to 2.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit for each time it was generated. -2 to 2.
    pub frequency_penalty: f32,
    /// Positive logits of tokens of the prompt and the output are divided by it, negative ones multiplied
    /// (CTRL, arXiv 1909.05858, section 4.1). Above 0, at most 10; 1 changes nothing.
    pub repetition_penalty: f32,
    /// The same seed gives the same choices; `None`: a fresh one for each sampler.
    pub seed: Option<u64>,
    /// Added to the logits of these tokens. -100 to 100.
    pub logit_bias: Vec<(u32, f32)>,
}

/// A request parameter that is out of its range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{name} is {value}, allowed: {allowed}")]
pub struct InvalidParameter {
    /// Name of the parameter as clients write it.
    pub name: &'static str,
    /// The value given.
    pub value: String,
    /// The allowed range, in words.
    pub allowed: &'static str,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: None,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            seed: None,
            logit_bias: Vec::new(),
        }
    }
}

impl SamplingParams {
    /// Always the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`InvalidParameter`] with the first that is outside.
    pub fn validate(&self) -> Result<(), InvalidParameter> {
        check("temperature", self.temperature, (0.0..=2.0).contains(&self.temperature), "0 to 2")?;
        check("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, at most 1")?;
        check("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1")?;
        let is_penalty = |value: f32| (-2.0..=2.0).contains(&value);
        check("presence_penalty", self.presence_penalty, is_penalty(self.presence_penalty), "-2 to 2")?;
        check("frequency_penalty", self.frequency_penalty, is_penalty(self.frequency_penalty), "-2 to 2")?;
        let repetition = self.repetition_penalty;
        check("repetition_penalty", repetition, repetition > 0.0 && repetition <= 10.0, "above 0, at most 10")?;
        if self.top_k == Some(0) {
            return Err(InvalidParameter { name: "top_k", value: "0".to_owned(), allowed: "at least 1" });
        }
        let is_bias = |bias: f32| (-100.0..=100.0).contains(&bias);
        self.logit_bias.iter().try_for_each(|(_, bias)| check("logit_bias", *bias, is_bias(*bias), "-100 to 100"))
    }

    /// Whether earlier tokens change logits.
    pub(crate) fn penalizes(&self) -> bool {
        self.presence_penalty != 0.0 || self.frequency_penalty != 0.0 || self.repetition_penalty != 1.0
    }
}

/// NaN is in no range, so it fails every check.
fn check(name: &'static str, value: f32, is_allowed: bool, allowed: &'static str) -> Result<(), InvalidParameter> {
    if is_allowed { Ok(()) } else { Err(InvalidParameter { name, value: value.to_string(), allowed }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outside_their_range_are_named_with_what_is_allowed() {
        let base = SamplingParams::default;
        let cases = [
            ("temperature", SamplingParams { temperature: -0.1, ..base() }),
            ("temperature", SamplingParams { temperature: f32::NAN, ..base() }),
            ("temperature", SamplingParams { temperature: f32::INFINITY, ..base() }),
            ("top_p", SamplingParams { top_p: 0.0, ..base() }),
            ("top_p", SamplingParams { top_p: 1.01, ..base() }),
            ("top_k", SamplingParams { top_k: Some(0), ..base() }),
            ("min_p", SamplingParams { min_p: -0.5, ..base() }),
            ("presence_penalty", SamplingParams { presence_penalty: 2.5, ..base() }),
            ("frequency_penalty", SamplingParams { frequency_penalty: -3.0, ..base() }),
            ("repetition_penalty", SamplingParams { repetition_penalty: 0.0, ..base() }),
            ("logit_bias", SamplingParams { logit_bias: vec![(1, 5.0), (2, 101.0)], ..base() }),
        ];
        for (name, params) in cases {
            let error = params.validate().expect_err(name);
            assert_eq!(error.name, name);
            assert!(!error.allowed.is_empty() && !error.value.is_empty());
        }
        assert_eq!(base().validate(), Ok(()));
        assert_eq!(SamplingParams::greedy().validate(), Ok(()));
    }
}
