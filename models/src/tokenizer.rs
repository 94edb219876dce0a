//! Text to tokens and back, by `tokenizer.json`; the special tokens that `tokenizer_config.json` names.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use serde_json::Value;

use crate::decode_stream::{DecodeStream, TextRule};
use crate::{ModelError, ModelSource};

pub(crate) const TOKENIZER_FILE: &str = "tokenizer.json";
pub(crate) const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";

/// Longest text that is encoded in one call.
pub const MAX_TEXT_BYTES: usize = 16 << 20;

/// Whether encoding surrounds the text with the special tokens that the tokenizer's template calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialTokens {
    /// As for a plain prompt: often a beginning-of-sequence token.
    Add,
    /// As for text that has them already, such as a rendered chat template.
    Skip,
}

/// Whether special tokens appear in decoded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialText {
    /// They do, by name.
    Keep,
    /// They are left out.
    Skip,
}

/// Whether decoded text stands alone. SentencePiece puts a space before the first word, which decoding drops again,
/// but only at the beginning of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextStart {
    /// The tokens are a whole text.
    Beginning,
    /// The tokens continue a text: a completion after its prompt.
    Continuation,
}

/// A tokenizer; clones share it.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    vocabulary: Arc<Vocabulary>,
    special: Arc<SpecialNames>,
}

/// What decoding needs.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    tokenizer: tokenizers::Tokenizer,
    rule: TextRule,
    size: usize,
}

/// The special tokens by role, as text.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpecialNames {
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub unk: Option<String>,
    pub pad: Option<String>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and `tokenizer_config.json` and `special_tokens_map.json` where they are.
    ///
    /// # Errors
    /// [`ModelError::MissingFile`], [`ModelError::Json`], [`ModelError::Tokenizer`], [`ModelError::TokenizerPanic`],
    /// [`ModelError::UnsupportedDecoder`].
    pub fn load(source: &ModelSource) -> Result<Self, ModelError> {
        let json = source.read_required(TOKENIZER_FILE)?;
        let special = SpecialNames::load(source)?;
        Ok(Self { vocabulary: Arc::new(Vocabulary::parse(&json)?), special: Arc::new(special) })
    }

    /// Tokens of a text.
    ///
    /// # Errors
    /// [`ModelError::TextTooLong`] above [`MAX_TEXT_BYTES`], [`ModelError::Encode`] when the text cannot be encoded.
    pub fn encode(&self, text: &str, special_tokens: SpecialTokens) -> Result<Vec<u32>, ModelError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(ModelError::TextTooLong { got_bytes: text.len(), max_bytes: MAX_TEXT_BYTES });
        }
        let adds = special_tokens == SpecialTokens::Add;
        let encoding =
            self.vocabulary.tokenizer.encode_fast(text, adds).map_err(|source| ModelError::Encode { source })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of tokens that are a whole text. Ids that are no token add nothing.
    pub fn decode(&self, tokens: &[u32], special: SpecialText) -> String {
        let mut stream = self.decode_stream(special, TextStart::Beginning);
        let mut text: String = tokens.iter().filter_map(|token| stream.push(*token)).collect();
        text.extend(stream.finish());
        text
    }

    /// What the tokenizer library itself decodes: the reference for [`decode`](Self::decode).
    #[cfg(test)]
    pub(crate) fn decode_at_once(&self, tokens: &[u32], special: SpecialText) -> String {
        self.vocabulary.tokenizer.decode(tokens, special == SpecialText::Skip).expect("decoding does not fail")
    }

    /// Text of tokens that arrive one by one.
    pub fn decode_stream(&self, special: SpecialText, start: TextStart) -> DecodeStream {
        DecodeStream::new(Arc::clone(&self.vocabulary), special, start)
    }

    /// The bytes that a token stands for, seen alone: a space before a word is kept, and a part of a character is
    /// what it is. Empty for an id that is no token.
    pub fn token_bytes(&self, token: u32) -> Vec<u8> {
        self.vocabulary.token(token).map(|text| self.vocabulary.rule.token_bytes(&text)).unwrap_or_default()
    }

    /// The id of a token by its exact text.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.vocabulary.tokenizer.token_to_id(token)
    }

    /// The tokens that structure a prompt, with their text: whoever writes that text into a prompt writes the token. These
    /// are the special tokens and what was added to the vocabulary beside them, such as the marks of a tool call; added
    /// words and runs of spaces are text like any other.
    pub fn structural_tokens(&self) -> Vec<(u32, String)> {
        let is_mark = |text: &str| {
            text.chars().count() > 1 && text.chars().any(|letter| !letter.is_alphanumeric() && !letter.is_whitespace())
        };
        // What stands for unknown letters is no mark, unless the model has but one special token.
        let SpecialNames { bos, eos, unk, pad } = &*self.special;
        let is_unknown = |text: &str| {
            unk.as_deref() == Some(text) && [bos, eos, pad].iter().all(|name| name.as_deref() != Some(text))
        };
        let added = self.vocabulary.tokenizer.get_added_vocabulary().get_added_tokens_decoder();
        let mut tokens: Vec<(u32, String)> = added
            .iter()
            .filter(|(_id, token)| !token.content.is_empty() && !is_unknown(&token.content))
            .filter(|(_id, token)| token.special || is_mark(&token.content))
            .map(|(id, token)| (*id, token.content.clone()))
            .collect();
        tokens.sort();
        tokens
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.size
    }

    /// The end-of-sequence token that `tokenizer_config.json` names.
    pub fn eos_token_id(&self) -> Option<u32> {
        self.special.eos.as_deref().and_then(|token| self.token_id(token))
    }

    /// The beginning-of-sequence token that `tokenizer_config.json` names.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.special.bos.as_deref().and_then(|token| self.token_id(token))
    }
}

