//! Qwen3: a head size of its own, RMS norm on query and key heads before rotation, no biases by default.

use super::{Bias, Family, FamilyRules, LLAMA_TENSORS, QkNorm, qwen_windows};
use crate::ModelError;
use crate::fields::Fields;

pub(super) const FAMILY: Family = Family {
    name: "qwen3",
    architecture: "Qwen3ForCausalLM",
    default_head_dim: Some(128),
    default_max_position_embeddings: 32_768,
    default_tie_word_embeddings: false,
    tensors: LLAMA_TENSORS,
    rules,
};

fn rules(fields: &Fields, num_layers: usize) -> Result<FamilyRules, ModelError> {
    let attention_bias = Bias::from_flag(fields.flag("attention_bias")?);
    Ok(FamilyRules {
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias: Bias::Absent,
        qk_norm: QkNorm::PerHead,
        layer_windows: qwen_windows(fields, num_layers)?,
    })
}
