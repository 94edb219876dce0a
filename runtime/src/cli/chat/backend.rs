//! Where the answers of a terminal chat come from: an engine in this process, or an endpoint.

use std::sync::Arc;

use anyhow::Context;
use models::{
    ChatInput, ChatTemplate, Continuation, DecodeStream, SamplingParams, SpecialText, SpecialTokens, TextStart,
    Tokenizer,
};
use scheduler::TenantId;
use serde_json::{Map, Value, json};

use super::ChatArgs;
use crate::client::{Client, ClientError, Endpoint, StreamChunk, TokenStream};
use crate::engine::{EngineError, EngineEvent, EngineHandle, GenerateRequest, Generation, PromptLogprobs, Tenant};
use crate::environment::Environment;

/// Longest answer when `--max-tokens` does not say: a small model that repeats itself has to stop at some time.
const ANSWER_LEN_DEFAULT: usize = 1024;
/// This part of the context is kept free for the answer; older turns are dropped for it.
const ANSWER_RESERVE_PART: usize = 4;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    /// The conversation is too long; a shorter one may do.
    #[error("the conversation does not fit the context: {reason}")]
    ContextFull {
        /// The figures.
        reason: String,
    },
    /// Template or tokenizer refused it.
    #[error(transparent)]
    Model(#[from] models::ModelError),
    /// The engine did.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The endpoint did, or it cannot be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// A source of answers.
pub(super) enum Backend {
    Local(Local),
    Remote(Remote),
}

/// An engine in this process and what turns text into its tokens.
pub(super) struct Local {
    engine: EngineHandle,
    tokenizer: Arc<Tokenizer>,
    template: Arc<ChatTemplate>,
    stop_tokens: Vec<u32>,
    sampling: SamplingParams,
    answer_len_max: usize,
}

/// An endpoint and what is asked of it in every turn.
pub(super) struct Remote {
    client: Client,
    /// The request body but for the messages.
    constant: Value,
    name: String,
}

/// A part of an answer.
pub(super) struct Piece {
    /// More text; may be empty.
    pub text: String,
    /// What an endpoint says about its memory.
    pub memory: Option<Value>,
}

/// An answer that is being given. Dropping it stops it.
pub(super) enum Answer {
    Local { generation: Generation, decoder: DecodeStream, stop_tokens: Vec<u32> },
    Remote(TokenStream),
}

impl Backend {
    /// Starts an engine, or finds out what the endpoint serves.
    ///
    /// # Errors
    /// Whatever keeps it from answering.
    pub async fn start(args: &ChatArgs, environment: &Environment) -> anyhow::Result<Self> {
        match &args.base_url {
            Some(base_url) => Remote::connect(args, base_url, environment).await.map(Self::Remote),
            None => Local::start(args, environment).map(Self::Local),
        }
    }

    /// For the greeting.
    pub fn describe(&self) -> String {
        match self {
            Self::Local(local) => format!("{} on {}", local.engine.info().name, local.engine.info().backend),
            Self::Remote(remote) => remote.name.clone(),
        }
    }

    /// The tokenizer of an engine in this process.
    pub fn tokenizer(&self) -> Option<Arc<Tokenizer>> {
        match self {
            Self::Local(local) => Some(Arc::clone(&local.tokenizer)),
            Self::Remote(_) => None,
        }
    }

    /// The client of an endpoint.
    pub fn client(&self) -> Option<Client> {
        match self {
            Self::Local(_) => None,
            Self::Remote(remote) => Some(remote.client.clone()),
        }
    }

    /// Begins to answer a conversation.
    ///
    /// # Errors
    /// [`AnswerError::ContextFull`] when older turns should be dropped; the others are final.
    pub async fn answer(&self, messages: Value) -> Result<Answer, AnswerError> {
        match self {
            Self::Local(local) => local.answer(&messages).await,
            Self::Remote(remote) => remote.answer(messages).await,
        }
    }

    /// Ends the engine, if there is one.
    pub async fn shutdown(&self) {
        if let Self::Local(local) = self {
            local.engine.shutdown().await;
        }
    }
}

impl Local {
    fn start(args: &ChatArgs, environment: &Environment) -> anyhow::Result<Self> {
        let loaded = args.engine.start(environment, None)?;
        let text = loaded.text_parts()?;
        let template = text.chat_template.with_context(|| {
            format!("{} has no chat template; serve it and use /v1/completions", loaded.engine.info().name)
        })?;
        let recommended = text.generation_config;
        let defaults = SamplingParams::default();
        let sampling = SamplingParams {
            temperature: args.temperature.or(recommended.temperature).unwrap_or(0.0),
            top_p: args.top_p.or(recommended.top_p).unwrap_or(defaults.top_p),
            top_k: args.top_k.or(recommended.top_k),
            min_p: recommended.min_p.unwrap_or(defaults.min_p),
            repetition_penalty: recommended.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            seed: args.seed,
            ..defaults
        };
        sampling.validate()?;
        Ok(Self {
            engine: loaded.engine,
            tokenizer: text.tokenizer,
            template,
            stop_tokens: recommended.eos_token_ids,
            sampling,
            answer_len_max: args.max_tokens.map_or(ANSWER_LEN_DEFAULT, |len| len.get()),
        })
    }

    async fn answer(&self, messages: &Value) -> Result<Answer, AnswerError> {
        let input = ChatInput {
            messages,
            tools: None,
            add_generation_prompt: Continuation::AssistantTurn,
            kwargs: &Map::new(),
        };
        let text = self.template.render(&input)?;
        // The template writes the special tokens itself.
        let prompt = self.tokenizer.encode(&text, SpecialTokens::Skip)?;
        let context = self.engine.info().max_context;
        let max_tokens = answer_room(prompt.len(), context, self.answer_len_max)?;
        let request = GenerateRequest {
            tenant: Tenant { name: Arc::from("local"), id: TenantId(0), salt: [0; 32] },
            prompt,
            sampling: self.sampling.clone(),
            max_tokens,
            stop_tokens: self.stop_tokens.clone(),
            num_logprobs: None,
            prompt_logprobs: PromptLogprobs::Skip,
        };
        let generation = self.engine.submit(vec![request]).await?.pop().ok_or(EngineError::Stopped)?;
        let decoder = self.tokenizer.decode_stream(SpecialText::Skip, TextStart::Beginning);
        Ok(Answer::Local { generation, decoder, stop_tokens: self.stop_tokens.clone() })
    }
}

/// How long an answer may be behind a prompt of `prompt_len` tokens.
fn answer_room(prompt_len: usize, context: usize, answer_len_max: usize) -> Result<usize, AnswerError> {
    let room = context.saturating_sub(prompt_len);
    let wanted = answer_len_max.min(context / ANSWER_RESERVE_PART).max(1);
    if room < wanted {
        let reason = format!("{prompt_len} of {context} tokens are used, an answer wants {wanted}");
        return Err(AnswerError::ContextFull { reason });
    }
    Ok(room.min(answer_len_max))
}

impl Remote {
    async fn connect(args: &ChatArgs, base_url: &str, environment: &Environment) -> anyhow::Result<Self> {
        let client = Client::new(base_url, args.api_key.as_deref().or(environment.api_key.as_deref()))?;
        let model = match &args.engine.model {
            Some(model) => model.clone(),
            None => {
                let models = client.models().await.context("cannot ask the endpoint for its models")?;
                models.into_iter().next().context("the endpoint lists no model; name one with --model")?
            }
        };
        let name = format!("{model} at {base_url}");
        Ok(Self { client, constant: constant_fields(args, &model), name })
    }

    async fn answer(&self, messages: Value) -> Result<Answer, AnswerError> {
        let mut body = self.constant.clone();
        body["messages"] = messages;
        match self.client.stream(Endpoint::Chat, &body).await {
            Ok(stream) => Ok(Answer::Remote(stream)),
            Err(error) if error.is_context_full() => Err(AnswerError::ContextFull { reason: error.to_string() }),
            Err(error) => Err(error.into()),
        }
    }
}

/// Only what was given is sent: the rest is the endpoint's to choose.
fn constant_fields(args: &ChatArgs, model: &str) -> Value {
    let mut body = json!({"model": model, "stream": true});
    let mut add = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            body[field] = value;
        }
    };
    add("max_tokens", args.max_tokens.map(|value| json!(value)));
    add("temperature", args.temperature.map(|value| json!(value)));
    add("top_p", args.top_p.map(|value| json!(value)));
    add("top_k", args.top_k.map(|value| json!(value)));
    add("seed", args.seed.map(|value| json!(value)));
    add("memory", args.cube.as_ref().map(|cube| json!({"cubes": [cube], "write": true, "trace": true})));
    body
}

