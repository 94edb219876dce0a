//! Services that answer in the two APIs, and the errors of those that do not.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use memory::ingest::{AnswerFormat, FinePrompt, ModelFailure};

use super::*;

/// A server that gives these answers (status and body), one connection each, and returns what it was asked.
fn serve(answers: Vec<(u16, String)>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let thread = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for (status, body) in answers {
            let (mut stream, _peer) = listener.accept().expect("a client");
            asked.push(read_request(&mut stream));
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).expect("sent");
        }
        asked
    });
    (url, thread)
}

fn read_request(stream: &mut std::net::TcpStream) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let len = stream.read(&mut buffer).expect("read");
        text.extend_from_slice(&buffer[..len]);
        let request = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = request.split_once("\r\n\r\n") else { continue };
        let wanted = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if body.len() >= wanted.unwrap_or(0) {
            return request;
        }
    }
}

fn service(url: &str, kind: ServiceKind, timeout: Duration) -> ModelService {
    let place = format!("{url}#tiny").parse().expect("a place");
    ModelService::new(&place, kind, Some("secret"), timeout).expect("a service")
}

fn prompt() -> FinePrompt {
    FinePrompt { system: "task".to_owned(), user: "data".to_owned() }
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn both_apis_are_asked_in_their_own_words() {
    let openai = r#"{"choices": [{"message": {"role": "assistant", "content": "[1]"}}]}"#;
    let ollama = r#"{"message": {"role": "assistant", "content": "[2]"}, "done": true}"#;
    for (kind, answer, content, path, json) in [
        (ServiceKind::Openai, openai, "[1]", "POST /v1/chat/completions", "\"response_format\""),
        (ServiceKind::Ollama, ollama, "[2]", "POST /api/chat", "\"format\":\"json\""),
    ] {
        let (url, thread) = serve(vec![(200, answer.to_owned())]);
        assert_eq!(service(&url, kind, LONG).answer(&prompt(), AnswerFormat::Json).as_deref(), Ok(content));
        let asked = thread.join().expect("no panic").concat();
        assert!(asked.starts_with(path) && asked.contains(json) && asked.contains("\"temperature\":0"), "{asked}");
        assert!(asked.contains("authorization: Bearer secret"), "{asked}");
    }
}

#[test]
fn a_service_that_cannot_be_asked_for_json_is_asked_without() {
    let refusal = r#"{"error": {"message": "response_format is not supported"}}"#;
    let answer = r#"{"choices": [{"message": {"content": "[]"}}]}"#;
    let (url, thread) = serve(vec![(400, refusal.to_owned()), (200, answer.to_owned()), (200, answer.to_owned())]);
    let service = service(&url, ServiceKind::Openai, LONG);
    for _ in 0..2 {
        assert_eq!(service.answer(&prompt(), AnswerFormat::Json).as_deref(), Ok("[]"));
    }
    let asked = thread.join().expect("no panic");
    let with_json = asked.iter().map(|asked| asked.contains("response_format")).collect::<Vec<_>>();
    assert_eq!(with_json, [true, false, false]);
}

#[test]
fn failures_say_what_they_are() {
    let answered = |status, body: &str| {
        let (url, _thread) = serve(vec![(status, body.to_owned())]);
        service(&url, ServiceKind::Openai, LONG).answer(&prompt(), AnswerFormat::Text).expect_err("no answer")
    };
    assert!(matches!(answered(500, "boom"), ModelFailure::Failed { reason } if reason.contains("boom")));
    assert!(matches!(answered(200, "[]"), ModelFailure::Failed { .. }));
    assert!(matches!(answered(200, "<html>"), ModelFailure::Failed { .. }));
    let full = r#"{"error": {"message": "maximum context length is 5", "code": "context_length_exceeded"}}"#;
    assert!(matches!(answered(400, full), ModelFailure::TooLong { .. }));
    let nobody = service("http://127.0.0.1:1", ServiceKind::Ollama, LONG).answer(&prompt(), AnswerFormat::Text);
    assert!(matches!(nobody, Err(ModelFailure::Unreachable { .. })), "{nobody:?}");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let late = service(&url, ServiceKind::Openai, Duration::from_secs(1)).answer(&prompt(), AnswerFormat::Text);
    assert_eq!(late, Err(ModelFailure::Timeout { limit_s: 1 }));
}

#[test]
fn a_choice_is_nothing_the_engine_or_a_service() {
    assert_eq!("none".parse::<ExtractorChoice>().expect("read"), ExtractorChoice::None);
    assert_eq!("engine".parse::<ExtractorChoice>().expect("read"), ExtractorChoice::Engine);
    assert!(matches!("http://localhost:1/v1#m".parse(), Ok(ExtractorChoice::Service(_))));
    assert!("gpt".parse::<ExtractorChoice>().is_err());
}
