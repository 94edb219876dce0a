//! The routes over a real engine: answers, streams, errors, limits. The real client's tests are in `tests/e2e`.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use futures::StreamExt;
use memory::governance::{Identity, KeyStore, Role};
use serde_json::{Value, json};

use super::testing::{CONTEXT_LEN, MODEL, Setup, TestServer, read};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

fn messages() -> Value {
    json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"}])
}

/// Text of a choice, put together from events.
fn streamed_text(events: &[Value], index: usize) -> String {
    let entries = events.iter().flat_map(|event| event["choices"].as_array().into_iter().flatten());
    let own = entries.filter(|entry| entry["index"] == json!(index));
    own.filter_map(|entry| entry["delta"]["content"].as_str().or(entry["text"].as_str())).collect()
}

fn streamed_reason(events: &[Value], index: usize) -> Option<String> {
    let entries = events.iter().flat_map(|event| event["choices"].as_array().into_iter().flatten());
    let mut own = entries.filter(|entry| entry["index"] == json!(index) && !entry["finish_reason"].is_null());
    let reason = own.next()?["finish_reason"].as_str().map(str::to_owned);
    assert!(own.next().is_none(), "a choice ends once");
    reason
}

#[tokio::test]
async fn streamed_answers_equal_whole_ones() {
    let server = TestServer::start(Setup::default());
    for seed in 0..12 {
        let stops: &[&str] = if seed % 3 == 0 { &["e", "\u{fffd}\u{fffd}"] } else { &[] };
        let options = json!({
            "model": MODEL, "max_tokens": 60, "seed": seed, "n": 3, "temperature": 1.5, "stop": stops,
            "stream_options": null,
        });
        for (path, prompt_field, prompt) in [(CHAT, "messages", messages()), (TEXT, "prompt", json!("Once"))] {
            let mut body = options.clone();
            body[prompt_field] = prompt;
            let whole = server.ask(path, body.clone()).await;
            body["stream_options"] = json!({"include_usage": true});
            let mut events = server.stream(path, body).await;
            let usage = events.pop().expect("a usage event");
            assert_eq!(usage["choices"], json!([]));
            for field in ["prompt_tokens", "completion_tokens", "total_tokens"] {
                assert_eq!(usage["usage"][field], whole["usage"][field], "{field}");
            }
            assert!(events.iter().all(|event| event["usage"].is_null() && event.get("usage").is_some()));
            for index in 0..3 {
                let choice = &whole["choices"][index];
                let text = choice["message"]["content"].as_str().or(choice["text"].as_str()).expect("text");
                assert_eq!(streamed_text(&events, index), text, "seed {seed} {path}");
                assert_eq!(streamed_reason(&events, index).as_deref(), choice["finish_reason"].as_str());
            }
        }
    }
}

#[tokio::test]
async fn streamed_logprobs_equal_whole_ones_and_cover_the_text() {
    let server = TestServer::start(Setup::default());
    for seed in 0..6 {
        let body = json!({
            "messages": messages(), "max_tokens": 40, "seed": seed, "temperature": 1.2, "logprobs": true,
            "top_logprobs": 3, "stop": ["a", "zz"],
            // Special tokens have bytes of their own and no part in the text.
            "logit_bias": {"256": -100, "257": -100},
        });
        let whole = server.ask(CHAT, body.clone()).await;
        let events = server.stream(CHAT, body).await;
        let content = whole["choices"][0]["logprobs"]["content"].as_array().expect("logprobs").clone();
        let streamed: Vec<Value> = events
            .iter()
            .flat_map(|event| event["choices"][0]["logprobs"]["content"].as_array().into_iter().flatten().cloned())
            .collect();
        assert_eq!(streamed, content, "seed {seed}");
        assert!(content.iter().all(|token| token["top_logprobs"].as_array().map(Vec::len) == Some(3)));
        let bytes: Vec<u8> = content
            .iter()
            .flat_map(|token| token["bytes"].as_array().into_iter().flatten())
            .filter_map(|byte| u8::try_from(byte.as_u64()?).ok())
            .collect();
        assert_eq!(whole["choices"][0]["message"]["content"], json!(String::from_utf8_lossy(&bytes)));
    }
}

#[tokio::test]
async fn stop_strings_cut_the_same_text() {
    let server = TestServer::start(Setup::default());
    let body = json!({"prompt": "Once", "max_tokens": 80, "temperature": 0, "ignore_eos": true});
    let full = server.ask(TEXT, body.clone()).await["choices"][0]["text"].as_str().expect("text").to_owned();
    let letters: Vec<(usize, char)> = full.char_indices().collect();
    for window in letters.windows(3).step_by(7) {
        let stop: String = window.iter().map(|(_, letter)| letter).collect();
        let mut stopped = body.clone();
        stopped["stop"] = json!(stop);
        let answer = server.ask(TEXT, stopped).await;
        let expected = &full[..full.find(&stop).expect("it is in there")];
        assert_eq!(answer["choices"][0]["text"], expected);
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    }
    server.idle().await;
}

