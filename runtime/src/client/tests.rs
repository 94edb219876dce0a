//! The client against a scripted server on a loopback socket.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

/// A response with an event stream in chunked encoding, one HTTP chunk for each given piece.
fn event_stream(pieces: &[&str]) -> String {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunks: String = pieces.iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len())).collect();
    format!("{head}{chunks}0\r\n\r\n")
}

/// A response with a body of known length.
fn answer(status: &str, content_type: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Reads one request, head and body.
async fn read_request(socket: &mut TcpStream) -> String {
    let mut received = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&received).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let declared = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let body_len: usize = declared.map_or(0, |len| len.trim().parse().expect("a number"));
            if body.len() >= body_len {
                return text;
            }
        }
        let mut buffer = [0; 4096];
        let len = socket.read(&mut buffer).await.expect("readable");
        assert!(len > 0, "the client hung up inside a request");
        received.extend_from_slice(&buffer[..len]);
    }
}

/// Gives each answer to one request of the same connection, in order, byte by byte, and hands back what was asked.
async fn serve(answers: Vec<String>) -> (Client, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let server = tokio::spawn(async move {
        let (mut socket, _peer) = listener.accept().await.expect("a connection");
        socket.set_nodelay(true).expect("a socket option");
        let mut requests = Vec::new();
        for answer in answers {
            requests.push(read_request(&mut socket).await);
            for byte in answer.as_bytes().chunks(1) {
                socket.write_all(byte).await.expect("writable");
            }
        }
        requests
    });
    (Client::new(&format!("http://{address}"), Some("sk-test")).expect("a client"), server)
}

async fn text_of(client: &Client) -> Result<(String, Option<String>), ClientError> {
    let body = serde_json::json!({"prompt": [1, 2], "stream": true});
    let mut stream = client.stream(Endpoint::Completions, &body).await?;
    let (mut text, mut finish_reason) = (String::new(), None);
    while let Some(chunk) = stream.next().await? {
        text.push_str(&chunk.text);
        finish_reason = chunk.finish_reason.or(finish_reason);
    }
    stream.close().await;
    Ok((text, finish_reason))
}

#[tokio::test]
async fn a_stream_is_read_whatever_the_packets_and_its_connection_is_used_again() {
    let stream = event_stream(&[
        "data: {\"choices\":[{\"text\":\"h\u{e9}\",\"index\":0}]}\n",
        "\ndata: {\"choices\":[],\"usage\":null}\n\n: still there\n\n",
        "data: {\"choices\":[{\"text\":\"!\",\"finish_reason\":\"stop\"}]}\n\ndata: [DO",
        "NE]\n\n",
    ]);
    let (client, server) = serve(vec![stream.clone(), stream]).await;
    for _request in 0..2 {
        assert_eq!(text_of(&client).await.expect("an answer"), ("h\u{e9}!".to_owned(), Some("stop".to_owned())));
    }
    let requests = server.await.expect("both requests came over one connection");
    assert!(requests[0].starts_with("POST /v1/completions HTTP/1.1\r\n"), "{}", requests[0]);
    assert!(requests[0].contains("authorization: Bearer sk-test"), "{}", requests[0]);
    assert!(requests[1].ends_with(r#"{"prompt":[1,2],"stream":true}"#), "{}", requests[1]);
}

#[tokio::test]
async fn a_stream_without_an_end_mark_is_complete_only_after_a_finish_reason() {
    let finished = event_stream(&["data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":\"length\"}]}"]);
    let (client, _server) = serve(vec![finished]).await;
    assert_eq!(text_of(&client).await.expect("complete"), ("a".to_owned(), Some("length".to_owned())));

    let cut_off = event_stream(&["data: {\"choices\":[{\"text\":\"a\"}]}\n\n"]);
    let (client, _server) = serve(vec![cut_off]).await;
    assert!(matches!(text_of(&client).await, Err(ClientError::Truncated)));
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_stream_is_an_error() {
    let whole = event_stream(&["data: {\"choices\":[{\"text\":\"a\"}]}\n\n", "data: [DONE]\n\n"]);
    let (client, _server) = serve(vec![whole[..whole.len() - 12].to_owned()]).await;
    assert!(matches!(text_of(&client).await, Err(ClientError::Http(_))));
}

#[tokio::test]
async fn an_error_status_carries_code_and_message() {
    let body = r#"{"error":{"message":"full","type":"rate_limit","code":"queue_full"}}"#;
    let (client, _server) = serve(vec![answer("429 Too Many Requests", "application/json", body)]).await;
    let error = client.stream(Endpoint::Chat, &serde_json::json!({})).await.err().expect("refused");
    let ClientError::Status { status, code, message } = error else { panic!("{error}") };
    assert_eq!((status.as_u16(), code.as_deref(), message.as_str()), (429, Some("queue_full"), "full"));
}

#[tokio::test]
async fn an_answer_that_is_no_event_stream_is_refused() {
    let (client, _server) = serve(vec![answer("200 OK", "text/html", "<html>")]).await;
    assert!(matches!(text_of(&client).await, Err(ClientError::Unexpected { .. })));
}

#[tokio::test]
async fn models_are_listed_in_order() {
    let body = r#"{"object":"list","data":[{"id":"b"},{"id":"a"}]}"#;
    let (client, server) = serve(vec![answer("200 OK", "application/json", body)]).await;
    assert_eq!(client.models().await.expect("a list"), ["b", "a"]);
    assert!(server.await.expect("asked")[0].starts_with("GET /v1/models HTTP/1.1\r\n"));
}

#[tokio::test]
async fn nobody_listening_is_a_connect_error_that_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let client = Client::new(&format!("http://{address}"), None).expect("a client");
    let error = client.models().await.expect_err("nobody listens");
    assert_eq!(error.kind(), "connect");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
