//! Spliced reuse: keys and values of memories that were computed elsewhere, moved to where a prompt has them.
//!
//! A [`Segment`] is what a memory's tokens left in the KV pool behind some preamble. [`plan_splice`] says which rows of a prompt
//! come from which segment and which are computed again; [`SplicePlan::execute`] does it. Moved keys are turned by the change
//! of position from what is stored, never cumulatively. The result is near the full computation, not equal to it, so it
//! must never be stored under an exact key.

mod error;
mod execute;
mod plan;
mod segment;
#[cfg(test)]
mod tests;

pub use error::SpliceError;
pub use execute::Target;
pub use plan::{FIRST_TOKENS_DEFAULT, MovedRows, Placement, SplicePlan, find_segments, plan_splice};
pub use segment::Segment;
