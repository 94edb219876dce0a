//! `/v1/embeddings` in OpenAI's shape, from the embedder that memories are searched with.

use axum::response::{IntoResponse, Response};
use memory::memories::{MemoriesError, Purpose};
use models::SpecialTokens;
use serde::Serialize;
use serde_json::{Value, json};

use super::base64;
use super::call::Call;
use super::values::choice;
use crate::http::error::ApiError;
use crate::http::fields::{describe, quoted, wrong_type};

/// Most texts in one request, as in OpenAI's API.
const NUM_INPUTS_MAX: usize = 2_048;
/// Texts that are embedded at once.
const NUM_PER_EMBEDDING: usize = 32;

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Float,
    Base64,
}

/// One vector, as numbers or as the base64 of little-endian f32.
#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    Text(String),
}

#[derive(Serialize)]
struct Entry {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
struct Answer {
    object: &'static str,
    data: Vec<Entry>,
    model: String,
    usage: Value,
}

/// `POST /v1/embeddings`
pub fn create(mut call: Call) -> Result<Response, ApiError> {
    let input = call.fields.require("input")?;
    let texts = read_texts(input)?;
    let model = call.fields.text("model")?;
    let encodings = [("float", Encoding::Float), ("base64", Encoding::Base64)];
    let encoding = choice(&mut call.fields, "encoding_format", &encodings)?.unwrap_or(Encoding::Float);
    let purposes = [("query", Purpose::Query), ("passage", Purpose::Passage)];
    let purpose = choice(&mut call.fields, "input_type", &purposes)?.unwrap_or(Purpose::Passage);
    let dimensions = call.fields.count("dimensions", 1, i64::MAX as usize)?;
    // OpenAI's field for its own abuse monitoring.
    call.fields.text("user")?;
    call.finish()?;
    let embedder = call.app.parts.memories.embedder().ok_or(ApiError::NoEmbedder)?;
    let served = embedder.id().to_string();
    if let Some(model) = model.filter(|model| *model != served) {
        return Err(ApiError::UnknownModel { model: quoted(&model), served });
    }
    if let Some(dimensions) = dimensions.filter(|dimensions| *dimensions != embedder.dim()) {
        let (param, allowed) = ("dimensions".to_owned(), format!("{}, which this embedder has", embedder.dim()));
        return Err(ApiError::OutOfRange { param, allowed, got: dimensions.to_string() });
    }
    let mut data = Vec::with_capacity(texts.len());
    for batch in texts.chunks(NUM_PER_EMBEDDING) {
        let batch: Vec<&str> = batch.iter().map(String::as_str).collect();
        let failed = |error: memory::memories::EmbedError| {
            ApiError::from(MemoriesError::Embedder { embedder: served.clone(), reason: error.to_string() })
        };
        for vector in embedder.embed(&batch, purpose).map_err(failed)? {
            data.push(Entry { object: "embedding", index: data.len(), embedding: written(vector, encoding) });
        }
    }
    let num_tokens: usize = texts.iter().map(|text| count_tokens(&call, text)).sum();
    let usage = json!({"prompt_tokens": num_tokens, "total_tokens": num_tokens});
    Ok(axum::Json(Answer { object: "list", data, model: served, usage }).into_response())
}

fn read_texts(input: Value) -> Result<Vec<String>, ApiError> {
    let refused = |param: String, value: &Value| match value {
        Value::Number(_) | Value::Array(_) => ApiError::Unsupported {
            param,
            reason: "token ids belong to one tokenizer, which may not be the embedder's; send text",
        },
        other => wrong_type(param, "a string or a list of strings", other),
    };
    let list = match input {
        Value::String(text) => vec![Value::String(text)],
        Value::Array(list) => list,
        other => return Err(wrong_type("input".to_owned(), "a string or a list of strings", &other)),
    };
    if !(1..=NUM_INPUTS_MAX).contains(&list.len()) {
        let (param, allowed) = ("input".to_owned(), format!("a list of 1 to {NUM_INPUTS_MAX}"));
        return Err(ApiError::OutOfRange { param, allowed, got: describe(&Value::Array(list)) });
    }
    let read = |(index, value): (usize, Value)| match value {
        Value::String(text) if !text.is_empty() => Ok(text),
        Value::String(_) => {
            let (param, allowed) = (format!("input[{index}]"), "a text of at least one character".to_owned());
            Err(ApiError::OutOfRange { param, allowed, got: "\"\"".to_owned() })
        }
        other => Err(refused(format!("input[{index}]"), &other)),
    };
    list.into_iter().enumerate().map(read).collect()
}

fn written(vector: Vec<f32>, encoding: Encoding) -> Vector {
    match encoding {
        Encoding::Float => Vector::Numbers(vector),
        Encoding::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            Vector::Text(base64::encode(&bytes))
        }
    }
}

/// Tokens of a text as the served model counts them: an embedder says nothing about its own.
fn count_tokens(call: &Call, text: &str) -> usize {
    call.app.parts.tokenizer.encode(text, SpecialTokens::Skip).map_or(0, |tokens| tokens.len())
}
