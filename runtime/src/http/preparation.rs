//! From a body to token ids: parsing, rendering and tokenising, done on blocking threads and only a few at once.

use std::sync::Arc;

use models::{ChatInput, Continuation, SpecialTokens};
use serde_json::Value;

use super::auth::Caller;
use super::body;
use super::chat_memory::ChatMemory;
use super::chat_request::{ChatRequest, PromptEnding, PromptParts, Truncation};
use super::completion_request::{AddSpecialTokens, AnswerLen, CompletionRequest, PromptInput};
use super::error::ApiError;
use super::fields::Fields;
use super::messages::Conversation;
use super::state::Shared;

/// When turns are dropped and the client set no length, this part of the context is kept free for the answer…
const ANSWER_RESERVE_PART: usize = 4;
/// … but no more than this many tokens.
const ANSWER_RESERVE_MAX: usize = 1024;

/// Where old turns are dropped, memories take at most this part of the context.
const MEMORY_PART_MAX: usize = 4;

/// A prompt that is ready for the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedPrompt {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Upper bound of the answer; both together fit the context.
    pub max_tokens: usize,
}

/// A chat request whose conversation has become a prompt.
pub struct PreparedChat {
    /// The request.
    pub request: ChatRequest,
    /// Its prompt.
    pub prompt: PreparedPrompt,
    /// Messages that were left out to make it fit.
    pub num_dropped_messages: usize,
    /// What it recalled; `None` where it has no memory.
    pub memory: Option<ChatMemory>,
}

/// Parses a body and does the work on it on a blocking thread, when one of the few places is free.
///
/// # Errors
/// The body is no JSON object, the work failed, or its thread died.
pub async fn on_body<T: Send + 'static>(
    app: &Arc<Shared>,
    bytes: Vec<u8>,
    work: impl FnOnce(&Shared, Fields) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let task = "preparing the request";
    let place = Arc::clone(&app.preparing).acquire_owned().await.map_err(|_closed| ApiError::Task { task })?;
    let app = Arc::clone(app);
    let working = tokio::task::spawn_blocking(move || {
        let _place = place;
        let fields = body::parse(&bytes)?;
        drop(bytes);
        work(&app, fields)
    });
    working.await.map_err(|_panicked| ApiError::Task { task })?
}

/// Reads a chat request, recalls what belongs to it and makes its prompt, leaving out old turns if the client wants that.
///
/// # Errors
/// The request is wrong, the template refuses it, or it does not fit the context.
pub fn chat(app: &Shared, caller: &Caller, body: Fields) -> Result<PreparedChat, ApiError> {
    let info = app.parts.engine.info();
    let mut request = ChatRequest::read(body, &app.parts.generation_config, info.vocab_size)?;
    app.check_model(request.model.as_deref())?;
    let limit = info.max_context;
    let mut tokens = conversation_tokens(app, &request.prompt)?;
    let reserve = request.max_tokens.unwrap_or((limit / ANSWER_RESERVE_PART).clamp(1, ANSWER_RESERVE_MAX));
    let room_tokens = match request.truncation {
        // Memories are an addition: they take what the conversation and its answer leave.
        Truncation::Error => limit.saturating_sub(tokens.len().saturating_add(reserve)),
        // Older turns make room, but not for memories alone.
        Truncation::OldestTurns => limit / MEMORY_PART_MAX,
    };
    let conversation = &request.prompt.conversation;
    let memory = ChatMemory::recall(app, caller, request.memory.as_ref(), conversation, room_tokens)?;
    if let Some(block) = memory.as_ref().and_then(ChatMemory::block) {
        request.prompt.conversation = request.prompt.conversation.with_memories(block);
        tokens = conversation_tokens(app, &request.prompt)?;
    }
    let num_messages = request.prompt.conversation.num_messages();
    if request.truncation == Truncation::OldestTurns && tokens.len().saturating_add(reserve) > limit {
        (request.prompt.conversation, tokens) = shortened(app, &request.prompt, limit.saturating_sub(reserve))?;
    }
    let num_dropped_messages = num_messages - request.prompt.conversation.num_messages();
    let answer_len = request.max_tokens.map_or(AnswerLen::Default(usize::MAX), AnswerLen::Given);
    let prompt = fit(tokens, answer_len, Context { limit, param: "messages" })?;
    Ok(PreparedChat { request, prompt, num_dropped_messages, memory })
}

/// Reads a text completion request and makes its prompts.
///
/// # Errors
/// The request is wrong, or a prompt does not fit the context.
pub fn completion(app: &Shared, body: Fields) -> Result<(CompletionRequest, Vec<PreparedPrompt>), ApiError> {
    let info = app.parts.engine.info();
    let request = CompletionRequest::read(body, &app.parts.generation_config, info.vocab_size)?;
    app.check_model(request.model.as_deref())?;
    let context = Context { limit: info.max_context, param: "prompt" };
    let prepare = |prompt: &PromptInput| {
        let mut tokens = match prompt {
            PromptInput::Text(text) => text_tokens(app, text, request.special_tokens)?,
            PromptInput::Tokens(tokens) => tokens.clone(),
        };
        if let Some(tokens_max) = request.prompt_tokens_max {
            tokens.drain(..tokens.len().saturating_sub(tokens_max));
        }
        fit(tokens, request.answer_len, context)
    };
    let prompts = request.prompts.iter().map(prepare).collect::<Result<_, _>>()?;
    Ok((request, prompts))
}

