//! Operations of spliced reuse: keys and values of tokens that move to other positions, and how far they are from computed
//! ones.

use super::HeadLayout;
use super::attention::validate_pool;
use super::check::{below, same};
use crate::{Device, KernelError, KeyRotation, KvPool, Tensor, cpu};

/// Where the keys and values come from.
#[derive(Clone, Copy, Debug)]
pub enum KvSource<'a> {
    /// Slots of the pool itself, in blocks that the same call does not write.
    Pool,
    /// Whole blocks outside of the pool, one behind the other, as [`KvPool::export_block`] gives them.
    Blocks(&'a [u8]),
}

/// Neighbouring tokens that move together: slots `source..source + len` go to slots `target..target + len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpliceRun {
    /// First slot in the source, `block * block_size + offset`; the run may go on in the next block.
    pub source: u32,
    /// First slot in the pool.
    pub target: u32,
    /// Tokens.
    pub len: u32,
    /// Which of the rotations turns the keys; `None` keeps every bit.
    pub rotation: Option<u32>,
}

/// Copies keys and values of all layers between slots at any offsets, turning the keys on the way: in f32 from what is
/// stored, rounded to the pool's type once. Runs may be in any order. Slots that no run writes keep what they hold.
///
/// # Errors
/// [`KernelError::Value`] for a rotation wider than a head, a slot that is written twice, a source block of the pool that
/// is also written, or bytes that are no whole blocks; [`KernelError::OutOfRange`] for a slot or rotation that is not there.
/// Nothing has been written then.
pub fn kv_splice(
    device: &Device,
    source: KvSource<'_>,
    runs: &[SpliceRun],
    rotations: &[KeyRotation],
    pool: &mut KvPool,
) -> Result<(), KernelError> {
    let op = "kv_splice";
    let shape = *pool.shape();
    for rotation in rotations {
        if 2 * rotation.half_dim() > shape.head_dim {
            let allowed = "at most half of head_dim";
            return Err(KernelError::Value { op, what: "half_dim", got: rotation.half_dim(), allowed });
        }
    }
    let num_source_blocks = match source {
        KvSource::Pool => pool.num_blocks(),
        KvSource::Blocks(bytes) => {
            if !bytes.len().is_multiple_of(shape.block_bytes()) {
                let allowed = "a multiple of the block's bytes";
                return Err(KernelError::Value { op, what: "bytes of the source", got: bytes.len(), allowed });
            }
            bytes.len() / shape.block_bytes()
        }
    };
    let num_target_slots = pool.num_blocks() * shape.block_size;
    for (at, run) in runs.iter().enumerate() {
        check_run(op, "source slot", run.source, run.len, at, num_source_blocks * shape.block_size)?;
        check_run(op, "target slot", run.target, run.len, at, num_target_slots)?;
        if let Some(index) = run.rotation.map(|index| index as usize).filter(|index| *index >= rotations.len()) {
            return Err(KernelError::OutOfRange { op, what: "rotation", index, at, len: rotations.len() });
        }
    }
    check_distinct(op, runs)?;
    let pieces = cpu::splice::Pieces::of(runs, shape.block_size);
    if let KvSource::Pool = source
        && let Some(block) = pieces.block_read_and_written()
    {
        let allowed = "a block that the same call does not write";
        return Err(KernelError::Value { op, what: "source block", got: block, allowed });
    }
    cpu::splice::kv_splice(device, source, &pieces, rotations, pool);
    Ok(())
}

/// How far computed keys and values are from those in the pool: `out[r]` is the sum of squared differences over all heads of
/// one layer, between the key and value heads of row `r` of `qkv` `[num_rows, layout.width()]`, rounded as [`super::kv_write`]
/// does, and what slot `slots[r]` holds.
///
/// # Errors
/// As [`super::kv_write`].
pub fn kv_deviation(
    device: &Device,
    qkv: &Tensor,
    layout: HeadLayout,
    slots: &[u32],
    pool: &KvPool,
    layer: usize,
    out: &mut Vec<f32>,
) -> Result<(), KernelError> {
    let op = "kv_deviation";
    validate_pool(op, layout, pool, layer)?;
    same(op, "width of qkv", qkv.width(), layout.width())?;
    same(op, "number of slots", slots.len(), qkv.num_rows())?;
    below(op, "slot", slots, pool.num_blocks() * pool.shape().block_size)?;
    out.clear();
    out.resize(slots.len(), 0.0);
    cpu::splice::kv_deviation(device, qkv, layout, slots, (pool, layer), out);
    Ok(())
}

/// All slots of a run must be there.
fn check_run(
    op: &'static str,
    what: &'static str,
    first: u32,
    run_len: u32,
    at: usize,
    len: usize,
) -> Result<(), KernelError> {
    let end = first as usize + run_len as usize;
    if end <= len { Ok(()) } else { Err(KernelError::OutOfRange { op, what, index: end.max(1) - 1, at, len }) }
}

/// Two runs that wrote one slot would leave whichever came last.
fn check_distinct(op: &'static str, runs: &[SpliceRun]) -> Result<(), KernelError> {
    let mut targets: Vec<(u32, u32)> =
        runs.iter().filter(|run| run.len > 0).map(|run| (run.target, run.target + (run.len - 1))).collect();
    targets.sort_unstable();
    match targets.windows(2).find(|pair| pair[1].0 <= pair[0].1) {
        None => Ok(()),
        Some(pair) => {
            let allowed = "each slot once";
            Err(KernelError::Value { op, what: "target slot", got: pair[1].0 as usize, allowed })
        }
    }
}

#[cfg(test)]
mod tests;
