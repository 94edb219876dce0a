//! The bf16 dot product of AVX-512-BF16 (`vdpbf16ps`), as another meaning of "multiply and add" under the matrix product.
//!
//! Activations and weights come as pairs of bf16, consecutive in `k`, in the 32 bits of what the product takes for an
//! f32; one step adds both products to a lane's f32 sum. The rest of the product is what it is for f32.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::array;

use half::{bf16, f16};

use super::Simd;
#[cfg(target_arch = "x86_64")]
use super::avx512::Avx512;
use super::matmul::MatmulTile;
#[cfg(test)]
use super::portable::Portable;

/// A way to the dot product of pairs. A value proves that the processor has it and that it does what is documented.
#[derive(Clone, Copy)]
pub(crate) enum Bf16Dot {
    #[cfg(target_arch = "x86_64")]
    Hardware(Avx512Bf16),
    /// Lets the tests run the product's path for pairs on any processor.
    #[cfg(test)]
    Emulated(Emulated),
}

impl Bf16Dot {
    /// `None` where the processor lacks the instruction, or where a trial shows another arithmetic than documented:
    /// results would then not be those of the numerics id.
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let dot = Avx512Bf16::detect()?;
            dot.agrees_with_specification().then_some(Self::Hardware(dot))
        }
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// Runs a matrix product whose activations and weights are pairs.
    pub fn run(self, product: MatmulTile<'_, f32>) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Hardware(s) => s.run(product),
            #[cfg(test)]
            Self::Emulated(s) => super::Kernel::run(product, s),
        }
    }
}

/// Rounds a row to pairs of bf16 (to nearest, ties to even), the earlier element in the lower half; a last single element
/// is paired with zero.
pub(crate) fn round_to_pairs(row: &[f32], pairs: &mut [f32]) {
    let round = |x: f32| u32::from(bf16::from_f32(x).to_bits());
    let (whole, last) = row.as_chunks::<2>();
    for (pair, [first, second]) in pairs.iter_mut().zip(whole) {
        *pair = f32::from_bits(round(*first) | round(*second) << 16);
    }
    if let ([last], Some(pair)) = (last, pairs.last_mut()) {
        *pair = f32::from_bits(round(*last));
    }
}

/// One lane of the instruction as Intel's manual gives it: the upper product is added first, then the lower one, each
/// with one rounding. (It also takes subnormal numbers for zero, which is left out here.)
fn dot_of_pairs(a: f32, b: f32, sum: f32) -> f32 {
    let upper = |pair: f32| f32::from_bits(pair.to_bits() & 0xFFFF_0000);
    let lower = |pair: f32| f32::from_bits(pair.to_bits() << 16);
    lower(a).mul_add(lower(b), upper(a).mul_add(upper(b), sum))
}

/// Implements [`Simd`] by another implementation, but for `fma`.
macro_rules! simd_with_fma {
    ($base:ty, |$self:ident, $a:ident, $b:ident, $c:ident| $fma:expr) => {
        type V = <$base as Simd>::V;
        const ACCUMULATORS: usize = <$base as Simd>::ACCUMULATORS;
        const TILE_ROWS: usize = <$base as Simd>::TILE_ROWS;

        #[inline(always)]
        fn fma($self, $a: Self::V, $b: Self::V, $c: Self::V) -> Self::V {
            $fma
        }

        #[inline(always)]
        fn splat(self, value: f32) -> Self::V {
            self.0.splat(value)
        }

        #[inline(always)]
        unsafe fn load_f32(self, ptr: *const f32) -> Self::V {
            // SAFETY: the caller's promise.
            unsafe { self.0.load_f32(ptr) }
        }

        #[inline(always)]
        unsafe fn load_bf16(self, ptr: *const bf16) -> Self::V {
            // SAFETY: the caller's promise.
            unsafe { self.0.load_bf16(ptr) }
        }

        #[inline(always)]
        unsafe fn load_f16(self, ptr: *const f16) -> Self::V {
            // SAFETY: the caller's promise.
            unsafe { self.0.load_f16(ptr) }
        }

        #[inline(always)]
        unsafe fn store_f32(self, value: Self::V, ptr: *mut f32) {
            // SAFETY: the caller's promise.
            unsafe { self.0.store_f32(value, ptr) }
        }

        simd_with_fma!(@pairs add, sub, mul, div, max);

        #[inline(always)]
        fn select_less(self, x: Self::V, bound: Self::V, then: Self::V, otherwise: Self::V) -> Self::V {
            self.0.select_less(x, bound, then, otherwise)
        }

        #[inline(always)]
        fn power_of_two(self, biased: Self::V) -> Self::V {
            self.0.power_of_two(biased)
        }

        #[inline(always)]
        fn prefetch(self, ptr: *const u8) {
            self.0.prefetch(ptr);
        }

        #[inline(always)]
        fn prefetch_far(self, ptr: *const u8) {
            self.0.prefetch_far(ptr);
        }
    };
    (@pairs $($name:ident),*) => {
        $(
            #[inline(always)]
            fn $name(self, a: Self::V, b: Self::V) -> Self::V {
                self.0.$name(a, b)
            }
        )*
    };
}

/// AVX-512-BF16. A value proves that the processor has it.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx512Bf16(Avx512);

#[cfg(target_arch = "x86_64")]
impl Avx512Bf16 {
    fn detect() -> Option<Self> {
        let base = Avx512::detect()?;
        is_x86_feature_detected!("avx512bf16").then_some(Self(base))
    }

