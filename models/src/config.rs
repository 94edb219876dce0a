//! `config.json` as transformers 4 and 5 write it, checked and reduced to what the decoder needs.

use kernels::DType;
use serde_json::Value;

use crate::families::{self, Bias, Family, FamilyRules, QkNorm};
use crate::fields::Fields;
use crate::rope::RopeConfig;
use crate::{ModelError, ModelSource};

pub(crate) const CONFIG_FILE: &str = "config.json";

// What no model reaches today; a value above is a broken file, and refusing it keeps later size arithmetic in range.
pub(crate) const MAX_VOCAB_SIZE: usize = 1 << 22;
pub(crate) const MAX_HIDDEN_SIZE: usize = 1 << 17;
pub(crate) const MAX_LAYERS: usize = 1 << 10;
pub(crate) const MAX_HEADS: usize = 1 << 12;
const MAX_HEAD_DIM: usize = 1 << 10;
pub(crate) const MAX_INTERMEDIATE_SIZE: usize = 1 << 20;
pub(crate) const MAX_POSITIONS: usize = 1 << 24;

/// Everything about a model that its files say apart from the weights.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// The architecture family.
    pub family: &'static Family,
    /// Rows of the embedding and of the output matrix.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of decoder layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; each serves `num_heads / num_kv_heads` query heads.
    pub num_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Width of the feed-forward.
    pub intermediate_size: usize,
    /// Added to the mean square before the root.
    pub rms_norm_eps: f32,
    /// Rotary position embedding.
    pub rope: RopeConfig,
    /// Positions the file declares; see [`context_len`](Self::context_len) for what can be used.
    pub max_position_embeddings: usize,
    /// The largest window of any layer, in tokens, when every layer has one: older KV entries are never read again.
    pub sliding_window: Option<usize>,
    /// Per layer: the window `w`, with which position `p` sees positions `p - w + 1 ..= p`. `[num_layers]`
    pub layer_windows: Vec<Option<u32>>,
    /// Biases of the fused query, key and value projection.
    pub qkv_bias: Bias,
    /// Bias of the attention output projection.
    pub output_bias: Bias,
    /// Biases of the feed-forward projections.
    pub mlp_bias: Bias,
    /// Norms of query and key heads before rotation.
    pub qk_norm: QkNorm,
    /// The output matrix is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Type of the matrices in memory: as declared when parsed, as stored or converted once loaded.
    pub dtype: DType,
    /// End-of-sequence ids that `config.json` names.
    pub eos_token_ids: Vec<u32>,
    /// Beginning-of-sequence id.
    pub bos_token_id: Option<u32>,
}

impl ModelConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`ModelError`] that names the field, its value and what is allowed.
    pub fn load(source: &ModelSource) -> Result<Self, ModelError> {
        let bytes = source.read_required(CONFIG_FILE)?;
        Self::parse(&bytes)
    }

    /// Parses the text of a `config.json`. Unknown keys are ignored.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(json: &[u8]) -> Result<Self, ModelError> {
        let value: Value =
            serde_json::from_slice(json).map_err(|source| ModelError::Json { file: CONFIG_FILE, source })?;
        let fields = Fields::new(CONFIG_FILE, "the file", &value)?;
        let family = families::find(architecture(&fields)?)?;
        refuse_unsupported(&fields)?;

        let num_layers = fields.required_count("num_hidden_layers", 1..=MAX_LAYERS)?;
        let hidden_size = fields.required_count("hidden_size", 1..=MAX_HIDDEN_SIZE)?;
        let heads = Heads::read(&fields, hidden_size, family)?;
        let max_position_embeddings = fields
            .count("max_position_embeddings", 1..=MAX_POSITIONS)?
            .unwrap_or(family.default_max_position_embeddings);
        let FamilyRules { qkv_bias, output_bias, mlp_bias, qk_norm, layer_windows } =
            (family.rules)(&fields, num_layers)?;
        let widest = layer_windows.iter().copied().collect::<Option<Vec<u32>>>().and_then(|w| w.into_iter().max());
        Ok(Self {
            family,
            vocab_size: fields.required_count("vocab_size", 1..=MAX_VOCAB_SIZE)?,
            hidden_size,
            num_layers,
            num_heads: heads.num_heads,
            num_kv_heads: heads.num_kv_heads,
            head_dim: heads.head_dim,
            intermediate_size: fields.required_count("intermediate_size", 1..=MAX_INTERMEDIATE_SIZE)?,
            rms_norm_eps: rms_norm_eps(&fields)?,
            rope: RopeConfig::read(&fields, heads.head_dim, max_position_embeddings)?,
            max_position_embeddings,
            sliding_window: widest.map(|window| window as usize),
            layer_windows,
            qkv_bias,
            output_bias,
            mlp_bias,
            qk_norm,
            tie_word_embeddings: fields.flag("tie_word_embeddings")?.unwrap_or(family.default_tie_word_embeddings),
            dtype: declared_dtype(&fields)?,
            eos_token_ids: fields.token_ids("eos_token_id")?,
            bos_token_id: fields.token_ids("bos_token_id")?.first().copied(),
        })
    }

    /// Positions that can be used: `max_position_embeddings`, which Llama 3 and linear configurations declare after
    /// scaling; YaRN configurations often declare the length before scaling, so for them at least
    /// `original_max_position_embeddings * factor`.
    pub fn context_len(&self) -> usize {
        let scaled = self.rope.scaled_context_len().unwrap_or(0);
        self.max_position_embeddings.max(scaled).min(MAX_POSITIONS)
    }
}

