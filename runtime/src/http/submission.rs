//! Hands prepared prompts to the engine: every prompt `n` times, all of them or none.

use std::sync::Arc;

use models::{SamplingParams, SpecialText, TextStart};

use super::access_log::RequestRecord;
use super::auth::Caller;
use super::choice::Choice;
use super::choices::{Choices, Deadline};
use super::error::ApiError;
use super::options::{EndOfSequence, GenerationOptions};
use super::preparation::PreparedPrompt;
use super::state::Shared;
use crate::engine::{EngineError, GenerateRequest, PromptLogprobs};

/// What one HTTP request asks of the engine.
pub struct Job<'a> {
    /// The prompts.
    pub prompts: Vec<PreparedPrompt>,
    /// How they are continued.
    pub options: &'a GenerationOptions,
    /// Alternatives reported with each generated token.
    pub num_logprobs: Option<usize>,
    /// Whether log-probabilities of the prompts are wanted.
    pub prompt_logprobs: PromptLogprobs,
}

/// Submits the job and returns its choices, in the order prompt by prompt.
///
/// # Errors
/// The queue is full, or the engine refuses a prompt; then nothing was submitted.
pub async fn submit(
    app: &Arc<Shared>,
    caller: &Caller,
    record: &RequestRecord,
    job: Job<'_>,
) -> Result<Choices, ApiError> {
    let options = job.options;
    let stop_tokens = stop_tokens(app, options);
    let prompt_lens: Vec<usize> = job.prompts.iter().map(|prompt| prompt.tokens.len()).collect();
    let mut requests = Vec::with_capacity(job.prompts.len() * options.num_choices);
    for prompt in job.prompts {
        for index in 0..options.num_choices {
            requests.push(GenerateRequest {
                tenant: caller.tenant.clone(),
                prompt: prompt.tokens.clone(),
                sampling: sampling_of_choice(&options.sampling, index),
                max_tokens: prompt.max_tokens,
                stop_tokens: stop_tokens.clone(),
                num_logprobs: job.num_logprobs,
                prompt_logprobs: job.prompt_logprobs,
            });
        }
    }
    let num_choices = requests.len();
    let deadline = Deadline::new(record.started(), app.parts.limits.request_timeout, options.timeout);
    let submitted = tokio::select! {
        submitted = app.parts.engine.submit(requests) => submitted,
        error = deadline.passed() => return Err(error),
    };
    let generations = submitted.map_err(|error| match error {
        // Waiting would not help: the request does not even fit an empty queue.
        EngineError::QueueFull { limit, .. } if num_choices > limit => ApiError::QueueTooSmall { num_choices, limit },
        error => error.into(),
    })?;
    let choices = generations
        .into_iter()
        .map(|generation| {
            let decoder = app.parts.tokenizer.decode_stream(SpecialText::Skip, TextStart::Continuation);
            Choice::new(generation, decoder, options.stops.clone(), stop_tokens.clone())
        })
        .collect();
    Ok(Choices::new(Arc::clone(app), record.clone(), deadline, &prompt_lens, choices))
}

fn stop_tokens(app: &Shared, options: &GenerationOptions) -> Vec<u32> {
    let mut stop_tokens = options.stop_tokens.clone();
    if options.end_of_sequence == EndOfSequence::Ends {
        stop_tokens.extend(&app.parts.generation_config.eos_token_ids);
    }
    stop_tokens
}

/// Choices of one seeded request must differ from each other and be the same again when it is repeated.
fn sampling_of_choice(sampling: &SamplingParams, index: usize) -> SamplingParams {
    let seed = sampling.seed.map(|seed| seed.wrapping_add(index as u64));
    SamplingParams { seed, ..sampling.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_have_their_own_seeds() {
        let seeded = SamplingParams { seed: Some(u64::MAX), ..SamplingParams::default() };
        let seeds: Vec<Option<u64>> = (0..3).map(|index| sampling_of_choice(&seeded, index).seed).collect();
        assert_eq!(seeds, [Some(u64::MAX), Some(0), Some(1)]);
        assert_eq!(sampling_of_choice(&SamplingParams::default(), 1).seed, None);
    }
}
