//! From choices to the response: one JSON object, or server-sent events. Chat and text completions share this and
//! differ in an [`AnswerFormat`].

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::Stream;
use models::TokenLogprob;
use serde_json::{Map, Value, json};

use super::assembler::TextDelta;
use super::chat_memory::{MemoryReport, Writing};
use super::choice::ChoiceEvent;
use super::choices::Choices;
use super::error::ApiError;
use super::options::{Delivery, UsageReport};
use super::usage::Usage;
use crate::engine::FinishReason;

/// What every object of one answer begins with.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Id of the answer.
    pub id: String,
    /// Seconds since 1970.
    pub created_unix_s: u64,
    /// Name of the model.
    pub model: String,
    /// Changes when model or arithmetic change, so that equal seeds may give other tokens.
    pub fingerprint: String,
}

impl Envelope {
    /// An object of the answer.
    pub fn wrap(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created_unix_s,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        })
    }
}

/// What is known of a choice when its prompt has been computed.
#[derive(Debug, Default)]
pub struct Opening {
    /// Log-probabilities of the prompt, when asked for.
    pub prompt_logprobs: Option<Vec<Option<TokenLogprob>>>,
}

/// A whole choice.
#[derive(Debug, Default)]
pub struct WholeChoice {
    /// Its beginning.
    pub opening: Opening,
    /// All of its text and tokens.
    pub text: TextDelta,
    /// Why it ended; `None` only while it is gathered.
    pub reason: Option<FinishReason>,
}

/// One of the two shapes of a completion.
pub trait AnswerFormat: Send + 'static {
    /// What the objects share.
    fn envelope(&self) -> &Envelope;
    /// `object` of a whole answer.
    fn whole_object(&self) -> &'static str;
    /// `object` of an event.
    fn event_object(&self) -> &'static str;
    /// The first entry of a choice in a stream, where there is one.
    fn opening(&self, index: usize, opening: &Opening) -> Option<Value>;
    /// An entry with more text.
    fn delta(&self, index: usize, delta: &TextDelta) -> Value;
    /// The last entry of a choice.
    fn end(&self, index: usize, reason: FinishReason) -> Value;
    /// A choice of a whole answer.
    fn whole(&self, index: usize, choice: &WholeChoice) -> Value;
}

