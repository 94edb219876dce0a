//! The seam to a language model, and what is asked of it: facts in a text ([`FineExtractor`]), verdicts on two memories
//! ([`ModelJudge`]). The model is served here or elsewhere; this crate sees a prompt go out and a text come back.

use std::fmt;

use super::extract::{Candidate, ExtractionInput, Extractor, Turn};
use super::fine::{FineAnswer, FinePrompt, Material, fine_prompt, parse_fine_answer};
use super::recalled::{RecalledMemory, content_words};
use super::sentences::split_sentences;
use super::{Claim, IngestError, Judge, RuleJudge, Verdict, contradiction, judge_prompt, parse_judge_answer};

/// Most calls of a model for one extraction.
pub const NUM_MODEL_CALLS_MAX: usize = 64;
/// Most text that goes into one call, whatever the model takes: a long prompt makes a model forget its middle.
const WINDOW_BYTES_MAX: usize = 8 << 10;

/// The form in which an answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnswerFormat {
    /// One JSON object.
    Json,
    /// A word or a sentence.
    Text,
}

/// Why a model gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelFailure {
    /// As many calls are under way and waiting as may be.
    #[error("it is busy: {limit} calls are under way")]
    Busy {
        /// The limit.
        limit: usize,
    },
    /// It did not answer in time.
    #[error("no answer within {limit_s} s")]
    Timeout {
        /// The limit.
        limit_s: u64,
    },
    /// Prompt and answer do not fit the model.
    #[error("the prompt is too long for it: {reason}")]
    TooLong {
        /// What it said.
        reason: String,
    },
    /// It cannot be reached, or the connection broke.
    #[error("it cannot be reached: {reason}")]
    Unreachable {
        /// What the connection said.
        reason: String,
    },
    /// It refused, or failed while it answered.
    #[error("it failed: {reason}")]
    Failed {
        /// What it said.
        reason: String,
    },
}

/// Answers prompts: the engine of this server, or a service elsewhere. Calls block; several threads may call at once.
/// Equal prompts should give equal answers (greedy decoding).
pub trait LanguageModel: Send + Sync {
    /// Name in messages and in what is made from its answers.
    fn name(&self) -> &str;

    /// The answer to a prompt.
    ///
    /// # Errors
    /// Whatever kept the model from answering.
    fn answer(&self, prompt: &FinePrompt, format: AnswerFormat) -> Result<String, ModelFailure>;
}

impl fmt::Debug for dyn LanguageModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LanguageModel({})", self.name())
    }
}

/// What a model found in some turns.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FineFindings {
    /// The facts that can be used, in the order in which they were told.
    pub candidates: Vec<Candidate>,
    /// Why others cannot.
    pub refused: Vec<IngestError>,
    /// How often the model was asked.
    pub num_calls: usize,
}

/// Mode `fine`: asks a model for the facts in a text.
///
/// A fact is taken only if it can be stored, and if some word of it stands in what the model was shown: a model that
/// follows instructions in the text, or recites what it was trained on, adds nothing that nobody said.
pub struct FineExtractor<'a> {
    model: &'a dyn LanguageModel,
    material: Material,
    known: &'a [RecalledMemory],
}

impl<'a> FineExtractor<'a> {
    /// Asks this model about conversations.
    pub fn new(model: &'a dyn LanguageModel) -> Self {
        Self { model, material: Material::Conversation, known: &[] }
    }

    /// The same about text of another sort.
    pub fn about(self, material: Material) -> Self {
        Self { material, ..self }
    }

    /// The same, where the model is told what is known already.
    pub fn knowing(self, known: &'a [RecalledMemory]) -> Self {
        Self { known, ..self }
    }

    /// What the model finds. Text that is longer than one call takes is shown in parts.
    ///
    /// # Errors
    /// Input beyond the limits, a model that fails, or one of whose answers nothing can be used.
    pub fn find(&self, input: &ExtractionInput) -> Result<FineFindings, IngestError> {
        input.check()?;
        let windows = windows(input);
        if windows.len() > NUM_MODEL_CALLS_MAX {
            let what = "parts of the text for a model to read";
            return Err(IngestError::TooMany { what, limit: NUM_MODEL_CALLS_MAX });
        }
        let mut found = FineFindings::default();
        for window in windows {
            let shown = ExtractionInput { turns: shown_turns(input, &window), ..input.clone() };
            let answer = self.ask(&shown)?;
            found.num_calls += 1;
            let (sound, ungrounded) = grounded(answer.candidates, &shown);
            let num_refused = answer.refused.len() + ungrounded.len();
            let first = answer.refused.first().or(ungrounded.first());
            if let (true, Some(first)) = (sound.is_empty() && num_refused > 0, first) {
                return Err(self.unusable(first.clone()));
            }
            found.candidates.extend(sound.into_iter().map(|candidate| self.placed(candidate, input)));
            found.refused.extend(answer.refused.into_iter().chain(ungrounded));
        }
        // A model names turns in any order. Those that it does not place stay behind what it told before them.
        let mut last = 0;
        let mut order: Vec<(usize, Candidate)> = Vec::with_capacity(found.candidates.len());
        for candidate in found.candidates {
            last = candidate.turn.unwrap_or(last);
            order.push((last, candidate));
        }
        order.sort_by_key(|(turn, _candidate)| *turn);
        found.candidates = order.into_iter().map(|(_turn, candidate)| candidate).collect();
        Ok(found)
    }