impl Vocabulary {
    fn parse(json: &[u8]) -> Result<Self, ModelError> {
        let invalid = |source| ModelError::Json { file: TOKENIZER_FILE, source };
        let tokenizer = parse_library(json)?;
        let decoder = match tokenizer.get_decoder() {
            Some(decoder) => serde_json::to_value(decoder).map_err(invalid)?,
            None => Value::Null,
        };
        let rule = TextRule::parse(&decoder)?;
        let size = tokenizer.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1);
        Ok(Self { tokenizer, rule, size })
    }

    pub fn rule(&self) -> &TextRule {
        &self.rule
    }

    /// The token's string in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        let added = self.tokenizer.get_added_vocabulary().simple_id_to_token(id);
        added.or_else(|| self.tokenizer.id_to_token(id))
    }

    pub fn is_special(&self, token: &str) -> bool {
        self.tokenizer.get_added_vocabulary().is_special_token(token)
    }
}

impl SpecialNames {
    /// From `tokenizer_config.json`, and what that leaves open from `special_tokens_map.json`.
    pub fn load(source: &ModelSource) -> Result<Self, ModelError> {
        let config = source.read_json(TOKENIZER_CONFIG_FILE)?;
        let map = source.read_json(SPECIAL_TOKENS_FILE)?;
        let name = |role: &str| {
            let text = |file: &Option<Value>| token_text(file.as_ref()?.get(role)?);
            text(&config).or_else(|| text(&map))
        };
        Ok(Self { bos: name("bos_token"), eos: name("eos_token"), unk: name("unk_token"), pad: name("pad_token") })
    }
}

/// A special token is written as a string, or as an object with its `content`.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

/// The tokenizer of the library, without the cutting and padding that the file may ask for: prompts are never changed
/// behind the caller's back.
///
/// # Errors
/// [`ModelError::Json`], [`ModelError::Tokenizer`], [`ModelError::TokenizerPanic`].
pub(crate) fn parse_library(json: &[u8]) -> Result<tokenizers::Tokenizer, ModelError> {
    let invalid = |source| ModelError::Json { file: TOKENIZER_FILE, source };
    serde_json::from_slice::<serde::de::IgnoredAny>(json).map_err(invalid)?;
    // The library expects a well-formed file in places and panics on others; a file is input, not a bug.
    let parsed = std::panic::catch_unwind(AssertUnwindSafe(|| tokenizers::Tokenizer::from_bytes(json)));
    let mut tokenizer = match parsed {
        Ok(parsed) => parsed.map_err(|source| ModelError::Tokenizer { source })?,
        Err(panic) => return Err(ModelError::TokenizerPanic { message: panic_message(panic.as_ref()) }),
    };
    tokenizer.with_truncation(None).map_err(|source| ModelError::Tokenizer { source })?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
