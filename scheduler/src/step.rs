//! A step as plain data: what the scheduler plans, and what the engine answers.
use crate::ids::SequenceId;
use crate::tiers::TransferPlan;

/// One step's work. Exactly one of [`crate::Scheduler::commit`] and [`crate::Scheduler::revert`] takes it back.
#[must_use = "a plan is committed or reverted"]
#[derive(Debug)]
pub struct StepPlan {
    /// Sequences with rows in this step: decodes first, oldest first; then prefills in the order they were granted.
    pub sequences: Vec<PlannedSequence>,
    /// Moves between tiers, to be carried out before the step computes anything, also where it computes nothing. They
    /// are not undone when the step is reverted.
    pub transfers: TransferPlan,
    pub(crate) step: u64,
    /// The tenants' virtual time before the step, for revert.
    pub(crate) virtual_time_before: u64,
}

impl StepPlan {
    /// Nothing to compute: the scheduler is idle, or everybody waits for loads. Such a plan is reverted.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Rows of the step, all sequences together.
    pub fn num_tokens(&self) -> usize {
        self.sequences.iter().map(|planned| planned.num_tokens).sum()
    }
}

/// One sequence's part of a step: compute `tokens()[start..start + num_tokens]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedSequence {
    /// Whose tokens.
    pub id: SequenceId,
    /// Index of the first token computed in this step; all before it are in the block table.
    pub start: usize,
    /// How many tokens; at least 1.
    pub num_tokens: usize,
    /// Whether the last row's logits are sampled.
    pub yields_token: Yield,
    /// Present in the step in which the sequence leaves the queue, also after a preemption.
    pub admitted: Option<Admission>,
    /// What of [`Admission::cached_tokens`] came from lower tiers.
    pub loaded: Loaded,
}

/// Cached tokens that were not on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// From host memory.
    pub host_tokens: usize,
    /// From disk.
    pub disk_tokens: usize,
}

/// Whether a sequence's rows in a step end with its last known token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yield {
    /// They do: sample a token from the last row.
    Token,
    /// The prompt goes on in a later step.
    Nothing,
}

/// How a sequence entered the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Tokens found in cached blocks.
    pub cached_tokens: usize,
}

/// The token sampled for one sequence of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// Whose token.
    pub id: SequenceId,
    /// The token.
    pub token: u32,
    /// Whether it was the last one.
    pub then: Then,
}

/// What happens to a sequence after a sampled token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It decodes on from the token.
    Continue,
    /// It is finished and leaves the scheduler.
    Finish,
}
