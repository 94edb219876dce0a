//! Connections: accepted up to a limit, served with time limits, and finished in order when the server goes down.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::drain::Phase;
use super::file_limit::connections_that_fit;
use super::listen_policy::{KeyPolicy, NotLoopback, listen_policy};
use super::routes::router;
use super::state::{AppState, Shared};
use super::timed_stream::TimedStream;

/// Pause after the operating system refused a connection, for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections over the limit that are told so at the same time; more are closed without a word.
const NUM_TURNED_AWAY_MAX: usize = 64;
/// Time to tell a connection that it is turned away.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between giving up the requests that still run and closing their connections.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// Most header lines of a request.
const NUM_HEADERS_MAX: usize = 100;
/// Largest request header, and the read buffer of a connection.
const HEADER_BYTES_MAX: usize = 64 << 10;

const TURNED_AWAY: &str = concat!(
    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n",
    "content-length: 131\r\n\r\n",
    "{\"error\":{\"message\":\"too many connections are open\",\"type\":\"service_unavailable_error\",",
    "\"param\":null,\"code\":\"too_many_connections\"}}"
);

/// Why the server did not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address lets strangers in.
    #[error(transparent)]
    NotLoopback(#[from] NotLoopback),
    /// The listener has no address.
    #[error("the listening address cannot be found out: {0}")]
    Address(#[source] io::Error),
}

/// Serves until `shutdown` is ready. Then no connection is accepted, requests that run have
/// [`HttpLimits::drain_timeout`](super::HttpLimits) to finish, and what still runs is given up with an error.
///
/// # Errors
/// The listener can be reached from other machines though no API key is configured.
pub async fn serve(
    listener: TcpListener,
    state: AppState,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let app = Arc::clone(&state.shared);
    let address = listener.local_addr().map_err(ServeError::Address)?;
    let keys = if app.parts.keys.is_configured() { KeyPolicy::Required } else { KeyPolicy::Open };
    listen_policy(address, keys)?;
    let router = router(state);
    let mut connections = JoinSet::new();
    {
        let accepting = accept(&listener, &app, &router, &mut connections);
        let (accepting, shutdown) = (pin!(accepting), pin!(shutdown));
        tokio::select! {
            () = accepting => {}
            () = shutdown => {}
        }
    }
    // New connections are refused by the system from here on instead of waiting in its queue.
    drop(listener);
    app.drain.advance(Phase::Draining);
    if finished_within(&mut connections, app.parts.limits.drain_timeout).await == Outcome::TimedOut {
        tracing::warn!(connections = connections.len(), "requests are given up");
        app.drain.advance(Phase::Cancelling);
        if finished_within(&mut connections, CANCEL_GRACE).await == Outcome::TimedOut {
            connections.shutdown().await;
        }
    }
    Ok(())
}

async fn accept(listener: &TcpListener, app: &Arc<Shared>, router: &Router, connections: &mut JoinSet<()>) {
    let num_connections_max = connections_that_fit(app.parts.limits.num_connections_max);
    if num_connections_max < app.parts.limits.num_connections_max {
        tracing::warn!(num_connections_max, "the limit on open files allows fewer connections than configured");
    }
    let places = Arc::new(Semaphore::new(num_connections_max));
    let turned_away = Arc::new(Semaphore::new(NUM_TURNED_AWAY_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _peer)) => stream,
            // The peer was gone before its turn came.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => continue,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            connections.spawn(serve_connection(stream, Arc::clone(app), router.clone(), place));
            continue;
        }
        app.metrics.refused_connections.fetch_add(1, Ordering::Relaxed);
        if let Ok(place) = Arc::clone(&turned_away).try_acquire_owned() {
            connections.spawn(turn_away(stream, place));
        }
    }
}

async fn serve_connection(stream: TcpStream, app: Arc<Shared>, router: Router, _place: OwnedSemaphorePermit) {
    let _counted = Counted::new(&app.metrics.connections);
    // Tokens are small and must not wait for one another; where the option cannot be set they do.
    let _ = stream.set_nodelay(true);
    let limits = &app.parts.limits;
    let stream = TokioIo::new(TimedStream::new(stream, limits.write_timeout));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(NUM_HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(stream, TowerToHyperService::new(router)));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = app.drain.reached(Phase::Draining) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // Clients hang up, time out and speak other protocols all the time.
        tracing::debug!(%error, "connection");
    }
}

/// Tells a connection over the limit to come back, and waits a little for it to hear it: closing at once would
/// discard the answer together with the unread request.
async fn turn_away(mut stream: TcpStream, _place: OwnedSemaphorePermit) {
    let telling = async {
        stream.write_all(TURNED_AWAY.as_bytes()).await?;
        stream.shutdown().await?;
        let mut discarded = [0; 4096];
        while stream.read(&mut discarded).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    // Whether it was heard is the peer's business.
    let _ = tokio::time::timeout(TURN_AWAY_TIMEOUT, telling).await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Finished,
    TimedOut,
}

async fn finished_within(connections: &mut JoinSet<()>, limit: Duration) -> Outcome {
    let all = async { while connections.join_next().await.is_some() {} };
    match tokio::time::timeout(limit, all).await {
        Ok(()) => Outcome::Finished,
        Err(_elapsed) => Outcome::TimedOut,
    }
}

/// Counts a connection as long as it lives.
struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    fn new(gauge: &'a AtomicU64) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_connections_over_the_limit_is_whole() {
        let (head, body) = TURNED_AWAY.split_once("\r\n\r\n").expect("a header and a body");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        let value: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(value["error"]["code"], "too_many_connections");
    }
}
