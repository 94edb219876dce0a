//! The steps between matrix products, each in one pass over contiguous f32 rows in place, as tensor operations.
//!
//! The tensor library has all of them as well, but its exact GELU goes through f64 one element at a time, and bias,
//! residual and norm each make a tensor of their own. The loops are written to be vectorised.

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout};

use super::config::Activation;
use crate::softmax::exp_nonpositive;

/// Independent sums that are kept side by side, so that additions need not wait for each other.
const LANES: usize = 8;

/// Adds a bias to every row. `[rows, bias_len]`
pub(super) struct AddBias<'a>(pub &'a [f32]);

/// Adds a bias to every row and applies the activation. `[rows, bias_len]`
pub(super) struct BiasActivation<'a> {
    pub bias: &'a [f32],
    pub activation: Activation,
}

/// Makes `softmax(scale * row)` of every row. `[.., row_len]`
pub(super) struct ScaledSoftmax {
    pub row_len: usize,
    pub scale: f32,
}

/// `norm(x + bias + residual)` of every row; the other tensor is the residual. `[rows, bias_len]`
pub(super) struct AddNorm<'a> {
    pub bias: &'a [f32],
    pub norm: &'a LayerNorm,
}

/// Shifts a row to mean 0, scales it to variance 1, then applies weight and bias (Ba et al., arXiv 1607.06450).
pub(super) struct LayerNorm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub eps: f32,
}

impl LayerNorm {
    /// Normalises one row in place.
    pub fn apply(&self, row: &mut [f32]) {
        let len = row.len() as f32;
        let mean = sum(row, |x| x) / len;
        let variance = sum(row, |x| (x - mean) * (x - mean)) / len;
        let scale = 1.0 / (variance + self.eps).sqrt();
        for ((x, weight), bias) in row.iter_mut().zip(&self.weight).zip(&self.bias) {
            *x = (*x - mean) * scale * weight + bias;
        }
    }
}

impl InplaceOp1 for AddBias<'_> {
    fn name(&self) -> &'static str {
        "add_bias"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        for row in floats_mut(storage, layout)?.chunks_exact_mut(self.0.len()) {
            row.iter_mut().zip(self.0).for_each(|(x, bias)| *x += bias);
        }
        Ok(())
    }
}

impl InplaceOp1 for BiasActivation<'_> {
    fn name(&self) -> &'static str {
        "bias_activation"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let values = floats_mut(storage, layout)?;
        match self.activation {
            Activation::GeluErf => bias_then(values, self.bias, gelu_erf),
            Activation::GeluTanh => bias_then(values, self.bias, gelu_tanh),
            Activation::Relu => bias_then(values, self.bias, |x| x.max(0.0)),
            Activation::Silu => bias_then(values, self.bias, |x| x * sigmoid(x)),
        }
        Ok(())
    }
}

impl InplaceOp1 for ScaledSoftmax {
    fn name(&self) -> &'static str {
        "scaled_softmax"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        for row in floats_mut(storage, layout)?.chunks_exact_mut(self.row_len) {
            let max = max(row);
            row.iter_mut().for_each(|x| *x = exp_nonpositive((*x - max) * self.scale));
            let factor = 1.0 / sum(row, |x| x);
            row.iter_mut().for_each(|x| *x *= factor);
        }
        Ok(())
    }
}

impl InplaceOp2 for AddNorm<'_> {
    fn name(&self) -> &'static str {
        "add_norm"
    }

    fn cpu_fwd(
        &self,
        storage: &mut CpuStorage,
        layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> candle_core::Result<()> {
        let width = self.bias.len();
        let residual = floats(residual, residual_layout)?;
        let values = floats_mut(storage, layout)?;
        for (row, residual) in values.chunks_exact_mut(width).zip(residual.chunks_exact(width)) {
            for ((x, bias), residual) in row.iter_mut().zip(self.bias).zip(residual) {
                *x += bias + residual;
            }
            self.norm.apply(row);
        }
        Ok(())
    }
}

