//! Cosines and sines of rotary position embedding, computed by the model's configuration and read by `ops::rope`.

use crate::{Device, KernelError};

/// `cos` and `sin` of every position, `[max_positions, half_dim]` each.
///
/// Rotate-half convention: within the first `2 * half_dim` elements of a head, element `d` pairs with `d + half_dim`.
#[derive(Clone, Debug)]
pub struct RopeTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half_dim: usize,
}

impl RopeTable {
    /// Takes the tables, `[max_positions, half_dim]` row-major.
    ///
    /// # Errors
    /// [`KernelError::Value`] when `half_dim` is 0 or does not divide the length of `cos`, [`KernelError::Shape`] when
    /// `sin` has another length than `cos`.
    pub fn new(_device: &Device, cos: Vec<f32>, sin: Vec<f32>, half_dim: usize) -> Result<Self, KernelError> {
        let op = "rope table";
        if half_dim == 0 || !cos.len().is_multiple_of(half_dim) {
            let allowed = "a divisor of the table's length";
            return Err(KernelError::Value { op, what: "half_dim", got: half_dim, allowed });
        }
        if sin.len() != cos.len() {
            return Err(KernelError::Shape { op, what: "length of sin", expected: cos.len(), got: sin.len() });
        }
        Ok(Self { cos, sin, half_dim })
    }

    /// Pairs of elements that are rotated in each head.
    pub fn half_dim(&self) -> usize {
        self.half_dim
    }

    /// Positions `0..max_positions` are in the table.
    pub fn max_positions(&self) -> usize {
        self.cos.len() / self.half_dim
    }

    /// `(cos, sin)` of one position, `[half_dim]` each.
    pub(crate) fn row(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.half_dim..(position + 1) * self.half_dim;
        (&self.cos[range.clone()], &self.sin[range])
    }
}
