//! What the scheduler refuses: a configuration that cannot work, and a sequence that cannot be taken.
//!
//! Two enums, because the two calls fail for unrelated reasons and each caller matches on all of its own.
use crate::ids::TenantId;

/// Why a [`crate::SchedulerConfig`] was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A limit that must be at least 1 is 0.
    #[error("{name} must be at least 1")]
    Zero {
        /// The field.
        name: &'static str,
    },
    /// Block ids are 32 bits wide, with one value left for the root of the prefix tree.
    #[error("num_blocks is {num_blocks}, more than the {max} that block ids can name")]
    TooManyBlocks {
        /// Blocks asked for.
        num_blocks: usize,
        /// The most that is possible.
        max: usize,
    },
    /// Every running sequence must be able to decode one token in each step.
    #[error("max_batch_tokens ({max_batch_tokens}) is less than max_running ({max_running})")]
    BatchBelowRunning {
        /// Tokens per step.
        max_batch_tokens: usize,
        /// Sequences per step.
        max_running: usize,
    },
}

/// Why a sequence was not taken. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// All tenants together have as many sequences waiting as allowed; try again later.
    #[error("{max_waiting} sequences are waiting already")]
    QueueFull {
        /// The limit.
        max_waiting: usize,
    },
    /// This tenant has as many sequences waiting as allowed; try again later.
    #[error("{tenant} has {max_waiting_per_tenant} sequences waiting already")]
    TenantQueueFull {
        /// Whose queue.
        tenant: TenantId,
        /// The limit.
        max_waiting_per_tenant: usize,
    },
    /// The sequence could not be finished even if it had the whole pool.
    #[error("prompt and new tokens need {needed_blocks} KV blocks, and there are {num_blocks}")]
    TooLong {
        /// Blocks for the prompt and `max_new_tokens`.
        needed_blocks: usize,
        /// Blocks that exist.
        num_blocks: usize,
    },
    /// There is no token to start from.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The caller's keys do not cover exactly the prompt's full blocks.
    #[error("{expected} full blocks need as many keys, got {got}")]
    WrongKeyCount {
        /// Full blocks in the prompt.
        expected: usize,
        /// Keys that came with it.
        got: usize,
    },
}