/// The name of a reason in OpenAI's API.
pub fn reason_text(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// Answers a request.
///
/// # Errors
/// A whole answer failed on the way. A stream that fails has begun already and tells so in its last event.
pub async fn answer(
    choices: Choices,
    format: impl AnswerFormat,
    memory: Option<MemoryReport>,
    delivery: Delivery,
    keep_alive: Duration,
) -> Result<Response, ApiError> {
    match delivery {
        Delivery::Whole => whole(choices, &format, memory).await,
        Delivery::Stream { usage } => Ok(stream(choices, format, memory, usage, keep_alive)),
    }
}

async fn whole(
    mut choices: Choices,
    format: &impl AnswerFormat,
    memory: Option<MemoryReport>,
) -> Result<Response, ApiError> {
    let mut gathered: Vec<WholeChoice> = (0..choices.num_choices()).map(|_| WholeChoice::default()).collect();
    while let Some((index, event)) = choices.next().await {
        let choice = &mut gathered[index];
        match event {
            ChoiceEvent::Started { prompt_logprobs, .. } => choice.opening.prompt_logprobs = prompt_logprobs,
            ChoiceEvent::Token { .. } => {}
            ChoiceEvent::Delta(delta) => {
                choice.text.text.push_str(&delta.text);
                choice.text.tokens.extend(delta.tokens);
            }
            ChoiceEvent::Finished(reason) => choice.reason = Some(reason),
            ChoiceEvent::Failed(error) => return Err(error),
        }
    }
    let entries = gathered.iter().enumerate().map(|(index, choice)| format.whole(index, choice)).collect();
    let mut answer = format.envelope().wrap(format.whole_object(), entries);
    answer["usage"] = choices.usage().to_json();
    if let Some(mut memory) = memory {
        answer["memory"] = memory.recalled();
        if let Some(writing) = memory.begin_writing() {
            answer["memory"]["write"] = writing.outcome().await;
        }
    }
    Ok(Json(answer).into_response())
}

/// The body is pulled: the next token is looked at when the connection has taken the last event.
fn stream(
    choices: Choices,
    format: impl AnswerFormat,
    memory: Option<MemoryReport>,
    usage: UsageReport,
    keep_alive: Duration,
) -> Response {
    let num_open = choices.num_choices();
    let recalled = memory.as_ref().map(MemoryReport::recalled);
    let events = EventSource {
        choices,
        format,
        usage,
        memory,
        recalled,
        writing: None,
        num_open,
        ready: VecDeque::new(),
        state: State::Running,
    };
    let keep_alive = KeepAlive::new().interval(keep_alive).text("keep-alive");
    let mut response = Sse::new(events.into_stream()).keep_alive(keep_alive).into_response();
    // Proxies such as nginx gather a response unless they are told not to.
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Ended,
}

/// Turns choice events into server-sent events.
struct EventSource<F> {
    choices: Choices,
    format: F,
    usage: UsageReport,
    memory: Option<MemoryReport>,
    /// For the first event.
    recalled: Option<Value>,
    /// Begun with the end of the answer, told in an event of its own.
    writing: Option<Writing>,
    /// Choices that have not ended.
    num_open: usize,
    ready: VecDeque<Event>,
    state: State,
}

impl<F: AnswerFormat> EventSource<F> {
    fn into_stream(self) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static {
        futures::stream::unfold(self, |mut source| async move {
            loop {
                if let Some(event) = source.ready.pop_front() {
                    return Some((Ok(event), source));
                }
                if source.state == State::Ended {
                    return None;
                }
                match source.choices.next().await {
                    Some((index, event)) => source.take(index, event),
                    None => source.end().await,
                }
            }
        })
    }

    fn take(&mut self, index: usize, event: ChoiceEvent) {
        let entry = match event {
            ChoiceEvent::Started { prompt_logprobs, .. } => self.format.opening(index, &Opening { prompt_logprobs }),
            ChoiceEvent::Token { .. } => None,
            ChoiceEvent::Delta(delta) => Some(self.format.delta(index, &delta)),
            ChoiceEvent::Finished(reason) => {
                self.num_open = self.num_open.saturating_sub(1);
                if self.num_open == 0 {
                    // Here and not after the last event: a client may leave as soon as it has the answer.
                    self.writing = self.memory.as_mut().and_then(MemoryReport::begin_writing);
                }
                Some(self.format.end(index, reason))
            }
            ChoiceEvent::Failed(error) => {
                self.ready.push_back(data(&error.to_json()));
                self.ready.push_back(done());
                self.state = State::Ended;
                None
            }
        };
        if let Some(entry) = entry {
            let mut event = event_json(&self.format, vec![entry], self.usage, None);
            if let Some(recalled) = self.recalled.take() {
                event["memory"] = recalled;
            }
            self.ready.push_back(data(&event));
        }
    }

    async fn end(&mut self) {
        if let Some(writing) = self.writing.take() {
            // Clients that look at the first choice of every event find one.
            let entry = self.format.delta(0, &TextDelta::default());
            let mut event = event_json(&self.format, vec![entry], self.usage, None);
            event["memory"] = json!({"write": writing.outcome().await});
            self.ready.push_back(data(&event));
        }
        if self.usage == UsageReport::Included {
            let usage = self.choices.usage();
            let event = event_json(&self.format, Vec::new(), self.usage, Some(&usage));
            self.ready.push_back(data(&event));
        }
        self.ready.push_back(done());
        self.state = State::Ended;
    }
}

/// One event. With usage included, every event has the field, and only the last one has numbers in it.
fn event_json(format: &impl AnswerFormat, entries: Vec<Value>, report: UsageReport, usage: Option<&Usage>) -> Value {
    let mut event = format.envelope().wrap(format.event_object(), entries);
    if report == UsageReport::Included {
        event["usage"] = usage.map_or(Value::Null, Usage::to_json);
    }
    event
}

fn data(value: &Value) -> Event {
    // JSON text has no line breaks, so that one event is one line.
    Event::default().data(value.to_string())
}

fn done() -> Event {
    Event::default().data("[DONE]")
}

/// The entry of a choice, in the order in which OpenAI writes it.
pub fn entry(index: usize, fields: [(&str, Value); 3]) -> Value {
    let mut entry = Map::new();
    entry.insert("index".to_owned(), json!(index));
    for (name, value) in fields {
        entry.insert(name.to_owned(), value);
    }
    Value::Object(entry)
}