/// The first of `architectures`, else `model_type`.
fn architecture<'a>(fields: &Fields<'a>) -> Result<&'a str, ModelError> {
    match fields.list("architectures")?.and_then(<[Value]>::first) {
        Some(first) => first.as_str().ok_or_else(|| fields.invalid("architectures", "a list of strings")),
        None => fields.text("model_type")?.ok_or_else(|| fields.missing("architectures")),
    }
}

/// Refuses what would silently be computed wrong.
fn refuse_unsupported(fields: &Fields) -> Result<(), ModelError> {
    if let Some(act) = fields.text("hidden_act")?
        && !matches!(act, "silu" | "swish")
    {
        return Err(ModelError::Unsupported { name: "hidden_act", value: act.to_owned(), supported: "silu" });
    }
    if let Some(quantization) = fields.object("quantization_config")? {
        let value = quantization.text("quant_method")?.unwrap_or("unnamed").to_owned();
        let supported = "none; use a checkpoint in bf16, f16 or f32";
        return Err(ModelError::Unsupported { name: "quantization_config.quant_method", value, supported });
    }
    Ok(())
}

struct Heads {
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
}

impl Heads {
    fn read(fields: &Fields, hidden_size: usize, family: &Family) -> Result<Self, ModelError> {
        let num_heads = fields.required_count("num_attention_heads", 1..=MAX_HEADS)?;
        let num_kv_heads = fields.count("num_key_value_heads", 1..=MAX_HEADS)?.unwrap_or(num_heads);
        if !num_heads.is_multiple_of(num_kv_heads) {
            return Err(ModelError::InconsistentFields {
                name: "num_attention_heads",
                value: num_heads,
                relation: "be a multiple of",
                other_name: "num_key_value_heads",
                other: num_kv_heads,
            });
        }
        let head_dim = match fields.count("head_dim", 1..=MAX_HEAD_DIM)?.or(family.default_head_dim) {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(num_heads) => hidden_size / num_heads,
            None => {
                return Err(ModelError::InconsistentFields {
                    name: "hidden_size",
                    value: hidden_size,
                    relation: "be a multiple of",
                    other_name: "num_attention_heads",
                    other: num_heads,
                });
            }
        };
        if !head_dim.is_multiple_of(8) || head_dim > MAX_HEAD_DIM {
            let (file, value) = (CONFIG_FILE, head_dim.to_string());
            return Err(ModelError::InvalidField {
                file,
                name: "head_dim",
                value,
                expected: "a multiple of 8 up to 1024",
            });
        }
        Ok(Self { num_heads, num_kv_heads, head_dim })
    }
}

fn rms_norm_eps(fields: &Fields) -> Result<f32, ModelError> {
    let eps = fields.positive("rms_norm_eps")?.unwrap_or(1e-6);
    if eps >= 1.0 {
        return Err(fields.invalid("rms_norm_eps", "a number between 0 and 1"));
    }
    Ok(eps as f32)
}

/// `dtype` (transformers 5) or `torch_dtype` (transformers 4); f32 when neither is there.
fn declared_dtype(fields: &Fields) -> Result<DType, ModelError> {
    let name = if fields.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    match fields.text(name)? {
        None | Some("auto") => Ok(DType::F32),
        Some(text) => parse_dtype(name, text),
    }
}

/// A type by its name in PyTorch, with or without `torch.`, or in short.
///
/// # Errors
/// [`ModelError::UnknownDType`].
pub fn parse_dtype(name: &'static str, text: &str) -> Result<DType, ModelError> {
    match text.strip_prefix("torch.").unwrap_or(text) {
        "float32" | "float" | "f32" => Ok(DType::F32),
        "bfloat16" | "bf16" => Ok(DType::BF16),
        "float16" | "half" | "f16" => Ok(DType::F16),
        _ => Err(ModelError::UnknownDType { name, value: text.to_owned() }),
    }
}

#[cfg(test)]
mod tests;
