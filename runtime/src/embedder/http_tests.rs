//! The embedder against a service on a loopback socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use memory::contracts::check_embedder;
use serde_json::{Value, json};

use super::*;

/// Answers every request with what `answer` makes of its body, until the test ends.
fn serve(answer: impl Fn(&Value) -> String + Clone + Send + 'static) -> ServicePlace {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || serve_connection(connection, &answer));
        }
    });
    format!("http://{address}/v1#letters").parse().expect("a place")
}

fn serve_connection(connection: TcpStream, answer: &impl Fn(&Value) -> String) {
    let mut reader = BufReader::new(connection.try_clone().expect("a second handle"));
    let mut connection = connection;
    loop {
        let mut len = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                len = value.trim().parse().expect("a length");
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; len];
        reader.read_exact(&mut body).expect("a body");
        let answer = answer(&serde_json::from_slice(&body).expect("JSON"));
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
        connection.write_all((head + &answer).as_bytes()).expect("sent");
    }
}

/// How often each letter is there; the answers come in another order than the texts, as they may.
fn letters(request: &Value) -> String {
    let texts = request["input"].as_array().expect("a list").iter().map(|text| text.as_str().expect("a text"));
    let vector = |text: &str| -> Vec<f64> {
        (b'a'..=b'z').map(|letter| 0.5 + text.bytes().filter(|byte| *byte == letter).count() as f64).collect()
    };
    let mut data: Vec<Value> =
        texts.enumerate().map(|(index, text)| json!({"index": index, "embedding": vector(text)})).collect();
    data.reverse();
    json!({"object": "list", "model": request["model"], "data": data}).to_string()
}

#[test]
fn a_service_keeps_the_contract_of_an_embedder_and_answers_many_texts() {
    let embedder = HttpEmbedder::connect(&serve(letters), Some("sk-test")).expect("connected");
    assert_eq!(embedder.dim(), 26);
    assert_eq!(check_embedder(&embedder), Ok(()));
    let texts: Vec<String> = (0..150).map(|number| "b".repeat(number)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let vectors = embedder.embed(&texts, Purpose::Passage).expect("vectors");
    assert!(vectors.iter().enumerate().all(|(index, vector)| vector[1] == 0.5 + index as f32));
}

#[test]
fn answers_that_are_no_vectors_are_refused() {
    let connect = |answer: &'static str| {
        HttpEmbedder::connect(&serve(move |_request| answer.to_owned()), None).map(|_embedder| ())
    };
    for answer in [
        "",
        "{}",
        r#"{"data": []}"#,
        r#"{"data": [{"index": 0, "embedding": "base64"}]}"#,
        r#"{"data": [{"index": 1, "embedding": [1]}]}"#,
        r#"{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [2]}]}"#,
        r#"{"data": [{"index": 0, "embedding": [1, null]}]}"#,
        r#"{"data": [{"index": 0, "embedding": [1e300]}]}"#,
    ] {
        assert!(matches!(connect(answer), Err(HttpEmbedderError::Client(ClientError::Unexpected { .. }))), "{answer}");
    }
    let empty = connect(r#"{"data": [{"index": 0, "embedding": []}]}"#);
    assert!(matches!(empty, Err(HttpEmbedderError::Dimension { found: 0, .. })));
}

#[test]
fn a_vector_of_another_length_and_a_service_that_is_gone_are_errors() {
    let growing = |request: &Value| {
        let is_probe = request["input"][0] == PROBE;
        json!({"data": [{"index": 0, "embedding": vec![1; if is_probe { 3 } else { 4 }]}]}).to_string()
    };
    let embedder = HttpEmbedder::connect(&serve(growing), None).expect("connected");
    let error = embedder.embed(&["a"], Purpose::Query).expect_err("refused");
    assert_eq!(error.to_string(), "a vector of 4 numbers came, but the model's have 3");
    let nobody: ServicePlace = "http://127.0.0.1:9/v1#m".parse().expect("a place");
    assert!(matches!(
        HttpEmbedder::connect(&nobody, None),
        Err(HttpEmbedderError::Client(ClientError::Connect { .. }))
    ));
}

#[test]
fn a_space_is_named_by_place_model_and_length_and_texts_are_cut_between_characters() {
    let place = |text: &str| text.parse::<ServicePlace>().expect("a place");
    let name = space_name(&place("http://a/v1#m"), 3);
    assert_eq!(name, space_name(&place("http://a/v1/#m"), 3));
    for (other, dim) in [("http://a/v1#m", 4), ("http://b/v1#m", 3), ("http://a/v1#n", 3)] {
        assert_ne!(name, space_name(&place(other), dim));
    }
    let long = "ä".repeat(TEXT_BYTES_MAX);
    assert_eq!(beginning(&long).len(), TEXT_BYTES_MAX);
    assert_eq!(beginning("short"), "short");
}

#[tokio::test]
async fn an_async_task_may_drop_it() {
    let place = serve(letters);
    let embedder = tokio::task::spawn_blocking(move || HttpEmbedder::connect(&place, None)).await.expect("ran");
    drop(embedder.expect("connected"));
}
