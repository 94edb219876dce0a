//! The load generator against a server in this process that answers slowly, one request at a time.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::response::sse::{Event, Sse};
use axum::routing::post;
use futures::stream;
use tokio::sync::Mutex;

use super::*;

const SERVICE_TIME: Duration = Duration::from_millis(40);

/// A server whose answers take [`SERVICE_TIME`] each, one after the other.
async fn slow_server() -> Client {
    let busy = Arc::new(Mutex::new(()));
    let answer = move || {
        let busy = Arc::clone(&busy);
        async move {
            let _one_at_a_time = busy.lock().await;
            tokio::time::sleep(SERVICE_TIME).await;
            let text = r#"{"choices":[{"text":"a"}]}"#;
            let usage = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
            let events = [text, usage, "[DONE]"].map(|data| Ok::<_, Infallible>(Event::default().data(data)));
            Sse::new(stream::iter(events))
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().route("/v1/completions", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Client::new(&format!("http://{address}"), None).expect("a client")
}

fn load(client: Client, pacing: Pacing, concurrency: usize) -> Load<impl Fn(usize) -> Value + Send + Sync + 'static> {
    let body = |index: usize| serde_json::json!({"prompt": format!("{index}"), "stream": true});
    let timeout = Duration::from_secs(20);
    Load { client, endpoint: Endpoint::Completions, body, num_requests: 6, pacing, concurrency, timeout }
}

#[tokio::test]
async fn closed_pacing_sends_the_next_request_when_one_has_ended() {
    let records = load(slow_server().await, Pacing::Closed, 1).run(&Progress::new("requests", 6)).await;
    assert_eq!(records.len(), 6);
    for pair in records.windows(2) {
        assert!(pair[1].sent >= pair[0].ended, "{pair:?}");
    }
    for record in &records {
        assert_eq!(record.due, record.sent);
        let answer = record.outcome.as_ref().expect("answered");
        assert_eq!((answer.text_events.len(), answer.output_tokens()), (1, 1));
    }
}

#[tokio::test]
async fn open_pacing_charges_a_slow_server_with_the_wait() {
    // All are due at once, one may be in flight: the last one has waited for five others.
    let pacing = Pacing::Open(vec![Duration::ZERO; 6]);
    let records = load(slow_server().await, pacing, 1).run(&Progress::new("requests", 6)).await;
    let slowest = records.iter().map(|record| record.ended - record.due).max().expect("six records");
    assert!(slowest >= SERVICE_TIME * 6, "{slowest:?}");
    assert!(records.iter().all(|record| record.due == Duration::ZERO));
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_a_timeout() {
    let mut load = load(slow_server().await, Pacing::Closed, 2);
    load.timeout = SERVICE_TIME / 4;
    let records = load.run(&Progress::new("requests", 6)).await;
    let kinds: Vec<String> = records.into_iter().filter_map(|record| Some(record.outcome.err()?.kind)).collect();
    assert_eq!(kinds, ["timeout"; 6]);
}

#[tokio::test]
async fn a_refusal_is_recorded_with_its_status() {
    let mut load = load(slow_server().await, Pacing::Closed, 2);
    load.endpoint = Endpoint::Chat;
    let records = load.run(&Progress::new("requests", 6)).await;
    assert!(records.iter().all(|record| record.outcome.as_ref().is_err_and(|failure| failure.kind == "HTTP 404")));
}
