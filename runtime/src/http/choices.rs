//! All choices of one request as one sequence of events, counted on the way and ended by a time limit or a shutdown.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::stream::{BoxStream, SelectAll, StreamExt};

use super::access_log::RequestRecord;
use super::choice::{Choice, ChoiceEvent};
use super::drain::Phase;
use super::error::ApiError;
use super::state::Shared;
use super::usage::Usage;
use crate::engine::{Cached, EngineError};

/// When a request is given up.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Option<(Instant, Duration)>,
}

impl Deadline {
    /// The earlier of the server's and the request's own limit, from the arrival of the request.
    pub fn new(started: Instant, server: Option<Duration>, request: Option<Duration>) -> Self {
        let limit = match (server, request) {
            (Some(server), Some(request)) => Some(server.min(request)),
            (server, request) => server.or(request),
        };
        // A limit beyond the clock's range is no limit.
        Self { at: limit.and_then(|limit| Some((started.checked_add(limit)?, limit))) }
    }

    /// Waits until the deadline; for ever when there is none.
    pub async fn passed(self) -> ApiError {
        match self.at {
            None => std::future::pending().await,
            Some((at, limit)) => {
                tokio::time::sleep_until(at.into()).await;
                ApiError::Deadline { limit_ms: limit.as_millis() }
            }
        }
    }
}

/// An event and the choice it belongs to.
pub type Indexed = (usize, ChoiceEvent);

/// The choices of a request: prompt 0 with its `n` choices, then prompt 1 with its, and so on.
pub struct Choices {
    streams: SelectAll<BoxStream<'static, Indexed>>,
    deadline: Deadline,
    app: Arc<Shared>,
    record: RequestRecord,
    prompts: Vec<PromptCount>,
    last_token: Vec<Option<Instant>>,
    completion_tokens: usize,
    /// Choices that have not ended.
    num_open: usize,
    first_token: FirstToken,
}

/// Whether the request's first token was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstToken {
    Awaited,
    Seen,
}

/// What is known about one prompt.
#[derive(Debug, Clone, Copy)]
struct PromptCount {
    num_tokens: usize,
    /// Least of its choices: the later ones find what the first one computed.
    cached: Option<Cached>,
}

impl Choices {
    /// Merges the choices of prompts with these lengths; there are equally many for each prompt.
    pub fn new(
        app: Arc<Shared>,
        record: RequestRecord,
        deadline: Deadline,
        prompt_lens: &[usize],
        choices: Vec<Choice>,
    ) -> Self {
        let prompts = prompt_lens.iter().map(|&num_tokens| PromptCount { num_tokens, cached: None }).collect();
        let last_token = vec![None; choices.len()];
        let streams = choices.into_iter().enumerate().map(|(index, choice)| {
            let next = move |mut choice: Choice| async move {
                let event = choice.next().await?;
                Some(((index, event), choice))
            };
            futures::stream::unfold(choice, next).boxed()
        });
        let streams = futures::stream::select_all(streams);
        let num_open = last_token.len();
        let first_token = FirstToken::Awaited;
        Self { streams, deadline, app, record, prompts, last_token, completion_tokens: 0, num_open, first_token }
    }

    /// Number of choices.
    pub fn num_choices(&self) -> usize {
        self.last_token.len()
    }

    /// The next event of any choice, `Token`s excepted: they are only counted. After a `Failed` nothing follows, and
    /// the other choices are cancelled.
    pub async fn next(&mut self) -> Option<Indexed> {
        while self.num_open > 0 {
            let event = tokio::select! {
                biased;
                error = self.deadline.passed() => (0, ChoiceEvent::Failed(error)),
                () = self.app.drain.reached(Phase::Cancelling) => {
                    (0, ChoiceEvent::Failed(EngineError::ShuttingDown.into()))
                }
                event = self.streams.next() => event?,
            };
            match event {
                (index, ChoiceEvent::Token { at }) => self.count_token(index, at),
                (index, ChoiceEvent::Started { cached, prompt_logprobs }) => {
                    self.count_prompt(index, cached);
                    return Some((index, ChoiceEvent::Started { cached, prompt_logprobs }));
                }
                (index, ChoiceEvent::Failed(error)) => {
                    self.streams.clear();
                    self.num_open = 0;
                    return Some((index, ChoiceEvent::Failed(error)));
                }
                (index, ChoiceEvent::Finished(reason)) => {
                    self.num_open -= 1;
                    return Some((index, ChoiceEvent::Finished(reason)));
                }
                (index, ChoiceEvent::Delta(delta)) => return Some((index, ChoiceEvent::Delta(delta))),
            }
        }
        None
    }

    /// Counts so far.
    pub fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompts.iter().map(|prompt| prompt.num_tokens).sum(),
            completion_tokens: self.completion_tokens,
            cached: self.prompts.iter().filter_map(|prompt| prompt.cached).fold(Cached::default(), Cached::plus),
        }
    }

    fn count_prompt(&mut self, index: usize, cached: Cached) {
        let choices_per_prompt = self.last_token.len() / self.prompts.len().max(1);
        let Some(prompt) = self.prompts.get_mut(index / choices_per_prompt.max(1)) else { return };
        let cached_tokens = cached.num_tokens();
        if prompt.cached.is_none() {
            self.record.add_prompt(prompt.num_tokens, cached_tokens);
            self.app.metrics.prompt_tokens.fetch_add(prompt.num_tokens as u64, Ordering::Relaxed);
            self.app.metrics.cached_tokens.fetch_add(cached_tokens as u64, Ordering::Relaxed);
        }
        let least = prompt.cached.filter(|least| least.num_tokens() <= cached_tokens);
        prompt.cached = Some(least.unwrap_or(cached));
    }

    fn count_token(&mut self, index: usize, at: Instant) {
        self.completion_tokens += 1;
        self.record.add_token();
        self.app.metrics.completion_tokens.fetch_add(1, Ordering::Relaxed);
        match self.last_token[index].replace(at) {
            Some(before) => self.app.metrics.observe_inter_token(at.saturating_duration_since(before)),
            None if self.first_token == FirstToken::Awaited => {
                let waited = at.saturating_duration_since(self.record.started());
                self.app.metrics.observe_first_token(waited);
                self.first_token = FirstToken::Seen;
            }
            None => {}
        }
    }
}
