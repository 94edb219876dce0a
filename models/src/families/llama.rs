//! Llama (1 to 3.x, and models that took over its layout): full attention, biases only when the configuration says so.

use super::{Bias, Family, FamilyRules, LLAMA_TENSORS, QkNorm};
use crate::ModelError;
use crate::fields::Fields;

pub(super) const FAMILY: Family = Family {
    name: "llama",
    architecture: "LlamaForCausalLM",
    default_head_dim: None,
    default_max_position_embeddings: 2048,
    default_tie_word_embeddings: false,
    tensors: LLAMA_TENSORS,
    rules,
};

fn rules(fields: &Fields, num_layers: usize) -> Result<FamilyRules, ModelError> {
    let attention_bias = Bias::from_flag(fields.flag("attention_bias")?);
    Ok(FamilyRules {
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias: Bias::from_flag(fields.flag("mlp_bias")?),
        qk_norm: QkNorm::Absent,
        layer_windows: vec![None; num_layers],
    })
}
