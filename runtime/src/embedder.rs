//! What turns memories into vectors: a model in this process or a service elsewhere, chosen by one text on the command line.

mod http;
mod local;

use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context;
use memory::memories::Embedder;
use models::hub::DownloadProgress;

pub use http::{HttpEmbedder, HttpEmbedderError, ServicePlace};
pub use local::{LocalEmbedder, LocalEmbedderError};

use crate::environment::Environment;

/// Where vectors come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbedderChoice {
    /// There are none: search goes by words and graph.
    None,
    /// A model of the BERT family: a folder, or a hub id.
    Model(String),
    /// A service with OpenAI's `/v1/embeddings`.
    Service(ServicePlace),
}

impl FromStr for EmbedderChoice {
    type Err = HttpEmbedderError;

    fn from_str(text: &str) -> Result<Self, HttpEmbedderError> {
        match text {
            "" | "none" => Ok(Self::None),
            url if url.starts_with("http://") || url.starts_with("https://") => Ok(Self::Service(url.parse()?)),
            model => Ok(Self::Model(model.to_owned())),
        }
    }
}

impl EmbedderChoice {
    /// Loads the model, or asks the service for its first vector. Blocks: not to be called from an async task.
    ///
    /// # Errors
    /// The model cannot be found or loaded, or the service cannot be reached.
    pub fn open(
        &self,
        environment: &Environment,
        progress: &mut dyn DownloadProgress,
    ) -> anyhow::Result<Option<Arc<dyn Embedder>>> {
        Ok(match self {
            Self::None => None,
            Self::Model(model) => {
                let folder = models::hub::resolve(model, &environment.hub_options(), progress)
                    .with_context(|| format!("cannot find the embedder {model}"))?;
                let local = LocalEmbedder::load(folder).with_context(|| format!("cannot load the embedder {model}"))?;
                Some(Arc::new(local))
            }
            Self::Service(place) => {
                let service = HttpEmbedder::connect(place, environment.embedder_api_key.as_deref())
                    .with_context(|| format!("the embedder {place} cannot be used"))?;
                Some(Arc::new(service))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_nothing_a_model_or_a_service() {
        assert_eq!("none".parse::<EmbedderChoice>().expect("read"), EmbedderChoice::None);
        let model = EmbedderChoice::Model("sentence-transformers/all-MiniLM-L6-v2".to_owned());
        assert_eq!("sentence-transformers/all-MiniLM-L6-v2".parse::<EmbedderChoice>().expect("read"), model);
        assert_eq!("./none".parse::<EmbedderChoice>().expect("read"), EmbedderChoice::Model("./none".to_owned()));
        assert!(matches!("http://localhost:1/v1#m".parse(), Ok(EmbedderChoice::Service(_))));
        assert!("http://localhost:1/v1".parse::<EmbedderChoice>().is_err());
    }
}