#[tokio::test]
async fn prompts_are_cached_and_counted_once() {
    let server = TestServer::start(Setup::default());
    let prompt = "A beginning that many prompts have in common. ".repeat(3);
    let body = json!({"prompt": prompt, "max_tokens": 4, "temperature": 0, "n": 4, "ignore_eos": true});
    let first = server.ask(TEXT, body.clone()).await;
    assert_eq!(first["usage"]["prompt_tokens"], prompt.len());
    assert_eq!(first["usage"]["completion_tokens"], 16);
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    let second = server.ask(TEXT, body).await;
    assert!(second["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number") >= 112);
    assert_eq!(second["choices"], first["choices"]);
}

#[tokio::test]
async fn echo_returns_the_prompt_and_its_logprobs() {
    let server = TestServer::start(Setup::default());
    let body = json!({"prompt": "Zoë said", "max_tokens": 3, "echo": true, "logprobs": 2, "temperature": 0, "ignore_eos": true});
    let whole = server.ask(TEXT, body.clone()).await;
    let choice = &whole["choices"][0];
    assert!(choice["text"].as_str().expect("text").starts_with("Zoë said"));
    let logprobs = &choice["logprobs"];
    // Nine bytes of prompt and three of the answer.
    assert_eq!(logprobs["tokens"].as_array().map(Vec::len), Some(12));
    assert_eq!((&logprobs["token_logprobs"][0], &logprobs["top_logprobs"][0]), (&Value::Null, &Value::Null));
    assert_eq!(logprobs["tokens"][2], "bytes:\\xc3");
    assert_eq!(logprobs["text_offset"].as_array().expect("offsets")[..5], [0, 1, 2, 2, 3].map(|n| json!(n)));
    assert_eq!(logprobs["text_offset"][9], 8);
    let events = server.stream(TEXT, body).await;
    assert_eq!(streamed_text(&events, 0), choice["text"].as_str().expect("text"));
    let nothing = server.ask(TEXT, json!({"prompt": "ab", "max_tokens": 0, "echo": true})).await;
    assert_eq!((&nothing["choices"][0]["text"], &nothing["usage"]["completion_tokens"]), (&json!("ab"), &json!(0)));
}

#[tokio::test]
async fn a_conversation_that_outgrew_the_context_is_refused_or_shortened() {
    let server = TestServer::start(Setup::default());
    let mut long = vec![json!({"role": "system", "content": "S"})];
    for turn in 0..12 {
        long.push(json!({"role": "user", "content": format!("question {turn} {}", "x".repeat(30))}));
        long.push(json!({"role": "assistant", "content": "y".repeat(30)}));
    }
    long.push(json!({"role": "user", "content": "the last one"}));
    let body = json!({"messages": long, "max_tokens": 8, "temperature": 0});
    let (status, error) = server.refused(CHAT, body.clone()).await;
    assert_eq!((status, &error["code"]), (StatusCode::BAD_REQUEST, &json!("context_length_exceeded")));
    assert!(error["message"].as_str().is_some_and(|text| text.contains(&CONTEXT_LEN.to_string())));

    let mut shortened = body;
    shortened["truncation"] = json!("oldest_turns");
    let (status, headers, answer) = read(server.post(CHAT, &shortened).await).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let num_dropped: usize = headers["x-memos-dropped-messages"].to_str().expect("text").parse().expect("a number");
    assert!(num_dropped > 0 && num_dropped.is_multiple_of(2) && num_dropped < 24);
    let prompt_tokens = answer["usage"]["prompt_tokens"].as_u64().expect("a number") as usize;
    // One turn more would not have fitted.
    assert!(prompt_tokens + 8 <= CONTEXT_LEN && prompt_tokens + 8 + 100 > CONTEXT_LEN, "{prompt_tokens}");
}

#[tokio::test]
async fn what_can_never_fit_is_refused_with_the_numbers() {
    let server = TestServer::start(Setup::default());
    let (_, error) = server.refused(TEXT, json!({"prompt": "x".repeat(600)})).await;
    assert_eq!((&error["code"], &error["param"]), (&json!("context_length_exceeded"), &json!("prompt")));
    let (_, error) = server.refused(TEXT, json!({"prompt": "x", "max_tokens": 1_000_000_000_000_000_000u64})).await;
    assert_eq!(error["code"], "context_length_exceeded");
    let (_, error) = server.refused(TEXT, json!({"prompt": ""})).await;
    assert_eq!((&error["code"], &error["param"]), (&json!("empty_prompt"), &json!("prompt")));
    let (_, error) = server.refused(TEXT, json!({"prompt": "x", "n": 100})).await;
    assert_eq!(error["code"], "too_many_sequences");
    let (status, error) = server.refused(CHAT, json!({"messages": messages(), "model": "gpt-4"})).await;
    assert_eq!((status, &error["code"]), (StatusCode::NOT_FOUND, &json!("model_not_found")));
}

