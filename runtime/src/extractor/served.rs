//! The model of this server, asked through the same engine as everybody else, as a tenant of its own.

use std::sync::Arc;
use std::time::Duration;

use memory::ingest::{AnswerFormat, FinePrompt, LanguageModel, ModelFailure};
use models::{ChatInput, ChatTemplate, Continuation, SamplingParams, SpecialText, SpecialTokens, Tokenizer};
use scheduler::TenantId;
use serde_json::{Map, json};
use tokio::runtime::Handle;

use super::ANSWER_TOKENS_MAX;
use super::gate::Gate;
use crate::engine::{EngineError, EngineEvent, EngineHandle, GenerateRequest, PromptLogprobs, Tenant};

/// Name of the tenant in the engine's accounts. No API key can have it: a tenant's name has no space.
const TENANT: &str = "memos extractor";
/// Its number; those of tenants with keys count up from 0.
const TENANT_ID: TenantId = TenantId(u64::MAX);
/// Least room for an answer: a prompt that leaves less is refused.
const ANSWER_TOKENS_MIN: usize = 32;

/// What is needed of the server.
pub struct ServedParts {
    /// The way to the engine.
    pub engine: EngineHandle,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Conversation to text.
    pub chat_template: Arc<ChatTemplate>,
    /// Tokens that end an answer.
    pub stop_tokens: Vec<u32>,
}

/// See the module's description.
pub struct ServedModel {
    parts: ServedParts,
    timeout: Duration,
    gate: Gate,
    runtime: Handle,
}

impl ServedModel {
    /// The model behind this engine; its answers are waited for on this runtime.
    pub fn new(parts: ServedParts, timeout: Duration, runtime: Handle) -> Self {
        Self { parts, timeout, gate: Gate::default(), runtime }
    }

    fn request(&self, prompt: &FinePrompt) -> Result<GenerateRequest, ModelFailure> {
        let messages = json!([
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": prompt.user},
        ]);
        let input = ChatInput {
            messages: &messages,
            tools: None,
            add_generation_prompt: Continuation::AssistantTurn,
            kwargs: &Map::new(),
        };
        let failed = |error: models::ModelError| ModelFailure::Failed { reason: error.to_string() };
        let text = self.parts.chat_template.render(&input).map_err(failed)?;
        let tokens = self.parts.tokenizer.encode(&text, SpecialTokens::Skip).map_err(failed)?;
        let limit = self.parts.engine.info().max_context;
        let room = limit.saturating_sub(tokens.len());
        if room < ANSWER_TOKENS_MIN {
            let reason = format!("it has {} tokens, of which {limit} fit with the answer", tokens.len());
            return Err(ModelFailure::TooLong { reason });
        }
        // A salt that nobody has again: what is computed over a memory is never found by another prompt, so an erasure
        // has no block of it to chase.
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(|error| ModelFailure::Failed { reason: error.to_string() })?;
        Ok(GenerateRequest {
            tenant: Tenant { name: TENANT.into(), id: TENANT_ID, salt },
            prompt: tokens,
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            max_tokens: room.min(ANSWER_TOKENS_MAX),
            stop_tokens: self.parts.stop_tokens.clone(),
            num_logprobs: None,
            prompt_logprobs: PromptLogprobs::Skip,
        })
    }

    async fn generate(&self, request: GenerateRequest) -> Result<String, EngineError> {
        let mut generations = self.parts.engine.submit(vec![request]).await?;
        let mut tokens = Vec::new();
        // Dropping the generation, as a timeout does, cancels it before the next step.
        while let Some(generation) = generations.first_mut() {
            match generation.next().await {
                Some(EngineEvent::Token { token, .. }) => tokens.push(token),
                Some(EngineEvent::Failed(error)) => return Err(error),
                Some(EngineEvent::Prompt { .. }) => {}
                Some(EngineEvent::Finished { .. }) | None => break,
            }
        }
        tokens.pop_if(|last| self.parts.stop_tokens.contains(last));
        Ok(self.parts.tokenizer.decode(&tokens, SpecialText::Skip))
    }
}

impl LanguageModel for ServedModel {
    fn name(&self) -> &str {
        &self.parts.engine.info().name
    }

    fn answer(&self, prompt: &FinePrompt, _format: AnswerFormat) -> Result<String, ModelFailure> {
        let _pass = self.gate.enter(self.timeout)?;
        let request = self.request(prompt)?;
        let limit_s = self.timeout.as_secs();
        let asked = async { tokio::time::timeout(self.timeout, self.generate(request)).await };
        match self.runtime.block_on(asked) {
            Err(_elapsed) => Err(ModelFailure::Timeout { limit_s }),
            Ok(Err(EngineError::QueueFull { limit, .. })) => Err(ModelFailure::Busy { limit }),
            Ok(Err(error @ EngineError::TooLong { .. })) => Err(ModelFailure::TooLong { reason: error.to_string() }),
            Ok(Err(error)) => Err(ModelFailure::Failed { reason: error.to_string() }),
            Ok(Ok(answer)) => Ok(answer),
        }
    }
}
