//! The answer of a generating endpoint as it arrives: pieces of text, the finish reason, the usage.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use super::Shared;
use super::connection::Sender;
use super::error::ClientError;
use super::sse::SseParser;

/// Fields of a chat delta that carry generated text, in the order in which servers send them.
const DELTA_TEXT_FIELDS: [&str; 4] = ["content", "reasoning_content", "reasoning", "refusal"];
/// How long to wait for the end of a response after `[DONE]`; it normally comes in the same packet.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(250);

/// Token counts as the server reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Prompt tokens that came from the server's cache; `None` when the server does not say.
    pub cached_tokens: Option<usize>,
}

/// One event of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamChunk {
    /// New text of the first choice; may be empty (a role, a finish reason, part of a character held back).
    pub text: String,
    /// Text that belongs to the answer proper, without reasoning; equal to `text` for completions.
    pub answer: String,
    /// Present in the last event of the choice: `stop`, `length`, ...
    pub finish_reason: Option<String>,
    /// Present when asked for with `stream_options.include_usage`.
    pub usage: Option<Usage>,
    /// What the server says about memory, where it has any: first what it recalled, at the end what it wrote.
    pub memory: Option<Value>,
}

/// A running answer. Dropping it closes the connection, which cancels the request on the server.
pub struct TokenStream {
    body: Incoming,
    parser: SseParser,
    events: VecDeque<String>,
    sender: Sender,
    shared: Arc<Shared>,
    state: State,
    /// A finish reason was seen: an end without `[DONE]` loses nothing.
    answer_complete: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// More may come.
    Receiving,
    /// The body has ended; events of it may be left.
    BodyEnded,
    /// `next` has nothing more to say.
    Done,
}

impl TokenStream {
    pub(super) fn new(body: Incoming, sender: Sender, shared: Arc<Shared>) -> Self {
        Self {
            body,
            parser: SseParser::default(),
            events: VecDeque::new(),
            sender,
            shared,
            state: State::Receiving,
            answer_complete: false,
        }
    }

    /// The next event; `None` after the last one.
    ///
    /// # Errors
    /// A lost connection, an error object in the stream, something that is not a completion chunk, or an end before
    /// the answer was complete.
    pub async fn next(&mut self) -> Result<Option<StreamChunk>, ClientError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                if event.trim() == "[DONE]" {
                    self.state = State::Done;
                    return Ok(None);
                }
                let chunk = parse_chunk(&event)?;
                self.answer_complete |= chunk.finish_reason.is_some();
                return Ok(Some(chunk));
            }
            match self.state {
                State::Done => return Ok(None),
                State::BodyEnded if self.answer_complete => self.state = State::Done,
                State::BodyEnded => return Err(ClientError::Truncated),
                State::Receiving => self.receive().await?,
            }
        }
    }

    async fn receive(&mut self) -> Result<(), ClientError> {
        let Some(frame) = self.body.frame().await else {
            self.parser.finish(&mut self.events);
            self.state = State::BodyEnded;
            return Ok(());
        };
        if let Ok(bytes) = frame?.into_data() {
            self.parser.push(&bytes, &mut self.events)?;
        }
        Ok(())
    }

    /// Gives the connection back for the next request. Call it after `next` has returned `None`.
    pub async fn close(mut self) {
        let drained = tokio::time::timeout(DRAIN_TIMEOUT, async {
            while let Some(frame) = self.body.frame().await {
                frame?;
            }
            Ok::<(), hyper::Error>(())
        });
        if let Ok(Ok(())) = drained.await {
            self.shared.put_back(self.sender);
        }
    }
}

fn parse_chunk(event: &str) -> Result<StreamChunk, ClientError> {
    let json: Value = serde_json::from_str(event)
        .map_err(|error| ClientError::Unexpected { reason: format!("an event is not JSON: {error}") })?;
    if let Some(error) = json.get("error").filter(|error| !error.is_null()) {
        let message = error.get("message").and_then(Value::as_str).map_or_else(|| error.to_string(), str::to_owned);
        return Err(ClientError::InStream { message });
    }
    let mut chunk = StreamChunk {
        usage: json.get("usage").and_then(parse_usage),
        memory: json.get("memory").filter(|memory| memory.is_object()).cloned(),
        ..StreamChunk::default()
    };
    let choice = json.get("choices").and_then(|choices| choices.get(0));
    let Some(choice) = choice else { return Ok(chunk) };
    chunk.finish_reason = choice.get("finish_reason").and_then(Value::as_str).map(str::to_owned);
    if let Some(text) = choice.get("text").and_then(Value::as_str) {
        chunk.text.push_str(text);
        chunk.answer.push_str(text);
    }
    if let Some(delta) = choice.get("delta") {
        for field in DELTA_TEXT_FIELDS {
            chunk.text.push_str(delta.get(field).and_then(Value::as_str).unwrap_or_default());
        }
        chunk.answer.push_str(delta.get("content").and_then(Value::as_str).unwrap_or_default());
        for call in delta.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            let function = call.get("function");
            for field in ["name", "arguments"] {
                let part = function.and_then(|function| function.get(field)).and_then(Value::as_str);
                chunk.text.push_str(part.unwrap_or_default());
            }
        }
    }
    Ok(chunk)
}

fn parse_usage(usage: &Value) -> Option<Usage> {
    let count = |value: Option<&Value>| value.and_then(Value::as_u64).map(|count| count as usize);
    Some(Usage {
        prompt_tokens: count(usage.get("prompt_tokens"))?,
        completion_tokens: count(usage.get("completion_tokens")).unwrap_or(0),
        cached_tokens: count(usage.get("prompt_tokens_details").and_then(|details| details.get("cached_tokens"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chat_and_completion_chunks_give_their_text() {
        let chat =
            parse_chunk(r#"{"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}],"usage":null}"#);
        let chat = chat.expect("a chunk");
        assert_eq!((chat.text.as_str(), chat.finish_reason, chat.usage), ("hi", None, None));
        let text = parse_chunk(r#"{"choices":[{"index":0,"text":" yo","finish_reason":"length"}]}"#).expect("a chunk");
        assert_eq!((text.text.as_str(), text.finish_reason.as_deref()), (" yo", Some("length")));
    }

    #[test]
    fn reasoning_and_tool_calls_count_as_text_but_not_as_answer() {
        let reasoning = parse_chunk(r#"{"choices":[{"delta":{"reasoning_content":"hm","content":null}}]}"#);
        assert_eq!(reasoning.map(|chunk| (chunk.text, chunk.answer)).ok(), Some(("hm".into(), String::new())));
        let call = r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}}]}}]}"#;
        assert_eq!(parse_chunk(call).map(|chunk| chunk.text).ok(), Some("f{}".into()));
    }

    #[test]
    fn usage_without_choices_is_read_with_its_details() {
        let event = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,
            "prompt_tokens_details":{"cached_tokens":0}}}"#;
        let usage = parse_chunk(event).expect("a chunk").usage;
        assert_eq!(usage, Some(Usage { prompt_tokens: 9, completion_tokens: 4, cached_tokens: Some(0) }));
    }

    #[test]
    fn errors_in_the_stream_and_garbage_are_typed() {
        let error = parse_chunk(r#"{"error":{"message":"out of blocks","type":"server_error"}}"#);
        assert!(matches!(error, Err(ClientError::InStream { message }) if message == "out of blocks"));
        assert!(matches!(parse_chunk("<html>"), Err(ClientError::Unexpected { .. })));
    }
}
