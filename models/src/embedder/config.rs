//! `config.json` of a BERT-family encoder, checked and reduced to what the embedder computes with.

use serde_json::Value;

use super::families::{self, EncoderFamily, PositionIds};
use crate::config::{
    CONFIG_FILE, MAX_HEADS, MAX_HIDDEN_SIZE, MAX_INTERMEDIATE_SIZE, MAX_LAYERS, MAX_POSITIONS, MAX_VOCAB_SIZE,
};
use crate::fields::Fields;
use crate::{ModelError, ModelSource};

/// Most kinds of segments that an encoder tells apart; BERT has two.
const MAX_TYPES: usize = 64;

/// What lies between the two matrices of a feed-forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    /// `x Φ(x)` with the normal distribution's exact Φ.
    GeluErf,
    /// The approximation of GELU by a hyperbolic tangent.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x / (1 + e^-x)`.
    Silu,
}

/// Everything about an encoder that its configuration says.
#[derive(Debug, Clone)]
pub(super) struct EncoderConfig {
    pub family: &'static EncoderFamily,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub intermediate_size: usize,
    /// Rows of the position table.
    pub num_positions: usize,
    /// Row of the first token, as far as the family does not begin at 0.
    pub pad_token_id: usize,
    /// Rows of the table of segment types; 0 when the family has none.
    pub num_types: usize,
    pub layer_norm_eps: f32,
    pub activation: Activation,
}

impl EncoderConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`ModelError`] that names the field, its value and what is allowed; [`ModelError::UnknownArchitecture`] for
    /// anything but the families of [`families`].
    pub fn load(source: &ModelSource) -> Result<Self, ModelError> {
        Self::parse(&source.read_required(CONFIG_FILE)?)
    }

    pub fn parse(json: &[u8]) -> Result<Self, ModelError> {
        let value: Value =
            serde_json::from_slice(json).map_err(|source| ModelError::Json { file: CONFIG_FILE, source })?;
        let fields = Fields::new(CONFIG_FILE, "the file", &value)?;
        let family = families::find(architecture(&fields)?)?;
        let names = &family.fields;
        refuse_unsupported(&fields)?;
        let hidden_size = fields.required_count(names.hidden_size, 1..=MAX_HIDDEN_SIZE)?;
        let num_heads = fields.required_count(names.num_heads, 1..=MAX_HEADS)?;
        if !hidden_size.is_multiple_of(num_heads) {
            return Err(ModelError::InconsistentFields {
                name: names.hidden_size,
                value: hidden_size,
                relation: "be a multiple of",
                other_name: names.num_heads,
                other: num_heads,
            });
        }
        let num_types = match names.num_types {
            Some(name) => fields.count(name, 1..=MAX_TYPES)?.unwrap_or(2),
            None => 0,
        };
        let config = Self {
            family,
            vocab_size: fields.required_count("vocab_size", 1..=MAX_VOCAB_SIZE)?,
            hidden_size,
            num_layers: fields.required_count(names.num_layers, 1..=MAX_LAYERS)?,
            num_heads,
            intermediate_size: fields.required_count(names.intermediate_size, 1..=MAX_INTERMEDIATE_SIZE)?,
            num_positions: fields.required_count("max_position_embeddings", 1..=MAX_POSITIONS)?,
            pad_token_id: fields.count("pad_token_id", 0..=MAX_POSITIONS)?.unwrap_or(family.default_pad_token_id),
            num_types,
            layer_norm_eps: layer_norm_eps(&fields)?,
            activation: activation(&fields, names.activation)?,
        };
        if config.first_position() >= config.num_positions {
            return Err(fields.invalid("max_position_embeddings", "more than pad_token_id + 1"));
        }
        Ok(config)
    }

    /// Row of the position table that the first token takes.
    pub fn first_position(&self) -> usize {
        match self.family.positions {
            PositionIds::FromZero => 0,
            PositionIds::BehindPadding => self.pad_token_id + 1,
        }
    }

    /// Tokens that the position table has room for.
    pub fn max_positions(&self) -> usize {
        self.num_positions - self.first_position()
    }

    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }
}

/// `model_type`, which encoders always have; else the first of `architectures`.
fn architecture<'a>(fields: &Fields<'a>) -> Result<&'a str, ModelError> {
    if let Some(model_type) = fields.text("model_type")? {
        return Ok(model_type);
    }
    let first = fields.list("architectures")?.and_then(<[Value]>::first).ok_or_else(|| fields.missing("model_type"))?;
    first.as_str().ok_or_else(|| fields.invalid("architectures", "a list of strings"))
}

/// Refuses what would silently be computed wrong.
fn refuse_unsupported(fields: &Fields) -> Result<(), ModelError> {
    if let Some(kind) = fields.text("position_embedding_type")?
        && kind != "absolute"
    {
        let name = "position_embedding_type";
        return Err(ModelError::Unsupported { name, value: kind.to_owned(), supported: "absolute" });
    }
    for name in ["is_decoder", "add_cross_attention"] {
        if fields.flag(name)? == Some(true) {
            return Err(ModelError::Unsupported { name, value: "true".to_owned(), supported: "false" });
        }
    }
    if let Some(quantization) = fields.object("quantization_config")? {
        let value = quantization.text("quant_method")?.unwrap_or("unnamed").to_owned();
        let supported = "none; use a checkpoint in bf16, f16 or f32";
        return Err(ModelError::Unsupported { name: "quantization_config.quant_method", value, supported });
    }
    Ok(())
}

/// 1e-12 where the file is silent, as the original BERT has it.
fn layer_norm_eps(fields: &Fields) -> Result<f32, ModelError> {
    let eps = fields.positive("layer_norm_eps")?.unwrap_or(1e-12);
    if eps >= 1.0 {
        return Err(fields.invalid("layer_norm_eps", "a number between 0 and 1"));
    }
    Ok(eps as f32)
}

fn activation(fields: &Fields, name: &'static str) -> Result<Activation, ModelError> {
    match fields.text(name)?.unwrap_or("gelu") {
        "gelu" | "gelu_python" => Ok(Activation::GeluErf),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        other => {
            let supported = "gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, relu, silu";
            Err(ModelError::Unsupported { name, value: other.to_owned(), supported })
        }
    }
}
