//! Qwen2 and Qwen2.5: biases on queries, keys and values; the upper layers may slide.

use super::{Bias, Family, FamilyRules, LLAMA_TENSORS, QkNorm, qwen_windows};
use crate::ModelError;
use crate::fields::Fields;

pub(super) const FAMILY: Family = Family {
    name: "qwen2",
    architecture: "Qwen2ForCausalLM",
    default_head_dim: None,
    default_max_position_embeddings: 32_768,
    default_tie_word_embeddings: false,
    tensors: LLAMA_TENSORS,
    rules,
};

fn rules(fields: &Fields, num_layers: usize) -> Result<FamilyRules, ModelError> {
    Ok(FamilyRules {
        qkv_bias: Bias::Present,
        output_bias: Bias::Absent,
        mlp_bias: Bias::Absent,
        qk_norm: QkNorm::Absent,
        layer_windows: qwen_windows(fields, num_layers)?,
    })
}
