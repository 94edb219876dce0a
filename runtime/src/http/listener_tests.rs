//! Connections over a real socket: limits, time limits and the order of a shutdown.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::testing::{Setup, TestServer};
use super::{HttpLimits, ServeError, serve};

/// A server that listens.
struct Listening {
    server: TestServer,
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServeError>>,
}

async fn listen(limits: HttpLimits) -> Listening {
    let server = TestServer::start(Setup { limits, ..Setup::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel();
    let shutdown = async {
        // A test that ends without stopping the server drops the sender.
        let _ = stopped.await;
    };
    let serving = tokio::spawn(serve(listener, server.state.clone(), shutdown));
    Listening { server, address, stop, serving }
}

impl Listening {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    async fn post(&self, path: &str, body: &Value) -> TcpStream {
        let mut stream = self.connect().await;
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await.expect("sent");
        stream
    }
}

/// What comes until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let reading = stream.read_to_end(&mut bytes);
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("it is closed in time").expect("read");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn first_bytes(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 16 << 10];
    let num_bytes = stream.read(&mut bytes).await.expect("read");
    String::from_utf8_lossy(&bytes[..num_bytes]).into_owned()
}

/// Choices of [`long_stream`].
const NUM_CHOICES: usize = 32;

/// More than the socket buffers hold, so that it cannot be over before it is read.
fn long_stream() -> Value {
    json!({"prompt": "x", "max_tokens": 500, "ignore_eos": true, "stream": true, "n": NUM_CHOICES})
}

#[tokio::test]
async fn idle_and_slow_connections_are_closed() {
    let mut limits = HttpLimits { header_timeout: Duration::from_millis(200), ..HttpLimits::default() };
    limits.body.timeout = Duration::from_millis(200);
    let listening = listen(limits).await;
    let mut silent = listening.connect().await;
    assert_eq!(rest(&mut silent).await, "");
    let mut slow_header = listening.connect().await;
    slow_header.write_all(b"GET /health HTTP/1.1\r\nhost: ").await.expect("sent");
    rest(&mut slow_header).await;
    let mut slow_body = listening.connect().await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    slow_body.write_all(head.as_bytes()).await.expect("sent");
    assert!(rest(&mut slow_body).await.starts_with("HTTP/1.1 408"));
    let mut kept_alive = listening.connect().await;
    kept_alive.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    let answer = rest(&mut kept_alive).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{\"status\":\"ok\"}"), "{answer}");
}

#[tokio::test]
async fn connections_over_the_limit_are_told_so() {
    let listening = listen(HttpLimits { num_connections_max: 2, ..HttpLimits::default() }).await;
    let first = listening.connect().await;
    let mut second = listening.connect().await;
    // Answered, so that both places are surely taken.
    second.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    assert!(first_bytes(&mut second).await.starts_with("HTTP/1.1 200"));
    let mut third = listening.connect().await;
    third.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    let answer = first_bytes(&mut third).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("too_many_connections"), "{answer}");
    drop((first, second, third));
    for _ in 0..100 {
        let mut later = listening.connect().await;
        later.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
        if first_bytes(&mut later).await.starts_with("HTTP/1.1 200") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the places were not given back");
}

#[tokio::test]
async fn a_body_over_the_limit_is_answered_and_not_cut_off() {
    let mut limits = HttpLimits::default();
    limits.body.bytes_max = 1000;
    let listening = listen(limits).await;
    let body = json!({"prompt": "x".repeat(3 << 20)});
    let mut stream = listening.post("/v1/completions", &body).await;
    let answer = first_bytes(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
}

#[tokio::test]
async fn a_client_that_hangs_up_frees_the_engine() {
    let listening = listen(HttpLimits::default()).await;
    let mut streaming = listening.post("/v1/completions", &long_stream()).await;
    first_bytes(&mut streaming).await;
    let mut unread = long_stream();
    unread["stream"] = json!(false);
    let whole = listening.post("/v1/completions", &unread).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop((streaming, whole));
    listening.server.idle().await;
    let stats = listening.server.engine.stats();
    assert!(stats.cancelled > 0, "{stats:?}");
}

#[tokio::test]
async fn a_shutdown_lets_running_streams_finish() {
    let listening = listen(HttpLimits::default()).await;
    let mut idle = listening.connect().await;
    let mut streaming = listening.post("/v1/completions", &long_stream()).await;
    let mut text = first_bytes(&mut streaming).await;
    listening.stop.send(()).expect("it serves");
    assert_eq!(rest(&mut idle).await, "");
    text.push_str(&rest(&mut streaming).await);
    assert_eq!(text.matches("\"finish_reason\":\"length\"").count(), NUM_CHOICES);
    assert!(text.contains("data: [DONE]"));
    listening.serving.await.expect("no panic").expect("served");
    TcpStream::connect(listening.address).await.expect_err("nobody listens");
}

#[tokio::test]
async fn a_shutdown_gives_up_what_takes_too_long() {
    let limits = HttpLimits { drain_timeout: Duration::ZERO, ..HttpLimits::default() };
    let listening = listen(limits).await;
    let mut streaming = listening.post("/v1/completions", &long_stream()).await;
    let mut text = first_bytes(&mut streaming).await;
    listening.stop.send(()).expect("it serves");
    text.push_str(&rest(&mut streaming).await);
    assert!(text.contains("shutting_down") && text.contains("data: [DONE]"));
    listening.serving.await.expect("no panic").expect("served");
    listening.server.idle().await;
}

#[tokio::test]
async fn an_open_server_refuses_a_public_address() {
    let server = TestServer::start(Setup::default());
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let error = serve(listener, server.state.clone(), std::future::pending()).await.expect_err("refused");
    assert!(matches!(error, ServeError::NotLoopback(_)), "{error}");
}
