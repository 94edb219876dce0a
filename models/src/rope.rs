//! Rotary position embedding: scaling rules of `config.json`, inverse frequencies, and the table that kernels read.
//!
//! Frequencies follow transformers' numerics: powers, divisions and blends are rounded to f32 step by step, and an
//! angle is `f32(position) * f32(inverse frequency)`.

use std::f64::consts::PI;

use kernels::{Device, KeyRotation, RopeTable};

use crate::ModelError;
use crate::fields::Fields;

const SUPPORTED: &str = "default, linear, llama3, yarn";

/// How a model rotates its query and key heads.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Elements of a head that are rotated: all of them.
    pub head_dim: usize,
    /// Base of the frequencies.
    pub theta: f64,
    /// How frequencies are stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// How frequencies are stretched for contexts longer than those first trained on.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every frequency is divided by `factor`.
    Linear {
        /// The stretch.
        factor: f64,
    },
    /// Llama 3.1: low frequencies are divided by `factor`, high ones kept, those between blended.
    Llama3 {
        /// The stretch.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are stretched in full.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context of the first training, in tokens.
        original_max_position_embeddings: f64,
    },
    /// YaRN (arXiv 2309.00071, section 3.2 and 3.4).
    Yarn(Yarn),
}

/// Parameters of YaRN scaling.
#[derive(Debug, Clone, PartialEq)]
pub struct Yarn {
    /// The stretch.
    pub factor: f64,
    /// Context of the first training, in tokens.
    pub original_max_position_embeddings: f64,
    /// Dimensions that rotate more often than this over the original context are kept.
    pub beta_fast: f64,
    /// Dimensions that rotate less often than this are stretched in full.
    pub beta_slow: f64,
    /// Cosines and sines are multiplied by this.
    pub attention_factor: f64,
    /// Whether the bounds of the blend are rounded to whole dimensions.
    pub bounds: YarnBounds,
}

/// Bounds of YaRN's blend between kept and stretched dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum YarnBounds {
    /// Rounded outwards to whole dimensions (`truncate: true`, the default).
    Whole,
    /// Taken as computed.
    Exact,
}

