//! A model elsewhere: any OpenAI-compatible endpoint, or Ollama's own API.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use memory::ingest::{AnswerFormat, FinePrompt, LanguageModel, ModelFailure};
use serde_json::{Value, json};

use super::ANSWER_TOKENS_MAX;
use super::gate::Gate;
use crate::client::{Client, ClientError, OwnRuntime};
use crate::embedder::{HttpEmbedderError, ServicePlace};

/// Which API a service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ServiceKind {
    /// `/chat/completions` behind the base URL.
    Openai,
    /// `/api/chat` of a host; a base URL that ends in `/v1` or `/api` is taken for it too.
    Ollama,
}

/// A service that answers prompts. Calls block their thread.
pub struct ModelService {
    client: Client,
    kind: ServiceKind,
    model: String,
    timeout: Duration,
    gate: Gate,
    /// Not every service knows how to be asked for JSON.
    knows_json: AtomicBool,
    runtime: OwnRuntime,
}

impl ModelService {
    /// The service at this place; nothing is asked yet.
    ///
    /// # Errors
    /// The URL or key cannot be used, or no thread can be started.
    pub fn new(
        place: &ServicePlace,
        kind: ServiceKind,
        api_key: Option<&str>,
        timeout: Duration,
    ) -> Result<Self, HttpEmbedderError> {
        let runtime = OwnRuntime::start("extractor").map_err(HttpEmbedderError::Thread)?;
        Ok(Self {
            client: Client::new(&base_url(place.url(), kind), api_key)?,
            kind,
            model: place.model().to_owned(),
            timeout,
            gate: Gate::default(),
            knows_json: AtomicBool::new(true),
            runtime,
        })
    }

    fn request(&self, prompt: &FinePrompt, wants_json: bool) -> (&'static str, Value) {
        let messages = json!([
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": prompt.user},
        ]);
        // Greedy: the same text gives the same facts.
        match self.kind {
            ServiceKind::Openai => {
                let mut body = json!({"model": self.model, "messages": messages, "temperature": 0,
                    "max_tokens": ANSWER_TOKENS_MAX, "stream": false});
                if wants_json {
                    body["response_format"] = json!({"type": "json_object"});
                }
                ("/chat/completions", body)
            }
            ServiceKind::Ollama => {
                let options = json!({"temperature": 0, "num_predict": ANSWER_TOKENS_MAX});
                let mut body = json!({"model": self.model, "messages": messages, "stream": false, "options": options});
                if wants_json {
                    body["format"] = json!("json");
                }
                ("/chat", body)
            }
        }
    }

    async fn ask(&self, prompt: &FinePrompt, format: AnswerFormat) -> Result<String, ModelFailure> {
        let wants_json = format == AnswerFormat::Json && self.knows_json.load(Ordering::Relaxed);
        let (path, body) = self.request(prompt, wants_json);
        let answer = match self.client.post(path, &body).await {
            // It says so once; the prompt asks for JSON in words too.
            Err(ClientError::Status { status, message, .. })
                if wants_json && status.is_client_error() && message.contains("response_format") =>
            {
                self.knows_json.store(false, Ordering::Relaxed);
                let (path, body) = self.request(prompt, false);
                self.client.post(path, &body).await
            }
            answer => answer,
        };
        let answer = answer.map_err(failure_of)?;
        let content = match self.kind {
            ServiceKind::Openai => &answer["choices"][0]["message"]["content"],
            ServiceKind::Ollama => &answer["message"]["content"],
        };
        // A model that says nothing has no content; what it says is then no JSON, which is found out by who reads it.
        match content {
            Value::String(text) => Ok(text.clone()),
            Value::Null if answer.is_object() => Ok(String::new()),
            _ => Err(ModelFailure::Failed { reason: "the answer is not what the API promises".to_owned() }),
        }
    }
}

impl LanguageModel for ModelService {
    fn name(&self) -> &str {
        &self.model
    }

    fn answer(&self, prompt: &FinePrompt, format: AnswerFormat) -> Result<String, ModelFailure> {
        let _pass = self.gate.enter(self.timeout)?;
        let limit_s = self.timeout.as_secs();
        let asked = async { tokio::time::timeout(self.timeout, self.ask(prompt, format)).await };
        self.runtime.block_on(asked).map_err(|_elapsed| ModelFailure::Timeout { limit_s })?
    }
}

/// What stands before `/chat/completions` and `/chat`.
fn base_url(url: &str, kind: ServiceKind) -> String {
    match kind {
        ServiceKind::Openai => url.to_owned(),
        ServiceKind::Ollama => {
            let host = url.trim_end_matches("/v1").trim_end_matches("/api").trim_end_matches('/');
            format!("{host}/api")
        }
    }
}

fn failure_of(error: ClientError) -> ModelFailure {
    let reason = error.to_string();
    if error.is_context_full() {
        return ModelFailure::TooLong { reason };
    }
    match error {
        ClientError::Connect { .. } | ClientError::ConnectTimeout { .. } | ClientError::Http(_) => {
            ModelFailure::Unreachable { reason }
        }
        _ => ModelFailure::Failed { reason },
    }
}