#[tokio::test]
async fn a_full_queue_is_429_and_nothing_of_the_request_stays() {
    let server = TestServer::start(Setup { max_running: 1, max_waiting: 4, ..Setup::default() });
    let long = json!({"prompt": "x", "max_tokens": 500, "ignore_eos": true, "stream": true, "n": 4});
    let mut running = server.post(TEXT, &long).await.into_body().into_data_stream();
    running.next().await.expect("a first event").expect("bytes");
    let response = server.post(TEXT, &json!({"prompt": "x", "n": 4})).await;
    let (status, headers, answer) = read(response).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("queue_full")));
    assert!(headers[header::RETRY_AFTER].to_str().is_ok_and(|seconds| seconds.parse::<u64>().is_ok()));
    // The client goes away: nothing runs on for it.
    drop(running);
    server.idle().await;
    let blocks = server.engine.stats().scheduler.blocks;
    assert_eq!((blocks.leased, blocks.filling), (0, 0));
}

#[tokio::test]
async fn a_request_has_a_time_limit_of_its_own() {
    let server = TestServer::start(Setup::default());
    let body = json!({"prompt": "x", "max_tokens": 500, "ignore_eos": true, "timeout_ms": 1, "n": 4});
    let (status, headers, answer) = read(server.post(TEXT, &body).await).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("deadline_exceeded")));
    assert_eq!(headers["x-should-retry"], "false");
    server.idle().await;
}

#[tokio::test]
async fn roles_decide_what_a_key_may_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("keys.json");
    let make =
        |role| KeyStore::create(&path, "acme".parse().expect("a name"), role).expect("made").key.expose().to_owned();
    let (admin, user, reader) = (make(Role::Admin), make(Role::User), make(Role::Reader));
    let server = TestServer::start(Setup { keys: KeyStore::open(&path).expect("opened"), ..Setup::default() });
    let status = async |key: Option<&str>, path: &str| {
        let mut request = match path {
            TEXT => Request::post(path).header(header::CONTENT_TYPE, "application/json"),
            _ => Request::get(path),
        };
        if let Some(key) = key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let body = if path == TEXT { Body::from("{\"prompt\":\"x\",\"max_tokens\":1}") } else { Body::empty() };
        server.send(request.body(body).expect("a request")).await.status().as_u16()
    };
    for (path, expected) in [
        // admin, user, reader, a wrong key, no key
        ("/v1/models", [200, 200, 200, 401, 401]),
        (TEXT, [200, 200, 403, 401, 401]),
        ("/metrics", [200, 403, 403, 401, 401]),
        ("/health", [200, 200, 200, 200, 200]),
        ("/openapi.json", [200, 200, 200, 200, 200]),
    ] {
        let keys = [Some(admin.as_str()), Some(&user), Some(&reader), Some("mk-wrong"), None];
        for (key, expected) in keys.into_iter().zip(expected) {
            assert_eq!(status(key, path).await, expected, "{path}");
        }
    }
}

#[tokio::test]
async fn tenants_share_no_cache() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("keys.json");
    let make = |name: &str| {
        KeyStore::create(&path, name.parse().expect("a name"), Role::User).expect("made").key.expose().to_owned()
    };
    let keys = [make("a"), make("b")];
    let server = TestServer::start(Setup { keys: KeyStore::open(&path).expect("opened"), ..Setup::default() });
    let cached = async |key: &str| {
        let body = json!({"prompt": "p".repeat(100), "max_tokens": 1, "cache_salt": "mine"});
        let request = Request::post(TEXT)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .body(Body::from(body.to_string()))
            .expect("a request");
        let (_, _, answer) = read(server.send(request).await).await;
        answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number")
    };
    assert_eq!(cached(&keys[0]).await, 0);
    assert_eq!(cached(&keys[1]).await, 0);
    assert!(cached(&keys[0]).await > 0);
}

