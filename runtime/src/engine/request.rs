//! What crosses the line between the asynchronous world and the engine thread: requests in, events out.

use std::sync::Arc;

use models::{SamplingParams, TokenLogprob};
use scheduler::{Admission, Loaded, TenantId};

/// Whom a request is accounted to: the identity is fixed by the API key, never by the request's body.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Name as it stands in the key file; `local` when the server runs without keys.
    pub name: Arc<str>,
    /// Number for the scheduler's fair queueing; the same name has the same number while the server runs.
    pub id: TenantId,
    /// Secret that goes into every KV key, so that no tenant can hit or probe another one's cache.
    pub salt: [u8; 32],
}

/// Whether log-probabilities of the prompt's own tokens are wanted (OpenAI's `echo` with `logprobs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptLogprobs {
    /// Not wanted: the prompt may come from the prefix cache.
    Skip,
    /// Wanted with this many alternatives a token: every row is computed, the prefix cache is bypassed.
    Return {
        /// Alternatives a token, 0 to 20.
        num_top: usize,
    },
}

/// One sequence to generate. A request with `n` choices submits `n` of these; the prompt is computed once.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    /// Who pays and whose cache is used.
    pub tenant: Tenant,
    /// Prompt token ids, not empty.
    pub prompt: Vec<u32>,
    /// How the next token is chosen.
    pub sampling: SamplingParams,
    /// Upper bound of generated tokens; 0 computes the prompt only.
    pub max_tokens: usize,
    /// Token ids that end the generation (end-of-sequence); empty with `ignore_eos`.
    pub stop_tokens: Vec<u32>,
    /// Alternatives reported with each generated token (0 to 20); `None`: no log-probabilities at all.
    pub num_logprobs: Option<usize>,
    /// Log-probabilities of the prompt.
    pub prompt_logprobs: PromptLogprobs,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token was sampled. It is delivered as the last `Token` event.
    Stop,
    /// `max_tokens` was reached, or the context is full.
    Length,
}

/// What of the cache is forgotten or moved, for benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// The device forgets what no running sequence uses; the lower tiers stay.
    ForgetDevice,
    /// Device and host memory forget; the disk stays.
    ForgetMemory,
    /// The device gives up what no running sequence uses, as if others needed its place.
    SwapOut,
}

/// Prompt tokens whose KV was there before the request, by the tier that they came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cached {
    /// From the device pool.
    pub device_tokens: usize,
    /// From host memory.
    pub host_tokens: usize,
    /// From disk.
    pub disk_tokens: usize,
}

impl Cached {
    pub(super) fn of(admission: Admission, loaded: Loaded) -> Self {
        let Loaded { host_tokens, disk_tokens } = loaded;
        Self { device_tokens: admission.cached_tokens - host_tokens - disk_tokens, host_tokens, disk_tokens }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            device_tokens: self.device_tokens + other.device_tokens,
            host_tokens: self.host_tokens + other.host_tokens,
            disk_tokens: self.disk_tokens + other.disk_tokens,
        }
    }

    /// From all tiers together.
    pub fn num_tokens(&self) -> usize {
        self.device_tokens + self.host_tokens + self.disk_tokens
    }
}

/// What the engine tells about one sequence, in this order: `Prompt`, then `Token`s, then `Finished`; or `Failed` at any point.
#[derive(Debug, Clone)]
pub enum EngineEvent {
    /// The prompt has been computed (sent just before the first token).
    Prompt {
        /// Prompt tokens whose KV came from the cache.
        cached: Cached,
        /// One entry a prompt token, `None` for the first; present when asked for.
        logprobs: Option<Vec<Option<TokenLogprob>>>,
    },
    /// One more token.
    Token {
        /// Its id.
        token: u32,
        /// Present when asked for; computed from the raw logits.
        logprob: Option<TokenLogprob>,
    },
    /// The last event of a generation that went well.
    Finished {
        /// Why it ended.
        reason: FinishReason,
    },
    /// The last event of a generation that did not.
    Failed(EngineError),
}

/// Why the engine refused or gave up a request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// All queue places are taken; HTTP answers 429 with `Retry-After`.
    #[error("the waiting queue is full ({limit} requests); try again in {retry_after_s} s")]
    QueueFull {
        /// The limit that was reached.
        limit: usize,
        /// Estimate from the current rate of completion.
        retry_after_s: u64,
    },
    /// The request can never fit.
    #[error("the prompt has {prompt_tokens} tokens and asks for {max_tokens} more, but {limit} fit")]
    TooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens asked for.
        max_tokens: usize,
        /// What fits: the context length or the KV pool, whichever is smaller.
        limit: usize,
    },
    /// A prompt without tokens.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// A prompt token, stop token or biased token that the vocabulary does not have.
    #[error("token id {token} is outside the vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// The server is going down and takes no new work.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The forward pass or the sampler failed; nothing of the step was kept.
    #[error("the step failed: {reason}")]
    StepFailed {
        /// What the lower layer said.
        reason: String,
    },
    /// The engine thread is gone (it panicked): the process should be restarted.
    #[error("the engine has stopped")]
    Stopped,
}
