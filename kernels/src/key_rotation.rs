//! By how much stored keys turn when their tokens move to other positions; computed by the model, read by `ops::kv_splice`.

use crate::KernelError;

/// Cosines and sines of one change of position, `[half_dim]` each, without an amplitude: stored keys have theirs already.
///
/// Rotate-half convention, as in [`crate::RopeTable`]: element `d` of a head pairs with `d + half_dim`.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyRotation {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl KeyRotation {
    /// Takes cosines and sines of the angles by which every pair turns.
    ///
    /// # Errors
    /// [`KernelError::Value`] without any, [`KernelError::Shape`] when `sin` has another length than `cos`.
    pub fn new(cos: Vec<f32>, sin: Vec<f32>) -> Result<Self, KernelError> {
        let op = "key rotation";
        if cos.is_empty() {
            return Err(KernelError::Value { op, what: "half_dim", got: 0, allowed: "at least 1" });
        }
        if sin.len() != cos.len() {
            return Err(KernelError::Shape { op, what: "length of sin", expected: cos.len(), got: sin.len() });
        }
        Ok(Self { cos, sin })
    }

    /// Pairs of elements that are turned in each head.
    pub fn half_dim(&self) -> usize {
        self.cos.len()
    }

    /// `(cos, sin)`, `[half_dim]` each.
    pub(crate) fn parts(&self) -> (&[f32], &[f32]) {
        (&self.cos, &self.sin)
    }
}
