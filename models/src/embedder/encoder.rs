//! The encoder: token embeddings, then layers of attention and feed-forward over texts that lie one behind the other.
//!
//! Texts are packed without padding: a batch is one matrix with a row per token, and only attention looks at texts one
//! by one. Every row's result is the same, bit for bit, whatever else is in the batch: the matrix product adds up a
//! row in an order that the number of rows does not change (from two rows on, see [`Linear::forward`]), and attention
//! sees nothing but its own text.

use candle_core::{D, Device, Tensor};

use super::config::EncoderConfig;
use super::families::PositionIds;
use super::ops::{AddBias, AddNorm, BiasActivation, LayerNorm, ScaledSoftmax};
use super::text::TextTokens;
use super::weights::EncoderWeights;
use crate::ModelError;

/// Attention weights that are held at once; the queries of a longer text are taken in pieces.
const MAX_SCORES: usize = 4 << 20;

/// A loaded encoder.
pub(super) struct Encoder {
    config: EncoderConfig,
    /// Word embeddings stay in the mapped file.
    weights: EncoderWeights,
    /// `[num_positions, hidden_size]`
    positions: Vec<f32>,
    /// `[num_types, hidden_size]`, empty without types.
    types: Vec<f32>,
    embedding_norm: LayerNorm,
    layers: Vec<Layer>,
}

/// Texts one behind the other.
#[derive(Debug, Default)]
pub(super) struct PackedTexts {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    /// Number of tokens of each text.
    lens: Vec<usize>,
}

struct Layer {
    /// Query, key and value side by side.
    qkv: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    output_norm: LayerNorm,
}

/// `x W + b`
pub(super) struct Linear {
    /// `[in_features, out_features]`, the order in which a product with few rows needs not repack it.
    pub weight: Tensor,
    pub bias: Vec<f32>,
}

impl PackedTexts {
    pub fn push(&mut self, tokens: &TextTokens) {
        self.ids.extend_from_slice(&tokens.ids);
        self.type_ids.extend_from_slice(&tokens.type_ids);
        self.lens.push(tokens.ids.len());
    }

    pub fn num_tokens(&self) -> usize {
        self.ids.len()
    }

    pub fn lens(&self) -> &[usize] {
        &self.lens
    }
}

impl Encoder {
    /// Reads the weights that the configuration calls for.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::TensorShape`], [`ModelError::TensorDType`],
    /// [`ModelError::NotFiniteWeight`], [`ModelError::UnexpectedTensor`] for a layer that the configuration does not have.
    pub fn load(config: EncoderConfig, mut weights: EncoderWeights) -> Result<Self, ModelError> {
        let names = &config.family.tensors;
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let embeddings = weights.embeddings(&config)?;
        let mut layers = Vec::with_capacity(config.num_layers);
        for layer in 0..config.num_layers {
            let name = |part: &str| format!("{}{layer}.{part}", names.layers);
            let qkv = [name(names.query), name(names.key), name(names.value)];
            layers.push(Layer {
                qkv: weights.linear(hidden, hidden, &qkv)?,
                attention_output: weights.linear(hidden, hidden, &[name(names.attention_output)])?,
                attention_norm: weights.norm(&name(names.attention_norm), &config)?,
                up: weights.linear(hidden, inner, &[name(names.up)])?,
                down: weights.linear(inner, hidden, &[name(names.down)])?,
                output_norm: weights.norm(&name(names.output_norm), &config)?,
            });
        }
        weights.check_all_read(names.layers)?;
        let (positions, types, embedding_norm) = (embeddings.positions, embeddings.types, embeddings.norm);
        Ok(Self { config, weights, positions, types, embedding_norm, layers })
    }

    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Hash of every tensor that takes part.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn fingerprint(&self) -> Result<[u8; 32], ModelError> {
        self.weights.fingerprint()
    }

    /// The last hidden state of every token, `[num_tokens, hidden_size]`.
    ///
    /// # Errors
    /// [`ModelError::BatchValue`] for a token or type that the model has no embedding of, [`ModelError::BatchLength`]
    /// for a text that is longer than the position table, [`ModelError::Tensor`].
    pub fn forward(&self, texts: &PackedTexts) -> Result<Vec<f32>, ModelError> {
        let shape = (texts.num_tokens(), self.config.hidden_size);
        let mut x = Tensor::from_vec(self.embed(texts)?, shape, &Device::Cpu)?;
        for layer in &self.layers {
            x = self.layer(layer, &x, &texts.lens)?;
        }
        Ok(x.flatten_all()?.to_vec1()?)
    }

