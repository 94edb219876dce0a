//! Log-probabilities in the two shapes that OpenAI's API has for them.

use models::{TokenLogprob, Tokenizer};
use serde_json::{Map, Value, json};

use super::assembler::AnswerToken;

/// JSON knows no infinity; OpenAI sends this for a token that cannot be.
const LOGPROB_MIN: f32 = -9999.0;

/// How a token reads, and its bytes.
struct Spelling {
    text: String,
    bytes: Vec<u8>,
}

fn spelling(tokenizer: &Tokenizer, token: u32) -> Spelling {
    let bytes = tokenizer.token_bytes(token);
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text.to_owned(),
        // Several tokens may be parts of characters; as keys of a map they must differ.
        Err(_part_of_a_character) => {
            bytes.iter().fold("bytes:".to_owned(), |text, byte| format!("{text}\\x{byte:02x}"))
        }
    };
    Spelling { text, bytes }
}

fn number(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob.max(LOGPROB_MIN) } else { LOGPROB_MIN }
}

/// The `logprobs` object of a chat choice.
pub fn chat_logprobs(tokenizer: &Tokenizer, tokens: &[AnswerToken]) -> Value {
    let entry = |token: u32, logprob: f32| {
        let spelling = spelling(tokenizer, token);
        json!({"token": spelling.text, "logprob": number(logprob), "bytes": spelling.bytes})
    };
    let content: Vec<Value> = tokens
        .iter()
        .map(|token| {
            let mut object = entry(token.logprob.token, token.logprob.logprob);
            object["top_logprobs"] = token.logprob.top.iter().map(|&(token, logprob)| entry(token, logprob)).collect();
            object
        })
        .collect();
    json!({"content": content, "refusal": null})
}

/// The `logprobs` object of a text completion, filled token by token.
#[derive(Debug, Default)]
pub struct CompletionLogprobs {
    tokens: Vec<Value>,
    token_logprobs: Vec<Value>,
    top_logprobs: Vec<Value>,
    text_offset: Vec<Value>,
}

impl CompletionLogprobs {
    /// Adds a token of the prompt: the first one has no log-probability.
    pub fn push_prompt(&mut self, tokenizer: &Tokenizer, token: u32, logprob: Option<&TokenLogprob>, offset: usize) {
        match logprob {
            Some(logprob) => self.push(tokenizer, logprob, offset),
            None => {
                self.tokens.push(json!(spelling(tokenizer, token).text));
                self.token_logprobs.push(Value::Null);
                self.top_logprobs.push(Value::Null);
                self.text_offset.push(json!(offset));
            }
        }
    }

    /// Adds a token that begins at this character of the text. As OpenAI does, the alternatives include the token
    /// itself, so that there may be one more than was asked for.
    pub fn push(&mut self, tokenizer: &Tokenizer, logprob: &TokenLogprob, offset: usize) {
        let text = spelling(tokenizer, logprob.token).text;
        let mut top = Map::new();
        for &(token, alternative) in &logprob.top {
            top.insert(spelling(tokenizer, token).text, json!(number(alternative)));
        }
        top.insert(text.clone(), json!(number(logprob.logprob)));
        self.tokens.push(Value::String(text));
        self.token_logprobs.push(json!(number(logprob.logprob)));
        self.top_logprobs.push(Value::Object(top));
        self.text_offset.push(json!(offset));
    }

    /// The object.
    pub fn into_json(self) -> Value {
        json!({
            "tokens": self.tokens,
            "token_logprobs": self.token_logprobs,
            "top_logprobs": self.top_logprobs,
            "text_offset": self.text_offset,
        })
    }
}
