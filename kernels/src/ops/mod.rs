//! The operations: each checks shapes and bounds of its arguments, then runs on the device's backend.
//!
//! Outputs get the right shape and are written completely; what they held before never matters.

mod attention;
mod check;
mod matmul;
mod rowwise;
mod splice;

pub use attention::{AttentionBatch, AttentionParams, HeadLayout, kv_write, paged_attention};
pub use matmul::{embedding, matmul};
pub use rowwise::{add, add_rms_norm, gather_rows, head_rms_norm, rms_norm, rope, silu_mul};
pub use splice::{KvSource, SpliceRun, kv_deviation, kv_splice};
