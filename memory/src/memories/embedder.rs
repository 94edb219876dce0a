//! The seam to whatever turns text into vectors: a model here, the served model, a service elsewhere.

use std::fmt;

use crate::search::vectors::EmbedderId;

/// What a text is embedded for; some models tell questions and passages apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A question to search with.
    Query,
    /// A memory to be found.
    Passage,
}

/// Why a text could not be embedded.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EmbedError(pub String);

/// Turns text into vectors of one space. Equal ids mean equal spaces: vectors of different ids are never compared.
pub trait Embedder: Send + Sync {
    /// Name of the space.
    fn id(&self) -> &EmbedderId;

    /// Numbers of a vector.
    fn dim(&self) -> usize;

    /// One vector for each text, in their order.
    ///
    /// # Errors
    /// Whatever kept the model or the service from answering.
    fn embed(&self, texts: &[&str], purpose: Purpose) -> Result<Vec<Vec<f32>>, EmbedError>;
}

impl fmt::Debug for dyn Embedder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Embedder({})", self.id())
    }
}
