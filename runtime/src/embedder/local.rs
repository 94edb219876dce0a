//! A sentence embedder in this process.

use std::path::PathBuf;

use memory::memories::{EmbedError, Embedder, Purpose};
use memory::search::SearchError;
use memory::search::vectors::EmbedderId;
use models::embedder::{BertEmbedder, EmbedderOptions};
use models::{ModelError, ModelSource};

/// Why a model cannot serve as embedder.
#[derive(Debug, thiserror::Error)]
pub enum LocalEmbedderError {
    /// It cannot be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Its name cannot be kept with vectors.
    #[error(transparent)]
    Name(#[from] SearchError),
}

/// A model of the BERT family. The name of its space is the hash of everything that a vector depends on.
pub struct LocalEmbedder {
    model: BertEmbedder,
    id: EmbedderId,
}

impl LocalEmbedder {
    /// Loads the model in a folder.
    ///
    /// # Errors
    /// The file, field or tensor that is missing, broken or not supported.
    pub fn load(folder: PathBuf) -> Result<Self, LocalEmbedderError> {
        let model = BertEmbedder::load(&ModelSource::Folder(folder), EmbedderOptions::default())?;
        let id = EmbedderId::new(format!("bert:{}", model.id()))?;
        Ok(Self { model, id })
    }
}

impl Embedder for LocalEmbedder {
    fn id(&self) -> &EmbedderId {
        &self.id
    }

    fn dim(&self) -> usize {
        self.model.dim()
    }

    fn embed(&self, texts: &[&str], purpose: Purpose) -> Result<Vec<Vec<f32>>, EmbedError> {
        let purpose = match purpose {
            Purpose::Query => models::embedder::Purpose::Query,
            Purpose::Passage => models::embedder::Purpose::Passage,
        };
        self.model.embed(texts, purpose).map_err(|error| EmbedError(error.to_string()))
    }
}
