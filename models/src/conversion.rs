//! Weight bytes from one element type to another; conversions to a narrower type round to nearest even.

use std::borrow::Cow;

use half::{bf16, f16};
use kernels::DType;

/// The elements as f32.
///
/// # Panics
/// When `bytes` is not a whole number of elements; the checkpoint's header is checked before.
pub(crate) fn to_f32(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    assert!(bytes.len().is_multiple_of(dtype.size_bytes()), "{} bytes of {dtype}", bytes.len());
    match dtype {
        DType::F32 => bytes.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect(),
        DType::BF16 => bytes.as_chunks::<2>().0.iter().map(|chunk| bf16::from_le_bytes(*chunk).to_f32()).collect(),
        DType::F16 => bytes.as_chunks::<2>().0.iter().map(|chunk| f16::from_le_bytes(*chunk).to_f32()).collect(),
    }
}

/// The elements in another type, as little-endian bytes; the same bytes when the type does not change.
pub(crate) fn convert(from: DType, to: DType, bytes: &[u8]) -> Cow<'_, [u8]> {
    if from == to {
        return Cow::Borrowed(bytes);
    }
    let mut converted = Vec::with_capacity(bytes.len() / from.size_bytes() * to.size_bytes());
    for value in to_f32(from, bytes) {
        write(to, value, &mut converted);
    }
    Cow::Owned(converted)
}

/// Appends one element.
pub(crate) fn write(dtype: DType, value: f32, bytes: &mut Vec<u8>) {
    match dtype {
        DType::F32 => bytes.extend_from_slice(&value.to_le_bytes()),
        DType::BF16 => bytes.extend_from_slice(&bf16::from_f32(value).to_le_bytes()),
        DType::F16 => bytes.extend_from_slice(&f16::from_f32(value).to_le_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_a_detour_over_a_type_that_holds_them() {
        let values = [0.0f32, -1.5, 3.25, 1024.0, -0.0078125];
        let mut bytes = Vec::new();
        values.iter().for_each(|value| write(DType::F32, *value, &mut bytes));
        for dtype in [DType::BF16, DType::F16] {
            let narrow = convert(DType::F32, dtype, &bytes);
            assert_eq!(narrow.len(), values.len() * 2);
            assert_eq!(to_f32(dtype, &narrow), values);
            assert_eq!(convert(dtype, DType::F32, &narrow), bytes);
        }
    }
}