impl RopeConfig {
    /// Reads `rope_parameters` (transformers 5) or `rope_scaling` and `rope_theta` (transformers 4).
    pub(crate) fn read(fields: &Fields, head_dim: usize, max_position_embeddings: usize) -> Result<Self, ModelError> {
        if fields.number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
            let value = fields.number("partial_rotary_factor")?.unwrap_or_default().to_string();
            return Err(ModelError::Unsupported { name: "partial_rotary_factor", value, supported: "1.0" });
        }
        let parameters = match fields.object("rope_scaling")? {
            Some(scaling) => Some(scaling),
            None => fields.object("rope_parameters")?,
        };
        let Some(parameters) = parameters else {
            let theta = fields.positive("rope_theta")?.unwrap_or(10_000.0);
            return Ok(Self { head_dim, theta: checked_theta(fields, theta)?, scaling: RopeScaling::None });
        };
        if let Some(nested) = ["full_attention", "sliding_attention"].iter().find(|n| parameters.get(n).is_some()) {
            let value = format!("{nested}: …");
            return Err(ModelError::Unsupported {
                name: "rope_parameters",
                value,
                supported: "one set for all layers",
            });
        }
        let theta = match parameters.positive("rope_theta")? {
            Some(theta) => checked_theta(&parameters, theta)?,
            None => checked_theta(fields, fields.positive("rope_theta")?.unwrap_or(10_000.0))?,
        };
        // Some configurations keep the original length beside the parameters; it takes precedence.
        let original = match fields.positive("original_max_position_embeddings")? {
            Some(original) => original,
            None => parameters.positive("original_max_position_embeddings")?.unwrap_or(max_position_embeddings as f64),
        };
        let kind = parameters.text("rope_type")?.or(parameters.text("type")?).unwrap_or("default");
        let scaling = match kind {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: stretch(&parameters)? },
            "llama3" => read_llama3(&parameters, original)?,
            "yarn" => RopeScaling::Yarn(read_yarn(&parameters, original, max_position_embeddings)?),
            other => {
                let value = other.to_owned();
                return Err(ModelError::Unsupported { name: "rope_type", value, supported: SUPPORTED });
            }
        };
        Ok(Self { head_dim, theta, scaling })
    }

    /// Tokens that the scaling itself says the model reaches: YaRN's original context times its factor.
    pub(crate) fn scaled_context_len(&self) -> Option<usize> {
        match &self.scaling {
            RopeScaling::Yarn(yarn) => Some((yarn.original_max_position_embeddings * yarn.factor) as usize),
            _ => None,
        }
    }

    /// Radians per position of every rotated pair. `[head_dim / 2]`
    pub fn inverse_frequencies(&self) -> Vec<f32> {
        let periods = self.periods();
        let plain = periods.iter().map(|period| 1.0 / period);
        match &self.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|frequency| frequency / *factor as f32).collect(),
            RopeScaling::Llama3 { .. } => plain.map(|frequency| self.llama3_frequency(frequency)).collect(),
            RopeScaling::Yarn(yarn) => yarn.frequencies(&periods, self.theta),
        }
    }

    /// What cosines and sines are multiplied by.
    pub fn attention_factor(&self) -> f64 {
        match &self.scaling {
            RopeScaling::Yarn(yarn) => yarn.attention_factor,
            _ => 1.0,
        }
    }

    /// Cosines and sines of positions `0..max_positions`.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] when the device refuses the table.
    pub(crate) fn table(&self, device: &Device, max_positions: usize) -> Result<RopeTable, ModelError> {
        let frequencies = self.inverse_frequencies();
        let factor = self.attention_factor() as f32;
        let half_dim = frequencies.len();
        let mut cos = vec![0.0; max_positions * half_dim];
        let mut sin = vec![0.0; max_positions * half_dim];
        // A long context has millions of angles: the rows are split over the device's threads.
        let rows_per_thread = max_positions.div_ceil(device.num_threads().max(1)).max(1);
        let piece_len = rows_per_thread * half_dim;
        std::thread::scope(|scope| {
            let pieces = cos.chunks_mut(piece_len).zip(sin.chunks_mut(piece_len));
            for (index, (cos, sin)) in pieces.enumerate() {
                let frequencies = &frequencies;
                scope.spawn(move || {
                    let rows = cos.chunks_exact_mut(half_dim).zip(sin.chunks_exact_mut(half_dim));
                    for (row, (cos, sin)) in rows.enumerate() {
                        let position = (index * rows_per_thread + row) as f32;
                        for (dimension, frequency) in frequencies.iter().enumerate() {
                            let (s, c) = (position * frequency).sin_cos();
                            cos[dimension] = c * factor;
                            sin[dimension] = s * factor;
                        }
                    }
                });
            }
        });
        Ok(RopeTable::new(device, cos, sin, half_dim)?)
    }

    /// By how much a stored key turns when its token moves by `delta` positions.
    ///
    /// Every kind of scaling that is read has one set of frequencies for all positions, so that a change of position is a
    /// rotation, whatever the position was. Where frequencies depend on the length of the context (dynamic NTK, LongRoPE
    /// across its switch) it is none: such models are refused when they are read, and a kind that joins [`RopeScaling`]
    /// has to say here what it is. YaRN's amplitude is not applied: it is in the stored keys already.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] for heads without a pair.
    pub(crate) fn key_rotation(&self, delta: i64) -> Result<KeyRotation, ModelError> {
        match self.scaling {
            RopeScaling::None | RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. } | RopeScaling::Yarn(_) => {}
        }
        // In f64: an angle of many radians, rounded to f32, would be off by more than the keys are rounded by.
        let angle = |frequency: f32| delta as f64 * f64::from(frequency);
        let turn = |frequency| (angle(frequency).cos() as f32, angle(frequency).sin() as f32);
        let (cos, sin) = self.inverse_frequencies().into_iter().map(turn).unzip();
        Ok(KeyRotation::new(cos, sin)?)
    }

    /// Names the rotation: a cached key rotated by one model is valid for another only if these agree.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("memos 2026 rope fingerprint v1");
        hasher.update(&(self.head_dim as u64).to_le_bytes());
        hasher.update(&(self.attention_factor() as f32).to_le_bytes());
        for frequency in self.inverse_frequencies() {
            hasher.update(&frequency.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// `theta ^ (2i / head_dim)` for every pair `i`.
    fn periods(&self) -> Vec<f32> {
        let exponent = |pair: usize| (2 * pair) as f32 / self.head_dim as f32;
        (0..self.head_dim / 2).map(|pair| self.theta.powf(f64::from(exponent(pair))) as f32).collect()
    }

    fn llama3_frequency(&self, frequency: f32) -> f32 {
        let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } =
            self.scaling
        else {
            return frequency;
        };
        let original = original_max_position_embeddings;
        let wavelength = (2.0 * PI) as f32 / frequency;
        if f64::from(wavelength) > f64::from((original / low_freq_factor) as f32) {
            return frequency / factor as f32;
        }
        if f64::from(wavelength) < f64::from((original / high_freq_factor) as f32) {
            return frequency;
        }
        let span = (high_freq_factor - low_freq_factor) as f32;
        let smooth = (original as f32 / wavelength - low_freq_factor as f32) / span;
        (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
    }
}

impl Yarn {
    /// Frequencies blended between kept (fast) and stretched (slow) dimensions.
    fn frequencies(&self, periods: &[f32], theta: f64) -> Vec<f32> {
        let dim = (2 * periods.len()) as f64;
        // The dimension that rotates `rotations` times over the original context.
        let dimension = |rotations: f64| {
            dim * (self.original_max_position_embeddings / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln())
        };
        let (mut low, mut high) = (dimension(self.beta_fast), dimension(self.beta_slow));
        if self.bounds == YarnBounds::Whole {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, high) = (low.max(0.0), high.min(dim - 1.0));
        // Equal bounds would divide by zero.
        let high = if low == high { high + 0.001 } else { high };
        let blend = |(pair, period): (usize, &f32)| {
            let stretched_share = ((pair as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
            let kept_share = 1.0 - stretched_share;
            let stretched = 1.0 / (self.factor as f32 * period);
            let kept = 1.0 / period;
            stretched * (1.0 - kept_share) + kept * kept_share
        };
        periods.iter().enumerate().map(blend).collect()
    }
}

/// A base above 1: YaRN divides by its logarithm.
fn checked_theta(fields: &Fields, theta: f64) -> Result<f64, ModelError> {
    if theta > 1.0 && theta <= 1e15 { Ok(theta) } else { Err(fields.invalid("rope_theta", "a number above 1")) }
}

/// `factor`, at least 1.
fn stretch(parameters: &Fields) -> Result<f64, ModelError> {
    let factor = parameters.required_positive("factor")?;
    if (1.0..=1e6).contains(&factor) { Ok(factor) } else { Err(parameters.invalid("factor", "a number from 1")) }
}

fn read_llama3(parameters: &Fields, original: f64) -> Result<RopeScaling, ModelError> {
    let low_freq_factor = parameters.required_positive("low_freq_factor")?;
    let high_freq_factor = parameters.required_positive("high_freq_factor")?;
    if high_freq_factor <= low_freq_factor {
        return Err(parameters.invalid("high_freq_factor", "a number above low_freq_factor"));
    }
    Ok(RopeScaling::Llama3 {
        factor: stretch(parameters)?,
        low_freq_factor,
        high_freq_factor,
        original_max_position_embeddings: original,
    })
}

fn read_yarn(parameters: &Fields, original: f64, max_position_embeddings: usize) -> Result<Yarn, ModelError> {
    let factor = match parameters.get("factor") {
        Some(_) => stretch(parameters)?,
        None => (max_position_embeddings as f64 / original).max(1.0),
    };
    let attention_factor = match parameters.positive("attention_factor")? {
        Some(given) => given,
        None => inferred_attention_factor(parameters, factor)?,
    };
    let beta_fast = parameters.positive("beta_fast")?.unwrap_or(32.0);
    let beta_slow = parameters.positive("beta_slow")?.unwrap_or(1.0);
    if beta_fast < beta_slow {
        return Err(parameters.invalid("beta_fast", "a number not below beta_slow"));
    }
    let bounds = match parameters.flag("truncate")? {
        Some(false) => YarnBounds::Exact,
        _ => YarnBounds::Whole,
    };
    Ok(Yarn { factor, original_max_position_embeddings: original, beta_fast, beta_slow, attention_factor, bounds })
}

/// The paper's `0.1 ln(factor) + 1`, or the ratio of two of them when both `mscale` and `mscale_all_dim` are given.
fn inferred_attention_factor(parameters: &Fields, factor: f64) -> Result<f64, ModelError> {
    let scale = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
    let nonzero = |value: Option<f64>| value.filter(|value| *value != 0.0);
    let mscale = nonzero(parameters.number("mscale")?);
    let mscale_all_dim = nonzero(parameters.number("mscale_all_dim")?);
    Ok(match (mscale, mscale_all_dim) {
        (Some(numerator), Some(denominator)) => scale(numerator) / scale(denominator),
        _ => scale(1.0),
    })
}

#[cfg(test)]
mod tests;
