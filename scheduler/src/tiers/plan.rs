//! Moves as plain data: what the scheduler plans, and what the engine reports.
use std::sync::Arc;

use super::{Place, Tier};
use crate::block_info::BlockInfo;
use crate::ids::{BlockId, LoadId, UnitId};
use crate::key::KvKey;

/// Moves to carry out, in the order of the fields, before a step writes to any device block.
#[must_use = "what is planned counts as done: carry it out or report that it failed"]
#[derive(Debug, Default)]
pub struct TransferPlan {
    /// Copies from the device to host memory.
    pub swap_outs: Vec<SwapOut>,
    /// Copies to disk. Their bytes must be secured at once; the writing itself may take its time.
    pub disk_writes: Vec<DiskWrite>,
    /// Bytes that may go.
    pub drops: Vec<Drop>,
    /// Copies to the device, to be reported with [`crate::Scheduler::end_load`].
    pub loads: Vec<Load>,
}

/// One block's copy from the device to host memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwapOut {
    /// Where its bytes are, until the step runs.
    pub block: BlockId,
    /// Where they go.
    pub unit: UnitId,
}

/// One file to be written: consecutive blocks of one chain. Reported with [`crate::Scheduler::end_disk_write`].
#[derive(Debug)]
pub struct DiskWrite {
    /// The name of what is written.
    pub unit: UnitId,
    /// The blocks, first one first, and where their bytes are now.
    pub blocks: Vec<(Arc<BlockInfo>, BlockSource)>,
}

/// Where a block's bytes are to be taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockSource {
    /// The device pool, until the step runs.
    Device(BlockId),
    /// Host memory, until the plan's drops.
    Host(UnitId),
}

/// A unit that left a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop {
    /// Which tier.
    pub tier: Tier,
    /// Which unit.
    pub unit: UnitId,
}

/// Blocks to be brought to the device for one sequence.
#[derive(Clone, Debug)]
pub struct Load {
    /// The load's name in the report.
    pub id: LoadId,
    /// In the order of the sequence.
    pub blocks: Vec<LoadBlock>,
}

/// One block of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadBlock {
    /// The device block to be filled.
    pub to: BlockId,
    /// The tier that it comes from.
    pub tier: Tier,
    /// Where in that tier.
    pub place: Place,
    /// What it must be.
    pub key: KvKey,
}

/// How long a tier took to deliver.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Which tier.
    pub tier: Tier,
    /// Bytes that arrived.
    pub bytes: u64,
    /// From the start of the transfer to its end, without the time in queues.
    pub seconds: f64,
}

impl TransferPlan {
    /// Nothing is to be moved.
    pub fn is_empty(&self) -> bool {
        let TransferPlan { swap_outs, disk_writes, drops, loads } = self;
        swap_outs.is_empty() && disk_writes.is_empty() && drops.is_empty() && loads.is_empty()
    }
}
