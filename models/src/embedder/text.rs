//! Text to the encoder's tokens: the tokenizer's special tokens around at most as many tokens as the encoder takes.

use std::borrow::Cow;

use serde_json::Value;
use tokenizers::tokenizer::{Encoding, PostProcessor, TruncationDirection};

use crate::fields::Fields;
use crate::tokenizer::{MAX_TEXT_BYTES, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, parse_library};
use crate::{ModelError, ModelSource};

const SENTENCE_CONFIG_FILE: &str = "sentence_bert_config.json";
/// Most tokens that a file may ask for.
const MAX_SEQ_LENGTH: usize = 1 << 20;
/// Bytes of a text that are ever looked at: a text is cut to some hundred tokens, which these bytes hold except where
/// a single word is as long.
const MAX_READ_BYTES: usize = 1 << 20;
/// Bytes that are encoded first, per token that is wanted; a word of English has about six.
const FIRST_BYTES_PER_TOKEN: usize = 16;
/// How much more is encoded when that was not enough.
const GROWTH: usize = 4;

/// Whether text is lowered before the tokenizer sees it, whatever the tokenizer does itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Kept,
    Lowered,
}

/// The tokenizer of an encoder.
pub(super) struct TextEncoder {
    tokenizer: tokenizers::Tokenizer,
    pub case: Case,
    /// Tokens of one text, special ones included.
    pub max_tokens: usize,
    num_special: usize,
    /// Hash of `tokenizer.json`.
    pub hash: [u8; 32],
}

/// Tokens of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextTokens {
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
}

impl TextEncoder {
    /// Reads the tokenizer and the length that texts are cut to: `max_seq_length` of `sentence_bert_config.json`, else
    /// `model_max_length` of `tokenizer_config.json`, and never more than the position table has room for.
    ///
    /// # Errors
    /// What is wrong with the files; [`ModelError::InvalidField`] when special tokens leave no room for a text.
    pub fn load(source: &ModelSource, max_positions: usize) -> Result<Self, ModelError> {
        let json = source.read_required(TOKENIZER_FILE)?;
        let tokenizer = parse_library(&json)?;
        let num_special = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        let (max_seq_length, case) = sentence_config(source)?;
        let asked = match max_seq_length {
            Some(asked) => Some(asked),
            None => model_max_length(source)?,
        };
        let max_tokens = asked.unwrap_or(max_positions).min(max_positions);
        if max_tokens <= num_special {
            let (file, name, value) = (SENTENCE_CONFIG_FILE, "max_seq_length", max_tokens.to_string());
            let expected = "more than the special tokens that the tokenizer adds";
            return Err(ModelError::InvalidField { file, name, value, expected });
        }
        let hash = *blake3::hash(&json).as_bytes();
        Ok(Self { tokenizer, case, max_tokens, num_special, hash })
    }

    /// Tokens of the prompt and the text behind it, cut to [`max_tokens`](Self::max_tokens).
    ///
    /// # Errors
    /// [`ModelError::Encode`].
    pub fn encode(&self, prompt: &str, text: &str) -> Result<TextTokens, ModelError> {
        let joined = match prompt {
            "" => Cow::Borrowed(head(text.trim_start(), MAX_READ_BYTES)),
            _ => Cow::Owned(format!("{prompt}{}", head(text, MAX_READ_BYTES))),
        };
        let text = joined.trim();
        let mut content = match self.case {
            Case::Kept => self.content(text)?,
            Case::Lowered => self.content(&text.to_lowercase())?,
        };
        content.truncate(self.max_tokens - self.num_special, 0, TruncationDirection::Right);
        // What was cut off is kept beside the encoding, where it would be surrounded by special tokens as well.
        content.take_overflowing();
        let whole = self.tokenizer.post_process(content, None, true).map_err(|source| ModelError::Encode { source })?;
        Ok(TextTokens { ids: whole.get_ids().to_vec(), type_ids: whole.get_type_ids().to_vec() })
    }

    /// Tokens of a whole text, special ones included, however many.
    ///
    /// # Errors
    /// [`ModelError::TextTooLong`] above [`MAX_TEXT_BYTES`], [`ModelError::Encode`].
    pub fn count(&self, text: &str) -> Result<usize, ModelError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(ModelError::TextTooLong { got_bytes: text.len(), max_bytes: MAX_TEXT_BYTES });
        }
        let count = |text: &str| self.tokenizer.encode_fast(text, false).map(|encoding| encoding.get_ids().len());
        let content = match self.case {
            Case::Kept => count(text.trim()),
            Case::Lowered => count(&text.trim().to_lowercase()),
        };
        Ok(content.map_err(|source| ModelError::Encode { source })? + self.num_special)
    }

    /// At least the tokens that are wanted of a text, without special tokens. Of a long text only so much is encoded
    /// as decides them.
    fn content(&self, text: &str) -> Result<Encoding, ModelError> {
        let failed = |source| ModelError::Encode { source };
        let wanted = self.max_tokens - self.num_special;
        let mut len = wanted.saturating_mul(FIRST_BYTES_PER_TOKEN);
        while len < text.len() {
            let encoding = self.tokenizer.encode(head(text, len), false).map_err(failed)?;
            if num_settled(&encoding) >= wanted {
                return Ok(encoding);
            }
            len = len.saturating_mul(GROWTH);
        }
        self.tokenizer.encode_fast(text, false).map_err(failed)
    }
}

/// The beginning of a text: at most so many bytes, and whole characters.
fn head(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

/// Tokens at the beginning that do not depend on what follows: all but those of the last two words. The last word may
/// go on behind the cut, and where a run of spaces is a word, its last one may belong to the next.
fn num_settled(encoding: &Encoding) -> usize {
    let words = encoding.get_word_ids();
    let last = words.iter().flatten().max().copied().unwrap_or(0);
    words.iter().take_while(|word| word.is_some_and(|word| word + 1 < last)).count()
}

/// `max_seq_length` and `do_lower_case`.
fn sentence_config(source: &ModelSource) -> Result<(Option<usize>, Case), ModelError> {
    let Some(value) = source.read_json(SENTENCE_CONFIG_FILE)? else { return Ok((None, Case::Kept)) };
    let fields = Fields::new(SENTENCE_CONFIG_FILE, "the file", &value)?;
    let case = if fields.flag("do_lower_case")? == Some(true) { Case::Lowered } else { Case::Kept };
    Ok((fields.count("max_seq_length", 1..=MAX_SEQ_LENGTH)?, case))
}

/// `model_max_length`; a huge number there means that the tokenizer knows no limit.
fn model_max_length(source: &ModelSource) -> Result<Option<usize>, ModelError> {
    let Some(value) = source.read_json(TOKENIZER_CONFIG_FILE)? else { return Ok(None) };
    let fields = Fields::new(TOKENIZER_CONFIG_FILE, "the file", &value)?;
    match fields.get("model_max_length").and_then(Value::as_f64) {
        Some(length) if length > MAX_SEQ_LENGTH as f64 => Ok(None),
        _ => fields.count("model_max_length", 1..=MAX_SEQ_LENGTH),
    }
}
