//! Weight matrices, packed once at load into the order in which the matrix product reads them.
//!
//! A weight `[out_features, in_features]` is cut into panels of [`PANEL`] outputs. In memory:
//!
//! ```text
//! panel 0                                        panel 1 ..
//! k = 0: w[0,0]  w[1,0]  ..  w[63,0]             w[64,0] ..
//! k = 1: w[0,1]  w[1,1]  ..  w[63,1]
//! ..
//! k = in_features - 1
//! ```
//!
//! so one activation times one line updates 64 outputs, each in the order of `k`, and a product streams a panel from
//! front to back. The last panel is filled up with zeros. Elements keep the checkpoint's type.

use crate::cpu::simd::element::{Element, with_element};
use crate::cpu::simd::output::for_each_chunk;
use crate::mmap::PageBuffer;
use crate::{DType, Device, KernelError};

/// Outputs of a panel: four AVX-512 registers.
pub(crate) const PANEL: usize = 64;

/// A weight `[out_features, in_features]`, packed.
#[derive(Debug)]
pub struct Matrix {
    packed: PageBuffer,
    dtype: DType,
    out_features: usize,
    in_features: usize,
}

/// Some of a matrix's outputs, as a checkpoint stores them.
#[derive(Clone, Copy, Debug)]
pub struct MatrixPart<'a> {
    /// Rows of this part.
    pub out_features: usize,
    /// `[out_features, in_features]` row-major, little-endian, any alignment.
    pub data: &'a [u8],
}

impl Matrix {
    /// Packs parts that are concatenated along the outputs (q, k, v; gate, up). Each part is read once, row by row.
    ///
    /// # Errors
    /// [`KernelError::Value`] when there are no inputs or outputs, [`KernelError::Bytes`] when a part's data does not
    /// have the size of its rows, [`KernelError::Allocate`] when the memory cannot be had.
    pub fn pack(
        device: &Device,
        dtype: DType,
        in_features: usize,
        parts: &[MatrixPart<'_>],
    ) -> Result<Self, KernelError> {
        let op = "pack matrix";
        let overflow = || KernelError::Overflow { what: "matrix size" };
        if in_features == 0 {
            return Err(KernelError::Value { op, what: "in_features", got: 0, allowed: "at least 1" });
        }
        let row_bytes = in_features.checked_mul(dtype.size_bytes()).ok_or_else(overflow)?;
        let mut out_features = 0usize;
        for part in parts {
            let expected = part.out_features.checked_mul(row_bytes).ok_or_else(overflow)?;
            if part.data.len() != expected {
                return Err(KernelError::Bytes { what: "matrix part", dtype, expected, got: part.data.len() });
            }
            out_features = out_features.checked_add(part.out_features).ok_or_else(overflow)?;
        }
        if out_features == 0 {
            return Err(KernelError::Value { op, what: "out_features", got: 0, allowed: "at least 1" });
        }
        let num_bytes = out_features
            .checked_next_multiple_of(PANEL)
            .and_then(|padded| padded.checked_mul(row_bytes))
            .ok_or_else(overflow)?;
        let mut matrix = Self { packed: PageBuffer::zeroed(num_bytes, "weights")?, dtype, out_features, in_features };
        with_element!(dtype, E => matrix.fill::<E>(device, parts));
        Ok(matrix)
    }

    /// Rows of the weight: the width of a product.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Columns of the weight: the width of the activations.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Type of the stored elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Memory of the packed elements.
    pub fn num_bytes(&self) -> usize {
        self.packed.as_bytes().len()
    }

    /// The panels, one after the other.
    pub(crate) fn panels<E: Element>(&self) -> &[E] {
        assert!(E::DTYPE == self.dtype, "panels of {} read as {}: this is a bug", self.dtype, E::DTYPE);
        self.packed.elements()
    }

    /// Copies row `output` of the weight, widened.
    pub(crate) fn row_into<E: Element>(&self, output: usize, row: &mut [f32]) {
        let panel_len = self.in_features * PANEL;
        let first = output / PANEL * panel_len + output % PANEL;
        let column = self.panels::<E>()[first..].iter().step_by(PANEL);
        for (to, from) in row.iter_mut().zip(column) {
            *to = from.to_f32();
        }
    }

    fn fill<E: Element>(&mut self, device: &Device, parts: &[MatrixPart<'_>]) {
        let (in_features, out_features) = (self.in_features, self.out_features);
        let row_bytes = in_features * size_of::<E>();
        let rows: Vec<&[u8]> = parts.iter().flat_map(|part| part.data.chunks_exact(row_bytes)).collect();
        for_each_chunk(device.pool(), self.packed.elements_mut::<E>(), in_features * PANEL, |panel, packed, _| {
            let rows = &rows[panel * PANEL..out_features.min((panel + 1) * PANEL)];
            transpose_into(rows, packed);
        });
    }
}

/// Steps of `k` that are transposed together: their lines of the panel stay in the cache while 64 rows pass.
const TRANSPOSE_STEPS: usize = 64;

/// Writes element `k` of row `i` to `packed[k * PANEL + i]`.
fn transpose_into<E: Element>(rows: &[&[u8]], packed: &mut [E]) {
    let block_bytes = TRANSPOSE_STEPS * size_of::<E>();
    for (block, lines) in packed.chunks_mut(TRANSPOSE_STEPS * PANEL).enumerate() {
        for (i, row) in rows.iter().enumerate() {
            let from = &row[block * block_bytes..row.len().min((block + 1) * block_bytes)];
            for (element, line) in from.chunks_exact(size_of::<E>()).zip(lines.chunks_exact_mut(PANEL)) {
                line[i] = E::from_le_slice(element);
            }
        }
    }
}
