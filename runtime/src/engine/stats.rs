//! What the engine thread publishes about itself after every step, for `/metrics`, `/health` and the benches.

use scheduler::{SchedulerStats, TierStats};

/// Counters since start and gauges of now.
#[derive(Debug, Clone, Default)]
pub struct EngineStats {
    /// Queue, blocks, hits, preemptions.
    pub scheduler: SchedulerStats,
    /// Host memory.
    pub host: TierStats,
    /// Disk.
    pub disk: TierStats,
    /// Forward passes.
    pub num_steps: u64,
    /// Rows computed in them: prompt tokens that were not cached, and decodes.
    pub num_rows: u64,
    /// Tokens sampled.
    pub generated_tokens: u64,
    /// Seconds spent in forward passes.
    pub forward_s: f64,
    /// Steps that failed; their requests were answered with an error.
    pub failed_steps: u64,
    /// Requests whose client went away before the end.
    pub cancelled: u64,
}
