//! Sixteen lanes as one AVX-512 register.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Kernel, Simd};

/// AVX-512 F, BW, DQ and VL (and what they imply). A value proves that the processor has them.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }

    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn inner<K: Kernel>(s: Avx512, kernel: K) -> K::Output {
            kernel.run(s)
        }
        // SAFETY: `self` proves that the features are there.
        unsafe { inner(self, kernel) }
    }
}

/// Wraps intrinsics whose only precondition is that the features exist.
macro_rules! intrinsics {
    ($($name:ident($($arg:ident),*) => $body:expr;)*) => {
        $(
            #[inline(always)]
            fn $name(self, $($arg: __m512),*) -> __m512 {
                // SAFETY: `self` proves that the features are there.
                unsafe { $body }
            }
        )*
    };
}

impl Simd for Avx512 {
    type V = __m512;
    const ACCUMULATORS: usize = 24;
    const TILE_ROWS: usize = 6;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: `self` proves that the features are there.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load_f32(self, ptr: *const f32) -> __m512 {
        // SAFETY: the caller promises 16 readable elements; `self` proves the features.
        unsafe { _mm512_loadu_ps(ptr) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, ptr: *const bf16) -> __m512 {
        // SAFETY: the caller promises 16 readable elements; `self` proves the features.
        unsafe {
            let words = _mm256_loadu_si256(ptr.cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(words)))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, ptr: *const f16) -> __m512 {
        // SAFETY: the caller promises 16 readable elements; `self` proves the features.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(ptr.cast())) }
    }

    #[inline(always)]
    unsafe fn store_f32(self, value: __m512, ptr: *mut f32) {
        // SAFETY: the caller promises 16 writable elements; `self` proves the features.
        unsafe { _mm512_storeu_ps(ptr, value) }
    }

    intrinsics! {
        add(a, b) => _mm512_add_ps(a, b);
        sub(a, b) => _mm512_sub_ps(a, b);
        mul(a, b) => _mm512_mul_ps(a, b);
        div(a, b) => _mm512_div_ps(a, b);
        max(a, b) => _mm512_max_ps(a, b);
        fma(a, b, c) => _mm512_fmadd_ps(a, b, c);
        select_less(x, bound, then, otherwise) =>
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, bound), otherwise, then);
        power_of_two(biased) => {
            let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(biased));
            _mm512_castsi512_ps(_mm512_add_epi32(n, _mm512_set1_epi32(127 << 23)))
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

    #[inline(always)]
    fn max_lanes(self, v: __m512) -> f32 {
        // SAFETY: `self` proves that the features are there.
        unsafe { _mm512_reduce_max_ps(v) }
    }
}
