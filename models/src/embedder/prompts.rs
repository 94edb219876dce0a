//! What is put in front of a text, by what the vector is for, as `config_sentence_transformers.json` says.

use serde_json::Value;

use crate::fields::Fields;
use crate::{ModelError, ModelSource};

const PROMPTS_FILE: &str = "config_sentence_transformers.json";
/// Longest prompt.
const MAX_PROMPT_BYTES: usize = 4096;

/// What a vector is for: many models are trained to tell questions from what answers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To look for passages.
    Query,
    /// To be found.
    Passage,
}

/// The prompts of a model, each put in front of the text as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompts {
    /// For queries, such as `query: `.
    pub query: String,
    /// For passages, such as `passage: `.
    pub passage: String,
}

impl Prompts {
    /// The prompts that the model's files name; empty where they name none.
    ///
    /// # Errors
    /// [`ModelError::Json`], [`ModelError::InvalidField`].
    pub(super) fn load(source: &ModelSource) -> Result<Self, ModelError> {
        let Some(value) = source.read_json(PROMPTS_FILE)? else { return Ok(Self::default()) };
        let fields = Fields::new(PROMPTS_FILE, "the file", &value)?;
        let Some(prompts) = fields.object("prompts")? else { return Ok(Self::default()) };
        let default = match fields.text("default_prompt_name")? {
            None => String::new(),
            Some(name) => match prompts.get(name) {
                Some(Value::String(prompt)) => prompt.clone(),
                _ => return Err(fields.invalid("default_prompt_name", "the name of one of the prompts")),
            },
        };
        let first_of = |names: &[&'static str]| -> Result<String, ModelError> {
            for name in names {
                if let Some(prompt) = prompts.text(name)? {
                    return Ok(prompt.to_owned());
                }
            }
            Ok(default.clone())
        };
        let prompts = Self { query: first_of(&["query"])?, passage: first_of(&["document", "passage", "corpus"])? };
        prompts.check()?;
        Ok(prompts)
    }

    /// # Errors
    /// [`ModelError::TextTooLong`] for a prompt above the limit.
    pub(super) fn check(&self) -> Result<(), ModelError> {
        match self.query.len().max(self.passage.len()) {
            got_bytes if got_bytes > MAX_PROMPT_BYTES => {
                Err(ModelError::TextTooLong { got_bytes, max_bytes: MAX_PROMPT_BYTES })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn of(&self, purpose: Purpose) -> &str {
        match purpose {
            Purpose::Query => &self.query,
            Purpose::Passage => &self.passage,
        }
    }
}
