//! The scheduler: which tokens the next step computes, and which KV blocks they live in. On the path it stands
//! between the HTTP front (which adds sequences) and the engine (which computes the steps that it plans).
//!
//! The crate is pure: it sees no tensor, socket, file or clock, and starts no thread. The engine drives it:
//!
//! ```text
//! add(NewSequence) ──► waiting (FIFO per tenant)
//!                         │ schedule(): fair between tenants, prefix hits leased, blocks allocated
//!                         ▼
//!                      running ──► StepPlan ──► commit(plan, sampled)   rows computed, full blocks published
//!                         ▲           └───────► revert(plan)            the forward failed: nothing was computed
//!                         └─ preempted sequences go back to waiting; their full blocks stay cached
//! ```
//!
//! | file | what lives there |
//! | --- | --- |
//! | `key` | [`KvKey`]: what makes two blocks the same |
//! | `block_pool` | [`BlockPool`]: free, filling, cached and leased blocks, and the prefix tree |
//! | `eviction` | which cached block goes first |
//! | `heat` | how much a cached block is worth keeping |
//! | `block_info` | what a block holds, in words that every tier understands |
//! | `tiers` | MemScheduler: host memory and disk, loads, load or recompute, decisions |
//! | `block_table` | the blocks of one sequence |
//! | `sequence` | a request's tokens and progress |
//! | `tenants` | fairness: virtual token counters |
//! | `batch`, `commit` | planning a step; applying or undoing it |
#![forbid(unsafe_code)]

mod batch;
mod block_info;
mod block_pool;
mod block_table;
mod commit;
mod error;
mod eviction;
mod heat;
mod ids;
mod key;
#[cfg(test)]
#[path = "../tests/simulator/rng.rs"]
mod rng;
mod scheduler;
mod sequence;
mod step;
mod tenants;
mod tiers;

pub use block_info::BlockInfo;
pub use block_pool::{BlockCounts, BlockPool, FillingBlock, Lease, PrefixMatch, Published};
pub use error::{AddError, ConfigError};
pub use eviction::EvictionPolicy;
pub use heat::Heat;
pub use ids::{BlockId, LoadId, SequenceId, TenantId, UnitId};
pub use key::{KeyRoot, KvKey, block_keys};
pub use scheduler::{Scheduler, SchedulerConfig, SchedulerStats};
pub use sequence::{NewSequence, PrefixReuse, Sequence};
pub use step::{Admission, Loaded, PlannedSequence, Sampled, StepPlan, Then, Yield};
pub use tenants::TenantStats;
pub use tiers::{
    BlockSource, Decision, DecisionKind, DiskWrite, Drop, Load, LoadBlock, Measured, Place, PrefillCost, SwapOut, Tier,
    TierConfig, TierStats, TransferPlan, Weighed,
};