/// Token ids of a text.
///
/// # Errors
/// The tokenizer refuses it.
pub fn text_tokens(app: &Shared, text: &str, special_tokens: AddSpecialTokens) -> Result<Vec<u32>, ApiError> {
    let special_tokens = match special_tokens {
        AddSpecialTokens::Add => SpecialTokens::Add,
        AddSpecialTokens::Skip => SpecialTokens::Skip,
    };
    let refused = |error: models::ModelError| ApiError::Tokenizer { param: "prompt", reason: error.to_string() };
    app.parts.tokenizer.encode(text, special_tokens).map_err(refused)
}

/// Token ids of a conversation as the chat template renders it.
///
/// # Errors
/// There is no template, or template or tokenizer refuse it.
pub fn conversation_tokens(app: &Shared, parts: &PromptParts) -> Result<Vec<u32>, ApiError> {
    render(app, parts, &parts.conversation.to_json())
}

fn render(app: &Shared, parts: &PromptParts, messages: &Value) -> Result<Vec<u32>, ApiError> {
    let Some(template) = &app.parts.chat_template else {
        return Err(ApiError::NoTemplate { model: app.parts.engine.info().name.clone() });
    };
    let input = ChatInput {
        messages,
        tools: parts.tools.as_ref(),
        add_generation_prompt: match parts.ending {
            PromptEnding::GenerationPrompt => Continuation::AssistantTurn,
            PromptEnding::Closed => Continuation::Nothing,
            PromptEnding::FinalMessageOpen => Continuation::FinalMessage,
        },
        kwargs: &parts.template_arguments,
    };
    let text = template.render(&input).map_err(|error| ApiError::Template { reason: error.to_string() })?;
    // The template writes the special tokens itself.
    let refused = |error: models::ModelError| ApiError::Tokenizer { param: "messages", reason: error.to_string() };
    app.parts.tokenizer.encode(&text, SpecialTokens::Skip).map_err(refused)
}

/// The conversation with as few of its oldest turns left out as makes the prompt fit, and that prompt. Where even
/// the last turn alone does not fit, that is returned, and refused with the others that are too long.
fn shortened(app: &Shared, parts: &PromptParts, tokens_max: usize) -> Result<(Conversation, Vec<u32>), ApiError> {
    let without = |num_turns: usize| -> Result<(Conversation, Vec<u32>), ApiError> {
        let conversation = parts.conversation.without_oldest_turns(num_turns);
        let tokens = render(app, parts, &conversation.to_json())?;
        Ok((conversation, tokens))
    };
    // Fewer turns make a shorter prompt, so the number can be found by halving: long conversations have many turns.
    let (mut too_few, mut enough) = (0, parts.conversation.num_droppable_turns());
    let mut found = without(enough)?;
    while enough - too_few > 1 {
        let middle = too_few.midpoint(enough);
        let candidate = without(middle)?;
        if candidate.1.len() <= tokens_max {
            enough = middle;
            found = candidate;
        } else {
            too_few = middle;
        }
    }
    Ok(found)
}

/// What a prompt and its answer have to fit.
#[derive(Debug, Clone, Copy)]
struct Context {
    limit: usize,
    param: &'static str,
}

fn fit(tokens: Vec<u32>, answer_len: AnswerLen, context: Context) -> Result<PreparedPrompt, ApiError> {
    let room = context.limit.saturating_sub(tokens.len());
    let (max_tokens, needed) = match answer_len {
        AnswerLen::Given(max_tokens) => (max_tokens, max_tokens),
        AnswerLen::Default(at_most) => (room.min(at_most), 1),
    };
    if tokens.len().saturating_add(needed) > context.limit {
        let Context { limit, param } = context;
        return Err(ApiError::ContextLength { param, prompt_tokens: tokens.len(), max_tokens: needed, limit });
    }
    Ok(PreparedPrompt { tokens, max_tokens })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context = Context { limit: 10, param: "prompt" };

    #[test]
    fn a_given_length_must_fit_and_a_default_adapts() {
        let max_tokens = |num_tokens: usize, answer_len| {
            fit(vec![0; num_tokens], answer_len, CONTEXT).map(|prompt| prompt.max_tokens).ok()
        };
        assert_eq!(max_tokens(6, AnswerLen::Given(4)), Some(4));
        assert_eq!(max_tokens(6, AnswerLen::Given(5)), None);
        assert_eq!(max_tokens(10, AnswerLen::Given(0)), Some(0));
        assert_eq!(max_tokens(11, AnswerLen::Given(0)), None);
        assert_eq!(max_tokens(6, AnswerLen::Given(usize::MAX)), None);
        assert_eq!(max_tokens(6, AnswerLen::Default(16)), Some(4));
        assert_eq!(max_tokens(6, AnswerLen::Default(2)), Some(2));
        assert_eq!(max_tokens(6, AnswerLen::Default(usize::MAX)), Some(4));
        assert_eq!(max_tokens(10, AnswerLen::Default(16)), None);
    }
}
