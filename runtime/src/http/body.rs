//! Request bodies: read within a size and a time, then parsed: UTF-8, JSON, an object, handed on as fields.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use futures::StreamExt;
use serde_json::Value;

use super::error::ApiError;
use super::fields::{Fields, describe, quoted};

/// A body over the limit is still read, and thrown away, up to this many bytes: a client that is cut off while it
/// writes sees a broken connection instead of the answer.
const DRAINED_BYTES_MAX: usize = 64 << 20;

/// Types of files beside JSON.
const FILE_TYPES: [&str; 5] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
    "application/octet-stream",
];

/// What a body may cost.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Largest body in bytes.
    pub bytes_max: usize,
    /// Time from the end of the header to the end of the body.
    pub timeout: Duration,
}

/// Reads a body that declares to be JSON.
///
/// # Errors
/// Too large, too slow, cut off, or declared to be something else.
pub async fn read(headers: &HeaderMap, body: Body, limits: BodyLimits) -> Result<Vec<u8>, ApiError> {
    check_media_type(headers)?;
    read_within(headers, body, limits).await
}

/// Reads a body that declares to be a file of JSON or of something that is not to be looked into.
///
/// # Errors
/// As [`read`].
pub async fn read_file(headers: &HeaderMap, body: Body, limits: BodyLimits) -> Result<Vec<u8>, ApiError> {
    let essence = essence(headers);
    // None of these can be sent by a web page without asking first.
    if !FILE_TYPES.contains(&essence.as_str()) {
        check_media_type(headers)?;
    }
    read_within(headers, body, limits).await
}

async fn read_within(headers: &HeaderMap, body: Body, limits: BodyLimits) -> Result<Vec<u8>, ApiError> {
    let too_large = ApiError::BodyTooLarge { limit_bytes: limits.bytes_max };
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    // A client that waits for "100 Continue" has not begun to send: it can be answered at once.
    if declared.is_some_and(|bytes| bytes > limits.bytes_max) && headers.contains_key(header::EXPECT) {
        return Err(too_large);
    }
    match tokio::time::timeout(limits.timeout, read_bytes(body, limits.bytes_max)).await {
        Err(_elapsed) => Err(ApiError::BodyTooSlow { limit_s: limits.timeout.as_secs() }),
        Ok(result) => result?.ok_or(too_large),
    }
}

/// Parses a body as a JSON object. A large one takes long and a multiple of its size in memory, so this runs where
/// only a few do at once.
///
/// # Errors
/// Not UTF-8, not JSON, nested too deep, or not an object.
pub fn parse(bytes: &[u8]) -> Result<Fields, ApiError> {
    let text = std::str::from_utf8(bytes).map_err(|error| ApiError::NotUtf8 { offset: error.valid_up_to() })?;
    let value: Value = serde_json::from_str(text).map_err(|error| ApiError::NotJson { reason: error.to_string() })?;
    match value {
        Value::Object(map) => Ok(Fields::of_body(map)),
        other => Err(ApiError::NotAnObject { got: describe(&other) }),
    }
}

/// The bytes of the body, `None` when there are more than the limit.
async fn read_bytes(body: Body, bytes_max: usize) -> Result<Option<Vec<u8>>, ApiError> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut drained_bytes = 0usize;
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| ApiError::BodyBroken { reason: error.to_string() })?;
        if drained_bytes > 0 || bytes.len() + piece.len() > bytes_max {
            bytes = Vec::new();
            drained_bytes += piece.len();
            if drained_bytes > DRAINED_BYTES_MAX {
                break;
            }
        } else {
            bytes.extend_from_slice(&piece);
        }
    }
    Ok(if drained_bytes > 0 { None } else { Some(bytes) })
}

/// JSON must be declared as such: a web page cannot do so for a foreign server without asking it first, which keeps
/// pages in a browser from using a server on the same machine.
fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let essence = essence(headers);
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    let declared = headers.get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("?"));
    Err(ApiError::MediaType { got: quoted(declared) })
}

/// The declared media type without its parameters.
fn essence(headers: &HeaderMap) -> String {
    let declared = headers.get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("?"));
    declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BodyLimits = BodyLimits { bytes_max: 64, timeout: Duration::from_millis(200) };

    fn json_headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/json; charset=utf-8".parse().expect("a value"));
        headers
    }

    async fn refusal(body: impl Into<Body>) -> String {
        let read = read(&json_headers(), body.into(), LIMITS).await;
        read.and_then(|bytes| parse(&bytes)).expect_err("refused").to_string()
    }

    #[tokio::test]
    async fn broken_bodies_are_named_with_their_place() {
        assert!(refusal(&b"{\"a\": \"\xff\"}"[..]).await.contains("offset 7"));
        assert!(refusal("{\"a\": }").await.contains("line 1 column 7"));
        assert!(refusal("[1]").await.contains("a list of 1"));
        assert!(refusal("").await.contains("EOF"));
        assert!(refusal("{\"a\":\"\\ud800\"}").await.contains("column"));
        assert!(refusal(format!("{{\"a\":{}", "[".repeat(50))).await.contains("line 1"));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
        let body = |num_bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(num_bytes - 8));
        assert!(refusal(body(65)).await.contains("64 bytes"));
        assert!(read(&json_headers(), body(64).into(), LIMITS).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_that_never_ends_times_out() {
        let endless = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
        assert!(refusal(Body::from_stream(endless)).await.contains("did not arrive"));
    }

    #[tokio::test]
    async fn only_json_is_taken() {
        let mut headers = json_headers();
        assert!(read(&headers, "{}".into(), LIMITS).await.is_ok());
        headers.insert(header::CONTENT_TYPE, "text/plain".parse().expect("a value"));
        let error = read(&headers, "{}".into(), LIMITS).await.expect_err("refused");
        assert!(matches!(error, ApiError::MediaType { .. }), "{error}");
        headers.remove(header::CONTENT_TYPE);
        assert!(read(&headers, "{}".into(), LIMITS).await.is_err());
    }
}
