//! One log line and one count for every request, written when its last byte is sent or its client is gone.
//!
//! The line holds numbers and names, never text of a prompt or an answer.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::state::Shared;

/// Header that carries a request's id in both directions.
const REQUEST_ID_HEADER: &str = "x-request-id";
/// A longer id from a client is replaced.
const REQUEST_ID_LEN_MAX: usize = 128;
/// Status under which a request is counted whose client went away before the answer was complete (nginx's habit).
const STATUS_CLIENT_GONE: u16 = 499;

/// What is noted about a request while it is served. Clones are the same record.
#[derive(Debug, Clone)]
pub struct RequestRecord {
    inner: Arc<Notes>,
}

#[derive(Debug)]
struct Notes {
    started: Instant,
    tenant: OnceLock<Arc<str>>,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    completion_tokens: AtomicU64,
}

impl RequestRecord {
    fn new() -> Self {
        let inner = Notes {
            started: Instant::now(),
            tenant: OnceLock::new(),
            prompt_tokens: AtomicU64::new(0),
            cached_tokens: AtomicU64::new(0),
            completion_tokens: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// When the request's header had arrived.
    pub fn started(&self) -> Instant {
        self.inner.started
    }

    /// Notes who sent it.
    pub fn set_tenant(&self, name: &Arc<str>) {
        // Set once by the one middleware that knows; a second call would name the same tenant.
        let _ = self.inner.tenant.set(Arc::clone(name));
    }

    /// Notes a prompt.
    pub fn add_prompt(&self, num_tokens: usize, num_cached: usize) {
        self.inner.prompt_tokens.fetch_add(num_tokens as u64, Ordering::Relaxed);
        self.inner.cached_tokens.fetch_add(num_cached as u64, Ordering::Relaxed);
    }

    /// Notes one generated token.
    pub fn add_token(&self) {
        self.inner.completion_tokens.fetch_add(1, Ordering::Relaxed);
    }
}

/// State of the middleware on one route.
#[derive(Clone)]
pub struct Observer {
    /// Shared state.
    pub app: Arc<Shared>,
    /// The route as it is declared, without the client's values.
    pub route: &'static str,
}

/// Gives a request its id and record, and sees to it that it is logged and counted at its end.
pub async fn observe(State(observer): State<Observer>, mut request: Request, next: Next) -> Response {
    let request_id = request_id(request.headers(), &observer.app);
    let record = RequestRecord::new();
    let mut ending = Ending {
        observer,
        record: record.clone(),
        request_id: request_id.clone(),
        method: request.method().clone(),
        status: None,
        complete: Completion::Unfinished,
    };
    request.extensions_mut().insert(record);
    let mut response = next.run(request).await;
    ending.status = Some(response.status());
    response.headers_mut().insert(REQUEST_ID_HEADER, request_id);
    response.map(|body| Body::new(ObservedBody { body, ending }))
}

/// The client's id when it is short and visible, else a new one.
fn request_id(headers: &HeaderMap, app: &Shared) -> HeaderValue {
    let visible = |value: &&HeaderValue| {
        (1..=REQUEST_ID_LEN_MAX).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    match headers.get(REQUEST_ID_HEADER).filter(visible) {
        Some(given) => given.clone(),
        None => HeaderValue::from_str(&app.new_id("req")).unwrap_or(HeaderValue::from_static("req")),
    }
}

/// How far an answer was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Completion {
    Unfinished,
    Complete,
}

/// Logs and counts when it is dropped, which happens at the end of every request, whatever the end is.
struct Ending {
    observer: Observer,
    record: RequestRecord,
    request_id: HeaderValue,
    method: Method,
    /// `None` until the handler has answered.
    status: Option<StatusCode>,
    complete: Completion,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let notes = &self.record.inner;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let status = match (self.status, self.complete) {
            (Some(status), Completion::Complete) => status.as_u16(),
            _ => STATUS_CLIENT_GONE,
        };
        let took = notes.started.elapsed();
        self.observer.app.metrics.count_request(self.observer.route, status);
        if load(&notes.prompt_tokens) > 0 {
            self.observer.app.metrics.observe_request(took);
        }
        tracing::info!(
            id = self.request_id.to_str().unwrap_or("?"),
            method = self.method.as_str(),
            route = self.observer.route,
            status,
            tenant = notes.tenant.get().map_or("-", |name| name),
            prompt_tokens = load(&notes.prompt_tokens),
            cached_tokens = load(&notes.cached_tokens),
            completion_tokens = load(&notes.completion_tokens),
            ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "request"
        );
    }
}

/// A response body that notes whether it was sent to its end.
struct ObservedBody {
    body: Body,
    ending: Ending,
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        // A body of known length is not polled again after its last byte.
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.ending.complete = Completion::Complete;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ObservedBody {
    fn drop(&mut self) {
        // An empty body is never polled.
        if self.body.is_end_stream() {
            self.ending.complete = Completion::Complete;
        }
    }
}
