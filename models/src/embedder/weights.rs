//! Hands the encoder its weights as finite f32, every shape checked, from a checkpoint saved with or without a head.

use std::collections::BTreeSet;

use candle_core::{Device, Tensor};

use super::config::EncoderConfig;
use super::encoder::Linear;
use super::families::{EMBEDDING_NORM, POSITION_EMBEDDINGS, TYPE_EMBEDDINGS, WORD_EMBEDDINGS};
use super::ops::LayerNorm;
use crate::checkpoint::{Checkpoint, StoredTensor};
use crate::conversion::to_f32;
use crate::weights::required;
use crate::{ModelError, fingerprint};

/// Elements of a tensor that are widened at once when only their values are checked.
const PIECE_LEN: usize = 1 << 16;

/// The weights of an encoder.
pub(super) struct EncoderWeights {
    checkpoint: Checkpoint,
    /// What every name begins with: that of the family, or nothing.
    prefix: &'static str,
    /// Full names of the tensors that went into the encoder.
    used: BTreeSet<String>,
}

/// The parts of the embedding that are held in memory.
pub(super) struct Embeddings {
    pub positions: Vec<f32>,
    pub types: Vec<f32>,
    pub norm: LayerNorm,
}

/// The word embeddings where they are stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a>(StoredTensor<'a>);

impl Words<'_> {
    /// The embedding of a token below the vocabulary's size.
    pub fn row(&self, id: usize, hidden_size: usize) -> Vec<f32> {
        let row_bytes = hidden_size * self.0.dtype.size_bytes();
        to_f32(self.0.dtype, &self.0.bytes[id * row_bytes..][..row_bytes])
    }
}

impl EncoderWeights {
    /// Weights of a checkpoint whose names may begin with `prefix`.
    pub fn new(checkpoint: Checkpoint, prefix: &'static str) -> Self {
        let is_bare = checkpoint.names().any(|name| name == WORD_EMBEDDINGS);
        Self { checkpoint, prefix: if is_bare { "" } else { prefix }, used: BTreeSet::new() }
    }

    /// The embedding's tables and norm; the word embeddings are checked and left where they are.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::TensorShape`], [`ModelError::TensorDType`],
    /// [`ModelError::NotFiniteWeight`].
    pub fn embeddings(&mut self, config: &EncoderConfig) -> Result<Embeddings, ModelError> {
        let name = self.full_name(WORD_EMBEDDINGS);
        let words = required(&self.checkpoint, &name, &[config.vocab_size, config.hidden_size])?;
        let size = words.dtype.size_bytes();
        for (piece, bytes) in words.bytes.chunks(PIECE_LEN * size).enumerate() {
            check_finite(&name, piece * PIECE_LEN, &to_f32(words.dtype, bytes))?;
        }
        self.used.insert(name);
        let positions = self.floats(POSITION_EMBEDDINGS, &[config.num_positions, config.hidden_size])?;
        let types = match config.num_types {
            0 => Vec::new(),
            num_types => self.floats(TYPE_EMBEDDINGS, &[num_types, config.hidden_size])?,
        };
        Ok(Embeddings { positions, types, norm: self.norm(EMBEDDING_NORM, config)? })
    }

    /// The word embeddings.
    ///
    /// # Errors
    /// None after [`embeddings`](Self::embeddings).
    pub fn words(&self) -> Result<Words<'_>, ModelError> {
        let name = self.full_name(WORD_EMBEDDINGS);
        let stored = self.checkpoint.tensor(&name)?;
        stored.map(Words).ok_or(ModelError::MissingTensor { name })
    }

    /// Linear maps with the same input, side by side: each `[out_features, in_features]` with a bias.
    ///
    /// # Errors
    /// As [`embeddings`](Self::embeddings).
    pub fn linear(&mut self, in_features: usize, out_features: usize, names: &[String]) -> Result<Linear, ModelError> {
        let mut columns = Vec::with_capacity(names.len());
        let mut bias = Vec::with_capacity(names.len() * out_features);
        for name in names {
            let weight = self.floats(&format!("{name}.weight"), &[out_features, in_features])?;
            columns.push(Tensor::from_vec(weight, (out_features, in_features), &Device::Cpu)?.t()?);
            bias.extend(self.floats(&format!("{name}.bias"), &[out_features])?);
        }
        let weight = Tensor::cat(&columns, 1)?.contiguous()?;
        Ok(Linear { weight, bias })
    }

    /// A layer norm; old checkpoints call its weight gamma and its bias beta.
    ///
    /// # Errors
    /// As [`embeddings`](Self::embeddings).
    pub fn norm(&mut self, name: &str, config: &EncoderConfig) -> Result<LayerNorm, ModelError> {
        let old = format!("{name}.gamma");
        let is_old = self.checkpoint.tensor(&self.full_name(&old))?.is_some();
        let (weight, bias) = if is_old { ("gamma", "beta") } else { ("weight", "bias") };
        let shape = [config.hidden_size];
        let weight = self.floats(&format!("{name}.{weight}"), &shape)?;
        let bias = self.floats(&format!("{name}.{bias}"), &shape)?;
        Ok(LayerNorm { weight, bias, eps: config.layer_norm_eps })
    }

    /// Checks that no tensor of a layer was left unread, which would mean that the configuration contradicts the
    /// weights.
    ///
    /// # Errors
    /// [`ModelError::UnexpectedTensor`] with the first such name.
    pub fn check_all_read(&self, layers: &str) -> Result<(), ModelError> {
        let layers = self.full_name(layers);
        let is_unread = |name: &&str| name.starts_with(&layers) && !self.used.contains(*name);
        match self.checkpoint.names().filter(is_unread).min() {
            Some(name) => Err(ModelError::UnexpectedTensor { name: name.to_owned() }),
            None => Ok(()),
        }
    }

    /// Hash of the names, types, shapes and bytes of all tensors that were read.
    ///
    /// # Errors
    /// None after they were read.
    pub fn fingerprint(&self) -> Result<[u8; 32], ModelError> {
        let mut tensors = Vec::with_capacity(self.used.len());
        for name in &self.used {
            let missing = || ModelError::MissingTensor { name: name.clone() };
            tensors.push((name.as_str(), self.checkpoint.tensor(name)?.ok_or_else(missing)?));
        }
        let num_threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(fingerprint::of_tensors(&tensors, None, num_threads))
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn floats(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let name = self.full_name(name);
        let stored = required(&self.checkpoint, &name, shape)?;
        let values = to_f32(stored.dtype, stored.bytes);
        check_finite(&name, 0, &values)?;
        self.used.insert(name);
        Ok(values)
    }
}

/// Refuses what is not a number; `first` is the index of the first value.
fn check_finite(name: &str, first: usize, values: &[f32]) -> Result<(), ModelError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => {
            let (name, value) = (name.to_owned(), values[index]);
            Err(ModelError::NotFiniteWeight { name, index: first + index, value })
        }
        None => Ok(()),
    }
}
