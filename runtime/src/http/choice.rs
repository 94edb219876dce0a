//! One choice while it is generated: engine events in, deltas of text out.

use std::time::Instant;

use models::{DecodeStream, TokenLogprob};

use super::assembler::{Assembled, TextAssembler, TextDelta};
use super::error::ApiError;
use crate::engine::{Cached, EngineEvent, FinishReason, Generation};

/// What happens to a choice, in this order: `Started`, `Token`s and `Delta`s, `Finished`; or `Failed` at any point.
#[derive(Debug)]
pub enum ChoiceEvent {
    /// The prompt has been computed.
    Started {
        /// Prompt tokens that came from the cache.
        cached: Cached,
        /// Log-probabilities of the prompt, when asked for.
        prompt_logprobs: Option<Vec<Option<TokenLogprob>>>,
    },
    /// A token was generated; its text may be held back.
    Token {
        /// When it arrived here.
        at: Instant,
    },
    /// More of the answer.
    Delta(TextDelta),
    /// The end of an answer that went well.
    Finished(FinishReason),
    /// The end of one that did not.
    Failed(ApiError),
}

/// A generation, its decoder and its stop strings.
pub struct Choice {
    /// `None` once it is over; dropping it tells the engine to stop.
    generation: Option<Generation>,
    decoder: DecodeStream,
    assembler: TextAssembler,
    stop_tokens: Vec<u32>,
    /// Events that follow from the last engine event and were not taken yet, the next one last.
    ready: Vec<ChoiceEvent>,
}

impl Choice {
    /// A choice that has just been submitted. `stop_tokens` are those that the engine was told.
    pub fn new(generation: Generation, decoder: DecodeStream, stops: Vec<String>, stop_tokens: Vec<u32>) -> Self {
        let assembler = TextAssembler::new(stops);
        Self { generation: Some(generation), decoder, assembler, stop_tokens, ready: Vec::new() }
    }

    /// The next event; `None` after the last. Nothing is read from the engine before it is asked for, and dropping
    /// the future loses nothing.
    pub async fn next(&mut self) -> Option<ChoiceEvent> {
        loop {
            if let Some(event) = self.ready.pop() {
                return Some(event);
            }
            let event = self.generation.as_mut()?.next().await?;
            self.take(event);
        }
    }

    fn take(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Prompt { cached, logprobs } => {
                self.ready.push(ChoiceEvent::Started { cached, prompt_logprobs: logprobs });
            }
            EngineEvent::Token { token, logprob } => self.take_token(token, logprob),
            EngineEvent::Finished { reason } => {
                let rest = self.decoder.finish().unwrap_or_default();
                let assembled = self.assembler.finish(&rest);
                self.end(assembled, reason);
            }
            EngineEvent::Failed(error) => {
                self.generation = None;
                self.ready.push(ChoiceEvent::Failed(error.into()));
            }
        }
    }

    fn take_token(&mut self, token: u32, logprob: Option<TokenLogprob>) {
        let at = Instant::now();
        // The token that ends the answer is counted and has no part in its text.
        if !self.stop_tokens.contains(&token) {
            let text = self.decoder.push(token).unwrap_or_default();
            match self.assembler.push(&text, logprob) {
                Assembled::Delta(delta) if delta.is_empty() => {}
                Assembled::Delta(delta) => self.ready.push(ChoiceEvent::Delta(delta)),
                stopped @ Assembled::Stopped(_) => self.end(stopped, FinishReason::Stop),
            }
        }
        self.ready.push(ChoiceEvent::Token { at });
    }

    fn end(&mut self, assembled: Assembled, reason: FinishReason) {
        self.generation = None;
        let (delta, reason) = match assembled {
            Assembled::Delta(delta) => (delta, reason),
            Assembled::Stopped(delta) => (delta, FinishReason::Stop),
        };
        self.ready.push(ChoiceEvent::Finished(reason));
        if !delta.is_empty() {
            self.ready.push(ChoiceEvent::Delta(delta));
        }
    }
}
