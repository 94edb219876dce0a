//! A loaded model: the entry of this crate for whoever runs one.

use kernels::{DType, Device, KeyRotation, KvPool, KvShape, Tensor};

use crate::batch::BatchInput;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::dummy::DummyWeights;
use crate::fingerprint;
use crate::selective::RowSelection;
use crate::weights::Weights;
use crate::{ModelError, ModelSource};

/// Where weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadFormat {
    /// The model's safetensors.
    #[default]
    Safetensors,
    /// Random numbers; only `config.json` is read.
    Dummy {
        /// Other seeds give other weights.
        seed: u64,
    },
}

/// How a model is loaded.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// Where weights come from.
    pub format: LoadFormat,
    /// Type that matrices are converted to; `None` keeps them as stored (dummy weights: as `config.json` declares).
    pub dtype: Option<DType>,
    /// Positions to prepare for; `None`, or more than the model has: [`ModelConfig::context_len`].
    pub max_positions: Option<usize>,
}

/// A model that is ready to run, and the activations of its last step.
pub struct Model {
    config: ModelConfig,
    decoder: Decoder,
    fingerprint: [u8; 32],
}

impl Model {
    /// Reads the configuration, maps, checks and packs the weights, and names the model by its content.
    ///
    /// # Errors
    /// [`ModelError`] that names the file, field or tensor that is missing, broken or contradicts another.
    pub fn load(device: &Device, source: &ModelSource, options: LoadOptions) -> Result<Self, ModelError> {
        let mut config = ModelConfig::load(source)?;
        let context_len = config.context_len();
        let max_positions = match options.max_positions {
            Some(0) => return Err(ModelError::MaxPositions { got: 0, max: context_len }),
            Some(asked) => asked.min(context_len),
            None => context_len,
        };
        let mut weights = match options.format {
            LoadFormat::Safetensors => Weights::from_checkpoint(device, Checkpoint::open(source)?, options.dtype),
            LoadFormat::Dummy { seed } => {
                let dtype = options.dtype.unwrap_or(config.dtype);
                Weights::dummy(device, DummyWeights { seed, dtype })
            }
        };
        let decoder = Decoder::load(device, &config, &mut weights, max_positions)?;
        config.dtype = decoder.dtype();
        let fingerprint = fingerprint::of_model(&config, weights.fingerprint()?);
        Ok(Self { config, decoder, fingerprint })
    }

    /// What the model's files say about it.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Names the model by its configuration and all weight bytes.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Names how keys are rotated.
    pub fn rope_fingerprint(&self) -> [u8; 32] {
        self.config.rope.fingerprint()
    }

    /// Positions that can be used: `0..max_positions`.
    pub fn max_positions(&self) -> usize {
        self.decoder.max_positions()
    }

    /// Bytes of all matrices in memory.
    pub fn weight_bytes(&self) -> usize {
        self.decoder.num_bytes()
    }

    /// The shape of the KV pool that the model needs.
    pub fn kv_shape(&self, block_size: usize, dtype: DType) -> KvShape {
        KvShape {
            num_layers: self.config.num_layers,
            num_kv_heads: self.config.num_kv_heads,
            head_dim: self.config.head_dim,
            block_size,
            dtype,
        }
    }

    /// Runs one step and returns the logits of `batch.logit_rows`, `[num_logit_rows, vocab_size]`.
    ///
    /// A row's logits do not depend on the other rows of the batch, nor on how its sequence's earlier rows were
    /// spread over steps.
    ///
    /// # Errors
    /// A `Batch…` variant of [`ModelError`] or [`ModelError::PoolShape`] before anything is written;
    /// [`ModelError::Kernel`] when an operation fails.
    pub fn forward(&mut self, device: &Device, batch: &BatchInput, pool: &mut KvPool) -> Result<&Tensor, ModelError> {
        batch.check(&self.config, self.max_positions(), pool)?;
        self.decoder.forward(device, batch, pool)?;
        Ok(self.decoder.logits())
    }

    /// As [`Self::forward`] for rows of which some need not be computed in all layers, because their slots hold keys and
    /// values already, made of another context. Returns the rows that were, ascending; the logits are to be had from
    /// [`Self::logits`].
    ///
    /// # Errors
    /// As [`Self::forward`]; [`ModelError::FullLayers`] and [`ModelError::BatchValue`] for a selection that does not fit.
    pub fn forward_selective(
        &mut self,
        device: &Device,
        batch: &BatchInput,
        selection: &RowSelection,
        pool: &mut KvPool,
    ) -> Result<Vec<u32>, ModelError> {
        batch.check(&self.config, self.max_positions(), pool)?;
        selection.check(batch, self.config.num_layers)?;
        self.decoder.forward_selective(device, batch, selection, pool)
    }

    /// By how much stored keys turn when their tokens move by `delta` positions.
    ///
    /// # Errors
    /// [`ModelError::PositionShift`] when no two positions are that far apart.
    pub fn key_rotation(&self, delta: i64) -> Result<KeyRotation, ModelError> {
        let max = self.max_positions() - 1;
        if delta.unsigned_abs() > max as u64 {
            return Err(ModelError::PositionShift { delta, max });
        }
        self.config.rope.key_rotation(delta)
    }

    /// Logits of the last step, `[num_logit_rows, vocab_size]`.
    pub fn logits(&self) -> &Tensor {
        self.decoder.logits()
    }

    /// Hidden states of `logit_rows` of the last step after the last norm, `[num_logit_rows, hidden_size]`.
    pub fn hidden(&self) -> &Tensor {
        self.decoder.hidden()
    }
}
