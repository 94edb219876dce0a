//! The memory API over a real store: errors, versions, isolation of tenants, erasure down to the KV cache.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use memory::ItemId;
use memory::governance::{KeyStore, Role};
use memory::memories::{EmbedError, Embedder, Purpose};
use memory::search::vectors::EmbedderId;
use serde_json::{Value, json};

use super::MemoryEndpoint;
use super::call::Input;
use crate::http::testing::{Setup, TestServer, read};

/// A server with keys of several tenants, or of none.
struct Place {
    server: TestServer,
    _folder: tempfile::TempDir,
}

/// Keys by tenant and role.
fn keyed<const N: usize>(holders: [(&str, Role); N]) -> (Place, [String; N]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("keys.json");
    let keys = holders.map(|(tenant, role)| {
        let made = KeyStore::create(&path, tenant.parse().expect("a name"), role).expect("made");
        made.key.expose().to_owned()
    });
    let server = TestServer::start(Setup { keys: KeyStore::open(&path).expect("opened"), ..Setup::default() });
    (Place { server, _folder: folder }, keys)
}

impl Place {
    async fn ask(&self, key: &str, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let body = Some(&body).filter(|body| !body.is_null());
        let (status, _headers, answer) = self.server.ask_as(key, (method, path), body).await;
        (status, answer)
    }

    /// Asks what must succeed.
    async fn done(&self, key: &str, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(key, method, path, body).await;
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
        answer
    }

    /// Asks what must be refused, and returns status, code and field.
    async fn refused(&self, key: &str, method: &str, path: &str, body: Value) -> (u16, String, Value) {
        let (status, answer) = self.ask(key, method, path, body).await;
        assert!(!status.is_success(), "{method} {path}: {answer}");
        let error = &answer["error"];
        assert!(!error["message"].as_str().expect("a message").is_empty());
        (status.as_u16(), error["code"].as_str().expect("a code").to_owned(), error["param"].clone())
    }

    async fn add(&self, key: &str, text: &str) -> String {
        let answer = self.done(key, "POST", "/v1/memories", json!({"text": text})).await;
        answer["results"][0]["memory"]["id"].as_str().expect("an id").to_owned()
    }
}

#[tokio::test]
async fn a_memory_is_edited_by_version_and_keeps_its_history() {
    let (place, [key]) = keyed([("acme", Role::Admin)]);
    let id = place.add(&key, "Ann lives in Oslo.").await;
    let path = format!("/v1/memories/{id}");
    let (status, headers, memory) = place.server.ask_as(&key, ("GET", &path), None).await;
    assert_eq!((status, &headers[header::ETAG]), (StatusCode::OK, &"\"1\"".parse().expect("a value")));
    assert_eq!((memory["text"].as_str(), memory["state"].as_str()), (Some("Ann lives in Oslo."), Some("activated")));

    let patch = |if_match: &str, text: &str| {
        Request::patch(&path)
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::IF_MATCH, if_match)
            .body(Body::from(json!({"text": text, "reason": "she moved"}).to_string()))
            .expect("a request")
    };
    let (status, headers, _) = read(place.server.send(patch("\"1\"", "Ann lives in Bergen.")).await).await;
    assert_eq!((status, &headers[header::ETAG]), (StatusCode::OK, &"\"2\"".parse().expect("a value")));
    let (status, _, stale) = read(place.server.send(patch("\"1\"", "Ann lives in Rome.")).await).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    let error = &stale["error"];
    assert_eq!(
        (&error["code"], &error["expected"], &error["found"]),
        (&json!("version_conflict"), &json!(1), &json!(2))
    );
    let (status, _, wrong) = read(place.server.send(patch("one", "Ann lives in Rome.")).await).await;
    assert_eq!((status, &wrong["error"]["param"]), (StatusCode::BAD_REQUEST, &json!("if-match")));
    let stale = json!({"text": "Ann lives in Rome.", "expected_version": 1});
    assert_eq!(place.refused(&key, "PATCH", &path, stale).await.0, 409);

    let history = place.done(&key, "GET", &format!("{path}/history"), Value::Null).await;
    let changes: Vec<&str> = history["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|version| version["change"]["type"].as_str())
        .collect();
    assert_eq!(changes, ["created", "edited"]);
    assert_eq!(history["data"][1]["reason"], "she moved");
    let restored = place.done(&key, "POST", &format!("{path}/restore"), json!({"version": 1})).await;
    assert_eq!((&restored["text"], &restored["version"]), (&json!("Ann lives in Oslo."), &json!(3)));
    let unknown = place.refused(&key, "POST", &format!("{path}/restore"), json!({"version": 9})).await;
    assert_eq!((unknown.0, unknown.1.as_str()), (404, "version_not_found"));

    place.done(&key, "POST", &format!("{path}/transition"), json!({"state": "frozen"})).await;
    let (status, code, _) = place.refused(&key, "PATCH", &path, json!({"salience": 1})).await;
    assert_eq!((status, code.as_str()), (409, "frozen"));
    let (status, code, _) =
        place.refused(&key, "POST", &format!("{path}/transition"), json!({"state": "activated"})).await;
    assert_eq!(status, 409, "{code}");
}

