//! A small streaming client for OpenAI-compatible endpoints: what `memos bench serve`, `memos chat --base-url` and embedders
//! elsewhere are talked to through.

mod connection;
mod error;
mod own_runtime;
mod sse;
mod stream;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use connection::{Connector, Origin, Sender};
pub use error::ClientError;
pub use own_runtime::OwnRuntime;
pub use sse::{EVENT_BYTES_MAX, EventTooLarge, SseParser};
pub use stream::{StreamChunk, TokenStream, Usage};

/// Largest answer that is read whole: a model list, an error.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Largest answer with vectors: 64 of 8,192 numbers, as text.
const EMBEDDINGS_BYTES_MAX: usize = 16 << 20;
/// How much of an error body that is not JSON is shown.
const ERROR_TEXT_CHARS_MAX: usize = 300;
/// Servers close idle connections, some after five seconds; an older one is not trusted with a request.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Idle connections kept; more are closed.
const IDLE_CONNECTIONS_MAX: usize = 1024;

/// Which of the two generating endpoints a request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Endpoint {
    /// `/v1/chat/completions`: messages in, deltas out.
    Chat,
    /// `/v1/completions`: text or token ids in, text out.
    Completions,
}

impl Endpoint {
    /// As it is written on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Completions => "/completions",
        }
    }
}

/// Client of one endpoint; cheap to clone, connections are shared and kept alive.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    connector: Connector,
    origin: Origin,
    authorization: Option<HeaderValue>,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

impl Client {
    /// A client for a base URL such as `http://127.0.0.1:8000/v1`; nothing is connected yet.
    ///
    /// # Errors
    /// A base URL or key that cannot be used.
    pub fn new(base_url: &str, api_key: Option<&str>) -> Result<Self, ClientError> {
        let origin = Origin::parse(base_url)?;
        let authorization = api_key.map(|key| HeaderValue::from_str(&format!("Bearer {key}"))).transpose();
        let mut authorization = authorization.map_err(|_error| ClientError::BadApiKey)?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        let connector = Connector::new(origin.clone());
        Ok(Self { shared: Arc::new(Shared { connector, origin, authorization, idle: Mutex::default() }) })
    }

    /// Names of the models that the endpoint serves, in its order.
    ///
    /// # Errors
    /// No connection, an error status, or an answer that is not a model list.
    pub async fn models(&self) -> Result<Vec<String>, ClientError> {
        let (response, sender) = self.send(Method::GET, "/models", None).await?;
        let body = read_whole(response, ANSWER_BYTES_MAX).await?;
        self.shared.put_back(sender);
        let unexpected = || ClientError::Unexpected { reason: "/models did not answer with a model list".to_owned() };
        let list: Value = serde_json::from_slice(&body).map_err(|_error| unexpected())?;
        let models = list.get("data").and_then(Value::as_array).ok_or_else(unexpected)?;
        Ok(models.iter().filter_map(|model| model.get("id")?.as_str().map(str::to_owned)).collect())
    }

    /// The vectors of some texts, in their order.
    ///
    /// # Errors
    /// No connection, an error status, or an answer that does not hold one list of finite numbers for each text.
    pub async fn embeddings(&self, model: &str, texts: &[&str]) -> Result<Vec<Vec<f32>>, ClientError> {
        let request = json!({ "model": model, "input": texts, "encoding_format": "float" });
        let body = Bytes::from(request.to_string());
        let (response, sender) = self.send(Method::POST, "/embeddings", Some(body)).await?;
        let body = read_whole(response, EMBEDDINGS_BYTES_MAX).await?;
        self.shared.put_back(sender);
        vectors_of(&body, texts.len()).ok_or_else(|| ClientError::Unexpected {
            reason: "/embeddings did not answer one vector a text".to_owned(),
        })
    }

