//! The kernels' inner loops, written once over sixteen f32 lanes and compiled for each instruction set.
//!
//! A value of a [`Simd`] type is the proof that the processor has its instructions: it is only made after detection.
//! The three implementations do the same IEEE operations in the same order (fused multiply-add everywhere), so they
//! give the same bits.
#![expect(unsafe_code, reason = "vector intrinsics and the raw pointers of register-blocked loops")]

pub(crate) mod aligned;
pub(crate) mod attention;
mod attention_tile;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod bf16_dot;
pub(crate) mod element;
mod math;
pub(crate) mod matmul;
pub(crate) mod output;
mod portable;
pub(crate) mod rowwise;
pub(crate) mod softmax;
pub(crate) mod splice;
mod tile;

use half::{bf16, f16};

use crate::Isa;

/// Lanes of a vector, on every instruction set.
pub(crate) const LANES: usize = 16;

/// Sixteen f32 lanes. As on x86, `max` returns its second operand where one is NaN.
pub(crate) trait Simd: Copy + Send + Sync {
    /// The vector.
    type V: Copy;
    /// Vector registers that a register tile may fill with sums.
    const ACCUMULATORS: usize;
    /// Rows of a register tile.
    const TILE_ROWS: usize;

    fn splat(self, value: f32) -> Self::V;
    /// # Safety
    /// 16 elements must be readable.
    unsafe fn load_f32(self, ptr: *const f32) -> Self::V;
    /// # Safety
    /// 16 elements must be readable.
    unsafe fn load_bf16(self, ptr: *const bf16) -> Self::V;
    /// # Safety
    /// 16 elements must be readable.
    unsafe fn load_f16(self, ptr: *const f16) -> Self::V;
    /// # Safety
    /// 16 elements must be writable.
    unsafe fn store_f32(self, value: Self::V, ptr: *mut f32);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c` with one rounding.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Lanes of `then` where `x < bound`, of `otherwise` elsewhere (also where `x` is NaN).
    fn select_less(self, x: Self::V, bound: Self::V, then: Self::V, otherwise: Self::V) -> Self::V;
    /// `2^n` for `n` from -126 to 127, where `biased` is `n + 1.5 * 2^23`: `n` stands in its low mantissa bits.
    fn power_of_two(self, biased: Self::V) -> Self::V;
    /// Asks for the cache line at `ptr`; any address is allowed.
    fn prefetch(self, ptr: *const u8);
    /// As [`Self::prefetch`], into the second-level cache only.
    fn prefetch_far(self, ptr: *const u8);

    /// Lanes as an array.
    #[inline(always)]
    fn to_array(self, v: Self::V) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        // SAFETY: the array has 16 elements.
        unsafe { self.store_f32(v, lanes.as_mut_ptr()) };
        lanes
    }

    /// Loads the first 16 elements of a slice, or all of a shorter one followed by zeros.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::V {
        if from.len() >= LANES {
            // SAFETY: just checked.
            return unsafe { self.load_f32(from.as_ptr()) };
        }
        let mut lanes = [0.0; LANES];
        lanes[..from.len()].copy_from_slice(from);
        // SAFETY: the array has 16 elements.
        unsafe { self.load_f32(lanes.as_ptr()) }
    }

    /// Stores as many lanes as the slice has room for, at most 16.
    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32]) {
        if to.len() >= LANES {
            // SAFETY: just checked.
            unsafe { self.store_f32(v, to.as_mut_ptr()) };
        } else {
            let len = to.len();
            to.copy_from_slice(&self.to_array(v)[..len]);
        }
    }

    /// Sum of the lanes by a fixed tree: lane `i` plus lane `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
    #[inline(always)]
    fn sum_lanes(self, v: Self::V) -> f32 {
        let mut lanes = self.to_array(v);
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
            half /= 2;
        }
        lanes[0]
    }

    /// Largest lane.
    #[inline(always)]
    fn max_lanes(self, v: Self::V) -> f32 {
        let mut lanes = self.to_array(v);
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                lanes[i] = if lanes[i] > lanes[i + half] { lanes[i] } else { lanes[i + half] };
            }
            half /= 2;
        }
        lanes[0]
    }
}

/// A computation that is compiled for every instruction set. `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// An instruction set that this processor is known to have.
#[derive(Clone, Copy)]
pub(crate) enum Level {
    Portable(portable::Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
}

impl Level {
    /// The kernels for an instruction set, `None` when the processor lacks it.
    pub fn detect(isa: Isa) -> Option<Self> {
        match isa {
            Isa::Portable => Some(Self::Portable(portable::Portable)),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::Avx2::detect().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::Avx512::detect().map(Self::Avx512),
            // All but the product of bf16 weights is AVX-512 (see `bf16_dot`).
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => bf16_dot::Bf16Dot::detect().and(avx512::Avx512::detect()).map(Self::Avx512),
            #[cfg(not(target_arch = "x86_64"))]
            _ => None,
        }
    }

    /// Runs a kernel compiled for this instruction set.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Portable(s) => kernel.run(s),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(s) => s.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(s) => s.run(kernel),
        }
    }
}
