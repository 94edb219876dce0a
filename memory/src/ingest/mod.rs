//! From text to memories that can be stored: documents, chat turns, what a model found, and what contradicts what.
//!
//! Nothing here stores or opens a connection: every function takes text and gives `NewItem`s, candidates for them, prompts,
//! or verdicts. A model is behind the seam [`LanguageModel`]: a prompt goes out, a text comes back.

mod calendar;
mod chunk;
mod contradiction;
mod dates;
mod document;
mod entities;
mod error;
mod extract;
mod fast;
mod fine;
mod html;
mod json_lines;
mod kinds;
mod markdown;
mod model;
mod patterns;
mod pdf;
mod person;
mod recalled;
mod relations;
mod sentences;
mod statement;
mod topics;
mod values;
mod verbs;
mod wording;
mod worth;

pub use calendar::{Reference, TimeSpan};
pub use chunk::{ChunkSize, Chunking, chunk_document};
pub use contradiction::{Claim, Judge, RuleJudge, Verdict, judge_prompt, parse_judge_answer};
pub use document::{Document, DocumentFormat, DocumentLimits, Section, detect_format, read_document};
pub use error::IngestError;
pub use extract::{Candidate, ExtractionInput, Extractor, Role, Speakers, Turn, new_items};
pub use fast::FastExtractor;
pub use fine::{FineAnswer, FinePrompt, Material, fine_prompt, parse_fine_answer};
pub use model::{
    AnswerFormat, FineExtractor, FineFindings, LanguageModel, ModelFailure, ModelJudge, NUM_MODEL_CALLS_MAX,
};
pub use recalled::{Filtered, RecalledMemory, drop_recalled};
pub use sentences::{Sentence, split_sentences};
pub use statement::{Polarity, Statement, Tense, parse_statement};