    /// Sends a request without a body and returns the JSON of the answer; the path comes behind the base URL.
    ///
    /// # Errors
    /// No connection, an error status, or an answer that is not JSON.
    pub async fn call(&self, method: Method, path: &str) -> Result<Value, ClientError> {
        let (response, sender) = self.send(method, path, None).await?;
        let body = read_whole(response, ANSWER_BYTES_MAX).await?;
        self.shared.put_back(sender);
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::Unexpected { reason: format!("{path} did not answer with JSON: {error}") })
    }

    /// Posts JSON and returns the JSON of the answer; the path comes behind the base URL.
    ///
    /// # Errors
    /// No connection, an error status, or an answer that is not JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        let (response, sender) = self.send(Method::POST, path, Some(Bytes::from(body.to_string()))).await?;
        let body = read_whole(response, ANSWER_BYTES_MAX).await?;
        self.shared.put_back(sender);
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::Unexpected { reason: format!("{path} did not answer with JSON: {error}") })
    }

    /// Sends a request whose body asks for `"stream": true` and returns the stream once the server has accepted it.
    ///
    /// # Errors
    /// No connection, an error status, or an answer that is not an event stream.
    pub async fn stream(&self, endpoint: Endpoint, body: &Value) -> Result<TokenStream, ClientError> {
        let body = Bytes::from(body.to_string());
        let (response, sender) = self.send(Method::POST, endpoint.path(), Some(body)).await?;
        let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !content_type.is_some_and(|value| value.starts_with("text/event-stream")) {
            let reason = format!("content type {} instead of text/event-stream", content_type.unwrap_or("(none)"));
            return Err(ClientError::Unexpected { reason });
        }
        Ok(TokenStream::new(response.into_body(), sender, Arc::clone(&self.shared)))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<(Response<Incoming>, Sender), ClientError> {
        let mut request = self.shared.request(method, path, body)?;
        let (response, sender) = loop {
            let (mut sender, pooled) = match self.shared.take_idle() {
                Some(sender) => (sender, true),
                None => (self.shared.connector.connect().await?, false),
            };
            if sender.ready().await.is_err() && pooled {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => break (response, sender),
                Err(mut failure) => match failure.take_message() {
                    // The server closed an idle connection before anything was sent: the next one may do.
                    Some(unsent) if pooled => request = unsent,
                    _ => return Err(failure.into_error().into()),
                },
            }
        };
        if response.status().is_success() {
            return Ok((response, sender));
        }
        let status = response.status();
        let (code, message) = match read_whole(response, ANSWER_BYTES_MAX).await {
            Ok(body) => {
                self.shared.put_back(sender);
                error_of(&body)
            }
            Err(error) => (None, format!("(the body could not be read: {error})")),
        };
        Err(ClientError::Status { status, code, message })
    }
}

impl Shared {
    fn request(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.origin.path))
            .header(header::HOST, &self.origin.authority)
            .header(header::USER_AGENT, concat!("memos/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "application/json, text/event-stream");
        if let Some(value) = &self.authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| ClientError::Unexpected { reason: format!("the request cannot be built: {error}") })
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while let Some(connection) = idle.pop() {
            if connection.since.elapsed() < IDLE_MAX && !connection.sender.is_closed() {
                return Some(connection.sender);
            }
        }
        None
    }

    /// Keeps a connection whose answer was read to its end.
    fn put_back(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }
}

async fn read_whole(response: Response<Incoming>, limit: usize) -> Result<Bytes, ClientError> {
    match Limited::new(response.into_body(), limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ClientError::TooLarge { limit }),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(error) => ClientError::Http(*error),
            Err(other) => ClientError::Unexpected { reason: other.to_string() },
        }),
    }
}

/// The vectors of an answer by the index that each names; `None` when it is not one for each text.
fn vectors_of(body: &[u8], num_texts: usize) -> Option<Vec<Vec<f32>>> {
    #[derive(Deserialize)]
    struct Answer {
        data: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        index: usize,
        embedding: Vec<f32>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; num_texts];
    for Entry { index, embedding } in answer.data {
        let is_new = vectors.get(index)?.is_none();
        if !is_new || embedding.iter().any(|value| !value.is_finite()) {
            return None;
        }
        vectors[index] = Some(embedding);
    }
    vectors.into_iter().collect()
}

/// `error.code` and `error.message` of an error body; the beginning of the body when it has another shape.
fn error_of(body: &[u8]) -> (Option<String>, String) {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    if let Some(error) = json.as_ref().and_then(|json| json.get("error"))
        && let Some(message) = error.get("message").and_then(Value::as_str)
    {
        return (error.get("code").and_then(Value::as_str).map(str::to_owned), message.to_owned());
    }
    (None, String::from_utf8_lossy(body).chars().take(ERROR_TEXT_CHARS_MAX).collect())
}

#[cfg(test)]
mod tests;
