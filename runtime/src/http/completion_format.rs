//! The shape of text completions, which may repeat the prompt.

use std::sync::Arc;

use models::{TokenLogprob, Tokenizer};
use serde_json::{Value, json};

use super::answer::{AnswerFormat, Envelope, Opening, WholeChoice, entry, reason_text};
use super::assembler::TextDelta;
use super::chat_format::LogprobReport;
use super::logprobs::CompletionLogprobs;
use crate::engine::FinishReason;

/// A prompt that the answer repeats.
#[derive(Debug)]
pub struct EchoedPrompt {
    /// Its text.
    pub text: String,
    /// Its tokens and the character of the text at which each begins.
    pub tokens: Vec<(u32, usize)>,
}

/// The answer to a text completion request.
pub struct CompletionFormat {
    /// What the objects share.
    pub envelope: Envelope,
    /// To spell tokens.
    pub tokenizer: Arc<Tokenizer>,
    /// Whether log-probabilities are shown.
    pub logprobs: LogprobReport,
    /// Choices for each prompt: choice `i` belongs to prompt `i / choices_per_prompt`.
    pub choices_per_prompt: usize,
    /// The prompts, when they are repeated; empty when not.
    pub echoed: Vec<EchoedPrompt>,
}

impl CompletionFormat {
    fn echoed(&self, index: usize) -> Option<&EchoedPrompt> {
        self.echoed.get(index / self.choices_per_prompt.max(1))
    }

    /// Characters before the generated text.
    fn base_offset(&self, index: usize) -> usize {
        self.echoed(index).map_or(0, |prompt| prompt.text.chars().count())
    }

    fn push_prompt(&self, logprobs: &mut CompletionLogprobs, prompt: &EchoedPrompt, opening: &Opening) {
        let known: &[Option<TokenLogprob>] = opening.prompt_logprobs.as_deref().unwrap_or_default();
        for (place, &(token, offset)) in prompt.tokens.iter().enumerate() {
            let logprob = known.get(place).and_then(Option::as_ref);
            logprobs.push_prompt(&self.tokenizer, token, logprob, offset);
        }
    }

    fn push_answer(&self, logprobs: &mut CompletionLogprobs, index: usize, delta: &TextDelta) {
        let base_offset = self.base_offset(index);
        for token in &delta.tokens {
            logprobs.push(&self.tokenizer, &token.logprob, base_offset + token.text_offset);
        }
    }

    fn finished(&self, logprobs: CompletionLogprobs) -> Value {
        match self.logprobs {
            LogprobReport::Included => logprobs.into_json(),
            LogprobReport::Omitted => Value::Null,
        }
    }
}

impl AnswerFormat for CompletionFormat {
    fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    fn whole_object(&self) -> &'static str {
        "text_completion"
    }

    fn event_object(&self) -> &'static str {
        "text_completion"
    }

    fn opening(&self, index: usize, opening: &Opening) -> Option<Value> {
        let prompt = self.echoed(index)?;
        let mut logprobs = CompletionLogprobs::default();
        self.push_prompt(&mut logprobs, prompt, opening);
        let logprobs = self.finished(logprobs);
        Some(entry(index, [("text", json!(prompt.text)), ("logprobs", logprobs), ("finish_reason", Value::Null)]))
    }

    fn delta(&self, index: usize, delta: &TextDelta) -> Value {
        let mut logprobs = CompletionLogprobs::default();
        self.push_answer(&mut logprobs, index, delta);
        let logprobs = self.finished(logprobs);
        entry(index, [("text", json!(delta.text)), ("logprobs", logprobs), ("finish_reason", Value::Null)])
    }

    fn end(&self, index: usize, reason: FinishReason) -> Value {
        let reason = json!(reason_text(reason));
        entry(index, [("text", json!("")), ("logprobs", Value::Null), ("finish_reason", reason)])
    }

    fn whole(&self, index: usize, choice: &WholeChoice) -> Value {
        let mut logprobs = CompletionLogprobs::default();
        let mut text = String::new();
        if let Some(prompt) = self.echoed(index) {
            text.push_str(&prompt.text);
            self.push_prompt(&mut logprobs, prompt, &choice.opening);
        }
        text.push_str(&choice.text.text);
        self.push_answer(&mut logprobs, index, &choice.text);
        let reason = json!(choice.reason.map(reason_text));
        entry(index, [("text", json!(text)), ("logprobs", self.finished(logprobs)), ("finish_reason", reason)])
    }
}