impl Answer {
    /// The next piece; `None` after the last one.
    ///
    /// # Errors
    /// The engine failed, or the connection did.
    pub async fn next(&mut self) -> Result<Option<Piece>, AnswerError> {
        match self {
            Self::Remote(stream) => {
                let piece = |chunk: StreamChunk| Piece { text: chunk.answer, memory: chunk.memory };
                Ok(stream.next().await?.map(piece))
            }
            Self::Local { generation, decoder, stop_tokens } => loop {
                let piece = match generation.next().await {
                    None => return Ok(None),
                    Some(EngineEvent::Failed(error)) => return Err(error.into()),
                    Some(EngineEvent::Prompt { .. }) => continue,
                    // The token that ends the answer is no part of its text.
                    Some(EngineEvent::Token { token, .. }) if stop_tokens.contains(&token) => continue,
                    Some(EngineEvent::Token { token, .. }) => decoder.push(token),
                    Some(EngineEvent::Finished { .. }) => decoder.finish(),
                };
                if let Some(text) = piece {
                    return Ok(Some(Piece { text, memory: None }));
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_gets_what_is_left_and_never_less_than_its_reserve() {
        assert_eq!(answer_room(100, 2048, 1024).ok(), Some(1024));
        assert_eq!(answer_room(1500, 2048, 1024).ok(), Some(548));
        assert!(matches!(answer_room(1600, 2048, 1024), Err(AnswerError::ContextFull { .. })));
        assert_eq!(answer_room(1600, 2048, 100).ok(), Some(100));
        assert!(matches!(answer_room(5000, 2048, 1), Err(AnswerError::ContextFull { .. })));
    }
}
