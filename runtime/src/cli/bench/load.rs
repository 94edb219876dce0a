//! The load generator: sends requests when they are due, takes the time of every piece of the answers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::progress::Progress;
use crate::client::{Client, ClientError, Endpoint, Usage};

/// When requests are sent.
#[derive(Debug, Clone)]
pub enum Pacing {
    /// The next one when a running one has ended: `concurrency` clients that wait for their answers.
    Closed,
    /// At these times after the start, whether or not earlier ones have been answered. What a late request waits for
    /// a free connection counts as latency: leaving it out would hide exactly the moments when the server is slow.
    Open(Vec<Duration>),
}

/// What is sent, by whom, how fast.
pub struct Load<B> {
    /// Client of the endpoint under test.
    pub client: Client,
    /// Where the requests go.
    pub endpoint: Endpoint,
    /// Makes the body of the request with this index.
    pub body: B,
    /// How many.
    pub num_requests: usize,
    /// When.
    pub pacing: Pacing,
    /// Requests in flight at most.
    pub concurrency: usize,
    /// A request that takes longer counts as failed.
    pub timeout: Duration,
}

/// What happened to one request. Times are since the start of the run.
#[derive(Debug, Clone)]
pub struct Record {
    /// When it was due; latencies count from here.
    pub due: Duration,
    /// When it was sent: later than due only when `concurrency` requests were in flight.
    pub sent: Duration,
    /// When the answer was complete or given up.
    pub ended: Duration,
    /// The answer, or why there is none.
    pub outcome: Result<Answer, Failure>,
}

/// A complete answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// Arrival of each event that carried text, since the start of the run.
    pub text_events: Vec<Duration>,
    /// What the server counted, when it says so.
    pub usage: Option<Usage>,
}

impl Answer {
    /// Generated tokens: as the server counted them, else one for each event with text.
    pub fn output_tokens(&self) -> usize {
        self.usage.map_or(self.text_events.len(), |usage| usage.completion_tokens)
    }

    /// Mean time from one token to the next; `None` when there is no second event with text.
    pub fn mean_step(&self) -> Option<Duration> {
        let (first, last) = (self.text_events.first()?, self.text_events.last()?);
        let num_steps = u32::try_from(self.output_tokens()).ok()?.checked_sub(1).filter(|&steps| steps > 0)?;
        (last > first).then(|| (*last - *first) / num_steps)
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Name under which it is counted.
    pub kind: String,
    /// The whole story.
    pub message: String,
}

impl<B: Fn(usize) -> Value + Send + Sync + 'static> Load<B> {
    /// Runs the load to its end and returns one record a request, in the order in which they were due.
    ///
    /// # Panics
    /// When an open pacing has not one arrival for each request.
    pub async fn run(self, progress: &Progress) -> Vec<Record> {
        if let Pacing::Open(arrivals) = &self.pacing {
            assert_eq!(arrivals.len(), self.num_requests, "every request has its arrival time");
        }
        let places = Arc::new(Semaphore::new(self.concurrency));
        let load = Arc::new(self);
        let mut running: JoinSet<(usize, Record)> = JoinSet::new();
        let mut records = Vec::with_capacity(load.num_requests);
        let start = Instant::now();
        for index in 0..load.num_requests {
            let places = Arc::clone(&places);
            let place = async move { places.acquire_owned().await.expect("places are never closed: this is a bug") };
            match &load.pacing {
                Pacing::Closed => {
                    let place = place.await;
                    running.spawn(Arc::clone(&load).record(index, start, None, async { place }));
                }
                Pacing::Open(arrivals) => {
                    let due = arrivals[index];
                    tokio::time::sleep_until(start + due).await;
                    running.spawn(Arc::clone(&load).record(index, start, Some(due), place));
                }
            }
            while let Some(ended) = running.try_join_next() {
                records.push(ended.expect("a request does not panic: this is a bug"));
                progress.advance();
            }
        }
        while let Some(ended) = running.join_next().await {
            records.push(ended.expect("a request does not panic: this is a bug"));
            progress.advance();
        }
        records.sort_by_key(|(index, _record)| *index);
        records.into_iter().map(|(_index, record)| record).collect()
    }

    async fn record(
        self: Arc<Self>,
        index: usize,
        start: Instant,
        due: Option<Duration>,
        place: impl Future<Output = OwnedSemaphorePermit>,
    ) -> (usize, Record) {
        let _place = place.await;
        let sent = start.elapsed();
        let outcome = self.send(index, start).await;
        (index, Record { due: due.unwrap_or(sent), sent, ended: start.elapsed(), outcome })
    }

    async fn send(&self, index: usize, start: Instant) -> Result<Answer, Failure> {
        let body = (self.body)(index);
        match tokio::time::timeout(self.timeout, receive(&self.client, self.endpoint, &body, start)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure { kind: error.kind(), message: error.to_string() }),
            Err(_elapsed) => Err(Failure {
                kind: "timeout".to_owned(),
                message: format!("no complete answer within {} s", self.timeout.as_secs_f64()),
            }),
        }
    }
}

/// Sends one request and takes the time, since `start`, of every event with text.
///
/// # Errors
/// Whatever keeps the answer from being complete.
pub async fn receive(client: &Client, endpoint: Endpoint, body: &Value, start: Instant) -> Result<Answer, ClientError> {
    let mut stream = client.stream(endpoint, body).await?;
    let mut answer = Answer::default();
    while let Some(chunk) = stream.next().await? {
        if !chunk.text.is_empty() {
            answer.text_events.push(start.elapsed());
        }
        answer.usage = chunk.usage.or(answer.usage);
    }
    // Not part of the answer's time: this only reads the end of the response.
    tokio::spawn(stream.close());
    Ok(answer)
}

#[cfg(test)]
mod tests;
