//! What a request can be answered with instead of a result, and how that looks in OpenAI's error shape.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use memory::MemoryError;
use memory::governance::{Permission, Role};
use memory::memories::MemoriesError;
use serde_json::{Value, json};

use super::memory_api::{RETRY_AFTER_BUSY_S, Refusal};
use crate::engine::EngineError;

/// Advice in `Retry-After` when the server is going down: time for a replacement to come up.
const RETRY_AFTER_SHUTDOWN_S: u64 = 5;

/// Every way in which a request can fail. The values are the client's own and go back to it; none is logged.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The body is not UTF-8.
    #[error("the body is not valid UTF-8: the first wrong byte is at offset {offset}")]
    NotUtf8 {
        /// Bytes before the wrong one.
        offset: usize,
    },
    /// The body is not JSON.
    #[error("the body is not valid JSON: {reason}")]
    NotJson {
        /// The parser's words, with line and column.
        reason: String,
    },
    /// The body is JSON, but not an object.
    #[error("the body must be a JSON object, got {got}")]
    NotAnObject {
        /// What it is.
        got: String,
    },
    /// The body says that it is something else than JSON.
    #[error("the content-type must be application/json, got {got:?}")]
    MediaType {
        /// What it says.
        got: String,
    },
    /// The body is larger than the server takes.
    #[error("the body is larger than the limit of {limit_bytes} bytes")]
    BodyTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// The body did not arrive in time.
    #[error("the body did not arrive within {limit_s} seconds")]
    BodyTooSlow {
        /// The limit.
        limit_s: u64,
    },
    /// The connection broke or the framing is wrong.
    #[error("the body could not be read: {reason}")]
    BodyBroken {
        /// What the HTTP layer said.
        reason: String,
    },
    /// A field that is needed is not there.
    #[error("{param} is required")]
    Missing {
        /// Its name.
        param: String,
    },
    /// A field has a value of the wrong type.
    #[error("{param} must be {expected}, got {got}")]
    WrongType {
        /// Its name.
        param: String,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// A field has a value that is not allowed.
    #[error("{param} must be {allowed}, got {got}")]
    OutOfRange {
        /// Its name.
        param: String,
        /// What it may be.
        allowed: String,
        /// What it is.
        got: String,
    },
    /// A field that nothing here knows.
    #[error("unknown field {param}")]
    UnknownField {
        /// Its name.
        param: String,
    },
    /// A field of OpenAI's API that this server does not implement.
    #[error("{param} is not supported here: {reason}")]
    Unsupported {
        /// Its name.
        param: String,
        /// Why, and what to do instead.
        reason: &'static str,
    },
    /// Two fields contradict each other.
    #[error("{param} contradicts {other}: {reason}")]
    Conflict {
        /// The field that is reported.
        param: &'static str,
        /// The other one.
        other: &'static str,
        /// What the rule is.
        reason: &'static str,
    },
    /// The model that is asked for is not served.
    #[error("the model {model:?} does not exist; this server has {served:?}")]
    UnknownModel {
        /// What was asked for.
        model: String,
        /// What there is.
        served: String,
    },
    /// Prompt and answer do not fit the context.
    #[error(
        "this model's maximum context length is {limit} tokens, but the request needs {}: {prompt_tokens} in the \
         {param} and {max_tokens} for the answer",
        prompt_tokens.saturating_add(*max_tokens)
    )]
    ContextLength {
        /// Field that holds the prompt.
        param: &'static str,
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens asked for; at least one.
        max_tokens: usize,
        /// Tokens that fit.
        limit: usize,
    },
    /// The chat template refused the conversation.
    #[error("the chat template refuses these messages: {reason}")]
    Template {
        /// Its words.
        reason: String,
    },
    /// A model without a chat template was asked to chat.
    #[error("the model {model:?} has no chat template: use /v1/completions")]
    NoTemplate {
        /// The model.
        model: String,
    },
    /// The tokenizer refused a text or token.
    #[error("{param} cannot be tokenised: {reason}")]
    Tokenizer {
        /// The field.
        param: &'static str,
        /// Its words.
        reason: String,
    },
    /// No API key was given.
    #[error("no API key was given: send it as 'Authorization: Bearer KEY'")]
    MissingKey,
    /// The API key is unknown or revoked.
    #[error("the API key is not valid")]
    RefusedKey,
    /// The key's role does not allow this.
    #[error("a key with role {role} may not do this ({})", permission_in_words(*permission))]
    Forbidden {
        /// The caller's role.
        role: Role,
        /// What is needed.
        permission: Permission,
    },
    /// Without keys the server answers to its loopback names only, so that no web page can reach it by another name.
    #[error("without API keys only localhost is served, but the Host header says {host:?}")]
    ForeignHost {
        /// What the header says.
        host: String,
    },
    /// The key file cannot be used, so nobody can be let in.
    #[error("API keys cannot be checked at the moment")]
    Keys(#[from] MemoryError),
    /// No such route.
    #[error("there is no {path}; /openapi.json lists what there is")]
    NotFound {
        /// What was asked for.
        path: String,
    },
    /// The route exists with another method.
    #[error("{path} does not take {method}")]
    MethodNotAllowed {
        /// The route.
        path: String,
        /// The method that was used.
        method: String,
    },
    /// More choices at once than the queue holds: waiting does not help.
    #[error("the request asks for {num_choices} sequences, but at most {limit} can wait here")]
    QueueTooSmall {
        /// Prompts times `n`.
        num_choices: usize,
        /// The queue.
        limit: usize,
    },
    /// The request's own time limit passed.
    #[error("the request did not finish within its limit of {limit_ms} ms")]
    Deadline {
        /// The limit.
        limit_ms: u128,
    },
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The memory refused or failed. Its own words may name files: clients get those of the [`Refusal`].
    #[error("{}", Refusal::of(.0).message)]
    Memory(Box<MemoriesError>),
    /// `If-Match` names another version than the present one.
    #[error("the memory is at version {found}, but if-match asks for version {expected}")]
    Precondition {
        /// Version that the client knows.
        expected: u64,
        /// Version that there is.
        found: u64,
    },
    /// A file of memories cannot be imported.
    #[error("the file cannot be imported: {reason}")]
    Import {
        /// What the reader said.
        reason: String,
    },
    /// Embeddings were asked for where nothing makes them.
    #[error(
        "no embedder is configured, so there are no embeddings: start the server with --embedder and the folder or hub id \
         of a BERT-family model, or the address of a service"
    )]
    NoEmbedder,
    /// A task of the server died; the request can be repeated.
    #[error("an internal task failed: {task}")]
    Task {
        /// What it was for.
        task: &'static str,
    },
}