#[tokio::test]
async fn wrong_requests_name_the_field() {
    let (place, [key]) = keyed([("acme", Role::Admin)]);
    let id = place.add(&key, "Ann lives in Oslo.").await;
    let item = format!("/v1/memories/{id}");
    let long = "x".repeat(70_000);
    let cases = [
        ("POST", "/v1/memories", json!({}), "text"),
        ("POST", "/v1/memories", json!({"text": ""}), "text"),
        ("POST", "/v1/memories", json!({"text": 5}), "text"),
        ("POST", "/v1/memories", json!({"text": long}), "text"),
        ("POST", "/v1/memories", json!({"text": "a\u{0}b"}), "text"),
        ("POST", "/v1/memories", json!({"text": "x", "kind": "rumour"}), "kind"),
        ("POST", "/v1/memories", json!({"text": "x", "tags": "home"}), "tags"),
        ("POST", "/v1/memories", json!({"text": "x", "tags": [""]}), "tags[0]"),
        ("POST", "/v1/memories", json!({"text": "x", "salience": 1.5}), "salience"),
        ("POST", "/v1/memories", json!({"text": "x", "valid_from": "yesterday"}), "valid_from"),
        ("POST", "/v1/memories", json!({"text": "x", "user_id": " ann"}), "user_id"),
        ("POST", "/v1/memories", json!({"text": "x", "mode": "fine"}), "mode"),
        ("POST", "/v1/memories", json!({"text": "x", "colour": 1}), "colour"),
        ("POST", "/v1/memories", json!({"text": "x", "items": ["y"]}), "items"),
        ("POST", "/v1/memories", json!({"items": []}), "items"),
        ("POST", "/v1/memories", json!({"items": [{"text": "y", "colour": 1}]}), "items[0].colour"),
        ("POST", "/v1/memories", json!({"messages": [{"role": "robot", "content": "x"}]}), "messages[0].role"),
        ("POST", "/v1/memories", json!({"text": "x", "cube": "../x"}), "cube"),
        (
            "POST",
            "/v1/memories",
            json!({"text": "x", "valid_from": "2026-01-02T00:00:00Z", "valid_to": "2026-01-01T00:00:00Z"}),
            "valid_to",
        ),
        ("POST", "/v1/memories/search", json!({"query": "x", "limit": 5_000}), "limit"),
        ("POST", "/v1/memories/search", json!({"query": "x", "methods": ["magic"]}), "methods[0]"),
        ("POST", "/v1/memories/search", json!({"query": "x", "fusion": {"method": "x"}}), "fusion"),
        ("POST", "/v1/memories/merge", json!({"ids": [id], "text": "x"}), "ids"),
        ("POST", "/v1/erase", json!({"filter": {}}), "filter"),
        ("POST", "/v1/erase", json!({"ids": ["x"]}), "ids[0]"),
        ("POST", "/v1/cubes", json!({"name": "Notes"}), "cube"),
        ("POST", "/v1/cubes", json!({"name": "default.beta"}), "name"),
        ("POST", "/v1/documents", json!({"name": "a.pdf", "content": "no pdf"}), "content"),
        ("POST", "/v1/documents", json!({"name": "a", "content": "?", "encoding": "base64"}), "content"),
        ("GET", "/v1/memories?limit=0", Value::Null, "limit"),
        ("GET", "/v1/memories?limit=x", Value::Null, "limit"),
        ("GET", "/v1/memories?cursor=x", Value::Null, "cursor"),
        ("GET", "/v1/memories?cube=a&cube=b", Value::Null, "cube"),
        ("GET", "/v1/memories/5", Value::Null, "id"),
        ("PATCH", &item, json!({"text": null, "valid_to": 5}), "valid_to"),
        ("POST", "/v1/cubes/default/grants", json!({"subject": "?", "right": "read"}), "subject"),
        ("POST", "/v1/cubes/default/grants", json!({"subject": "beta", "right": "all"}), "right"),
        ("GET", "/v1/subjects/export", Value::Null, "user_id"),
        ("GET", "/v1/audit/proof?seq=999", Value::Null, "seq"),
    ];
    for (method, path, body, param) in cases {
        let (status, code, found) = place.refused(&key, method, path, body.clone()).await;
        assert_eq!((status, found.as_str()), (400, Some(param)), "{method} {path} {body}: {code}");
    }
}

