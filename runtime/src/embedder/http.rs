//! An embedder elsewhere: any service with OpenAI's `/v1/embeddings`, asked from threads that may wait.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use memory::memories::{EmbedError, Embedder, Purpose};
use memory::search::SearchError;
use memory::search::vectors::{EmbedderId, NUM_DIMENSIONS_MAX};

use crate::client::{Client, ClientError, OwnRuntime};

/// Texts in one request.
const NUM_TEXTS_MAX: usize = 64;
/// Of a longer text the beginning is embedded. A token takes at least one byte of text, so this fits OpenAI's 8,191 tokens.
const TEXT_BYTES_MAX: usize = 8 << 10;
/// A question is waited for by somebody.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// A service without a GPU may take long for a batch of passages.
const PASSAGE_TIMEOUT: Duration = Duration::from_secs(120);
/// What is embedded to learn how many numbers a vector has.
const PROBE: &str = "probe";

/// Why a service cannot serve as embedder.
#[derive(Debug, thiserror::Error)]
pub enum HttpEmbedderError {
    /// The text on the command line is no place of a model.
    #[error("`{text}` names no model: write http://HOST:PORT/v1#MODEL")]
    NoModel {
        /// As it was given.
        text: String,
    },
    /// The thread that talks to it cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// It cannot be asked, or answered something else.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It did not answer in time.
    #[error("no answer within {} s", .limit.as_secs())]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// Its vectors have no length that can be kept.
    #[error("vectors of {found} numbers cannot be kept: the limit is {limit}")]
    Dimension {
        /// Numbers of the first vector.
        found: usize,
        /// Most numbers.
        limit: usize,
    },
    /// Another vector has another length than the first one.
    #[error("a vector of {found} numbers came, but the model's have {expected}")]
    OtherDimension {
        /// Numbers of this vector.
        found: usize,
        /// Numbers of the first one.
        expected: usize,
    },
    /// The name of its space cannot be kept with vectors.
    #[error(transparent)]
    Name(#[from] SearchError),
}

/// A base URL and the model that is asked for there; as text, `http://HOST/v1#MODEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePlace {
    url: String,
    model: String,
}

impl ServicePlace {
    /// The base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The model.
    pub fn model(&self) -> &str {
        &self.model
    }
}

impl FromStr for ServicePlace {
    type Err = HttpEmbedderError;

    fn from_str(text: &str) -> Result<Self, HttpEmbedderError> {
        match text.split_once('#') {
            Some((url, model)) if !url.is_empty() && !model.trim().is_empty() => {
                Ok(Self { url: url.trim_end_matches('/').to_owned(), model: model.to_owned() })
            }
            _ => Err(HttpEmbedderError::NoModel { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for ServicePlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}#{}", self.url, self.model)
    }
}

/// A service that embeds. Calls block their thread; several may be under way at once.
pub struct HttpEmbedder {
    client: Client,
    model: String,
    id: EmbedderId,
    dim: usize,
    runtime: OwnRuntime,
}

impl HttpEmbedder {
    /// Asks the service for one vector, which says how many numbers it has. Blocks: not to be called from an async task.
    ///
    /// # Errors
    /// The service cannot be reached, refuses, or answers something that is no vector.
    pub fn connect(place: &ServicePlace, api_key: Option<&str>) -> Result<Self, HttpEmbedderError> {
        let runtime = OwnRuntime::start("embedder").map_err(HttpEmbedderError::Thread)?;
        let client = Client::new(&place.url, api_key)?;
        let first = ask(&runtime, &client, &place.model, &[PROBE], QUERY_TIMEOUT)?;
        let dim = first.first().map_or(0, Vec::len);
        if dim == 0 || dim > NUM_DIMENSIONS_MAX {
            return Err(HttpEmbedderError::Dimension { found: dim, limit: NUM_DIMENSIONS_MAX });
        }
        let id = EmbedderId::new(space_name(place, dim))?;
        Ok(Self { client, model: place.model.clone(), id, dim, runtime })
    }

    fn vectors(&self, texts: &[&str], timeout: Duration) -> Result<Vec<Vec<f32>>, HttpEmbedderError> {
        let texts: Vec<&str> = texts.iter().map(|text| beginning(text)).collect();
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in texts.chunks(NUM_TEXTS_MAX) {
            for vector in ask(&self.runtime, &self.client, &self.model, batch, timeout)? {
                if vector.len() != self.dim {
                    return Err(HttpEmbedderError::OtherDimension { found: vector.len(), expected: self.dim });
                }
                vectors.push(vector);
            }
        }
        Ok(vectors)
    }
}

impl Embedder for HttpEmbedder {
    fn id(&self) -> &EmbedderId {
        &self.id
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn embed(&self, texts: &[&str], purpose: Purpose) -> Result<Vec<Vec<f32>>, EmbedError> {
        let timeout = match purpose {
            Purpose::Query => QUERY_TIMEOUT,
            Purpose::Passage => PASSAGE_TIMEOUT,
        };
        self.vectors(texts, timeout).map_err(|error| EmbedError(error.to_string()))
    }
}

fn ask(
    runtime: &OwnRuntime,
    client: &Client,
    model: &str,
    texts: &[&str],
    limit: Duration,
) -> Result<Vec<Vec<f32>>, HttpEmbedderError> {
    runtime.block_on(async {
        match tokio::time::timeout(limit, client.embeddings(model, texts)).await {
            Ok(answer) => Ok(answer?),
            Err(_elapsed) => Err(HttpEmbedderError::Timeout { limit }),
        }
    })
}

/// The space is that of the place: what a service serves under a name elsewhere may be another model.
fn space_name(place: &ServicePlace, dim: usize) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("memos 2026 embedding service v1");
    for field in [place.url.as_bytes(), place.model.as_bytes(), &(dim as u64).to_le_bytes()] {
        hasher.update(&(field.len() as u64).to_le_bytes()).update(field);
    }
    format!("service:{}", hasher.finalize().to_hex())
}

fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
