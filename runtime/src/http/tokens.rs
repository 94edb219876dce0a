//! Handlers of `/tokenize` and `/detokenize`, in vLLM's shape.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use models::SpecialText;
use serde_json::{Value, json};

use super::body;
use super::chat_request::PromptParts;
use super::completion_request::{read_special_tokens, read_tokens};
use super::error::ApiError;
use super::fields::{Fields, wrong_type};
use super::preparation::{conversation_tokens, on_body, text_tokens};
use super::state::Shared;

/// `POST /tokenize`
pub async fn tokenize(State(app): State<Arc<Shared>>, request: Request) -> Result<Json<Value>, ApiError> {
    let (head, body) = request.into_parts();
    let bytes = body::read(&head.headers, body, app.parts.limits.body).await?;
    on_body(&app, bytes, tokenize_fields).await.map(Json)
}

/// `POST /detokenize`
pub async fn detokenize(State(app): State<Arc<Shared>>, request: Request) -> Result<Json<Value>, ApiError> {
    let (head, body) = request.into_parts();
    let bytes = body::read(&head.headers, body, app.parts.limits.body).await?;
    on_body(&app, bytes, detokenize_fields).await.map(Json)
}

/// What is tokenised.
enum Input {
    Text(String),
    Conversation(PromptParts),
}

fn tokenize_fields(app: &Shared, mut body: Fields) -> Result<Value, ApiError> {
    app.check_model(body.text("model")?.as_deref())?;
    let with_strings = body.flag("return_token_strs")?.unwrap_or(false);
    let special_tokens = read_special_tokens(&mut body)?;
    let input = match body.text("prompt")? {
        Some(text) => Input::Text(text),
        None => Input::Conversation(PromptParts::read(&mut body)?),
    };
    body.finish(&[])?;
    let tokens = match &input {
        Input::Text(text) => text_tokens(app, text, special_tokens)?,
        Input::Conversation(parts) => conversation_tokens(app, parts)?,
    };
    let mut answer = json!({
        "count": tokens.len(),
        "max_model_len": app.parts.engine.info().max_context,
        "tokens": tokens,
    });
    if with_strings {
        let text = |&token: &u32| String::from_utf8_lossy(&app.parts.tokenizer.token_bytes(token)).into_owned();
        answer["token_strs"] = tokens.iter().map(text).collect();
    }
    Ok(answer)
}

fn detokenize_fields(app: &Shared, mut body: Fields) -> Result<Value, ApiError> {
    app.check_model(body.text("model")?.as_deref())?;
    let list = match body.require("tokens")? {
        Value::Array(list) => list,
        other => return Err(wrong_type("tokens".to_owned(), "a list of token ids", &other)),
    };
    body.finish(&[])?;
    let tokens = read_tokens("tokens", &list, app.parts.engine.info().vocab_size)?;
    Ok(json!({"prompt": app.parts.tokenizer.decode(&tokens, SpecialText::Keep)}))
}
