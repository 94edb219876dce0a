//! Mode `fine`: what a model finds in a text, and what happens where it finds nothing that can be used.

use std::sync::Arc;

use memory::ingest::{
    ExtractionInput, Extractor, FastExtractor, FineExtractor, FineFindings, IngestError, LanguageModel, Material,
};
use memory::memories::{AddOptions, Contradictions, MemoriesError};
use serde_json::{Value, json};

use super::call::Call;
use super::values::choice;
use crate::http::error::ApiError;

/// What happens where the model fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// The request fails, and nothing is added.
    Refuse,
    /// Rules find what they can.
    Fast,
    /// The text is kept as it is.
    Raw,
}

/// What became of an extraction.
pub enum Extracted {
    /// Memories.
    Candidates(Vec<memory::ingest::Candidate>),
    /// The text is to be kept as it is.
    AsItIs,
}

/// A model, and how it is asked.
pub struct Fine {
    model: Arc<dyn LanguageModel>,
    fallback: Fallback,
    material: Material,
    num_calls: usize,
    refused: Vec<String>,
    failure: Option<IngestError>,
}

/// Reads `fallback`.
///
/// # Errors
/// A word that is not known.
pub fn read_fallback(call: &mut Call) -> Result<Option<Fallback>, ApiError> {
    choice(
        &mut call.fields,
        "fallback",
        &[("none", Fallback::Refuse), ("fast", Fallback::Fast), ("raw", Fallback::Raw)],
    )
}

/// Refuses `fallback` where no model is asked; lets the rules judge where it says that they may.
///
/// # Errors
/// No model is asked.
pub fn apply_fallback(
    asked: Option<Fallback>,
    is_fine: bool,
    options: AddOptions<'static>,
) -> Result<AddOptions<'static>, ApiError> {
    let judges = options.contradictions == Contradictions::Judge;
    match asked {
        Some(Fallback::Fast | Fallback::Raw) if !is_fine && !judges => {
            Err(ApiError::Conflict { param: "fallback", other: "mode", reason: "no model is asked" })
        }
        Some(Fallback::Fast | Fallback::Raw) if judges => {
            Ok(AddOptions { contradictions: Contradictions::JudgeOrSupersede, ..options })
        }
        _ => Ok(options),
    }
}

impl Fine {
    /// The server's model.
    ///
    /// # Errors
    /// There is none.
    pub fn new(call: &Call, fallback: Option<Fallback>, material: Material) -> Result<Self, ApiError> {
        let missing = || ApiError::Unsupported {
            param: "mode".to_owned(),
            reason: "the server was started without --extractor, so no model is asked; use \"fast\"",
        };
        let model = call.memories().language_model().ok_or_else(missing)?;
        let fallback = fallback.unwrap_or(Fallback::Refuse);
        Ok(Self { model, fallback, material, num_calls: 0, refused: Vec::new(), failure: None })
    }

    /// What the model finds, or what takes its place.
    ///
    /// # Errors
    /// Input beyond the limits; or the model failed and nothing is to take its place.
    pub fn find(&mut self, call: &Call, input: &ExtractionInput) -> Result<Extracted, ApiError> {
        let memories = call.memories();
        let mut shown = input.clone();
        // A model elsewhere sees no more than what may be stored.
        shown.turns.iter_mut().for_each(|turn| turn.text = memories.redacted_text(&turn.text));
        let error = match FineExtractor::new(&*self.model).about(self.material).find(&shown) {
            Ok(FineFindings { candidates, refused, num_calls }) => {
                self.num_calls += num_calls;
                self.refused.extend(refused.iter().map(ToString::to_string));
                return Ok(Extracted::Candidates(candidates));
            }
            Err(error) => error,
        };
        let is_of_the_model = matches!(error, IngestError::Model { .. } | IngestError::ModelAnswer { .. });
        if !is_of_the_model || self.fallback == Fallback::Refuse {
            return Err(MemoriesError::from(error).into());
        }
        self.failure = Some(error);
        match self.fallback {
            Fallback::Raw | Fallback::Refuse => Ok(Extracted::AsItIs),
            Fallback::Fast => Ok(Extracted::Candidates(FastExtractor.extract(input).map_err(MemoriesError::from)?)),
        }
    }

    /// The name of the model, kept with what it found.
    pub fn model(&self) -> &str {
        self.model.name()
    }

    /// Whether something took the model's place.
    pub fn fell_back(&self) -> bool {
        self.failure.is_some()
    }

    /// What is told of it.
    pub fn report(&self) -> Value {
        let failure = self.failure.clone().map(|error| ApiError::from(MemoriesError::from(error)));
        json!({
            "mode": if self.fell_back() { if self.fallback == Fallback::Raw { "raw" } else { "fast" } } else { "fine" },
            "model": self.model.name(),
            "num_calls": self.num_calls,
            "refused": self.refused,
            "error": failure.map(|error| error.to_json()["error"].clone()),
        })
    }
}
