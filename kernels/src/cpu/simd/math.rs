//! The exponential, with the same bits on every instruction set: softmax and SiLU stand on it.

use super::Simd;

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 split in two (Cody and Waite): the first part has few bits, so that its product with a small integer is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// Added to a small number, rounds it to an integer that then stands in the low mantissa bits.
const ROUND: f32 = 12_582_912.0;
/// Above, `exp` gives infinity: 2^127 is the largest power that the result is scaled by.
const OVERFLOW: f32 = 88.0;
/// Below, the result is no normal f32; it is flushed to zero.
const UNDERFLOW: f32 = -87.336_54;

/// Minimax polynomial of `(exp(r) - 1 - r) / r^2` on `[-ln 2 / 2, ln 2 / 2]`, highest power first (Cephes `expf`).
const POLYNOMIAL: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// `exp(x)` within 2 units in the last place for `x <= 0`; 0 below -87.3, NaN for NaN. Above 0 the result is the same
/// up to 88, and then no longer meaningful.
#[inline(always)]
pub(super) fn exp_of_nonpositive<S: Simd>(s: S, x: S::V) -> S::V {
    let biased = s.fma(x, s.splat(LOG2_E), s.splat(ROUND));
    let n = s.sub(biased, s.splat(ROUND));
    let r = s.fma(n, s.splat(-LN_2_HIGH), x);
    let r = s.fma(n, s.splat(-LN_2_LOW), r);
    let mut sum = s.splat(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        sum = s.fma(sum, r, s.splat(*coefficient));
    }
    let exp_r = s.add(s.fma(sum, s.mul(r, r), r), s.splat(1.0));
    // exp(r) is in [0.70, 1.42], so the product is exact where it is a normal number; elsewhere it is replaced.
    let result = s.mul(exp_r, s.power_of_two(biased));
    s.select_less(x, s.splat(UNDERFLOW), s.splat(0.0), result)
}

/// `exp(x)` within 2 units in the last place; 0 below -87.3, infinity above 88, NaN for NaN.
#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    s.select_less(s.splat(OVERFLOW), x, s.splat(f32::INFINITY), exp_of_nonpositive(s, x))
}

/// `x / (1 + exp(-x))`.
#[inline(always)]
pub(super) fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    let exp_minus_x = exp(s, s.sub(s.splat(0.0), x));
    s.div(x, s.add(s.splat(1.0), exp_minus_x))
}

/// Applies `exp` to a slice: the test's way in.
#[cfg(test)]
pub(crate) struct ExpSlice<'a>(pub &'a mut [f32]);

#[cfg(test)]
impl super::Kernel for ExpSlice<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for chunk in self.0.chunks_mut(super::LANES) {
            let x = s.load(chunk);
            s.store(exp(s, x), chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::cpu::simd::Level;

    fn exp_on(isa: Isa, x: &[f32]) -> Option<Vec<f32>> {
        let mut y = x.to_vec();
        Level::detect(isa)?.run(ExpSlice(&mut y));
        Some(y)
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place_and_equal_on_all_instruction_sets() {
        let x: Vec<f32> = (0..400_000).map(|i| -87.3 + i as f32 * (175.3 / 400_000.0)).collect();
        let y = exp_on(Isa::Portable, &x).expect("portable");
        let mut worst = 0f64;
        for (x, y) in x.iter().zip(&y) {
            let exact = f64::from(*x).exp();
            let unit = f64::from(y.next_up() - y);
            worst = worst.max((f64::from(*y) - exact).abs() / unit);
        }
        assert!(worst <= 2.0, "worst error {worst} units");
        for isa in [Isa::Avx2, Isa::Avx512] {
            match exp_on(isa, &x) {
                Some(other) => assert!(y.iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa}"),
                None => println!("skipped: no {isa}"),
            }
        }
    }

    #[test]
    fn exp_of_special_values() {
        let x = [0.0, -0.0, f32::NEG_INFINITY, f32::INFINITY, f32::NAN, -88.0, 89.0, -1e30, 1e30, f32::MIN_POSITIVE];
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            let Some(y) = exp_on(isa, &x) else { continue };
            assert_eq!(y[..4], [1.0, 1.0, 0.0, f32::INFINITY]);
            assert!(y[4].is_nan());
            assert_eq!(y[5..], [0.0, f32::INFINITY, 0.0, f32::INFINITY, 1.0]);
        }
    }
}