/// A body with which an endpoint gets as far as looking for the cube.
fn body_for(endpoint: MemoryEndpoint, cube: &str, id: &str) -> Value {
    use MemoryEndpoint as E;
    match endpoint {
        E::AddMemories => json!({"cube": cube, "text": "x"}),
        E::AddBatch => json!({"cube": cube, "items": ["x"]}),
        E::AddDocument => json!({"cube": cube, "name": "a.txt", "content": "x"}),
        E::SearchMemories => json!({"cube": cube, "query": "x"}),
        E::MergeMemories => json!({"cube": cube, "ids": [id, ItemId::new()], "text": "x"}),
        E::UpdateMemory => json!({"cube": cube, "text": "x"}),
        E::RestoreMemory => json!({"cube": cube, "version": 1}),
        E::TransitionMemory => json!({"cube": cube, "state": "archived"}),
        E::HoldMemory => json!({"cube": cube, "hold": true}),
        E::RedactMemory | E::UnmergeMemory => json!({"cube": cube}),
        E::Erase => json!({"cube": cube, "ids": [id]}),
        E::CreateSnapshot => json!({"name": "s"}),
        E::CreateGrant => json!({"subject": "beta", "right": "read"}),
        _ => Value::Null,
    }
}

#[tokio::test]
async fn a_foreign_cube_and_an_unknown_one_are_answered_alike_by_every_endpoint() {
    let (place, [ann, eve]) = keyed([("acme", Role::Admin), ("evil", Role::Admin)]);
    let cube = place.done(&ann, "POST", "/v1/cubes", json!({"name": "notes"})).await;
    let added = place.done(&ann, "POST", "/v1/memories", json!({"cube": "notes", "text": "The code is 4417."})).await;
    let id = added["results"][0]["memory"]["id"].as_str().expect("an id");
    let cube_id = cube["id"].as_str().expect("an id");
    let unknown_id = memory::CubeId::new().to_string();
    let names = [("notes", "unknown"), (cube_id, unknown_id.as_str()), ("default.acme", "default.nobody")];
    place.add(&ann, "In the default cube").await;
    for &endpoint in MemoryEndpoint::ALL {
        use MemoryEndpoint as E;
        if matches!(endpoint, E::ListCubes | E::CreateCube | E::Embeddings) {
            continue;
        }
        for (foreign, unknown) in names {
            let mut answers = Vec::new();
            for cube in [foreign, unknown] {
                let path = endpoint
                    .path()
                    .replace("{cube}", cube)
                    .replace("{id}", id)
                    .replace("{grant}", "1")
                    .replace("{seq}", "1");
                let more = match endpoint {
                    E::AuditProof => "&seq=0",
                    E::AuditConsistency => "&size=1",
                    E::ExportSubject => "&user_id=ann",
                    E::WalkGraph => "&entity=Ann",
                    E::DiffCube => "&snapshot=s",
                    _ => "",
                };
                let in_query = endpoint.input() != Input::Json && !endpoint.path().contains("{cube}");
                let in_query = in_query && !matches!(endpoint, E::RedactMemory | E::UnmergeMemory);
                let query =
                    if in_query { format!("cube={cube}{more}") } else { more.trim_start_matches('&').to_owned() };
                let method = endpoint.method().as_str().to_uppercase();
                let body = match endpoint {
                    E::ImportCube => json!({"text": "x"}),
                    other => body_for(other, cube, id),
                };
                answers.push(place.ask(&eve, &method, &format!("{path}?{query}"), body).await);
            }
            assert_eq!(answers[0], answers[1], "{endpoint:?} {foreign}");
            assert_eq!(answers[0].0, StatusCode::NOT_FOUND, "{endpoint:?}: {}", answers[0].1);
        }
    }
    assert_eq!(place.done(&eve, "GET", "/v1/cubes", Value::Null).await["data"], json!([]));
    let report = place.done(&ann, "POST", "/v1/audit/verify?cube=notes", json!({})).await;
    assert_eq!(report["intact"], true);
}

