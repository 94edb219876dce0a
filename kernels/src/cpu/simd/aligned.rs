//! A growable f32 buffer on cache-line boundaries: activations and the kernels' scratch memory.

use std::ops::{Deref, DerefMut};

/// One cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// f32 elements, 64-byte aligned. Memory only grows.
#[derive(Debug, Default)]
pub(crate) struct AlignedVec {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedVec {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the length; elements beyond the old memory are zero, the others keep what they held.
    pub fn resize(&mut self, len: usize) {
        let num_lines = len.div_ceil(16);
        if num_lines > self.lines.len() {
            self.lines.resize(num_lines, Line([0.0; 16]));
        }
        self.len = len;
    }

    /// Grows to at least `len` elements and returns the first `len`.
    pub fn at_least(&mut self, len: usize) -> &mut [f32] {
        if len > self.len {
            self.resize(len);
        }
        &mut self[..len]
    }
}

impl Deref for AlignedVec {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `Line` is `repr(C)` over 16 floats without padding, and `resize` keeps `len <= 16 * lines.len()`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast::<f32>(), self.len) }
    }
}

impl DerefMut for AlignedVec {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`; `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast::<f32>(), self.len) }
    }
}
