//! Selective recomputation (CacheBlend, arXiv 2405.16444, section 4): which rows of a step go on through all layers, chosen by
//! how far their keys and values are from those that are in the pool.

use crate::ModelError;
use crate::batch::BatchInput;

/// Which rows of a step may stop early, and how many of them must not.
#[derive(Debug, Clone, Copy)]
pub struct RowSelection<'a> {
    /// Rows whose slots hold keys and values already, made of another context. Rows with logits are never among them.
    pub resident: &'a [u32],
    /// How many of these rows are computed through all layers: those that deviate most. Ties go to the earlier row.
    pub num_computed: usize,
    /// Layers that every row passes before the choice: at least 1 (the first layer's keys and values depend on token and
    /// position alone, so they never deviate), less than the model has.
    pub full_layers: usize,
}

impl RowSelection<'_> {
    /// Checks what the forward relies on.
    ///
    /// # Errors
    /// [`ModelError::BatchValue`] for a row that is not there, [`ModelError::FullLayers`].
    pub(crate) fn check(&self, batch: &BatchInput, num_layers: usize) -> Result<(), ModelError> {
        let limit = batch.num_rows();
        if let Some(index) = self.resident.iter().position(|row| *row as usize >= limit) {
            let value = self.resident[index];
            return Err(ModelError::BatchValue { array: "resident", index, value, limit });
        }
        if self.full_layers == 0 || self.full_layers >= num_layers {
            return Err(ModelError::FullLayers { got: self.full_layers, num_layers });
        }
        Ok(())
    }

    /// Rows that go on, ascending: those that are not resident, and the `num_computed` others with the largest `deviation`
    /// `[num_rows]`.
    pub(crate) fn choose(&self, batch: &BatchInput, deviation: &[f32]) -> Vec<u32> {
        let mut is_kept = vec![true; batch.num_rows()];
        for row in self.resident {
            is_kept[*row as usize] = false;
        }
        for row in batch.logit_rows {
            is_kept[*row as usize] = true;
        }
        let mut candidates: Vec<usize> = (0..is_kept.len()).filter(|row| !is_kept[*row]).collect();
        // A deviation that is no number means that what is stored is none: such a row must be computed.
        let order = |row: &usize| if deviation[*row].is_nan() { f32::INFINITY } else { deviation[*row] };
        candidates.sort_by(|a, b| order(b).total_cmp(&order(a)));
        for row in candidates.into_iter().take(self.num_computed) {
            is_kept[row] = true;
        }
        (0..batch.num_rows() as u32).filter(|row| is_kept[*row as usize]).collect()
    }
}

/// A part of a batch's rows, as a batch of its own.
pub(crate) struct KeptRows {
    /// Ascending.
    pub rows: Vec<u32>,
    tokens: Vec<u32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    cu_rows: Vec<u32>,
    logit_rows: Vec<u32>,
}

impl KeptRows {
    /// Keeps `rows`, which rise and hold all of `batch.logit_rows`.
    pub fn of(batch: &BatchInput, rows: Vec<u32>) -> Self {
        let taken = |values: &[u32]| rows.iter().map(|row| values[*row as usize]).collect();
        let index_of = |row: &u32| rows.partition_point(|kept| kept < row) as u32;
        Self {
            tokens: taken(batch.tokens),
            positions: taken(batch.positions),
            slots: taken(batch.slots),
            cu_rows: batch.cu_rows.iter().map(index_of).collect(),
            logit_rows: batch.logit_rows.iter().map(index_of).collect(),
            rows,
        }
    }

    /// The batch of these rows; sequences keep their tables.
    pub fn batch<'a>(&'a self, whole: &BatchInput<'a>) -> BatchInput<'a> {
        BatchInput {
            tokens: &self.tokens,
            positions: &self.positions,
            slots: &self.slots,
            cu_rows: &self.cu_rows,
            logit_rows: &self.logit_rows,
            ..*whole
        }
    }
}