#[tokio::test]
async fn grants_open_one_memory_to_another_tenant_and_close_it_again() {
    let (place, [ann, bob]) = keyed([("acme", Role::Admin), ("beta", Role::User)]);
    place.done(&ann, "POST", "/v1/cubes", json!({"name": "notes"})).await;
    let items = json!({"cube": "notes", "items": ["The code is 4417.", "Velka likes teal."]});
    let added = place.done(&ann, "POST", "/v1/memories/batch", items).await;
    let ids: Vec<&str> =
        added["results"].as_array().expect("two").iter().filter_map(|one| one["memory"]["id"].as_str()).collect();
    let grant = json!({"subject": "beta", "right": "read", "item": ids[1], "reason": "for the party"});
    let grant = place.done(&ann, "POST", "/v1/cubes/notes/grants", grant).await;
    let search = json!({"cube": "notes", "query": "code teal"});
    let found = place.done(&bob, "POST", "/v1/memories/search", search.clone()).await;
    assert_eq!(found["results"].as_array().map(Vec::len), Some(1));
    assert_eq!(found["results"][0]["memory"]["id"], ids[1]);
    let hidden = place.refused(&bob, "GET", &format!("/v1/memories/{}?cube=notes", ids[0]), Value::Null).await;
    let unknown = place.refused(&bob, "GET", &format!("/v1/memories/{}?cube=notes", ItemId::new()), Value::Null).await;
    assert_eq!((hidden.0, &hidden), (404, &unknown));
    let patch = json!({"cube": "notes", "text": "Velka likes black."});
    assert_eq!(place.refused(&bob, "PATCH", &format!("/v1/memories/{}", ids[1]), patch).await.0, 403);
    let read = place.done(&ann, "GET", "/v1/audit?cube=notes&action=item.search", Value::Null).await;
    assert_eq!(read["data"][0]["actor"], "beta");
    let listed = place.done(&ann, "GET", "/v1/cubes/notes/grants", Value::Null).await;
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1));
    place.done(&ann, "DELETE", &format!("/v1/cubes/notes/grants/{}", grant["id"]), Value::Null).await;
    assert_eq!(place.refused(&bob, "POST", "/v1/memories/search", search).await.0, 404);
}

