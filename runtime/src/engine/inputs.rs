//! Turns a step plan into the flat arrays that the model reads: tokens, positions, slots, block tables.

use std::ops::Range;

use models::BatchInput;
use scheduler::BlockId;

/// Which rows of one planned sequence go through the language-model head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogitRows {
    /// The prompt is not finished in this step.
    Nothing,
    /// The row that the next token is sampled from.
    Last,
    /// Log-probabilities of the prompt are wanted.
    All,
}

/// One planned sequence as this file needs it.
pub(super) struct PlannedRows<'a> {
    /// All tokens known so far.
    pub tokens: &'a [u32],
    /// Which of them are computed now.
    pub range: Range<usize>,
    /// Blocks that hold positions `0..range.end`.
    pub block_table: &'a [BlockId],
    /// Rows for the head.
    pub logit_rows: LogitRows,
}

/// The flat arrays of one step; kept between steps so that a decode step allocates nothing.
#[derive(Default)]
pub(super) struct StepInputs {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    cu_rows: Vec<u32>,
    context_lens: Vec<u32>,
    block_tables: Vec<u32>,
    block_table_offsets: Vec<u32>,
    logit_rows: Vec<u32>,
}

impl StepInputs {
    /// Empties the arrays for a new step.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.slots.clear();
        self.cu_rows.clear();
        self.cu_rows.push(0);
        self.context_lens.clear();
        self.block_tables.clear();
        self.block_table_offsets.clear();
        self.block_table_offsets.push(0);
        self.logit_rows.clear();
    }

    /// Appends one sequence and returns where its logit rows will be among the logits.
    ///
    /// # Panics
    /// When the block table does not cover the range: the scheduler allocates before it plans.
    pub fn push(&mut self, planned: &PlannedRows<'_>, block_size: usize) -> Range<usize> {
        let num_blocks = planned.range.end.div_ceil(block_size);
        assert!(planned.block_table.len() >= num_blocks, "planned rows have no block: this is a bug");
        for position in planned.range.clone() {
            let block = planned.block_table[position / block_size].index() as usize;
            self.tokens.push(planned.tokens[position]);
            self.positions.push(position as u32);
            self.slots.push((block * block_size + position % block_size) as u32);
        }
        let end = self.tokens.len() as u32;
        let first_logit = self.logit_rows.len();
        match planned.logit_rows {
            LogitRows::Nothing => {}
            LogitRows::Last => self.logit_rows.push(end - 1),
            LogitRows::All => self.logit_rows.extend(end - planned.range.len() as u32..end),
        }
        self.cu_rows.push(end);
        self.context_lens.push(planned.range.end as u32);
        self.block_tables.extend(planned.block_table[..num_blocks].iter().map(|block| block.index()));
        self.block_table_offsets.push(self.block_tables.len() as u32);
        first_logit..self.logit_rows.len()
    }

    /// Rows of this step.
    pub fn num_rows(&self) -> usize {
        self.tokens.len()
    }

    /// The view that the model takes.
    pub fn as_batch(&self) -> BatchInput<'_> {
        BatchInput {
            tokens: &self.tokens,
            positions: &self.positions,
            slots: &self.slots,
            cu_rows: &self.cu_rows,
            context_lens: &self.context_lens,
            block_tables: &self.block_tables,
            block_table_offsets: &self.block_table_offsets,
            logit_rows: &self.logit_rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_several_sequences_are_laid_out_one_after_the_other() {
        let mut inputs = StepInputs::default();
        inputs.clear();
        let prompt: Vec<u32> = (100..120).collect();
        let blocks = [BlockId::new(7), BlockId::new(2)];
        let prefill =
            PlannedRows { tokens: &prompt, range: 14..18, block_table: &blocks, logit_rows: LogitRows::Nothing };
        assert_eq!(inputs.push(&prefill, 16), 0..0);
        let decode =
            PlannedRows { tokens: &prompt, range: 3..4, block_table: &blocks[1..], logit_rows: LogitRows::Last };
        assert_eq!(inputs.push(&decode, 16), 0..1);
        let batch = inputs.as_batch();
        assert_eq!(batch.tokens, [114, 115, 116, 117, 103]);
        assert_eq!(batch.positions, [14, 15, 16, 17, 3]);
        assert_eq!(batch.slots, [7 * 16 + 14, 7 * 16 + 15, 2 * 16, 2 * 16 + 1, 2 * 16 + 3]);
        assert_eq!(batch.cu_rows, [0, 4, 5]);
        assert_eq!(batch.context_lens, [18, 4]);
        assert_eq!(batch.block_tables, [7, 2, 2]);
        assert_eq!(batch.block_table_offsets, [0, 2, 3]);
        assert_eq!(batch.logit_rows, [4]);
    }
}