/// `x Φ(x)`, written as `max(x, 0) - |x| Φ(-|x|)` with `Φ(-a) = erfc(a / √2) / 2`, which keeps small results precise.
///
/// `erfc(z) = e^(-z²) t P(t)` with `t = 1 / (1 + 0.48 z)`; P was fitted to erfc with a relative error of 1.1e-8 for z
/// up to 7, where the result is below 1e-21.
#[inline]
fn gelu_erf(x: f32) -> f32 {
    const P: [f32; 9] = [
        -0.055_220_816,
        0.294_189_7,
        -0.579_909,
        0.444_801_54,
        -0.115_865_31,
        0.241_743_27,
        0.227_394_66,
        0.272_114_9,
        0.270_751_1,
    ];
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.48 * std::f32::consts::FRAC_1_SQRT_2 * a);
    let mut p = P[0];
    for coefficient in &P[1..] {
        p = p * t + coefficient;
    }
    let erfc = exp_nonpositive(-0.5 * x * x) * t * p;
    x.max(0.0) - 0.5 * a * erfc
}

/// `x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2`, by `(1 + tanh u) / 2 = sigmoid(2u)`.
#[inline]
fn gelu_tanh(x: f32) -> f32 {
    const TWICE_ROOT: f32 = 1.595_769_2; // 2 √(2/π)
    x * sigmoid(TWICE_ROOT * (x + 0.044_715 * x * x * x))
}

/// `1 / (1 + e^-x)`
#[inline]
fn sigmoid(x: f32) -> f32 {
    let e = exp_nonpositive(-x.abs());
    let numerator = if x >= 0.0 { 1.0 } else { e };
    // A NaN takes the second branch and stays one.
    numerator / (1.0 + e)
}

#[inline]
fn bias_then(values: &mut [f32], bias: &[f32], function: impl Fn(f32) -> f32) {
    for row in values.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(x, bias)| *x = function(*x + bias));
    }
}

/// The sum of `function(x)`, in an order that depends on the length alone.
#[inline]
fn sum(values: &[f32], function: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane += function(*x));
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|x| function(*x)).sum::<f32>()
}

#[inline]
fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane = larger(*lane, *x));
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, x| larger(max, *x))
}

fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => candle_core::bail!("expected contiguous f32"),
    }
}

fn floats_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> candle_core::Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => candle_core::bail!("expected contiguous f32"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf by its series around 0, which converges everywhere; in f64 it is exact to 1e-10 for |z| up to 4.
    fn erf(z: f64) -> f64 {
        let mut term = z;
        let mut sum = z;
        for n in 1..200 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    fn points() -> impl Iterator<Item = f32> {
        (-5500..=5500).map(|step| step as f32 / 1000.0)
    }

    #[test]
    fn gelu_agrees_with_the_error_function() {
        for x in points() {
            let wide = f64::from(x);
            let expected = wide * 0.5 * (1.0 + erf(wide / std::f64::consts::SQRT_2));
            let difference = (f64::from(gelu_erf(x)) - expected).abs();
            assert!(difference < 2e-7 * wide.abs().max(1.0), "gelu({x}) is off by {difference}");
        }
        assert_eq!((gelu_erf(0.0), gelu_erf(30.0), gelu_erf(-30.0)), (0.0, 30.0, 0.0));
        assert!(gelu_erf(f32::NAN).is_nan());
    }

    #[test]
    fn the_other_activations_agree_with_their_formulas() {
        for x in points() {
            let wide = f64::from(x);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044715 * wide.powi(3));
            let tanh = wide * 0.5 * (1.0 + inner.tanh());
            assert!((f64::from(gelu_tanh(x)) - tanh).abs() < 1e-6, "gelu_tanh({x})");
            let silu = wide / (1.0 + (-wide).exp());
            assert!((f64::from(x * sigmoid(x)) - silu).abs() < 1e-6, "silu({x})");
        }
    }

    #[test]
    fn sums_and_maxima_cover_rows_of_any_length() {
        for len in [1, 7, 8, 9, 31] {
            let values: Vec<f32> = (0..len).map(|index| (index * 5 % 31) as f32).collect();
            assert_eq!(sum(&values, |x| x), values.iter().sum::<f32>(), "{len}");
            assert_eq!(max(&values), values.iter().copied().fold(0.0, f32::max), "{len}");
        }
    }
}
