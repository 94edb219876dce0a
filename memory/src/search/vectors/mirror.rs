//! A vector in two layers of bytes, each with a proven bound on what it leaves out.
//!
//! ```text
//! unit vector = coarse scale * coarse [dim] of i8  +  fine scale * fine [dim] of i8  +  what is left
//!               error about 0.008 at 384 dimensions    error about 0.00003
//! ```
//!
//! For a query `v` with quantised form `w`, and a vector `u` with layers `q`:
//! `<u, v> - <q, w> = <u - q, v> + <q, v - w>`, so by Cauchy and Schwarz it is at most `|u - q| |v| + |q| |v - w|`,
//! and `|q| <= 1 + |u - q|`.

use super::SearchError;

/// Vectors are padded to a multiple of this, so that no SIMD loop has a remainder.
const LANES: usize = 32;
/// What rounding in the last steps of an approximate score may add to its error.
const ROUNDING: f32 = 2e-6;

/// Scales and error bounds of the two layers of one vector.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layers {
    pub coarse_scale: f32,
    pub fine_scale: f32,
    /// `|u - q|` with the coarse layer alone, rounded up.
    pub coarse_error: f32,
    /// `|u - q|` with both layers, rounded up.
    pub fine_error: f32,
}

/// Length of a padded vector of `dim` elements.
pub(super) fn stride(dim: usize) -> usize {
    dim.next_multiple_of(LANES)
}

/// The vector at length 1.
///
/// # Errors
/// When it has no direction, or elements that are no numbers.
pub(super) fn unit(values: &[f32]) -> Result<Vec<f64>, SearchError> {
    if let Some((position, &value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        return Err(SearchError::NotFinite { position, value });
    }
    // Squares of f32 neither overflow nor vanish in f64.
    let norm = norm(values.iter().map(|&value| f64::from(value)));
    if norm == 0.0 {
        return Err(SearchError::ZeroVector);
    }
    Ok(values.iter().map(|&value| f64::from(value) / norm).collect())
}

/// Cosine of a unit vector and any other, in the one order of operations that defines an exact score here.
pub(super) fn cosine(unit: &[f64], values: &[f32]) -> Result<f32, SearchError> {
    let other = self::unit(values)?;
    Ok(unit.iter().zip(&other).map(|(left, right)| left * right).sum::<f64>() as f32)
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

fn round_up(error: f64) -> f32 {
    (error * (1.0 + 1e-6)) as f32
}

/// Appends both layers of a unit vector to the two arrays.
pub(super) fn quantise(unit: &[f64], coarse: &mut Vec<i8>, fine: &mut Vec<i8>) -> Layers {
    let (coarse_scale, rest) = quantise_layer(unit, coarse);
    let (fine_scale, last) = quantise_layer(&rest, fine);
    Layers {
        coarse_scale,
        fine_scale,
        coarse_error: round_up(norm(rest.into_iter())),
        fine_error: round_up(norm(last.into_iter())),
    }
}

/// One layer: the scale, and what the layer leaves out.
fn quantise_layer(values: &[f64], layer: &mut Vec<i8>) -> (f32, Vec<f64>) {
    let greatest = values.iter().fold(0.0f64, |greatest, value| greatest.max(value.abs()));
    // Everything below uses the scale as it is stored, so that its own rounding is part of the error that is measured.
    let scale = (greatest / f64::from(i8::MAX)) as f32;
    let step = f64::from(scale);
    let to_level = |value: f64| if scale == 0.0 { 0 } else { (value / step).round().clamp(-127.0, 127.0) as i8 };
    let start = layer.len();
    layer.extend(values.iter().map(|&value| to_level(value)));
    let rest = values.iter().zip(&layer[start..]).map(|(value, &level)| value - step * f64::from(level)).collect();
    layer.resize(start + stride(values.len()), 0);
    (scale, rest)
}

/// A query, quantised finely enough that a sum over products with bytes still fits 32 bits.
pub(super) struct QuantisedQuery {
    /// `[stride]`
    pub levels: Vec<i16>,
    pub scale: f32,
    /// `|v - w|`, rounded up.
    error: f32,
}

impl QuantisedQuery {
    pub fn new(unit: &[f64]) -> Self {
        let dim = unit.len();
        let level_max = (i32::MAX as usize / (127 * dim)).min(i16::MAX as usize) as f64;
        let greatest = unit.iter().fold(0.0f64, |greatest, value| greatest.max(value.abs()));
        let scale = (greatest / level_max) as f32;
        let to_level = |value: f64| (value / f64::from(scale)).round().clamp(-level_max, level_max) as i16;
        let mut levels: Vec<i16> = unit.iter().map(|&value| to_level(value)).collect();
        let rests = unit.iter().zip(&levels).map(|(value, &level)| value - f64::from(scale) * f64::from(level));
        let error = round_up(norm(rests));
        levels.resize(stride(dim), 0);
        Self { levels, scale, error }
    }

    /// How far an approximate score may be from the exact one, given how far the vector's layers are from the vector.
    pub fn error_with(&self, layers_error: f32) -> f32 {
        layers_error + (1.0 + layers_error) * self.error + ROUNDING
    }
}

/// Sum of products; the padding of both is zero.
#[inline(always)]
pub(super) fn dot(layer: &[i8], levels: &[i16]) -> i32 {
    // The compiler makes multiply-and-add instructions of this where the caller is dispatched to a CPU that has them.
    layer.iter().zip(levels).map(|(&left, &right)| i32::from(left) * i32::from(right)).sum()
}
