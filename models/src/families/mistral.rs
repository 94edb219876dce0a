//! Mistral: Llama's layout without biases, every layer with the same sliding window (none in later releases).

use serde_json::Value;

use super::{Bias, Family, FamilyRules, LLAMA_TENSORS, QkNorm, sliding_window, windows_by_layer_types};
use crate::ModelError;
use crate::fields::Fields;

pub(super) const FAMILY: Family = Family {
    name: "mistral",
    architecture: "MistralForCausalLM",
    default_head_dim: None,
    default_max_position_embeddings: 131_072,
    default_tie_word_embeddings: false,
    tensors: LLAMA_TENSORS,
    rules,
};

/// The window of a configuration that has no `sliding_window` at all. Null means none.
const DEFAULT_WINDOW: u32 = 4096;

fn rules(fields: &Fields, num_layers: usize) -> Result<FamilyRules, ModelError> {
    let window = match fields.raw("sliding_window") {
        None => Some(DEFAULT_WINDOW),
        Some(Value::Null) => None,
        Some(_) => sliding_window(fields)?,
    };
    let layer_windows = windows_by_layer_types(fields, num_layers, window)?.unwrap_or_else(|| vec![window; num_layers]);
    Ok(FamilyRules {
        qkv_bias: Bias::Absent,
        output_bias: Bias::Absent,
        mlp_bias: Bias::Absent,
        qk_norm: QkNorm::Absent,
        layer_windows,
    })
}
