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
//!
//! For a device with the bf16 dot product, bf16 weights stand in pairs ([`Order::Pairs`]): line `j` of a panel is
//! `w[0,2j] w[0,2j+1]  w[1,2j] w[1,2j+1]  ..`; a last single `k` is paired with zeros.

use crate::cpu::simd::element::{Element, with_element};
use crate::cpu::simd::output::for_each_chunk;
use crate::device::{NUMERICS_BF16_DOT, NUMERICS_FMA};
use crate::mmap::PageBuffer;
use crate::{DType, Device, KernelError};

/// Outputs of a panel: four AVX-512 registers.
pub(crate) const PANEL: usize = 64;

/// In what order a panel's elements stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Line `k` holds element `k` of every output.
    Single,
    /// Line `j` holds elements `2j` and `2j + 1` of every output.
    Pairs,
}

impl Order {
    /// Consecutive elements of an output.
    const fn run(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Pairs => 2,
        }
    }
}

/// A weight `[out_features, in_features]`, packed.
#[derive(Debug)]
pub struct Matrix {
    packed: PageBuffer,
    dtype: DType,
    order: Order,
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
        let is_paired = dtype == DType::BF16 && device.bf16_dot().is_some();
        let order = if is_paired { Order::Pairs } else { Order::Single };
        let num_bytes = in_features
            .checked_next_multiple_of(order.run())
            .and_then(|padded| padded.checked_mul(dtype.size_bytes()))
            .and_then(|line_bytes| out_features.checked_next_multiple_of(PANEL)?.checked_mul(line_bytes))
            .ok_or_else(overflow)?;
        let packed = PageBuffer::zeroed(num_bytes, "weights")?;
        let mut matrix = Self { packed, dtype, order, out_features, in_features };
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

    /// The panels of single elements, one after the other.
    pub(crate) fn panels<E: Element>(&self) -> &[E] {
        assert!(E::DTYPE == self.dtype, "panels of {} read as {}: this is a bug", self.dtype, E::DTYPE);
        assert!(self.order == Order::Single, "panels of pairs read as single elements: this is a bug");
        self.packed.elements()
    }

    /// The panels of pairs, each pair in the 32 bits of an f32.
    pub(crate) fn pair_panels(&self) -> &[f32] {
        assert!(self.order == Order::Pairs, "panels of single elements read as pairs: this is a bug");
        self.packed.elements()
    }

    /// Numerics id of the devices whose products this packing is for; `None` when it is the same for all.
    pub(crate) fn packed_for(&self) -> Option<&'static str> {
        match (self.dtype, self.order) {
            (DType::BF16, Order::Single) => Some(NUMERICS_FMA),
            (DType::BF16, Order::Pairs) => Some(NUMERICS_BF16_DOT),
            (DType::F32 | DType::F16, _) => None,
        }
    }

    /// Elements of a panel.
    fn panel_len(&self) -> usize {
        self.in_features.next_multiple_of(self.order.run()) * PANEL
    }

    /// Copies row `output` of the weight, widened.
    pub(crate) fn row_into<E: Element>(&self, output: usize, row: &mut [f32]) {
        let run = self.order.run();
        let first = output / PANEL * self.panel_len() + output % PANEL * run;
        let lines = self.packed.elements::<E>()[first..].chunks(PANEL * run);
        for (to, line) in row.chunks_mut(run).zip(lines) {
            for (to, from) in to.iter_mut().zip(line) {
                *to = from.to_f32();
            }
        }
    }

    fn fill<E: Element>(&mut self, device: &Device, parts: &[MatrixPart<'_>]) {
        let (panel_len, out_features, run) = (self.panel_len(), self.out_features, self.order.run());
        let row_bytes = self.in_features * size_of::<E>();
        let rows: Vec<&[u8]> = parts.iter().flat_map(|part| part.data.chunks_exact(row_bytes)).collect();
        for_each_chunk(device.pool(), self.packed.elements_mut::<E>(), panel_len, |panel, packed, _| {
            let rows = &rows[panel * PANEL..out_features.min((panel + 1) * PANEL)];
            // (Two calls, so that each is compiled for its constant.)
            if run == 1 { transpose_into::<E, 1>(rows, packed) } else { transpose_into::<E, 2>(rows, packed) }
        });
    }
}

/// Lines of a panel that are written together: they stay in the cache while 64 rows pass.
const TRANSPOSE_LINES: usize = 64;

/// Writes elements `j * RUN..(j + 1) * RUN` of row `i` to place `i` of line `j`.
fn transpose_into<E: Element, const RUN: usize>(rows: &[&[u8]], packed: &mut [E]) {
    let block_bytes = TRANSPOSE_LINES * RUN * size_of::<E>();
    for (block, lines) in packed.chunks_mut(TRANSPOSE_LINES * RUN * PANEL).enumerate() {
        for (i, row) in rows.iter().enumerate() {
            let from = &row[block * block_bytes..row.len().min((block + 1) * block_bytes)];
            for (elements, line) in from.chunks(RUN * size_of::<E>()).zip(lines.chunks_exact_mut(RUN * PANEL)) {
                for (element, to) in elements.chunks_exact(size_of::<E>()).zip(&mut line[i * RUN..(i + 1) * RUN]) {
                    *to = E::from_le_slice(element);
                }
            }
        }
    }
}
