//! Tokens back to text, one at a time: emits only text that no later token can change, so characters are never split.
//!
//! The rules are those of the tokenizer's own decoder, restated so that they can be applied incrementally: whatever
//! has been pushed, the pieces and the rest together equal decoding all tokens at once.

use std::sync::Arc;

use serde_json::Value;

use crate::ModelError;
use crate::fields::shortened;
use crate::tokenizer::{SpecialText, TextStart, Vocabulary};

const SUPPORTED: &str =
    "ByteLevel, Metaspace, or a sequence of Replace (of strings), ByteFallback, Fuse and Strip (at the start)";

/// How a tokenizer turns token strings into text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TextRule {
    /// Every character of a token stands for one byte, in GPT-2's table.
    ByteLevel,
    /// Tokens are pieces of text (SentencePiece); some stand for single bytes.
    Pieces(PieceRule),
    /// Tokens are words; text is tokens with a space between.
    Words,
}

/// How pieces become text.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct PieceRule {
    /// Replacements within a token, in order.
    pub replacements: Vec<(String, String)>,
    /// Tokens of the form `<0x41>` are bytes; a run of them is one piece of UTF-8.
    pub byte_tokens: Option<ByteTokens>,
    /// A character of the text's very beginning that is dropped, and how often at most.
    pub strip_start: Option<(char, usize)>,
    /// A character that stands for a space, but for nothing in the first token.
    pub metaspace: Option<Metaspace>,
}

/// Marks that byte tokens are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteTokens;

/// SentencePiece's visible space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metaspace {
    pub replacement: char,
    pub first: FirstSpace,
}

/// What becomes of the visible space in the first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstSpace {
    Dropped,
    Kept,
}

impl TextRule {
    /// The rule of a `decoder` entry of `tokenizer.json`.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedDecoder`].
    pub fn parse(decoder: &Value) -> Result<Self, ModelError> {
        let steps: &[Value] = match decoder {
            Value::Null => return Ok(Self::Words),
            single if kind(single) != "Sequence" => std::slice::from_ref(single),
            sequence => sequence.get("decoders").and_then(Value::as_array).map_or(&[], Vec::as_slice),
        };
        let unsupported = || ModelError::UnsupportedDecoder { decoder: shortened(decoder), supported: SUPPORTED };
        if let [first, rest @ ..] = steps
            && kind(first) == "ByteLevel"
        {
            let is_trivial = rest.iter().all(|step| kind(step) == "Fuse");
            return if is_trivial { Ok(Self::ByteLevel) } else { Err(unsupported()) };
        }
        let mut rule = PieceRule::default();
        let mut is_fused = false;
        for step in steps {
            match kind(step) {
                "Replace" if rule.byte_tokens.is_none() && !is_fused => {
                    rule.replacements.push(replacement(step).ok_or_else(unsupported)?);
                }
                "ByteFallback" if !is_fused => rule.byte_tokens = Some(ByteTokens),
                "Metaspace" if steps.len() == 1 => rule.metaspace = Some(metaspace(step).ok_or_else(unsupported)?),
                "Fuse" => is_fused = true,
                "Strip" if is_fused && rule.strip_start.is_none() => {
                    rule.strip_start = Some(strip(step).ok_or_else(unsupported)?);
                }
                _ => return Err(unsupported()),
            }
        }
        Ok(Self::Pieces(rule))
    }

    /// The bytes that a token contributes, seen alone.
    pub fn token_bytes(&self, token: &str) -> Vec<u8> {
        match self {
            Self::ByteLevel => bytes_of_level_token(token),
            Self::Words => token.as_bytes().to_vec(),
            Self::Pieces(rule) => match rule.piece(token) {
                Piece::Byte(byte) => vec![byte],
                Piece::Text(text) => match rule.metaspace {
                    Some(space) => text.replace(space.replacement, " ").into_bytes(),
                    None => text.into_bytes(),
                },
            },
        }
    }
}

enum Piece {
    Byte(u8),
    Text(String),
}

impl PieceRule {
    fn piece(&self, token: &str) -> Piece {
        let mut text = token.to_owned();
        for (pattern, content) in &self.replacements {
            text = text.replace(pattern, content);
        }
        match byte_token(&text) {
            Some(byte) if self.byte_tokens.is_some() => Piece::Byte(byte),
            _ => Piece::Text(text),
        }
    }
}

/// Text of a growing list of tokens.
#[derive(Debug, Clone)]
pub struct DecodeStream {
    vocabulary: Arc<Vocabulary>,
    special: SpecialText,
    state: State,
}

#[derive(Debug, Clone)]
struct State {
    /// Bytes that are not final yet: an unfinished character, or an unfinished run of byte tokens.
    pending: Vec<u8>,
    /// How many characters may still be dropped at the beginning.
    strip_left: usize,
    /// Whether the next token is the first of the text.
    start: TextStart,
}

impl DecodeStream {
    pub(crate) fn new(vocabulary: Arc<Vocabulary>, special: SpecialText, start: TextStart) -> Self {
        let strip_left = match (vocabulary.rule(), start) {
            (TextRule::Pieces(PieceRule { strip_start: Some((_, count)), .. }), TextStart::Beginning) => *count,
            _ => 0,
        };
        Self { vocabulary, special, state: State { pending: Vec::new(), strip_left, start } }
    }