#[tokio::test]
async fn pages_tell_what_is_there() {
    let server = TestServer::start(Setup::default());
    let get =
        async |path: &str| read(server.send(Request::get(path).body(Body::empty()).expect("a request")).await).await;
    let (_, headers, list) = get("/v1/models").await;
    assert_eq!(list["data"][0]["id"], MODEL);
    assert!(headers.contains_key("x-request-id"));
    assert_eq!(get(&format!("/v1/models/{MODEL}")).await.2["max_model_len"], CONTEXT_LEN);
    assert_eq!(get("/v1/models/other").await.0, StatusCode::NOT_FOUND);
    assert_eq!(get("/health").await.2, json!({"status": "ok"}));
    assert_eq!(get("/v1/nothing").await.2["error"]["code"], "not_found");
    assert_eq!(get(TEXT).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get("/openapi.json").await.2["openapi"], "3.1.0");
    server.engine.shutdown().await;
    assert_eq!(get("/health").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let (status, _) = server.refused(TEXT, json!({"prompt": "x"})).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn metrics_count_requests_and_tokens() {
    let server = TestServer::start(Setup::default());
    server.ask(TEXT, json!({"prompt": "abcd", "max_tokens": 3, "ignore_eos": true})).await;
    server.refused(TEXT, json!({"prompt": 1})).await;
    let response = server.send(Request::get("/metrics").body(Body::empty()).expect("a request")).await;
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a page");
    let page = String::from_utf8(bytes.to_vec()).expect("text");
    for line in [
        "memos_http_requests_total{route=\"/v1/completions\",status=\"200\"} 1",
        "memos_http_requests_total{route=\"/v1/completions\",status=\"400\"} 1",
        "memos_prompt_tokens_total 4",
        "memos_completion_tokens_total 3",
        "memos_time_to_first_token_seconds_count 1",
        "memos_inter_token_seconds_count 2",
        "memos_request_seconds_count 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
}

#[tokio::test]
async fn tokens_and_text_are_inverse() {
    let server = TestServer::start(Setup::default());
    let text = "Grüße <|im_end|> 日本";
    let answer = server.ask("/tokenize", json!({"prompt": text, "return_token_strs": true})).await;
    assert_eq!(answer["count"], answer["tokens"].as_array().map_or(0, Vec::len));
    let back = server.ask("/detokenize", json!({"tokens": answer["tokens"]})).await;
    assert_eq!(back["prompt"], text);
    let chat = server.ask("/tokenize", json!({"messages": messages()})).await;
    let used = server.ask(CHAT, json!({"messages": messages(), "max_tokens": 1})).await;
    assert_eq!(chat["count"], used["usage"]["prompt_tokens"]);
}

#[tokio::test]
async fn a_final_message_can_be_continued() {
    let server = TestServer::start(Setup::default());
    let messages = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "The answer is"}]);
    let open = json!({"messages": messages, "add_generation_prompt": false, "continue_final_message": true});
    let closed = json!({"messages": messages, "add_generation_prompt": false});
    let text = async |body: Value| {
        let tokens = server.ask("/tokenize", body).await;
        server.ask("/detokenize", json!({"tokens": tokens["tokens"]})).await["prompt"]
            .as_str()
            .expect("text")
            .to_owned()
    };
    assert!(text(open).await.ends_with("The answer is"));
    assert!(text(closed).await.ends_with("The answer is<|im_end|>\n"));
}

#[tokio::test]
async fn a_foreign_host_is_turned_away_from_an_open_server() {
    let server = TestServer::start(Setup::default());
    let request =
        |host: &str| Request::get("/v1/models").header(header::HOST, host).body(Body::empty()).expect("a request");
    assert_eq!(server.send(request("evil.example")).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(server.send(request("localhost:8000")).await.status(), StatusCode::OK);
    let identity = Identity { tenant: "default".parse().expect("a name"), role: Role::Admin };
    let keyed = Setup { keys: KeyStore::without_file().with_key("k", identity), ..Setup::default() };
    let mut request = request("public.example");
    request.headers_mut().insert(header::AUTHORIZATION, "Bearer k".parse().expect("a value"));
    assert_eq!(TestServer::start(keyed).send(request).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn request_ids_are_echoed_or_made() {
    let server = TestServer::start(Setup::default());
    let id = async |given: &str| {
        let request = Request::get("/health").header("x-request-id", given).body(Body::empty()).expect("a request");
        server.send(request).await.headers()["x-request-id"].to_str().expect("text").to_owned()
    };
    assert_eq!(id("mine-1").await, "mine-1");
    assert!(id("has a space").await.starts_with("req-"));
    assert_ne!(id("").await, id("").await);
}

#[tokio::test]
async fn a_client_that_is_slow_to_read_gets_everything() {
    let server = TestServer::start(Setup::default());
    let body = json!({"prompt": "x", "max_tokens": 50, "temperature": 0, "ignore_eos": true, "stream": true});
    let mut events = server.post(TEXT, &body).await.into_body().into_data_stream();
    events.next().await.expect("an event").expect("bytes");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut bytes = Vec::new();
    while let Some(event) = events.next().await {
        bytes.extend(event.expect("bytes"));
    }
    assert!(bytes.ends_with(b"data: [DONE]\n\n"));
}
