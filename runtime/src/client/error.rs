//! What can go wrong between this client and an OpenAI-compatible endpoint, and how a benchmark counts it.

use std::time::Duration;

use hyper::StatusCode;

use super::sse::EventTooLarge;

/// Why a request got no complete answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The base URL cannot be used.
    #[error("`{url}` is not a usable base URL: {problem}")]
    BadUrl {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The API key cannot stand in a header.
    #[error("the API key has characters that cannot be sent")]
    BadApiKey,
    /// No connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Host and port.
        address: String,
        /// What the system or the TLS layer said.
        source: std::io::Error,
    },
    /// Nobody answered in time.
    #[error("no connection to {address} within {} s", .limit.as_secs())]
    ConnectTimeout {
        /// Host and port.
        address: String,
        /// The limit.
        limit: Duration,
    },
    /// The connection broke, or the peer does not speak HTTP/1.1.
    #[error("the connection failed: {0}")]
    Http(#[from] hyper::Error),
    /// The server answered with an error.
    #[error("HTTP {status}: {message}")]
    Status {
        /// Its status.
        status: StatusCode,
        /// `error.code` of an OpenAI error, when there is one.
        code: Option<String>,
        /// `error.message`, or the beginning of the body.
        message: String,
    },
    /// An error object inside the stream.
    #[error("the server gave up: {message}")]
    InStream {
        /// `error.message`.
        message: String,
    },
    /// The answer is not what the API promises.
    #[error("unexpected answer: {reason}")]
    Unexpected {
        /// What was wrong.
        reason: String,
    },
    /// The answer is larger than this client accepts.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// An event of the stream is.
    #[error(transparent)]
    EventTooLarge(#[from] EventTooLarge),
    /// The stream ended before `[DONE]` and before a finish reason.
    #[error("the stream ended before the answer was complete")]
    Truncated,
}

impl ClientError {
    /// A short name under which failures are counted.
    pub fn kind(&self) -> String {
        match self {
            Self::BadUrl { .. } | Self::BadApiKey => "bad configuration".to_owned(),
            Self::Connect { .. } | Self::ConnectTimeout { .. } => "connect".to_owned(),
            Self::Http(_) => "connection lost".to_owned(),
            Self::Status { status, .. } => format!("HTTP {}", status.as_u16()),
            Self::InStream { .. } => "error in stream".to_owned(),
            Self::Unexpected { .. } | Self::TooLarge { .. } | Self::EventTooLarge(_) => "unexpected answer".to_owned(),
            Self::Truncated => "stream cut off".to_owned(),
        }
    }

    /// Whether the server refused because prompt and answer do not fit the model's context.
    ///
    /// OpenAI's code is looked at first; servers without codes say it in words.
    pub fn is_context_full(&self) -> bool {
        let Self::Status { status, code, message } = self else { return false };
        let in_words = || message.contains("context length") || message.contains("maximum context");
        *status == StatusCode::BAD_REQUEST && (code.as_deref() == Some("context_length_exceeded") || in_words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: Option<&str>, message: &str) -> ClientError {
        let code = code.map(str::to_owned);
        ClientError::Status { status: StatusCode::BAD_REQUEST, code, message: message.to_owned() }
    }

    #[test]
    fn a_full_context_is_recognised_by_code_and_by_words() {
        assert!(refusal(Some("context_length_exceeded"), "too long").is_context_full());
        assert!(refusal(None, "This model's maximum context length is 2048 tokens").is_context_full());
        assert!(!refusal(Some("invalid_value"), "temperature must be at least 0").is_context_full());
        assert!(!ClientError::Truncated.is_context_full());
    }

    #[test]
    fn statuses_are_counted_apart() {
        assert_eq!(refusal(None, "no").kind(), "HTTP 400");
        assert_eq!(ClientError::Truncated.kind(), "stream cut off");
    }
}
