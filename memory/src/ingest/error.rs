//! What can be wrong with material that is to become memories, with the place and the value.

use super::model::ModelFailure;

/// Why material was not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// A type or extension that is none of those that can be read.
    #[error("{name:?} is not a document type: it must be text, markdown, html, pdf or jsonl")]
    UnknownFormat {
        /// The type that was declared, cut.
        name: String,
    },
    /// The bytes are visibly something else than was declared.
    #[error("the document was declared as {declared}, but its bytes are {found}")]
    FormatMismatch {
        /// What was declared.
        declared: &'static str,
        /// What the first bytes say.
        found: &'static str,
    },
    /// An encoding other than UTF-8.
    #[error("the document is declared in {charset:?}, but only UTF-8 is read")]
    UnsupportedCharset {
        /// The encoding that was declared, cut.
        charset: String,
    },
    /// More bytes than are taken.
    #[error("{what} has {num_bytes} bytes, more than the {limit} that are taken")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How many there are.
        num_bytes: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A small file that unfolds into more than is taken.
    #[error("the {format} document expands to more than {limit} bytes")]
    ExpandsTooFar {
        /// Of which type.
        format: &'static str,
        /// How many bytes it may unfold into.
        limit: usize,
    },
    /// More parts than are taken.
    #[error("there are more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// Nested deeper than is followed.
    #[error("the document is nested deeper than {limit} levels at byte {offset}")]
    TooDeep {
        /// Greatest depth.
        limit: usize,
        /// Where it is exceeded.
        offset: usize,
    },
    /// Bytes that are not UTF-8.
    #[error("byte {offset} (line {line}) is not UTF-8")]
    NotUtf8 {
        /// First byte that is wrong.
        offset: usize,
        /// Its line, from 1.
        line: usize,
    },
    /// A control character that has no place in text.
    #[error("byte {offset} (line {line}) is the control character U+{code:04X}")]
    ControlCharacter {
        /// Its byte.
        offset: usize,
        /// Its line, from 1.
        line: usize,
        /// Its code point.
        code: u32,
    },
    /// A PDF that cannot be read.
    #[error("the PDF is broken: {reason}")]
    BrokenPdf {
        /// What the reader said.
        reason: String,
    },
    /// A PDF that needs a password.
    #[error("the PDF is encrypted and needs a password")]
    EncryptedPdf,
    /// A line of JSONL that cannot be used.
    #[error("line {line}: {reason}")]
    BrokenLine {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// There is nothing to read in it.
    #[error("the document holds no text")]
    NoText,
    /// Chunk sizes that cannot be met.
    #[error("chunks of {size} with an overlap of {overlap} cannot be made: 1 <= size <= {size_max} and overlap < size")]
    InvalidChunking {
        /// Size of a chunk.
        size: usize,
        /// Overlap of two.
        overlap: usize,
        /// Greatest size.
        size_max: usize,
    },
    /// An offset from UTC that no place has.
    #[error("{minutes} minutes is not an offset from UTC")]
    InvalidOffset {
        /// The offset that was given.
        minutes: i32,
    },
    /// A model answered without the JSON that it was asked for.
    #[error("the model's answer holds no JSON list of facts; it begins with {start:?}")]
    NoFacts {
        /// The answer, cut.
        start: String,
    },
    /// The JSON of a model's answer does not parse.
    #[error("the JSON in the model's answer is broken at line {line} column {column}: {reason}")]
    BrokenAnswer {
        /// Line within the answer, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        reason: String,
    },
    /// One fact of a model's answer cannot be used.
    #[error("fact {index} of the model's answer: {field} {reason}")]
    InvalidFact {
        /// Which, from 0.
        index: usize,
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A model that judges did not name a verdict.
    #[error("{answer:?} is not a verdict: it must be same, contradicts, compatible or unknown")]
    NoVerdict {
        /// The answer, cut.
        answer: String,
    },
    /// A language model gave no answer.
    #[error("the model {model} gave no answer: {failure}")]
    Model {
        /// Which.
        model: String,
        /// Why.
        failure: ModelFailure,
    },
    /// A language model answered, but nothing in it can be used.
    #[error("the model {model} gave an answer that cannot be used: {problem}")]
    ModelAnswer {
        /// Which.
        model: String,
        /// What is wrong with the answer.
        problem: Box<IngestError>,
    },
    /// An extractor or judge outside of this crate failed.
    #[error("the extractor failed: {reason}")]
    Extractor {
        /// What it said.
        reason: String,
    },
}

/// The text, cut to what an error message may carry.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

/// The line of a byte, from 1.
pub(super) fn line_of(bytes: &[u8], offset: usize) -> usize {
    bytes[..offset.min(bytes.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}
