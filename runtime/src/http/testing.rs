//! A server for tests: the whole HTTP surface over a real engine with a tiny random model and a byte-level tokenizer.
//!
//! Random weights generate random bytes, many of them parts of characters: a hard case for streaming.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::Response;
use kernels::{CpuOptions, DType, Device};
use memory::governance::KeyStore;
use models::{ChatTemplate, GenerationConfig, LoadFormat, LoadOptions, Model, ModelSource, Tokenizer};
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use super::{AppParts, AppState, HttpLimits, router};
use crate::data_dir::{CacheEpoch, DataDir};
use crate::engine::{EngineHandle, EngineOptions, PrefixCache};
use crate::memories::{self, MemoryOptions};
use crate::recall::MemoryDefaults;

/// Tokens of prompt and answer together.
pub const CONTEXT_LEN: usize = 512;
/// Name of the model.
pub const MODEL: &str = "tiny/random";
const NUM_BYTE_TOKENS: u32 = 256;
const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// What a test may choose.
pub struct Setup {
    /// Who may come in.
    pub keys: KeyStore,
    /// Limits of the HTTP side.
    pub limits: HttpLimits,
    /// Sequences that may run at once.
    pub max_running: usize,
    /// Sequences that may wait.
    pub max_waiting: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self { keys: KeyStore::without_file(), limits: HttpLimits::default(), max_running: 8, max_waiting: 32 }
    }
}

/// The server.
pub struct TestServer {
    /// Its state, for tests that listen.
    pub state: AppState,
    /// Its engine.
    pub engine: EngineHandle,
    router: Router,
    _data_dir: DataDir,
    _memory_folder: tempfile::TempDir,
}

impl TestServer {
    /// Starts the engine.
    pub fn start(setup: Setup) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write_model(folder.path());
        let source = ModelSource::Folder(folder.path().to_owned());
        let device = Device::cpu(CpuOptions { num_threads: NonZeroUsize::new(1), isa: None }).expect("a device");
        let options =
            LoadOptions { format: LoadFormat::Dummy { seed: 3 }, dtype: Some(DType::F32), max_positions: None };
        let model = Model::load(&device, &source, options).expect("the model loads");
        let tokenizer = Tokenizer::load(&source).expect("the tokenizer loads");
        let chat_template = ChatTemplate::from_text(TEMPLATE, &source).expect("the template parses");
        let engine_options = EngineOptions {
            block_size: 16,
            kv_cache_bytes: 8 << 20,
            kv_dtype: None,
            max_batch_tokens: 64,
            max_running: setup.max_running,
            max_waiting: setup.max_waiting,
            max_waiting_per_tenant: setup.max_waiting,
            prefix_cache: PrefixCache::On,
            ..EngineOptions::default()
        };
        let engine = EngineHandle::start(device, model, MODEL, &engine_options).expect("the engine starts");
        let memory_folder = tempfile::tempdir().expect("a temporary folder");
        let data_dir = DataDir::open(memory_folder.path()).expect("a data directory");
        let memories = memories::open(&data_dir, MemoryOptions::default()).expect("memories open");
        let state = AppState::new(AppParts {
            engine: engine.clone(),
            tokenizer: Arc::new(tokenizer),
            chat_template: Some(Arc::new(chat_template)),
            generation_config: GenerationConfig { eos_token_ids: vec![257], ..GenerationConfig::default() },
            keys: Arc::new(setup.keys),
            memories: Arc::new(memories),
            memory_defaults: MemoryDefaults::default(),
            server_secret: [7; 32],
            cache_epoch: CacheEpoch::default(),
            limits: setup.limits,
        });
        Self { router: router(state.clone()), state, engine, _data_dir: data_dir, _memory_folder: memory_folder }
    }

    /// Sends a request.
    pub async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
    }

    /// Posts JSON and returns the response as it comes.
    pub async fn post(&self, path: &str, body: &Value) -> Response {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .expect("a request");
        self.send(request).await
    }

    /// Posts JSON and returns the JSON of the answer, which must be 200.
    pub async fn ask(&self, path: &str, body: Value) -> Value {
        let (status, _headers, answer) = read(self.post(path, &body).await).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    /// Posts JSON that must be refused, and returns the status and the error object.
    pub async fn refused(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let (status, _headers, answer) = read(self.post(path, &body).await).await;
        assert_ne!(status, StatusCode::OK, "{answer}");
        (status, answer["error"].clone())
    }

    /// Asks as the holder of a key, with JSON or without, and returns status, headers and JSON of the answer.
    pub async fn ask_as(
        &self,
        key: &str,
        (method, path): (&str, &str),
        body: Option<&Value>,
    ) -> (StatusCode, HeaderMap, Value) {
        let request =
            Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {key}"));
        let request = match body {
            None => request.body(Body::empty()),
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())),
        };
        read(self.send(request.expect("a request")).await).await
    }

    /// Posts JSON with `"stream": true` and returns the events before `[DONE]`.
    pub async fn stream(&self, path: &str, mut body: Value) -> Vec<Value> {
        body["stream"] = json!(true);
        let response = self.post(path, &body).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        let bytes = to_bytes(response.into_body(), usize::MAX).await.expect("a whole body");
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let mut events: Vec<&str> = text
            .split_terminator("\n\n")
            .filter(|event| !event.starts_with(':'))
            .map(|event| event.strip_prefix("data: ").expect("an event is one line of data"))
            .collect();
        assert_eq!(events.pop(), Some("[DONE]"));
        events.into_iter().map(|event| serde_json::from_str(event).expect("JSON")).collect()
    }

    /// Waits until nothing runs or waits.
    pub async fn idle(&self) {
        for _ in 0..500 {
            let stats = self.engine.stats().scheduler;
            if stats.num_running == 0 && stats.num_waiting == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the engine is not idle: {:?}", self.engine.stats());
    }
}

/// Status, headers and JSON of a response.
pub async fn read(response: Response) -> (StatusCode, HeaderMap, Value) {
    let (head, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.expect("a whole body");
    let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    (head.status, head.headers, value)
}

fn write_model(folder: &Path) {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": NUM_BYTE_TOKENS + 2, "hidden_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
        "intermediate_size": 64, "max_position_embeddings": CONTEXT_LEN, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": true, "torch_dtype": "float32",
    });
    fs::write(folder.join("config.json"), config.to_string()).expect("written");
    fs::write(folder.join("tokenizer.json"), tokenizer_json().to_string()).expect("written");
}

/// Every byte is a token, in GPT-2's alphabet; 256 and 257 begin and end a turn.
fn tokenizer_json() -> Value {
    let mut vocabulary = Map::new();
    let mut next_letter = 0x100;
    for byte in 0..NUM_BYTE_TOKENS {
        let is_printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if is_printable { byte } else { next_letter };
        next_letter += u32::from(!is_printable);
        let letter = char::from_u32(code).expect("a character of the alphabet");
        vocabulary.insert(letter.to_string(), json!(byte));
    }
    let special = |id: u32, content: &str| json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false});
    json!({
        "version": "1.0",
        "added_tokens": [special(256, "<|im_start|>"), special(257, "<|im_end|>")],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    })
}
