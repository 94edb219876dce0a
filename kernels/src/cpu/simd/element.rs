//! Element types as the kernels see them: loading sixteen of them widens to f32, which is exact.

use half::{bf16, f16};

use super::Simd;
use crate::DType;

/// A stored element type.
///
/// # Safety
/// Every bit pattern is a value, there is no padding, and the alignment is at most 4.
pub(crate) unsafe trait Element: Copy + Send + Sync + 'static {
    /// The run-time name of this type.
    const DTYPE: DType;

    /// Reads `size_of::<Self>()` little-endian bytes.
    ///
    /// # Panics
    /// When the slice has another length.
    fn from_le_slice(bytes: &[u8]) -> Self;
    /// Writes `size_of::<Self>()` little-endian bytes.
    ///
    /// # Panics
    /// When the slice has another length.
    fn write_le(self, bytes: &mut [u8]);
    fn to_f32(self) -> f32;
    /// Rounds to nearest, ties to even.
    fn from_f32(value: f32) -> Self;

    /// Loads 16 consecutive elements, widened.
    ///
    /// # Safety
    /// 16 elements from `ptr` on must be readable.
    unsafe fn load<S: Simd>(s: S, ptr: *const Self) -> S::V;
}

// SAFETY: a 4-byte number without padding.
unsafe impl Element for f32 {
    const DTYPE: DType = DType::F32;

    #[inline]
    fn from_le_slice(bytes: &[u8]) -> Self {
        Self::from_le_bytes(bytes.try_into().expect("4 bytes"))
    }

    #[inline]
    fn write_le(self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.to_le_bytes());
    }

    #[inline]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline]
    fn from_f32(value: f32) -> Self {
        value
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, ptr: *const Self) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { s.load_f32(ptr) }
    }
}

macro_rules! half_element {
    ($type:ident, $dtype:expr, $load:ident) => {
        // SAFETY: transparent over a u16.
        unsafe impl Element for $type {
            const DTYPE: DType = $dtype;

            #[inline]
            fn from_le_slice(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("2 bytes"))
            }

            #[inline]
            fn write_le(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }

            #[inline]
            fn to_f32(self) -> f32 {
                $type::to_f32(self)
            }

            #[inline]
            fn from_f32(value: f32) -> Self {
                $type::from_f32(value)
            }

            #[inline(always)]
            unsafe fn load<S: Simd>(s: S, ptr: *const Self) -> S::V {
                // SAFETY: the caller's promise.
                unsafe { s.$load(ptr) }
            }
        }
    };
}

half_element!(bf16, DType::BF16, load_bf16);
half_element!(f16, DType::F16, load_f16);

/// Runs an expression with the type alias `$E` bound to the element type of a [`DType`].
macro_rules! with_element {
    ($dtype:expr, $E:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $E = f32;
                $body
            }
            $crate::DType::BF16 => {
                type $E = ::half::bf16;
                $body
            }
            $crate::DType::F16 => {
                type $E = ::half::f16;
                $body
            }
        }
    };
}
pub(crate) use with_element;
