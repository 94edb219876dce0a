//! The flat arrays of one step, as the engine builds them and the decoder reads them, and the checks that they agree.

use kernels::{AttentionBatch, KvPool};

use crate::ModelError;
use crate::config::ModelConfig;

/// One step's rows, sequence after sequence.
///
/// Sequence `s` owns rows `cu_rows[s]..cu_rows[s + 1]`. A row is one token at one position of its sequence; a
/// sequence's rows need not be contiguous positions, nor in order. A row's key and value go to the entry of its
/// position, and it sees the entries `0..=position`: those written in earlier steps and those written in this one.
#[derive(Debug, Clone, Copy, Default)]
pub struct BatchInput<'a> {
    /// `[num_rows]`
    pub tokens: &'a [u32],
    /// `[num_rows]`: position in the sequence.
    pub positions: &'a [u32],
    /// `[num_rows]`: `block * block_size + offset` of the row's KV entry, as its block table says.
    pub slots: &'a [u32],
    /// `[num_sequences + 1]`, from 0 to `num_rows`.
    pub cu_rows: &'a [u32],
    /// `[num_sequences]`: entries that hold KV once this step has run; more than every position of its rows.
    pub context_lens: &'a [u32],
    /// Physical blocks of all sequences, one table behind the other.
    pub block_tables: &'a [u32],
    /// `[num_sequences + 1]`: where each table begins in `block_tables`.
    pub block_table_offsets: &'a [u32],
    /// Rows whose logits are wanted; others stop before the output matrix.
    pub logit_rows: &'a [u32],
}

impl<'a> BatchInput<'a> {
    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.tokens.len()
    }

    /// Number of sequences.
    pub fn num_sequences(&self) -> usize {
        self.context_lens.len()
    }

    /// Checks everything that the forward relies on, so that nothing is written for a batch that is refused.
    ///
    /// # Errors
    /// A `Batch…` variant of [`ModelError`] that names array, index and value; [`ModelError::PoolShape`].
    pub(crate) fn check(&self, config: &ModelConfig, max_positions: usize, pool: &KvPool) -> Result<(), ModelError> {
        check_pool(config, pool)?;
        check_len("positions", self.tokens.len(), self.positions.len())?;
        check_len("slots", self.tokens.len(), self.slots.len())?;
        check_len("cu_rows", self.num_sequences() + 1, self.cu_rows.len())?;
        check_len("block_table_offsets", self.num_sequences() + 1, self.block_table_offsets.len())?;
        check_offsets("cu_rows", self.cu_rows, self.num_rows())?;
        check_offsets("block_table_offsets", self.block_table_offsets, self.block_tables.len())?;
        check_values("tokens", self.tokens, config.vocab_size)?;
        check_values("block_tables", self.block_tables, pool.num_blocks())?;
        check_values("context_lens", self.context_lens, max_positions + 1)?;
        check_values("logit_rows", self.logit_rows, self.num_rows())?;
        (0..self.num_sequences()).try_for_each(|sequence| self.check_sequence(sequence, pool.shape().block_size))
    }

    /// The part that attention reads.
    pub(crate) fn attention(&self) -> AttentionBatch<'a> {
        AttentionBatch {
            cu_rows: self.cu_rows,
            positions: self.positions,
            block_tables: self.block_tables,
            block_table_offsets: self.block_table_offsets,
        }
    }

    /// Checks one sequence's table, positions and slots.
    fn check_sequence(&self, sequence: usize, block_size: usize) -> Result<(), ModelError> {
        let table_range = self.block_table_offsets[sequence] as usize..self.block_table_offsets[sequence + 1] as usize;
        let table = &self.block_tables[table_range];
        let context_len = self.context_lens[sequence] as usize;
        let needed = context_len.div_ceil(block_size);
        if table.len() < needed {
            return Err(ModelError::BatchLength { array: "a block table", expected: needed, got: table.len() });
        }
        for row in self.cu_rows[sequence] as usize..self.cu_rows[sequence + 1] as usize {
            let position = self.positions[row];
            if position as usize >= context_len {
                let (array, limit) = ("positions", context_len);
                return Err(ModelError::BatchValue { array, index: row, value: position, limit });
            }
            let block = u64::from(table[position as usize / block_size]);
            let expected = block * block_size as u64 + u64::from(position) % block_size as u64;
            // A wrong slot would overwrite KV of another sequence, perhaps of another tenant.
            if u64::from(self.slots[row]) != expected {
                return Err(ModelError::BatchSlot { row, position, expected, got: self.slots[row] });
            }
        }
        Ok(())
    }
}

fn check_pool(config: &ModelConfig, pool: &KvPool) -> Result<(), ModelError> {
    let shape = pool.shape();
    for (what, expected, got) in [
        ("num_layers", config.num_layers, shape.num_layers),
        ("num_kv_heads", config.num_kv_heads, shape.num_kv_heads),
        ("head_dim", config.head_dim, shape.head_dim),
    ] {
        if expected != got {
            return Err(ModelError::PoolShape { what, expected, got });
        }
    }
    Ok(())
}

fn check_len(array: &'static str, expected: usize, got: usize) -> Result<(), ModelError> {
    if expected == got { Ok(()) } else { Err(ModelError::BatchLength { array, expected, got }) }
}

/// Offsets must rise from 0 to `end`.
fn check_offsets(array: &'static str, offsets: &[u32], end: usize) -> Result<(), ModelError> {
    let end = u32::try_from(end).unwrap_or(u32::MAX);
    let mut min = 0;
    for (index, &value) in offsets.iter().enumerate() {
        let first_or_last = match index {
            0 => Some(0),
            _ if index + 1 == offsets.len() => Some(end),
            _ => None,
        };
        let (min_here, max) = first_or_last.map_or((min, end), |exact| (exact, exact));
        if value < min.max(min_here) || value > max {
            return Err(ModelError::BatchOffset { array, index, value, min: min_here, max });
        }
        min = value;
    }
    Ok(())
}

fn check_values(array: &'static str, values: &[u32], limit: usize) -> Result<(), ModelError> {
    match values.iter().position(|value| *value as usize >= limit) {
        Some(index) => Err(ModelError::BatchValue { array, index, value: values[index], limit }),
        None => Ok(()),
    }
}
