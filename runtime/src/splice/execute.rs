//! Carries out a plan: moves the rows, computes the others.

use kernels::{Device, KvPool, KvSource, SpliceRun, ops};
use models::{BatchInput, Model, RowSelection};

use super::{MovedRows, SpliceError, SplicePlan};

/// Layers that all rows pass before those are chosen that go on (CacheBlend, section 4.3: deviations of neighbouring layers
/// agree, so that the first one that can deviate is enough to choose by).
const FULL_LAYERS: usize = 1;

/// Where a plan is carried out.
pub struct Target<'a> {
    /// Device of model and pool.
    pub device: &'a Device,
    /// The model.
    pub model: &'a mut Model,
    /// Its pool.
    pub pool: &'a mut KvPool,
    /// The prompt's blocks, all of which the caller owns and nobody else reads.
    pub block_table: &'a [u32],
}

impl SplicePlan<'_> {
    /// Fills the prompt's slots and computes the logits of its last `num_logit_rows` rows, at least 1, to be read from
    /// [`Model::logits`]; those rows must be computed ones. Returns how many rows went through all layers.
    ///
    /// # Errors
    /// [`SpliceError::Mismatch`] for another prompt than the plan's or too many logit rows, [`SpliceError::BlockTable`],
    /// [`SpliceError::SegmentBytes`], and what model and pool refuse.
    pub fn execute(
        &self,
        target: &mut Target<'_>,
        prompt: &[u32],
        num_logit_rows: usize,
    ) -> Result<usize, SpliceError> {
        let block_size = target.pool.shape().block_size;
        let mismatch = |what, expected, got| Err(SpliceError::Mismatch { what, expected, got });
        if prompt.len() != self.prompt_len {
            return mismatch("the prompt's length", self.prompt_len, prompt.len());
        }
        let expected = prompt.len().div_ceil(block_size);
        if target.block_table.len() < expected {
            return Err(SpliceError::BlockTable { expected, got: target.block_table.len() });
        }
        let last_computed = self.computed.iter().rev().zip((0..prompt.len() as u32).rev());
        let num_tail = last_computed.take_while(|(computed, at)| **computed == *at).count();
        if num_logit_rows == 0 || num_logit_rows > num_tail {
            return mismatch("the number of logit rows", num_tail, num_logit_rows);
        }
        for rows in &self.moved {
            move_rows(rows, target)?;
        }
        match self.num_selected {
            None => {
                let rows = Rows::of(&self.computed, prompt, target.block_table, block_size);
                let first = rows.positions.len() - num_logit_rows;
                let logit_rows: Vec<u32> = (first as u32..rows.positions.len() as u32).collect();
                target.model.forward(target.device, &rows.batch(&logit_rows), target.pool)?;
                Ok(rows.positions.len())
            }
            Some(num_computed) => self.execute_selective(target, prompt, num_logit_rows, num_computed),
        }
    }

    /// All rows pass the first layers.
    fn execute_selective(
        &self,
        target: &mut Target<'_>,
        prompt: &[u32],
        num_logit_rows: usize,
        num_computed: usize,
    ) -> Result<usize, SpliceError> {
        let first = self.prefix_len.min(prompt.len() - 1);
        let positions: Vec<u32> = (first as u32..prompt.len() as u32).collect();
        let rows = Rows::of(&positions, prompt, target.block_table, target.pool.shape().block_size);
        let moved = self.moved.iter().flat_map(|rows| rows.at..rows.at + rows.len);
        let resident: Vec<u32> = moved.map(|at| (at - first) as u32).collect();
        let logit_rows: Vec<u32> = ((positions.len() - num_logit_rows) as u32..positions.len() as u32).collect();
        let selection = RowSelection { resident: &resident, num_computed, full_layers: FULL_LAYERS };
        let batch = rows.batch(&logit_rows);
        let computed = target.model.forward_selective(target.device, &batch, &selection, target.pool)?;
        Ok(computed.len())
    }
}

/// Moves the rows of one segment.
fn move_rows(rows: &MovedRows<'_>, target: &mut Target<'_>) -> Result<(), SpliceError> {
    let shape = *target.pool.shape();
    rows.segment.check(&shape)?;
    let block_size = shape.block_size;
    let delta = rows.delta();
    let rotations = match delta {
        // Nothing to turn, and so nothing to round: every bit is kept.
        0 => Vec::new(),
        delta => vec![target.model.key_rotation(delta)?],
    };
    let rotation = (delta != 0).then_some(0);
    let source = rows.segment.start() % block_size + rows.row;
    let mut runs = Vec::new();
    let mut done = 0;
    while done < rows.len {
        let at = rows.at + done;
        let len = (block_size - at % block_size).min(rows.len - done);
        let target = target.block_table[at / block_size] * block_size as u32 + (at % block_size) as u32;
        runs.push(SpliceRun { source: (source + done) as u32, target, len: len as u32, rotation });
        done += len;
    }
    ops::kv_splice(target.device, KvSource::Blocks(rows.segment.blocks()), &runs, &rotations, target.pool)?;
    Ok(())
}

/// Some rows of one prompt, as a step's arrays.
struct Rows<'a> {
    tokens: Vec<u32>,
    positions: &'a [u32],
    slots: Vec<u32>,
    cu_rows: [u32; 2],
    context_lens: [u32; 1],
    block_table: &'a [u32],
    block_table_offsets: [u32; 2],
}

impl<'a> Rows<'a> {
    fn of(positions: &'a [u32], prompt: &[u32], block_table: &'a [u32], block_size: usize) -> Self {
        let block_size = block_size as u32;
        let slot = |at: &u32| block_table[(at / block_size) as usize] * block_size + at % block_size;
        Self {
            tokens: positions.iter().map(|at| prompt[*at as usize]).collect(),
            positions,
            slots: positions.iter().map(slot).collect(),
            cu_rows: [0, positions.len() as u32],
            context_lens: [prompt.len() as u32],
            block_table,
            block_table_offsets: [0, block_table.len() as u32],
        }
    }

    fn batch<'b>(&'b self, logit_rows: &'b [u32]) -> BatchInput<'b> {
        BatchInput {
            tokens: &self.tokens,
            positions: self.positions,
            slots: &self.slots,
            cu_rows: &self.cu_rows,
            context_lens: &self.context_lens,
            block_tables: self.block_table,
            block_table_offsets: &self.block_table_offsets,
            logit_rows,
        }
    }
}
