//! Sixteen lanes as an array: the fallback, and the meaning of the other implementations.
//!
//! Without a hardware fused multiply-add `f32::mul_add` is a library call: correct, the same bits, and slow.

use half::{bf16, f16};

use super::{LANES, Simd};

/// Plain Rust, on every processor.
#[derive(Clone, Copy, Default)]
pub(crate) struct Portable;

#[inline(always)]
fn map2(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    type V = [f32; LANES];
    const ACCUMULATORS: usize = 4;
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::V {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load_f32(self, ptr: *const f32) -> Self::V {
        // SAFETY: the caller promises 16 readable elements.
        unsafe { ptr.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, ptr: *const bf16) -> Self::V {
        // SAFETY: the caller promises 16 readable elements.
        unsafe { ptr.cast::<[bf16; LANES]>().read_unaligned() }.map(bf16::to_f32)
    }

    #[inline(always)]
    unsafe fn load_f16(self, ptr: *const f16) -> Self::V {
        // SAFETY: the caller promises 16 readable elements.
        unsafe { ptr.cast::<[f16; LANES]>().read_unaligned() }.map(f16::to_f32)
    }

    #[inline(always)]
    unsafe fn store_f32(self, value: Self::V, ptr: *mut f32) {
        // SAFETY: the caller promises 16 writable elements.
        unsafe { ptr.cast::<[f32; LANES]>().write_unaligned(value) }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        map2(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn select_less(self, x: Self::V, bound: Self::V, then: Self::V, otherwise: Self::V) -> Self::V {
        std::array::from_fn(|i| if x[i] < bound[i] { then[i] } else { otherwise[i] })
    }

    #[inline(always)]
    fn power_of_two(self, biased: Self::V) -> Self::V {
        biased.map(|biased| f32::from_bits((biased.to_bits() << 23).wrapping_add(127 << 23)))
    }

    #[inline(always)]
    fn prefetch(self, _ptr: *const u8) {}

    #[inline(always)]
    fn prefetch_far(self, _ptr: *const u8) {}
}
