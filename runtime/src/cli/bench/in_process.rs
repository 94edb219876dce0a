//! Requests to an engine in this process, with the time of every token: no HTTP, no tokenizer, no noise from them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::future::try_join_all;
use models::SamplingParams;
use scheduler::TenantId;

use crate::engine::{EngineEvent, EngineHandle, GenerateRequest, Generation, PromptLogprobs, Tenant};

/// Salt and number of the tenant that all requests are from.
pub(super) const BENCH_TENANT: ([u8; 32], TenantId) = ([0; 32], TenantId(0));

/// When the tokens of one sequence arrived, counted from its submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenTimes {
    /// One for each generated token; never empty.
    pub tokens: Vec<Duration>,
    /// Prompt tokens that came from the prefix cache.
    pub cached_tokens: usize,
}

impl TokenTimes {
    /// Time to the first token.
    pub fn first(&self) -> Duration {
        self.tokens[0]
    }

    /// Gaps between neighbouring tokens: one decode step each.
    pub fn gaps(&self) -> impl Iterator<Item = Duration> {
        self.tokens.windows(2).map(|pair| pair[1] - pair[0])
    }
}

/// Generates exactly `max_tokens` tokens after each prompt, greedily; the prompts are submitted together.
///
/// # Errors
/// Whatever the engine refuses or fails at.
pub(super) async fn generate(
    engine: &EngineHandle,
    prompts: Vec<Vec<u32>>,
    max_tokens: usize,
) -> anyhow::Result<Vec<TokenTimes>> {
    let requests = prompts.into_iter().map(|prompt| request(prompt, max_tokens)).collect();
    let start = Instant::now();
    let generations = engine.submit(requests).await?;
    try_join_all(generations.into_iter().map(|generation| follow(generation, start))).await
}

/// The same for one prompt.
///
/// # Errors
/// Whatever the engine refuses or fails at.
pub(super) async fn generate_one(
    engine: &EngineHandle,
    prompt: &[u32],
    max_tokens: usize,
) -> anyhow::Result<TokenTimes> {
    generate(engine, vec![prompt.to_vec()], max_tokens).await?.pop().context("the engine lost the request")
}

async fn follow(mut generation: Generation, start: Instant) -> anyhow::Result<TokenTimes> {
    let mut times = TokenTimes { tokens: Vec::new(), cached_tokens: 0 };
    while let Some(event) = generation.next().await {
        match event {
            EngineEvent::Prompt { cached, .. } => times.cached_tokens = cached.num_tokens(),
            EngineEvent::Token { .. } => times.tokens.push(start.elapsed()),
            EngineEvent::Finished { .. } => {}
            EngineEvent::Failed(error) => return Err(error.into()),
        }
    }
    if times.tokens.is_empty() {
        bail!("the engine finished without a token");
    }
    Ok(times)
}

fn request(prompt: Vec<u32>, max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        tenant: Tenant { name: Arc::from("bench"), id: BENCH_TENANT.1, salt: BENCH_TENANT.0 },
        prompt,
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        max_tokens,
        // Nothing ends a generation early: random weights may sample an end-of-sequence token at any time.
        stop_tokens: Vec::new(),
        num_logprobs: None,
        prompt_logprobs: PromptLogprobs::Skip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gaps_are_those_between_tokens() {
        let ms = Duration::from_millis;
        let times = TokenTimes { tokens: vec![ms(90), ms(100), ms(115)], cached_tokens: 0 };
        assert_eq!(times.first(), ms(90));
        assert_eq!(times.gaps().collect::<Vec<_>>(), [ms(10), ms(15)]);
    }
}