    fn ask(&self, input: &ExtractionInput) -> Result<FineAnswer, IngestError> {
        let prompt = fine_prompt(input, self.known, self.material)?;
        let answer = self.model.answer(&prompt, AnswerFormat::Json).map_err(|failure| failed(self.model, failure))?;
        parse_fine_answer(&answer).map_err(|error| self.unusable(error))
    }

    fn unusable(&self, error: IngestError) -> IngestError {
        IngestError::ModelAnswer { model: self.model.name().to_owned(), problem: Box::new(error) }
    }

    /// A turn that is none of those that are remembered is no place. Where there is one, it needs no telling.
    fn placed(&self, mut candidate: Candidate, input: &ExtractionInput) -> Candidate {
        let mut remembered = input.remembered_turns().map(|(index, _turn)| index);
        candidate.turn = match (candidate.turn, remembered.next(), remembered.next()) {
            (_, Some(only), None) => Some(only),
            (Some(turn), _, _) => input.remembered_turns().any(|(index, _)| index == turn).then_some(turn),
            (None, _, _) => None,
        };
        candidate
    }
}

impl Extractor for FineExtractor<'_> {
    fn extract(&self, input: &ExtractionInput) -> Result<Vec<Candidate>, IngestError> {
        Ok(self.find(input)?.candidates)
    }
}

/// Judges by rules first; what they do not understand, a model is asked.
pub struct ModelJudge<'a> {
    model: &'a dyn LanguageModel,
}

impl<'a> ModelJudge<'a> {
    /// Asks this model.
    pub fn new(model: &'a dyn LanguageModel) -> Self {
        Self { model }
    }
}

impl Judge for ModelJudge<'_> {
    fn judge(&self, older: &Claim, newer: &Claim) -> Result<Verdict, IngestError> {
        let by_rules = RuleJudge.judge(older, newer)?;
        if by_rules != Verdict::Unknown {
            return Ok(by_rules);
        }
        // What is true at different times needs no model to tell that both were.
        if !contradiction::share_time(older, newer) {
            return Ok(Verdict::Compatible);
        }
        let system = "You compare two notes and answer with one word.".to_owned();
        let prompt = FinePrompt { system, user: judge_prompt(older, newer) };
        let answer = self.model.answer(&prompt, AnswerFormat::Text).map_err(|failure| failed(self.model, failure))?;
        parse_judge_answer(&answer)
            .map_err(|error| IngestError::ModelAnswer { model: self.model.name().to_owned(), problem: Box::new(error) })
    }
}

fn failed(model: &dyn LanguageModel, failure: ModelFailure) -> IngestError {
    IngestError::Model { model: model.name().to_owned(), failure }
}

/// A part of the remembered turns that one call shows: turns by index, with the part of their text.
type Window<'a> = Vec<(usize, &'a str)>;

/// The remembered turns in parts of at most [`WINDOW_BYTES_MAX`], cut between turns, or between sentences of a long one.
fn windows(input: &ExtractionInput) -> Vec<Window<'_>> {
    let mut windows: Vec<Window<'_>> = Vec::new();
    let mut room = 0;
    for (index, turn) in input.remembered_turns().filter(|(_, turn)| !turn.text.trim().is_empty()) {
        for part in parts(&turn.text) {
            if part.len() > room || windows.is_empty() {
                windows.push(Vec::new());
                room = WINDOW_BYTES_MAX;
            }
            room = room.saturating_sub(part.len());
            if let Some(window) = windows.last_mut() {
                window.push((index, part));
            }
        }
    }
    windows
}

/// A text in parts that fit a window: whole if it fits, else sentence after sentence, each part as long as it may be.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    while text.len() - start > WINDOW_BYTES_MAX {
        let limit = text.floor_char_boundary(start + WINDOW_BYTES_MAX);
        let sentences = split_sentences(&text[start..limit]);
        // The last sentence may be cut off, unless it is the only one.
        let end = match sentences.as_slice() {
            [.., last] if last.span.start > 0 => start + last.span.start,
            _ => limit,
        };
        parts.push(&text[start..end]);
        start = end;
    }
    if start < text.len() {
        parts.push(&text[start..]);
    }
    parts
}

/// The input's turns where only those of a window say something. Places stay what they are.
fn shown_turns(input: &ExtractionInput, window: &Window<'_>) -> Vec<Turn> {
    let mut turns: Vec<Turn> = input.turns.iter().map(|turn| Turn { role: turn.role, text: String::new() }).collect();
    for (index, part) in window {
        turns[*index].text.push_str(part);
    }
    turns
}

/// Facts of which some word stands in the turns, and refusals of the others.
fn grounded(candidates: Vec<Candidate>, input: &ExtractionInput) -> (Vec<Candidate>, Vec<IngestError>) {
    let said: std::collections::HashSet<String> =
        input.remembered_turns().flat_map(|(_, turn)| content_words(&turn.text)).collect();
    let (mut sound, mut refused) = (Vec::new(), Vec::new());
    for (index, candidate) in candidates.into_iter().enumerate() {
        let words = content_words(&candidate.text);
        if words.iter().any(|word| said.contains(word)) {
            sound.push(candidate);
        } else {
            let reason = "shares no word with what was said".to_owned();
            refused.push(IngestError::InvalidFact { index, field: "text", reason });
        }
    }
    (sound, refused)
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