    /// Takes the next token and returns the text that is final now and was not before, if there is any.
    /// An id that is no token adds nothing. The cost does not depend on how much was pushed before.
    pub fn push(&mut self, token: u32) -> Option<String> {
        let text = self.vocabulary.token(token)?;
        if self.special == SpecialText::Skip && self.vocabulary.is_special(&text) {
            return None;
        }
        let pushed = match self.vocabulary.rule() {
            TextRule::ByteLevel => {
                self.state.pending.extend(bytes_of_level_token(&text));
                take_final(&mut self.state.pending)
            }
            TextRule::Words if self.state.start == TextStart::Beginning => text,
            TextRule::Words => format!(" {text}"),
            TextRule::Pieces(rule) => self.state.push_piece(rule, &text),
        };
        self.state.start = TextStart::Continuation;
        Some(pushed).filter(|text| !text.is_empty())
    }

    /// The text that was held back, now that no token follows; incomplete characters become U+FFFD.
    pub fn finish(&mut self) -> Option<String> {
        let rest = match self.vocabulary.rule() {
            TextRule::ByteLevel => String::from_utf8_lossy(&std::mem::take(&mut self.state.pending)).into_owned(),
            TextRule::Words => String::new(),
            TextRule::Pieces(rule) => {
                let run = self.state.take_run();
                self.state.strip(rule, run)
            }
        };
        Some(rest).filter(|text| !text.is_empty())
    }
}

impl State {
    fn push_piece(&mut self, rule: &PieceRule, token: &str) -> String {
        let text = match rule.piece(token) {
            // A later byte can still make the whole run invalid, so nothing of it is final before the run ends.
            Piece::Byte(byte) => {
                self.pending.push(byte);
                return String::new();
            }
            Piece::Text(text) => text,
        };
        let text = match rule.metaspace {
            Some(Metaspace { replacement, first: FirstSpace::Dropped }) if self.start == TextStart::Beginning => {
                text.replace(replacement, "")
            }
            Some(Metaspace { replacement, .. }) => text.replace(replacement, " "),
            None => text,
        };
        let run = self.take_run();
        self.strip(rule, run + &text)
    }

    /// The run of byte tokens as text: one U+FFFD for every byte when it is not UTF-8 as a whole.
    fn take_run(&mut self) -> String {
        let run = std::mem::take(&mut self.pending);
        String::from_utf8(run).unwrap_or_else(|error| "\u{fffd}".repeat(error.as_bytes().len()))
    }

    /// Drops what the rule drops at the beginning of the text.
    fn strip(&mut self, rule: &PieceRule, text: String) -> String {
        let Some((content, _)) = rule.strip_start else { return text };
        let mut kept = text.as_str();
        while self.strip_left > 0 && !kept.is_empty() {
            match kept.strip_prefix(content) {
                Some(rest) => {
                    kept = rest;
                    self.strip_left -= 1;
                }
                None => self.strip_left = 0,
            }
        }
        kept.to_owned()
    }
}

/// Removes from `bytes` what decodes for good: all but an unfinished character at the end.
fn take_final(bytes: &mut Vec<u8>) -> String {
    let final_len = bytes.len() - unfinished_len(bytes);
    let rest = bytes.split_off(final_len);
    String::from_utf8_lossy(&std::mem::replace(bytes, rest)).into_owned()
}

/// Length of the incomplete but so far valid character at the end, 0 to 3.
fn unfinished_len(bytes: &[u8]) -> usize {
    let tail_start = bytes.len().saturating_sub(3);
    for start in tail_start..bytes.len() {
        // A continuation byte begins no character.
        if bytes[start] & 0xc0 != 0x80
            && let Err(error) = std::str::from_utf8(&bytes[start..])
            && error.valid_up_to() == 0
            && error.error_len().is_none()
        {
            return bytes.len() - start;
        }
    }
    0
}

/// The bytes of a token whose characters stand for bytes; a token with any other character (an added token) is text.
fn bytes_of_level_token(token: &str) -> Vec<u8> {
    token.chars().map(byte_of_char).collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

/// GPT-2's table: printable Latin-1 characters stand for their own byte, the other 68 bytes for U+0100 and up in order.
fn byte_of_char(c: char) -> Option<u8> {
    let code = u32::from(c);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The byte of a token like `<0x41>`.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

fn kind(step: &Value) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn replacement(step: &Value) -> Option<(String, String)> {
    let pattern = step.get("pattern")?.get("String")?.as_str()?;
    Some((pattern.to_owned(), step.get("content")?.as_str()?.to_owned()))
}

fn metaspace(step: &Value) -> Option<Metaspace> {
    let replacement = single_char(step.get("replacement")?)?;
    let is_kept = step.get("prepend_scheme").and_then(Value::as_str) == Some("never");
    Some(Metaspace { replacement, first: if is_kept { FirstSpace::Kept } else { FirstSpace::Dropped } })
}

/// Only stripping at the start can be decided without seeing the end.
fn strip(step: &Value) -> Option<(char, usize)> {
    let content = single_char(step.get("content")?)?;
    let start = usize::try_from(step.get("start")?.as_u64()?).ok()?;
    (step.get("stop")?.as_u64()? == 0).then_some((content, start))
}

fn single_char(value: &Value) -> Option<char> {
    let mut chars = value.as_str()?.chars();
    chars.next().filter(|_| chars.next().is_none())
}

#[cfg(test)]
mod tests;
