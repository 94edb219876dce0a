//! The table of architecture families: what each configures of the one decoder. A new family is one file and one line.

use std::fmt;

use serde_json::Value;

use crate::ModelError;
use crate::fields::Fields;

mod llama;
mod mistral;
mod qwen2;
mod qwen3;

/// All families that can be run.
static FAMILIES: [Family; 4] = [llama::FAMILY, mistral::FAMILY, qwen2::FAMILY, qwen3::FAMILY];

/// One architecture family.
pub struct Family {
    /// Short name, as in `model_type` of `config.json`.
    pub name: &'static str,
    /// The name in `architectures` of `config.json`.
    pub architecture: &'static str,
    /// `head_dim` when the file has none; `None`: hidden size / heads.
    pub(crate) default_head_dim: Option<usize>,
    /// `max_position_embeddings` when the file has none.
    pub(crate) default_max_position_embeddings: usize,
    /// `tie_word_embeddings` when the file has none.
    pub(crate) default_tie_word_embeddings: bool,
    /// Names of its tensors in a checkpoint.
    pub(crate) tensors: TensorNames,
    /// Reads what the family lets a configuration choose, for a model of so many layers.
    pub(crate) rules: fn(&Fields, usize) -> Result<FamilyRules, ModelError>,
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Whether a projection adds a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    /// Product only.
    Absent,
    /// A bias is added.
    Present,
}

impl Bias {
    fn from_flag(flag: Option<bool>) -> Self {
        if flag == Some(true) { Self::Present } else { Self::Absent }
    }
}

/// Whether query and key heads are normed before they are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// They are not.
    Absent,
    /// RMS norm over each head, one weight `[head_dim]` for queries and one for keys.
    PerHead,
}

/// What a family and its configuration decide about the decoder.
pub(crate) struct FamilyRules {
    pub qkv_bias: Bias,
    pub output_bias: Bias,
    pub mlp_bias: Bias,
    pub qk_norm: QkNorm,
    /// `[num_layers]`
    pub layer_windows: Vec<Option<u32>>,
}

/// Names of a family's tensors. A layer's tensor is `{layers}{index}.{name}.weight` or `.bias`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TensorNames {
    pub embedding: &'static str,
    pub layers: &'static str,
    pub final_norm: &'static str,
    pub output: &'static str,
    pub input_norm: &'static str,
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub query_norm: &'static str,
    pub key_norm: &'static str,
    pub attention_output: &'static str,
    pub post_attention_norm: &'static str,
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
}

/// The names that Llama introduced and its descendants kept.
pub(crate) const LLAMA_TENSORS: TensorNames = TensorNames {
    embedding: "model.embed_tokens.weight",
    layers: "model.layers.",
    final_norm: "model.norm.weight",
    output: "lm_head.weight",
    input_norm: "input_layernorm",
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    query_norm: "self_attn.q_norm",
    key_norm: "self_attn.k_norm",
    attention_output: "self_attn.o_proj",
    post_attention_norm: "post_attention_layernorm",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
};

/// The family of an architecture (or of a `model_type`, for files without `architectures`).
///
/// # Errors
/// [`ModelError::UnknownArchitecture`], which lists the supported ones.
pub(crate) fn find(architecture: &str) -> Result<&'static Family, ModelError> {
    FAMILIES.iter().find(|family| family.architecture == architecture || family.name == architecture).ok_or_else(|| {
        let supported = FAMILIES.each_ref().map(|family| family.architecture).join(", ");
        ModelError::UnknownArchitecture { architecture: architecture.to_owned(), supported }
    })
}

/// Windows by `layer_types`, which says for each layer whether it slides; `None` when the file has no such list.
fn windows_by_layer_types(
    fields: &Fields,
    num_layers: usize,
    window: Option<u32>,
) -> Result<Option<Vec<Option<u32>>>, ModelError> {
    let Some(layer_types) = fields.list("layer_types")? else { return Ok(None) };
    if layer_types.len() != num_layers {
        return Err(ModelError::InconsistentFields {
            name: "number of layer_types",
            value: layer_types.len(),
            relation: "be equal to",
            other_name: "num_hidden_layers",
            other: num_layers,
        });
    }
    let layer_window = |layer_type: &Value| match layer_type.as_str() {
        Some("full_attention") => Ok(None),
        Some("sliding_attention") => window
            .map(Some)
            .ok_or_else(|| fields.invalid("sliding_window", "a number, as layer_types has sliding layers")),
        _ => Err(ModelError::Unsupported {
            name: "layer_types",
            value: layer_type.to_string(),
            supported: "full_attention, sliding_attention",
        }),
    };
    layer_types.iter().map(layer_window).collect::<Result<Vec<_>, _>>().map(Some)
}

/// `sliding_window` in tokens.
fn sliding_window(fields: &Fields) -> Result<Option<u32>, ModelError> {
    Ok(fields.count("sliding_window", 1..=u32::MAX as usize)?.map(|window| window as u32))
}

/// Qwen's rule: with `use_sliding_window`, the layers from `max_window_layers` on slide, unless `layer_types` says more.
fn qwen_windows(fields: &Fields, num_layers: usize) -> Result<Vec<Option<u32>>, ModelError> {
    let window = match fields.flag("use_sliding_window")? {
        Some(true) => Some(sliding_window(fields)?.unwrap_or(4096)),
        _ => None,
    };
    if let Some(windows) = windows_by_layer_types(fields, num_layers, window)? {
        return Ok(windows);
    }
    let first = fields.count("max_window_layers", 0..=usize::MAX)?.unwrap_or(28);
    Ok((0..num_layers).map(|layer| window.filter(|_| layer >= first)).collect())
}
