//! Activations (`Tensor`) and small f32 weights (`Vector`): the operands of `ops` beside the packed `Matrix`.

use crate::cpu::simd::aligned::AlignedVec;
use crate::{DType, Device, KernelError};

/// Activations, f32, row-major `[num_rows, width]`.
#[derive(Debug)]
pub struct Tensor {
    data: AlignedVec,
    num_rows: usize,
    width: usize,
}

impl Tensor {
    /// A tensor of zeros.
    pub fn zeros(_device: &Device, num_rows: usize, width: usize) -> Self {
        let mut tensor = Self { data: AlignedVec::new(), num_rows: 0, width: 0 };
        tensor.reset(num_rows, width);
        tensor
    }

    /// Gives the tensor another shape. Memory only grows; what the elements hold afterwards is unspecified (an
    /// operation that writes the tensor writes all of it).
    ///
    /// # Panics
    /// When `num_rows * width` overflows.
    pub fn reset(&mut self, num_rows: usize, width: usize) {
        let len = num_rows.checked_mul(width).expect("tensor size overflows the address space");
        self.data.resize(len);
        self.num_rows = num_rows;
        self.width = width;
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// One row, `[width]`.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.width..(row + 1) * self.width]
    }

    /// All elements, `[num_rows, width]` row-major.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// All elements, `[num_rows, width]` row-major.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.data
    }
}

/// f32 weights `[len]`: a norm's weight or a bias.
#[derive(Clone, Debug)]
pub struct Vector {
    data: Vec<f32>,
}

impl Vector {
    /// Widens little-endian elements of `dtype` (any alignment) to f32.
    ///
    /// # Errors
    /// [`KernelError::Bytes`] when the bytes are not a whole number of elements.
    pub fn from_bytes(_device: &Device, dtype: DType, bytes: &[u8]) -> Result<Self, KernelError> {
        let size = dtype.size_bytes();
        if !bytes.len().is_multiple_of(size) {
            let expected = bytes.len().next_multiple_of(size);
            return Err(KernelError::Bytes { what: "vector", dtype, expected, got: bytes.len() });
        }
        let data = match dtype {
            DType::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            DType::BF16 => bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
            DType::F16 => bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        };
        Ok(Self { data })
    }

    /// Copies f32 weights.
    pub fn from_slice(_device: &Device, values: &[f32]) -> Self {
        Self { data: values.to_vec() }
    }

    /// Number of elements.
    #[expect(clippy::len_without_is_empty, reason = "a weight vector is a fixed length, not a collection")]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// The elements.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CpuOptions;

    #[test]
    fn a_vector_widens_every_dtype_from_unaligned_bytes() {
        let device = Device::cpu(CpuOptions::default()).expect("device");
        let values = [1.0f32, -2.5, 0.0, 384.0];
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let mut bytes = vec![0xffu8];
            for v in values {
                match dtype {
                    DType::F32 => bytes.extend(v.to_le_bytes()),
                    DType::BF16 => bytes.extend(half::bf16::from_f32(v).to_le_bytes()),
                    DType::F16 => bytes.extend(half::f16::from_f32(v).to_le_bytes()),
                }
            }
            let vector = Vector::from_bytes(&device, dtype, &bytes[1..]).expect("whole elements");
            assert_eq!(vector.as_slice(), values);
            assert!(matches!(Vector::from_bytes(&device, dtype, &bytes), Err(KernelError::Bytes { .. })));
        }
    }

    #[test]
    fn reset_keeps_capacity_and_changes_the_shape() {
        let device = Device::cpu(CpuOptions::default()).expect("device");
        let mut tensor = Tensor::zeros(&device, 3, 40);
        let start = tensor.as_slice().as_ptr();
        tensor.reset(2, 7);
        assert_eq!((tensor.num_rows(), tensor.width(), tensor.as_slice().len()), (2, 7, 14));
        tensor.reset(3, 40);
        assert_eq!(tensor.as_slice().as_ptr(), start);
    }
}
