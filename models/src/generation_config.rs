//! `generation_config.json`: the sampling a model's makers recommend, and every id that ends a sequence.

use crate::config::ModelConfig;
use crate::fields::Fields;
use crate::{ModelError, ModelSource, Tokenizer};

const GENERATION_CONFIG_FILE: &str = "generation_config.json";

/// Defaults for requests that do not say otherwise.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GenerationConfig {
    /// Ids that end a sequence: of `generation_config.json`, `config.json` and the tokenizer, ascending.
    pub eos_token_ids: Vec<u32>,
    /// Recommended temperature.
    pub temperature: Option<f32>,
    /// Recommended top-p.
    pub top_p: Option<f32>,
    /// Recommended top-k.
    pub top_k: Option<u32>,
    /// Recommended min-p.
    pub min_p: Option<f32>,
    /// Recommended repetition penalty.
    pub repetition_penalty: Option<f32>,
}

impl GenerationConfig {
    /// Reads `generation_config.json` if the model has it, and collects end-of-sequence ids from everywhere.
    ///
    /// # Errors
    /// What [`ModelConfig::load`] reports, [`ModelError::ReadFile`], [`ModelError::Json`],
    /// [`ModelError::InvalidField`].
    pub fn load(source: &ModelSource, tokenizer: &Tokenizer) -> Result<Self, ModelError> {
        let config = ModelConfig::load(source)?;
        let mut generation = match source.read_json(GENERATION_CONFIG_FILE)? {
            Some(value) => Self::read(&Fields::new(GENERATION_CONFIG_FILE, "the file", &value)?)?,
            None => Self::default(),
        };
        let ids = &mut generation.eos_token_ids;
        ids.extend(&config.eos_token_ids);
        ids.extend(tokenizer.eos_token_id());
        // An id that the model cannot produce ends nothing.
        ids.retain(|id| (*id as usize) < config.vocab_size);
        ids.sort_unstable();
        ids.dedup();
        Ok(generation)
    }

    fn read(fields: &Fields) -> Result<Self, ModelError> {
        let number = |name| Ok::<_, ModelError>(fields.number(name)?.map(|value| value as f32));
        // 0 and -1 are both in use for "no top-k".
        let top_k = fields.number("top_k")?.filter(|k| *k >= 1.0 && *k <= f64::from(u32::MAX)).map(|k| k as u32);
        // transformers decodes greedily where sampling is switched off by name; where it is absent, makers mean sampling.
        let temperature = match fields.flag("do_sample")? {
            Some(false) => Some(0.0),
            Some(true) | None => number("temperature")?,
        };
        Ok(Self {
            eos_token_ids: fields.token_ids("eos_token_id")?,
            temperature,
            top_p: number("top_p")?,
            top_k,
            min_p: number("min_p")?,
            repetition_penalty: number("repetition_penalty")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<GenerationConfig, ModelError> {
        let value = serde_json::from_str(json).expect("JSON");
        GenerationConfig::read(&Fields::new(GENERATION_CONFIG_FILE, "the file", &value)?)
    }

    #[test]
    fn one_end_id_or_several_are_read_and_no_top_k_is_none() {
        let config = read(r#"{"eos_token_id": 2, "top_k": 0, "temperature": 0.6}"#).expect("valid");
        assert_eq!((config.eos_token_ids, config.top_k, config.temperature), (vec![2], None, Some(0.6)));
        let config = read(r#"{"eos_token_id": [3, 1], "top_k": 20, "top_p": 0.95}"#).expect("valid");
        assert_eq!((config.eos_token_ids, config.top_k, config.top_p), (vec![3, 1], Some(20), Some(0.95)));
    }

    #[test]
    fn sampling_that_is_switched_off_means_greedy() {
        let temperature = |json| read(json).expect("valid").temperature;
        assert_eq!(temperature(r#"{"do_sample": false, "temperature": 0.6}"#), Some(0.0));
        assert_eq!(temperature(r#"{"do_sample": true, "temperature": 0.6}"#), Some(0.6));
        assert_eq!(temperature("{}"), None);
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named() {
        for (name, json) in [("eos_token_id", r#"{"eos_token_id": "</s>"}"#), ("top_p", r#"{"top_p": [1]}"#)] {
            match read(json) {
                Err(ModelError::InvalidField { name: named, .. }) => assert_eq!(named, name),
                other => panic!("{other:?}"),
            }
        }
    }
}
