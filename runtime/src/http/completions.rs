//! Handlers of the generating routes: `/v1/chat/completions` and `/v1/completions`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use models::{SpecialText, TextStart};

use super::access_log::RequestRecord;
use super::answer::{Envelope, answer};
use super::auth::Caller;
use super::body;
use super::chat_format::{ChatFormat, LogprobReport};
use super::chat_memory::ChatMemory;
use super::completion_format::{CompletionFormat, EchoedPrompt};
use super::completion_request::{CompletionRequest, Echo, PromptInput};
use super::error::ApiError;
use super::preparation::{self, PreparedPrompt, on_body};
use super::state::Shared;
use super::submission::{Job, submit};
use crate::engine::PromptLogprobs;

/// Tells how many messages were left out under `"truncation": "oldest_turns"`.
const DROPPED_HEADER: HeaderName = HeaderName::from_static("x-memos-dropped-messages");

/// Tells how many memories the prompt carries.
const RECALLED_HEADER: HeaderName = HeaderName::from_static("x-memos-recalled");

/// `POST /v1/chat/completions`
pub async fn chat_completions(
    State(app): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Extension(record): Extension<RequestRecord>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let bytes = body::read(&head.headers, body, app.parts.limits.body).await?;
    let identity = caller.clone();
    let prepared = on_body(&app, bytes, move |app, fields| preparation::chat(app, &identity, fields)).await?;
    let options = &prepared.request.options;
    let job = Job {
        prompts: vec![prepared.prompt],
        options,
        num_logprobs: prepared.request.num_logprobs,
        prompt_logprobs: PromptLogprobs::Skip,
    };
    let choices = submit(&app, &caller, &record, job).await?;
    let format = ChatFormat {
        envelope: envelope(&app, "chatcmpl"),
        tokenizer: Arc::clone(&app.parts.tokenizer),
        logprobs: report(prepared.request.num_logprobs),
    };
    let num_recalled = prepared.memory.as_ref().map(ChatMemory::num_recalled);
    let memory = prepared.memory.map(|memory| memory.submitted(&app, &format.envelope.id));
    let mut response = answer(choices, format, memory, options.delivery, app.parts.limits.keep_alive).await?;
    if let Some(num_recalled) = num_recalled {
        response.headers_mut().insert(RECALLED_HEADER, HeaderValue::from(num_recalled));
    }
    if prepared.num_dropped_messages > 0 {
        response.headers_mut().insert(DROPPED_HEADER, HeaderValue::from(prepared.num_dropped_messages));
    }
    Ok(response)
}

/// `POST /v1/completions`
pub async fn completions(
    State(app): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Extension(record): Extension<RequestRecord>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let bytes = body::read(&head.headers, body, app.parts.limits.body).await?;
    let prepare = |app: &Shared, fields| {
        let (request, prompts) = preparation::completion(app, fields)?;
        let echoed = echoed(app, &request, &prompts)?;
        Ok((request, prompts, echoed))
    };
    let (request, prompts, echoed) = on_body(&app, bytes, prepare).await?;
    let prompt_logprobs = match (request.echo, request.num_logprobs) {
        (Echo::Prompt, Some(num_top)) => PromptLogprobs::Return { num_top },
        _ => PromptLogprobs::Skip,
    };
    let options = &request.options;
    let job = Job { prompts, options, num_logprobs: request.num_logprobs, prompt_logprobs };
    let choices = submit(&app, &caller, &record, job).await?;
    let format = CompletionFormat {
        envelope: envelope(&app, "cmpl"),
        tokenizer: Arc::clone(&app.parts.tokenizer),
        logprobs: report(request.num_logprobs),
        choices_per_prompt: options.num_choices,
        echoed,
    };
    answer(choices, format, None, options.delivery, app.parts.limits.keep_alive).await
}

/// The prompts as the answer repeats them: a text as the client sent it, tokens decoded.
fn echoed(
    app: &Shared,
    request: &CompletionRequest,
    prompts: &[PreparedPrompt],
) -> Result<Vec<EchoedPrompt>, ApiError> {
    if request.echo == Echo::Nothing {
        return Ok(Vec::new());
    }
    let echo = |(input, prompt): (&PromptInput, &PreparedPrompt)| {
        let mut decoder = app.parts.tokenizer.decode_stream(SpecialText::Skip, TextStart::Beginning);
        let mut text = String::new();
        let mut num_chars = 0;
        let mut tokens = Vec::with_capacity(prompt.tokens.len());
        for &token in &prompt.tokens {
            tokens.push((token, num_chars));
            let piece = decoder.push(token).unwrap_or_default();
            num_chars += piece.chars().count();
            text.push_str(&piece);
        }
        text.push_str(&decoder.finish().unwrap_or_default());
        // A text that was cut to its last tokens is not the client's any more.
        if let (PromptInput::Text(sent), None) = (input, request.prompt_tokens_max) {
            text.clone_from(sent);
        }
        EchoedPrompt { text, tokens }
    };
    Ok(request.prompts.iter().zip(prompts).map(echo).collect())
}

fn report(num_logprobs: Option<usize>) -> LogprobReport {
    if num_logprobs.is_some() { LogprobReport::Included } else { LogprobReport::Omitted }
}

fn envelope(app: &Shared, prefix: &str) -> Envelope {
    let info = app.parts.engine.info();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&info.fingerprint);
    hasher.update(info.numerics_id.as_bytes());
    Envelope {
        id: app.new_id(prefix),
        created_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        model: info.name.clone(),
        fingerprint: format!("fp_{}", &hasher.finalize().to_hex()[..10]),
    }
}
