//! Sixteen lanes as two AVX registers, with FMA and F16C.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Kernel, Simd};

/// AVX2, FMA and F16C. A value proves that the processor has them.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub fn detect() -> Option<Self> {
        let found =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }

    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn inner<K: Kernel>(s: Avx2, kernel: K) -> K::Output {
            kernel.run(s)
        }
        // SAFETY: `self` proves that the features are there.
        unsafe { inner(self, kernel) }
    }
}

/// Applies an intrinsic to the lower and the upper eight lanes.
macro_rules! both_halves {
    ($($name:ident($($arg:ident),*) => $body:expr;)*) => {
        $(
            #[inline(always)]
            fn $name(self, $($arg: [__m256; 2]),*) -> [__m256; 2] {
                // SAFETY: `self` proves that the features are there.
                unsafe {
                    let lower = { $(let $arg = $arg[0];)* $body };
                    let upper = { $(let $arg = $arg[1];)* $body };
                    [lower, upper]
                }
            }
        )*
    };
}

/// # Safety
/// The processor has AVX2, and 8 elements are readable.
#[inline(always)]
unsafe fn widen_bf16(ptr: *const bf16) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let words = _mm_loadu_si128(ptr.cast());
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(words)))
    }
}

impl Simd for Avx2 {
    type V = [__m256; 2];
    // 16 registers hold 12 halves of sums, two halves of a loaded vector and a broadcast.
    const ACCUMULATORS: usize = 6;
    const TILE_ROWS: usize = 6;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::V {
        // SAFETY: `self` proves that the features are there.
        unsafe { [_mm256_set1_ps(value); 2] }
    }

    #[inline(always)]
    unsafe fn load_f32(self, ptr: *const f32) -> Self::V {
        // SAFETY: the caller promises 16 readable elements; `self` proves the features.
        unsafe { [_mm256_loadu_ps(ptr), _mm256_loadu_ps(ptr.add(8))] }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, ptr: *const bf16) -> Self::V {
        // SAFETY: the caller promises 16 readable elements; `self` proves the features.
        unsafe { [widen_bf16(ptr), widen_bf16(ptr.add(8))] }
    }

    #[inline(always)]
    unsafe fn load_f16(self, ptr: *const f16) -> Self::V {
        // SAFETY: the caller promises 16 readable elements; `self` proves the features.
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(ptr.cast())), _mm256_cvtph_ps(_mm_loadu_si128(ptr.add(8).cast()))] }
    }

    #[inline(always)]
    unsafe fn store_f32(self, value: Self::V, ptr: *mut f32) {
        // SAFETY: the caller promises 16 writable elements; `self` proves the features.
        unsafe {
            _mm256_storeu_ps(ptr, value[0]);
            _mm256_storeu_ps(ptr.add(8), value[1]);
        }
    }

    both_halves! {
        add(a, b) => _mm256_add_ps(a, b);
        sub(a, b) => _mm256_sub_ps(a, b);
        mul(a, b) => _mm256_mul_ps(a, b);
        div(a, b) => _mm256_div_ps(a, b);
        max(a, b) => _mm256_max_ps(a, b);
        fma(a, b, c) => _mm256_fmadd_ps(a, b, c);
        select_less(x, bound, then, otherwise) =>
            _mm256_blendv_ps(otherwise, then, _mm256_cmp_ps::<_CMP_LT_OQ>(x, bound));
        power_of_two(biased) => {
            let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(biased));
            _mm256_castsi256_ps(_mm256_add_epi32(n, _mm256_set1_epi32(127 << 23)))
        };
    }

    #[inline(always)]
    fn prefetch(self, ptr: *const u8) {
        // SAFETY: prefetching never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ptr.cast()) }
    }

    #[inline(always)]
    fn prefetch_far(self, ptr: *const u8) {
        // SAFETY: prefetching never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(ptr.cast()) }
    }
}
