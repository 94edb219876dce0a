//! The language model that finds facts and judges contradictions (mode `fine`): the engine of this server, or a service.

mod gate;
mod served;
mod service;
#[cfg(test)]
mod tests;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use memory::ingest::LanguageModel;

pub use served::{ServedModel, ServedParts};
pub use service::{ModelService, ServiceKind};

use crate::embedder::{HttpEmbedderError, ServicePlace};
use crate::environment::Environment;

/// Longest answer that is asked for, in tokens.
pub const ANSWER_TOKENS_MAX: usize = 2048;

/// Which model is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtractorChoice {
    /// None: there are rules alone.
    None,
    /// The one that is served here.
    Engine,
    /// One elsewhere.
    Service(ServicePlace),
}

impl FromStr for ExtractorChoice {
    type Err = HttpEmbedderError;

    fn from_str(text: &str) -> Result<Self, HttpEmbedderError> {
        match text {
            "" | "none" => Ok(Self::None),
            "engine" => Ok(Self::Engine),
            place => Ok(Self::Service(place.parse()?)),
        }
    }
}

impl ExtractorChoice {
    /// Makes the model ready. Nothing is asked yet: a service may come later than this server. Must be called inside of a
    /// tokio runtime, which the engine's answers are waited for on.
    ///
    /// # Errors
    /// The place cannot be one, a thread cannot be started, or the served model has no chat template.
    pub fn open(
        &self,
        (kind, timeout): (ServiceKind, Duration),
        served: impl FnOnce() -> Option<ServedParts>,
        environment: &Environment,
    ) -> anyhow::Result<Option<Arc<dyn LanguageModel>>> {
        Ok(match self {
            Self::None => None,
            Self::Engine => {
                let parts =
                    served().context("the served model has no chat template, so it cannot be asked for facts")?;
                Some(Arc::new(ServedModel::new(parts, timeout, tokio::runtime::Handle::current())))
            }
            Self::Service(place) => {
                let service = ModelService::new(place, kind, environment.extractor_api_key.as_deref(), timeout)
                    .with_context(|| format!("the extractor {place} cannot be used"))?;
                Some(Arc::new(service))
            }
        })
    }
}
