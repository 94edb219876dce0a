//! The log of decisions: what was done with a memory, why, and what it was expected to cost.
use std::collections::VecDeque;

use super::rates::Weighed;
use crate::ids::LoadId;

/// The latest decisions that are kept.
const KEPT_MAX: usize = 1_024;

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionKind {
    /// A prefix is loaded: that is expected to be faster than to compute it.
    Load(LoadId),
    /// A prefix that a lower tier holds is computed: that is expected to be faster than to load it.
    Recompute,
    /// Evicted blocks were hot enough for the disk.
    Spill,
    /// Evicted blocks were dropped: the way to the disk was full.
    SpillRefused,
    /// Blocks were saved to disk in idle time.
    Save,
}

/// One decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// Counts up from 0.
    pub number: u64,
    /// What was decided.
    pub kind: DecisionKind,
    /// How many blocks it is about.
    pub num_blocks: usize,
    /// Expected seconds, where they were weighed.
    pub load_s: Option<f64>,
    /// Expected seconds, where they were weighed.
    pub compute_s: Option<f64>,
    /// What a load took.
    pub measured_s: Option<f64>,
}

/// The newest decisions.
#[derive(Default)]
pub(crate) struct DecisionLog {
    kept: VecDeque<Decision>,
    next: u64,
}

impl DecisionLog {
    pub(crate) fn note(&mut self, kind: DecisionKind, num_blocks: usize, weighed: Weighed) {
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        let Weighed { load_s, compute_s, .. } = weighed;
        self.kept.push_back(Decision { number: self.next, kind, num_blocks, load_s, compute_s, measured_s: None });
        self.next += 1;
    }

    pub(crate) fn measured(&mut self, load: LoadId, seconds: f64) {
        let made = self.kept.iter_mut().rev().find(|decision| decision.kind == DecisionKind::Load(load));
        if let Some(decision) = made {
            decision.measured_s = Some(seconds);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Decision> {
        self.kept.iter()
    }
}
