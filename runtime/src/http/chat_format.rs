//! The shape of chat answers.

use std::sync::Arc;

use models::Tokenizer;
use serde_json::{Value, json};

use super::answer::{AnswerFormat, Envelope, Opening, WholeChoice, entry, reason_text};
use super::assembler::{AnswerToken, TextDelta};
use super::logprobs::chat_logprobs;
use crate::engine::FinishReason;

/// Whether log-probabilities are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogprobReport {
    /// They are.
    Included,
    /// The field is `null`.
    Omitted,
}

/// The answer to a chat request.
pub struct ChatFormat {
    /// What the objects share.
    pub envelope: Envelope,
    /// To spell tokens.
    pub tokenizer: Arc<Tokenizer>,
    /// Whether log-probabilities are shown.
    pub logprobs: LogprobReport,
}

impl ChatFormat {
    fn logprobs(&self, tokens: &[AnswerToken]) -> Value {
        match self.logprobs {
            LogprobReport::Included => chat_logprobs(&self.tokenizer, tokens),
            LogprobReport::Omitted => Value::Null,
        }
    }
}

impl AnswerFormat for ChatFormat {
    fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    fn whole_object(&self) -> &'static str {
        "chat.completion"
    }

    fn event_object(&self) -> &'static str {
        "chat.completion.chunk"
    }

    fn opening(&self, index: usize, _opening: &Opening) -> Option<Value> {
        let delta = json!({"role": "assistant", "content": ""});
        Some(entry(index, [("delta", delta), ("logprobs", Value::Null), ("finish_reason", Value::Null)]))
    }

    fn delta(&self, index: usize, delta: &TextDelta) -> Value {
        let logprobs = self.logprobs(&delta.tokens);
        let delta = json!({"content": delta.text});
        entry(index, [("delta", delta), ("logprobs", logprobs), ("finish_reason", Value::Null)])
    }

    fn end(&self, index: usize, reason: FinishReason) -> Value {
        let reason = json!(reason_text(reason));
        entry(index, [("delta", json!({})), ("logprobs", Value::Null), ("finish_reason", reason)])
    }

    fn whole(&self, index: usize, choice: &WholeChoice) -> Value {
        let message = json!({"role": "assistant", "content": choice.text.text, "refusal": null});
        let logprobs = self.logprobs(&choice.text.tokens);
        let reason = json!(choice.reason.map(reason_text));
        entry(index, [("message", message), ("logprobs", logprobs), ("finish_reason", reason)])
    }
}