fn permission_in_words(permission: Permission) -> &'static str {
    match permission {
        Permission::Read => "reading models",
        Permission::Infer => "generating text",
        Permission::Observe => "reading the figures of all tenants",
    }
}

impl ApiError {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::MediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::UnknownModel { .. } | Self::NotFound { .. } | Self::NoEmbedder => StatusCode::NOT_FOUND,
            Self::Memory(error) => Refusal::of(error).status,
            Self::Precondition { .. } => StatusCode::PRECONDITION_FAILED,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::MissingKey | Self::RefusedKey => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } | Self::ForeignHost { .. } => StatusCode::FORBIDDEN,
            Self::Keys(_) | Self::Deadline { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Task { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Engine(error) => match error {
                EngineError::QueueFull { .. } => StatusCode::TOO_MANY_REQUESTS,
                EngineError::ShuttingDown | EngineError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
                EngineError::StepFailed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
                EngineError::TooLong { .. } | EngineError::EmptyPrompt | EngineError::TokenOutOfRange { .. } => {
                    StatusCode::BAD_REQUEST
                }
            },
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// OpenAI's `type`.
    fn kind(&self) -> &'static str {
        match self.status() {
            _ if self.code() == "insufficient_quota" => "insufficient_quota",
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE => "service_unavailable_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// OpenAI's `code`, for programs.
    fn code(&self) -> &'static str {
        match self {
            Self::NotUtf8 { .. } => "invalid_utf8",
            Self::NotJson { .. } | Self::NotAnObject { .. } => "invalid_json",
            Self::MediaType { .. } => "unsupported_media_type",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BodyTooSlow { .. } => "body_timeout",
            Self::BodyBroken { .. } => "body_unreadable",
            Self::Missing { .. } => "missing_required_parameter",
            Self::WrongType { .. } => "invalid_type",
            Self::OutOfRange { .. } => "invalid_value",
            Self::UnknownField { .. } => "unknown_parameter",
            Self::Unsupported { .. } => "unsupported_parameter",
            Self::Conflict { .. } => "conflicting_parameters",
            Self::UnknownModel { .. } => "model_not_found",
            Self::ContextLength { .. } | Self::Engine(EngineError::TooLong { .. }) => "context_length_exceeded",
            Self::Template { .. } => "chat_template_error",
            Self::NoTemplate { .. } => "no_chat_template",
            Self::Tokenizer { .. } => "tokenizer_error",
            Self::MissingKey | Self::RefusedKey => "invalid_api_key",
            Self::Forbidden { .. } => "insufficient_permissions",
            Self::ForeignHost { .. } => "foreign_host",
            Self::Keys(_) => "keys_unavailable",
            Self::NotFound { .. } => "not_found",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::QueueTooSmall { .. } => "too_many_sequences",
            Self::Deadline { .. } => "deadline_exceeded",
            Self::Memory(error) => Refusal::of(error).code,
            Self::Precondition { .. } => "version_conflict",
            Self::Import { .. } => "invalid_import",
            Self::NoEmbedder => "embedder_not_configured",
            Self::Task { .. } => "internal_error",
            Self::Engine(EngineError::QueueFull { .. }) => "queue_full",
            Self::Engine(EngineError::ShuttingDown) => "shutting_down",
            Self::Engine(EngineError::Stopped) => "engine_stopped",
            Self::Engine(EngineError::StepFailed { .. }) => "step_failed",
            Self::Engine(EngineError::EmptyPrompt) => "empty_prompt",
            Self::Engine(EngineError::TokenOutOfRange { .. }) => "invalid_value",
        }
    }

    /// Field of the request that is to blame.
    fn param(&self) -> Option<&str> {
        match self {
            Self::Missing { param }
            | Self::WrongType { param, .. }
            | Self::OutOfRange { param, .. }
            | Self::UnknownField { param }
            | Self::Unsupported { param, .. } => Some(param),
            Self::Conflict { param, .. } | Self::ContextLength { param, .. } | Self::Tokenizer { param, .. } => {
                Some(param)
            }
            Self::UnknownModel { .. } | Self::NoTemplate { .. } => Some("model"),
            Self::Template { .. } => Some("messages"),
            Self::QueueTooSmall { .. } => Some("n"),
            Self::Deadline { .. } => Some("timeout_ms"),
            Self::Memory(error) => Refusal::of(error).param,
            Self::Precondition { .. } => Some("if-match"),
            Self::Engine(EngineError::EmptyPrompt | EngineError::TokenOutOfRange { .. }) => Some("prompt"),
            _ => None,
        }
    }

    /// The body of an error answer, also sent as the last event of a stream that fails.
    pub fn to_json(&self) -> Value {
        let (kind, param, code) = (self.kind(), self.param(), self.code());
        let mut error = json!({"message": self.to_string(), "type": kind, "param": param, "code": code});
        match self {
            Self::Memory(memory) => {
                for (name, value) in Refusal::of(memory).details {
                    error[name] = value;
                }
            }
            Self::Precondition { expected, found } => {
                error["expected"] = json!(expected);
                error["found"] = json!(found);
            }
            _ => {}
        }
        json!({"error": error})
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match self {
            Self::Engine(EngineError::QueueFull { retry_after_s, .. }) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(*retry_after_s));
            }
            Self::Engine(EngineError::ShuttingDown) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SHUTDOWN_S));
            }
            // The OpenAI client repeats requests that failed with 5xx; repeating one that was too slow makes it worse.
            Self::Deadline { .. } => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
            Self::Memory(_) if self.code() == "busy" => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_BUSY_S));
            }
            Self::MissingKey | Self::RefusedKey => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        headers
    }
}

impl From<MemoriesError> for ApiError {
    fn from(error: MemoriesError) -> Self {
        Self::Memory(Box::new(error))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status(), self.headers(), Json(self.to_json())).into_response()
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