#[tokio::test]
async fn every_tenant_has_its_own_default_cube_and_names_narrow_inside_it() {
    let (place, [ann, bob, reader]) = keyed([("acme", Role::User), ("beta", Role::User), ("acme", Role::Reader)]);
    assert_eq!(place.refused(&ann, "GET", "/v1/memories", Value::Null).await.1, "cube_not_found");
    place.add(&ann, "Shared by all of acme.").await;
    place.add(&bob, "Of beta.").await;
    let of_user = json!({"text": "Ann likes teal.", "user_id": "ann"});
    place.done(&ann, "POST", "/v1/memories", of_user).await;
    let texts = async |key: &str, query: &str| -> Vec<String> {
        let list = place.done(key, "GET", &format!("/v1/memories?{query}"), Value::Null).await;
        let data = list["data"].as_array().expect("a list").clone();
        data.iter().filter_map(|memory| memory["text"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(texts(&bob, "").await, ["Of beta."]);
    assert_eq!(texts(&ann, "user_id=ann").await, ["Ann likes teal."]);
    assert_eq!(texts(&ann, "user_id=ann&include_shared=true").await, ["Shared by all of acme.", "Ann likes teal."]);
    assert_eq!(texts(&ann, "user_id=bob&include_shared=true").await, ["Shared by all of acme."]);
    assert_eq!(texts(&ann, "cube=default&order=newest&limit=1").await, ["Ann likes teal."]);
    assert_eq!(texts(&reader, "").await.len(), 2);
    let cubes = place.done(&ann, "GET", "/v1/cubes", Value::Null).await;
    assert_eq!((&cubes["data"][0]["name"], &cubes["data"][0]["owner"]), (&json!("default"), &json!("acme")));
    assert_eq!(place.refused(&reader, "POST", "/v1/memories", json!({"text": "x"})).await.0, 403);
    assert_eq!(place.refused(&ann, "GET", "/v1/audit", Value::Null).await.0, 403);
}

#[tokio::test]
async fn an_erasure_has_a_signed_receipt_and_drops_what_was_computed_before() {
    let (place, [key]) = keyed([("acme", Role::Admin)]);
    let id = place.add(&key, "The lab code is 4417.").await;
    let prompt = json!({"prompt": "The lab code is 4417. ".repeat(8), "max_tokens": 1, "temperature": 0});
    let cached = async || {
        let answer = place.done(&key, "POST", "/v1/completions", prompt.clone()).await;
        answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number")
    };
    assert_eq!(cached().await, 0);
    assert!(cached().await > 0);
    let erased = place.done(&key, "DELETE", &format!("/v1/memories/{id}?reason=asked"), Value::Null).await;
    assert_eq!((&erased["deleted"], &erased["receipt"]["receipt"]["status"]["state"]), (&json!(true), &json!("final")));
    let places = &erased["receipt"]["receipt"]["places"];
    assert_eq!(places["items"]["erased"], 1);
    assert!(places["kv_device"]["erased"].as_u64() > Some(0), "{places}");
    assert_eq!(cached().await, 0);
    assert_eq!(place.refused(&key, "GET", &format!("/v1/memories/{id}"), Value::Null).await.0, 404);
    let log = place.done(&key, "GET", "/v1/audit?action=item.erase", Value::Null).await;
    assert_eq!(
        (&log["data"][0]["reason"], &log["data"][0]["seq"]),
        (&json!("asked"), &erased["receipt"]["receipt"]["audit_seq"])
    );
}

#[tokio::test]
async fn a_filter_erases_what_a_hold_does_not_keep() {
    let (place, [key]) = keyed([("acme", Role::Admin)]);
    let items = json!({"user_id": "ann", "items": ["one", "two", "three"]});
    let added = place.done(&key, "POST", "/v1/memories/batch", items).await;
    place.add(&key, "of nobody").await;
    let held = added["results"][1]["memory"]["id"].as_str().expect("an id");
    place.done(&key, "POST", &format!("/v1/memories/{held}/hold"), json!({"hold": true, "reason": "a trial"})).await;
    let (status, code, _) = place.refused(&key, "DELETE", &format!("/v1/memories/{held}"), Value::Null).await;
    assert_eq!((status, code.as_str()), (409, "legal_hold"));
    let erased = place.done(&key, "POST", "/v1/erase", json!({"filter": {"user_id": "ann"}})).await;
    assert_eq!((&erased["num_erased"], &erased["held"], &erased["error"]), (&json!(2), &json!([held]), &Value::Null));
    let left = place.done(&key, "GET", "/v1/memories", Value::Null).await;
    assert_eq!(left["data"].as_array().map(Vec::len), Some(2));
    let about = place.done(&key, "GET", "/v1/subjects/export?user_id=ann", Value::Null).await;
    assert_eq!(about["memories"].as_array().map(Vec::len), Some(1));
}

/// Counts letters: enough to see that texts and vectors keep their order.
struct LetterCounter(EmbedderId);

impl Embedder for LetterCounter {
    fn id(&self) -> &EmbedderId {
        &self.0
    }

    fn dim(&self) -> usize {
        2
    }

    fn embed(&self, texts: &[&str], _purpose: Purpose) -> Result<Vec<Vec<f32>>, EmbedError> {
        Ok(texts.iter().map(|text| vec![text.len() as f32, 1.0]).collect())
    }
}

#[tokio::test]
async fn embeddings_come_from_the_configured_embedder_or_not_at_all() {
    let (place, [key, reader]) = keyed([("acme", Role::User), ("acme", Role::Reader)]);
    let ask = json!({"input": ["a", "bcd"]});
    let (status, code, _) = place.refused(&key, "POST", "/v1/embeddings", ask.clone()).await;
    assert_eq!((status, code.as_str()), (404, "embedder_not_configured"));
    let counter = LetterCounter(EmbedderId::new("letters").expect("a name"));
    place.server.state.shared.parts.memories.set_embedder(Some(Arc::new(counter))).expect("set");
    let answer = place.done(&key, "POST", "/v1/embeddings", ask.clone()).await;
    assert_eq!((&answer["model"], &answer["data"][1]["embedding"]), (&json!("letters"), &json!([3.0, 1.0])));
    let compact = json!({"input": "bcd", "model": "letters", "encoding_format": "base64", "dimensions": 2});
    let answer = place.done(&key, "POST", "/v1/embeddings", compact).await;
    assert_eq!(answer["data"][0]["embedding"], "AABAQAAAgD8=");
    for (body, param) in [
        (json!({"input": [1, 2]}), "input[0]"),
        (json!({"input": [[1, 2]]}), "input[0]"),
        (json!({"input": []}), "input"),
        (json!({"input": ""}), "input[0]"),
        (json!({"input": "a", "dimensions": 3}), "dimensions"),
        (json!({"input": "a", "encoding_format": "hex"}), "encoding_format"),
    ] {
        let (status, _, found) = place.refused(&key, "POST", "/v1/embeddings", body).await;
        assert_eq!((status, found.as_str()), (400, Some(param)));
    }
    let other = json!({"input": "a", "model": "other"});
    assert_eq!(place.refused(&key, "POST", "/v1/embeddings", other).await.1, "model_not_found");
    assert_eq!(place.refused(&reader, "POST", "/v1/embeddings", ask).await.0, 403);
}

#[tokio::test]
async fn a_file_goes_out_and_comes_back_in() {
    let (place, [key]) = keyed([("acme", Role::Admin)]);
    for name in ["old", "new"] {
        place.done(&key, "POST", "/v1/cubes", json!({"name": name})).await;
    }
    let items: Vec<Value> = (0..300)
        .map(|number| json!({"text": format!("The code of door {number} is {number}."), "tags": ["door"]}))
        .collect();
    let added = place.done(&key, "POST", "/v1/memories/batch", json!({"cube": "old", "items": items})).await;
    let first = added["results"][0]["memory"]["id"].as_str().expect("an id");
    place
        .done(&key, "POST", &format!("/v1/memories/{first}/transition"), json!({"cube": "old", "state": "archived"}))
        .await;
    let request = |method: &str, path: &str, body: Body| {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .body(body)
            .expect("a request")
    };
    let exported = place.server.send(request("GET", "/v1/cubes/old/export", Body::empty())).await;
    assert_eq!(exported.headers()[header::CONTENT_TYPE], "application/x-ndjson");
    let bytes = axum::body::to_bytes(exported.into_body(), usize::MAX).await.expect("a whole body");
    let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    assert_eq!(text.lines().count(), 301);
    let broken = format!("{text}not json\n");
    let import = request("POST", "/v1/cubes/new/import?format=jsonl", Body::from(broken.clone()));
    let (status, _, report) = read(place.server.send(import).await).await;
    assert_eq!(status, StatusCode::OK, "{report}");
    assert_eq!((&report["num_added"], &report["problems"][0]["line"]), (&json!(300), &json!(302)));
    let strict = request("POST", "/v1/cubes/new/import?strict=true", Body::from(broken));
    let (status, _, refused) = read(place.server.send(strict).await).await;
    assert_eq!((status, &refused["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_import")));
    let archived = place.done(&key, "GET", "/v1/memories?cube=new&state=archived", Value::Null).await;
    assert_eq!(archived["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(archived["data"][0]["source"]["external_id"], first);
    let again = request("POST", "/v1/cubes/new/import", Body::from(text));
    let (_, _, report) = read(place.server.send(again).await).await;
    assert_eq!(report["num_added"], 1, "only the archived one is no duplicate: {report}");
}

#[tokio::test]
async fn the_examples_of_every_request_are_accepted_and_nothing_else_is() {
    let (place, [key]) = keyed([("acme", Role::Admin)]);
    place.add(&key, "x").await;
    let document: Value = serde_json::from_str(crate::http::openapi::DOCUMENT).expect("JSON");
    for &endpoint in MemoryEndpoint::ALL {
        let operation = &document["paths"][endpoint.path()][endpoint.method().as_str()];
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        let Some(pointer) = schema.as_str().and_then(|schema| schema.strip_prefix('#')) else { continue };
        let properties = document.pointer(pointer).expect("a schema")["properties"].as_object().expect("properties");
        let mut body = Value::Object(Default::default());
        for (name, property) in properties {
            assert!(!property["example"].is_null(), "{endpoint:?} {name} has no example");
            // Of those that exclude each other the first is given.
            if !["items", "messages", "cubes", "filter"].contains(&name.as_str())
                || endpoint == MemoryEndpoint::AddBatch
            {
                body[name] = property["example"].clone();
            }
        }
        let path = endpoint.path().replace("{cube}", "default").replace("{id}", &ItemId::new().to_string());
        let method = endpoint.method().as_str().to_uppercase();
        let (status, answer) = place.ask(&key, &method, &path, body.clone()).await;
        assert_ne!(status, StatusCode::BAD_REQUEST, "{endpoint:?}: {answer}");
        body["no_such_field"] = json!(1);
        let (status, code, param) = place.refused(&key, &method, &path, body).await;
        let expected = (400, "unknown_parameter".to_owned(), json!("no_such_field"));
        assert_eq!((status, code, param), expected, "{endpoint:?}");
    }
}