    /// The sum of word, position and type embedding of every token, normalised.
    fn embed(&self, texts: &PackedTexts) -> Result<Vec<f32>, ModelError> {
        let (config, hidden) = (&self.config, self.config.hidden_size);
        let words = self.weights.words()?;
        check_below("token_ids", &texts.ids, config.vocab_size)?;
        if config.num_types > 0 {
            check_below("token_type_ids", &texts.type_ids, config.num_types)?;
        }
        let mut rows = Vec::with_capacity(texts.num_tokens() * hidden);
        let mut start = 0;
        for len in &texts.lens {
            if *len > config.max_positions() {
                let (expected, got) = (config.max_positions(), *len);
                return Err(ModelError::BatchLength { array: "token_ids", expected, got });
            }
            let mut next_position = config.first_position();
            for index in start..start + len {
                let id = texts.ids[index] as usize;
                let is_padding = config.family.positions == PositionIds::BehindPadding && id == config.pad_token_id;
                let position = if is_padding { config.pad_token_id } else { next_position };
                next_position += usize::from(!is_padding);
                let mut row = words.row(id, hidden);
                add(&mut row, &self.positions[position * hidden..]);
                if config.num_types > 0 {
                    add(&mut row, &self.types[texts.type_ids[index] as usize * hidden..]);
                }
                self.embedding_norm.apply(&mut row);
                rows.extend_from_slice(&row);
            }
            start += len;
        }
        Ok(rows)
    }

    fn layer(&self, layer: &Layer, x: &Tensor, lens: &[usize]) -> Result<Tensor, ModelError> {
        let qkv = layer.qkv.forward(x)?;
        qkv.inplace_op1(&AddBias(&layer.qkv.bias))?;
        let attended = layer.attention_output.forward(&self.attention(&qkv, lens)?)?;
        attended.inplace_op2(x, &AddNorm { bias: &layer.attention_output.bias, norm: &layer.attention_norm })?;
        let up = layer.up.forward(&attended)?;
        up.inplace_op1(&BiasActivation { bias: &layer.up.bias, activation: self.config.activation })?;
        let down = layer.down.forward(&up)?;
        down.inplace_op2(&attended, &AddNorm { bias: &layer.down.bias, norm: &layer.output_norm })?;
        Ok(down)
    }

    /// Every token's weighted mean of the values of its own text. `[num_tokens, 3 hidden]` to `[num_tokens, hidden]`
    fn attention(&self, qkv: &Tensor, lens: &[usize]) -> Result<Tensor, ModelError> {
        let (num_heads, head_dim) = (self.config.num_heads, self.config.head_dim());
        let mut contexts = Vec::with_capacity(lens.len());
        let mut start = 0;
        for len in lens {
            let text = qkv.narrow(0, start, *len)?.reshape((*len, 3, num_heads, head_dim))?;
            let part = |index: usize| text.narrow(1, index, 1)?.squeeze(1)?.transpose(0, 1);
            // Each [num_heads, len, head_dim].
            let (query, key, value) = (part(0)?, part(1)?, part(2)?);
            let key = key.transpose(1, 2)?;
            let max_queries = (MAX_SCORES / (num_heads * len)).clamp(1, *len);
            for first in (0..*len).step_by(max_queries) {
                let num_queries = max_queries.min(len - first);
                let scores = query.narrow(1, first, num_queries)?.matmul(&key)?;
                let scale = 1.0 / (head_dim as f32).sqrt();
                scores.inplace_op1(&ScaledSoftmax { row_len: scores.dim(D::Minus1)?, scale })?;
                let context = scores.matmul(&value)?.transpose(0, 1)?;
                contexts.push(context.reshape((num_queries, num_heads * head_dim))?);
            }
            start += len;
        }
        Ok(Tensor::cat(&contexts, 0)?)
    }
}

impl Linear {
    /// The product alone; the bias is added by the step that follows.
    fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        if x.dim(0)? == 1 {
            // The product of a single row takes another path, with another order of additions.
            return Ok(Tensor::cat(&[x, x], 0)?.matmul(&self.weight)?.narrow(0, 0, 1)?.contiguous()?);
        }
        Ok(x.matmul(&self.weight)?)
    }
}

fn add(row: &mut [f32], other: &[f32]) {
    row.iter_mut().zip(other).for_each(|(x, y)| *x += y);
}

fn check_below(array: &'static str, values: &[u32], limit: usize) -> Result<(), ModelError> {
    match values.iter().position(|value| *value as usize >= limit) {
        Some(index) => Err(ModelError::BatchValue { array, index, value: values[index], limit }),
        None => Ok(()),
    }
}