    fn run(self, product: MatmulTile<'_, f32>) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
        fn inner(s: Avx512Bf16, product: MatmulTile<'_, f32>) {
            super::Kernel::run(product, s);
        }
        // SAFETY: `self` proves that the features are there.
        unsafe { inner(self, product) }
    }

    /// One chain of steps against the specification.
    fn agrees_with_specification(self) -> bool {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
        fn step(s: Avx512Bf16, a: f32, b: &[f32; 16], sums: &mut [f32; 16]) {
            let sum = s.fma(s.splat(a), s.load(b), s.load(sums));
            s.store(sum, sums);
        }
        let mut sums = [0f32; 16];
        let mut expected = sums;
        for i in 0..64u32 {
            // Normal numbers of both signs with all eight bits of the significand in use.
            let number = |seed: u32| {
                let bits = seed.wrapping_mul(0x9E37_79B9) >> 8;
                (bits & 0x80FF) | (0x3F00 + ((bits >> 16 & 7) << 7))
            };
            let pair = |seed: u32| f32::from_bits(number(2 * seed) | number(2 * seed + 1) << 16);
            let a = pair(1000 + i);
            let b = array::from_fn(|lane| pair(5000 + 16 * i + lane as u32));
            // SAFETY: `self` proves that the features are there.
            unsafe { step(self, a, &b, &mut sums) };
            expected = array::from_fn(|lane| dot_of_pairs(a, b[lane], expected[lane]));
        }
        sums.map(f32::to_bits) == expected.map(f32::to_bits)
    }
}

#[cfg(target_arch = "x86_64")]
impl Simd for Avx512Bf16 {
    simd_with_fma!(Avx512, |self, a, b, c| {
        // SAFETY: `self` proves that the feature is there; both vector types are 512 bits without invalid values.
        unsafe {
            _mm512_dpbf16_ps(c, std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b))
        }
    });
}

/// The specification in place of the instruction.
#[cfg(test)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Emulated(Portable);

#[cfg(test)]
impl Simd for Emulated {
    simd_with_fma!(Portable, |self, a, b, c| array::from_fn(|lane| dot_of_pairs(a[lane], b[lane], c[lane])));
}

#[cfg(test)]
mod tests {
    use crate::testing::*;
    use crate::{DType, Device, Isa, ops};

    /// The product as the numerics id defines it: activations rounded to bf16, pairs in order, the upper one first.
    fn specified(x: &[f32], weights: &[f32], k_len: usize) -> Vec<f32> {
        let rounded = |x: &[f32]| -> Vec<f32> {
            let mut x = crate::testing::rounded(DType::BF16, x);
            x.resize(k_len.next_multiple_of(2), 0.0);
            x
        };
        let mut products = Vec::new();
        for x in x.chunks_exact(k_len).map(rounded) {
            for w in weights.chunks_exact(k_len).map(rounded) {
                let pairs = x.chunks_exact(2).zip(w.chunks_exact(2));
                products.push(pairs.fold(0f32, |sum, (x, w)| x[0].mul_add(w[0], x[1].mul_add(w[1], sum))));
            }
        }
        products
    }

    fn check(device: &Device) {
        let mut rng = Rng::new(20);
        for (k_len, outputs) in [(1, 1), (2, 64), (15, 65), (128, 64), (301, 130), (600, 257)] {
            let weights = rounded(DType::BF16, &rng.numbers(outputs * k_len));
            let w = matrix(device, DType::BF16, outputs, &weights);
            for num_rows in [1, 3, 6, 7, 25, 100] {
                let values = rng.numbers(num_rows * k_len);
                let x = tensor(device, num_rows, k_len, &values);
                let mut out = poisoned(device);
                ops::matmul(device, &x, &w, None, &mut out).expect("valid arguments");
                let what = format!("[{num_rows}, {k_len}] x [{outputs}, {k_len}]");
                assert_same_bits(out.as_slice(), &specified(&values, &weights, k_len), &what);
            }
            let mut row = poisoned(device);
            ops::embedding(device, &w, &[outputs as u32 - 1], &mut row).expect("a token of the vocabulary");
            assert_same_bits(row.as_slice(), &weights[(outputs - 1) * k_len..], "embedding");
        }
    }

    #[test]
    fn products_of_pairs_follow_the_specification() {
        check(&Device::with_emulated_bf16_dot());
    }

    #[test]
    fn the_processors_dot_product_follows_the_specification() {
        if Isa::Avx512Bf16.is_available() {
            check(&device(Isa::Avx512Bf16, 1));
            check(&device(Isa::Avx512Bf16, 3));
        } else {
            println!("skipped: this processor has no avx512-bf16");
        }
    }

    #[test]
    fn a_matrix_packed_for_other_arithmetic_is_refused() {
        let pairs = Device::with_emulated_bf16_dot();
        let plain = device(Isa::Portable, 1);
        let x = tensor(&plain, 1, 2, &[1.0, 1.0]);
        let mut out = poisoned(&plain);
        let w = matrix(&pairs, DType::BF16, 1, &[1.0, 2.0]);
        let error = ops::matmul(&plain, &x, &w, None, &mut out).expect_err("packed as pairs");
        assert_eq!(error.to_string(), "matmul: the matrix was packed for cpu-dpbf16-1, this device computes cpu-fma-1");
        assert_eq!(w.num_bytes(), 64 * 2 * 2);
        // What is no bf16 is the same on both.
        let w = matrix(&pairs, DType::F32, 1, &[1.0, 2.0]);
        ops::matmul(&plain, &x, &w, None, &mut out).expect("the same layout");
        assert_eq!(out.as_slice(), [3.0]);
    }
}
