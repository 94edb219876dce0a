//! The transformer that every family configures: loads its matrices, and runs one step of mixed rows through them.

use kernels::{AttentionParams, Device, HeadLayout, KvPool, Matrix, RopeTable, Tensor, Vector, ops};

use crate::ModelError;
use crate::batch::BatchInput;
use crate::config::ModelConfig;
use crate::families::{Bias, QkNorm};
use crate::selective::{KeptRows, RowSelection};
use crate::weights::{Part, Weights};

/// Weights of a model and the activations of the step at hand.
pub(crate) struct Decoder {
    embedding: Matrix,
    layers: Vec<Layer>,
    final_norm: Vector,
    /// `None`: the embedding matrix.
    output: Option<Matrix>,
    rope: RopeTable,
    heads: HeadLayout,
    eps: f32,
    workspace: Workspace,
}

struct Layer {
    input_norm: Vector,
    /// Query, key and value heads in one product. `[(num_heads + 2 * num_kv_heads) * head_dim, hidden]`
    qkv: Projection,
    qk_norm: Option<HeadNorms>,
    attention_output: Projection,
    post_attention_norm: Vector,
    /// Gate and up in one product. `[2 * intermediate, hidden]`
    gate_up: Projection,
    down: Projection,
    sliding_window: Option<u32>,
}

struct Projection {
    matrix: Matrix,
    bias: Option<Vector>,
}

struct HeadNorms {
    query: Vector,
    key: Vector,
}

/// Activations, `[num_rows, …]`; memory is kept from step to step.
struct Workspace {
    residual: Tensor,
    normed: Tensor,
    qkv: Tensor,
    attention: Tensor,
    /// What a block adds to the residual.
    delta: Tensor,
    gate_up: Tensor,
    activated: Tensor,
    gathered: Tensor,
    hidden: Tensor,
    logits: Tensor,
}

impl Decoder {
    /// Reads and packs all weights.
    ///
    /// # Errors
    /// What [`Weights`] reports about a tensor, or [`ModelError::Kernel`].
    pub fn load(
        device: &Device,
        config: &ModelConfig,
        weights: &mut Weights,
        max_positions: usize,
    ) -> Result<Self, ModelError> {
        let names = &config.family.tensors;
        let vocabulary = |name: &str| [Part { name: name.to_owned(), len: config.vocab_size }];
        let embedding = weights.matrix(config.hidden_size, &vocabulary(names.embedding))?;
        let output = if config.tie_word_embeddings {
            weights.check_tied(names.embedding, names.output)?;
            None
        } else {
            Some(weights.matrix(config.hidden_size, &vocabulary(names.output))?)
        };
        let final_norm = Part { name: names.final_norm.to_owned(), len: config.hidden_size };
        let final_norm = weights.vector(&[final_norm], 1.0)?;
        let layers = (0..config.num_layers).map(|layer| Layer::load(config, weights, layer));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        weights.check_all_read(names.layers)?;
        Ok(Self {
            embedding,
            layers,
            final_norm,
            output,
            rope: config.rope.table(device, max_positions)?,
            heads: HeadLayout {
                num_heads: config.num_heads,
                num_kv_heads: config.num_kv_heads,
                head_dim: config.head_dim,
            },
            eps: config.rms_norm_eps,
            workspace: Workspace::new(device),
        })
    }

    /// Runs one step: writes the rows' keys and values, and leaves the logits of `batch.logit_rows` to be read.
    ///
    /// # Errors
    /// [`ModelError::Kernel`]; the batch has been checked before.
    pub fn forward(&mut self, device: &Device, batch: &BatchInput, pool: &mut KvPool) -> Result<(), ModelError> {
        let step =
            Step { device, batch, rope: &self.rope, heads: self.heads, eps: self.eps, num_layers: self.layers.len() };
        let workspace = &mut self.workspace;
        workspace.hidden.reset(0, self.embedding.in_features());
        workspace.logits.reset(0, self.embedding.out_features());
        if batch.num_rows() == 0 {
            return Ok(());
        }
        ops::embedding(device, &self.embedding, batch.tokens, &mut workspace.residual)?;
        for (index, layer) in self.layers.iter().enumerate() {
            step.compute_heads(layer, index, workspace)?;
            step.write_kv(index, workspace, pool)?;
            step.above_kv(layer, index, workspace, pool)?;
        }
        self.finish(device, batch)
    }

    /// As [`Self::forward`], but rows that the selection lets stop go through the first layers only. Returns the rows that
    /// went through all of them, ascending.
    ///
    /// The keys and values of every row are written up to and including layer `full_layers`, where the choice is made;
    /// above it the rows that stop keep what their slots hold.
    ///
    /// # Errors
    /// [`ModelError::Kernel`]; the batch and the selection have been checked before.
    pub fn forward_selective(
        &mut self,
        device: &Device,
        batch: &BatchInput,
        selection: &RowSelection,
        pool: &mut KvPool,
    ) -> Result<Vec<u32>, ModelError> {
        let step =
            Step { device, batch, rope: &self.rope, heads: self.heads, eps: self.eps, num_layers: self.layers.len() };
        let workspace = &mut self.workspace;
        workspace.hidden.reset(0, self.embedding.in_features());
        workspace.logits.reset(0, self.embedding.out_features());
        if batch.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let (below, above) = self.layers.split_at(selection.full_layers);
        ops::embedding(device, &self.embedding, batch.tokens, &mut workspace.residual)?;
        for (index, layer) in below.iter().enumerate() {
            step.compute_heads(layer, index, workspace)?;
            step.write_kv(index, workspace, pool)?;
            step.above_kv(layer, index, workspace, pool)?;
        }
        step.compute_heads(&above[0], below.len(), workspace)?;
        let mut deviation = Vec::new();
        ops::kv_deviation(device, &workspace.qkv, self.heads, batch.slots, pool, below.len(), &mut deviation)?;
        step.write_kv(below.len(), workspace, pool)?;
        let kept = KeptRows::of(batch, selection.choose(batch, &deviation));
        let kept_batch = kept.batch(batch);
        step.keep_rows(&kept.rows, workspace)?;
        let step = Step { batch: &kept_batch, ..step };
        for (index, layer) in (below.len()..).zip(above) {
            if index > below.len() {
                step.compute_heads(layer, index, workspace)?;
                step.write_kv(index, workspace, pool)?;
            }
            step.above_kv(layer, index, workspace, pool)?;
        }
        self.finish(device, &kept_batch)?;
        Ok(kept.rows)
    }

    /// Norm and output matrix for the rows that the last layer left.
    fn finish(&mut self, device: &Device, batch: &BatchInput) -> Result<(), ModelError> {
        if batch.logit_rows.is_empty() {
            return Ok(());
        }
        let Workspace { residual, delta, hidden, logits, .. } = &mut self.workspace;
        ops::add_rms_norm(device, residual, delta, &self.final_norm, self.eps, hidden)?;
        let output = self.output.as_ref().unwrap_or(&self.embedding);
        ops::matmul(device, hidden, output, None, logits)?;
        Ok(())
    }

    /// Logits of the last step. `[num_logit_rows, vocab_size]`
    pub fn logits(&self) -> &Tensor {
        &self.workspace.logits
    }

    /// Hidden states behind the logits of the last step. `[num_logit_rows, hidden_size]`
    pub fn hidden(&self) -> &Tensor {
        &self.workspace.hidden
    }

    /// Positions that the rotation table covers.
    pub fn max_positions(&self) -> usize {
        self.rope.max_positions()
    }

    /// Type of the embedding matrix, which stands for the model's.
    pub fn dtype(&self) -> kernels::DType {
        self.embedding.dtype()
    }

    /// Bytes of all matrices.
    pub fn num_bytes(&self) -> usize {
        let projections = |layer: &'_ Layer| {
            let all = [&layer.qkv, &layer.attention_output, &layer.gate_up, &layer.down];
            all.map(|projection| projection.matrix.num_bytes())
        };
        let layers = self.layers.iter().flat_map(projections).sum::<usize>();
        self.embedding.num_bytes() + self.output.as_ref().map_or(0, Matrix::num_bytes) + layers
    }
}

/// What all layers of one step share.
struct Step<'a> {
    device: &'a Device,
    batch: &'a BatchInput<'a>,
    rope: &'a RopeTable,
    heads: HeadLayout,
    eps: f32,
    num_layers: usize,
}

impl Step<'_> {
    /// Adds what the layer below computed to the residual and norms it for attention.
    fn norm_into_layer(&self, layer: &Layer, index: usize, workspace: &mut Workspace) -> Result<(), ModelError> {
        let Workspace { residual, delta, normed, .. } = workspace;
        if index == 0 {
            ops::rms_norm(self.device, residual, &layer.input_norm, self.eps, normed)?;
        } else {
            ops::add_rms_norm(self.device, residual, delta, &layer.input_norm, self.eps, normed)?;
        }
        Ok(())
    }

    /// Norms the residual and computes the rows' heads from it, rotated.
    fn compute_heads(&self, layer: &Layer, index: usize, workspace: &mut Workspace) -> Result<(), ModelError> {
        self.norm_into_layer(layer, index, workspace)?;
        let Workspace { normed, qkv, .. } = workspace;
        layer.qkv.apply(self.device, normed, qkv)?;
        if let Some(norms) = &layer.qk_norm {
            ops::head_rms_norm(self.device, qkv, self.heads, &norms.query, &norms.key, self.eps)?;
        }
        ops::rope(self.device, qkv, self.heads, self.batch.positions, self.rope)?;
        Ok(())
    }

    /// Writes the rows' keys and values into the pool.
    fn write_kv(&self, index: usize, workspace: &Workspace, pool: &mut KvPool) -> Result<(), ModelError> {
        ops::kv_write(self.device, &workspace.qkv, self.heads, self.batch.slots, pool, index)?;
        Ok(())
    }

    /// The rest of a layer, once keys and values are written. The last layer is left out when nobody wants logits.
    fn above_kv(
        &self,
        layer: &Layer,
        index: usize,
        workspace: &mut Workspace,
        pool: &KvPool,
    ) -> Result<(), ModelError> {
        let is_last = index + 1 == self.num_layers;
        if is_last && self.batch.logit_rows.is_empty() {
            return Ok(());
        }
        self.attend(layer, index, workspace, pool)?;
        if is_last {
            self.keep_logit_rows(workspace)?;
        }
        self.feed_forward(layer, workspace)
    }

    /// Goes on with a part of the rows: residual and heads of the others are dropped.
    fn keep_rows(&self, rows: &[u32], workspace: &mut Workspace) -> Result<(), ModelError> {
        let Workspace { residual, qkv, gathered, .. } = workspace;
        for tensor in [residual, qkv] {
            ops::gather_rows(self.device, tensor, rows, gathered)?;
            std::mem::swap(tensor, gathered);
        }
        Ok(())
    }

    /// Attention over the pool.
    fn attend(&self, layer: &Layer, index: usize, workspace: &mut Workspace, pool: &KvPool) -> Result<(), ModelError> {
        let Workspace { qkv, attention, .. } = workspace;
        let scale = (1.0 / (self.heads.head_dim as f64).sqrt()) as f32;
        let params = AttentionParams { layer: index, scale, sliding_window: layer.sliding_window };
        ops::paged_attention(self.device, qkv, self.heads, &self.batch.attention(), pool, params, attention)?;
        Ok(())
    }

    /// Above the last attention rows are independent: only those whose logits are wanted go on.
    fn keep_logit_rows(&self, workspace: &mut Workspace) -> Result<(), ModelError> {
        let rows = self.batch.logit_rows;
        if rows.iter().copied().eq(0..self.batch.num_rows() as u32) {
            return Ok(());
        }
        let Workspace { residual, attention, gathered, .. } = workspace;
        for tensor in [residual, attention] {
            ops::gather_rows(self.device, tensor, rows, gathered)?;
            std::mem::swap(tensor, gathered);
        }
        Ok(())
    }

    /// Output projection of attention, then the gated feed-forward; what it adds to the residual is left in `delta`.
    fn feed_forward(&self, layer: &Layer, workspace: &mut Workspace) -> Result<(), ModelError> {
        let Workspace { residual, normed, attention, delta, gate_up, activated, .. } = workspace;
        layer.attention_output.apply(self.device, attention, delta)?;
        ops::add_rms_norm(self.device, residual, delta, &layer.post_attention_norm, self.eps, normed)?;
        layer.gate_up.apply(self.device, normed, gate_up)?;
        ops::silu_mul(self.device, gate_up, activated)?;
        layer.down.apply(self.device, activated, delta)
    }
}

impl Layer {
    fn load(config: &ModelConfig, weights: &mut Weights, layer: usize) -> Result<Self, ModelError> {
        let names = &config.family.tensors;
        let part = |name: &str, len: usize| Part { name: format!("{}{layer}.{name}", names.layers), len };
        let hidden = config.hidden_size;
        let head_dim = config.head_dim;
        let (query_size, kv_size) = (config.num_heads * head_dim, config.num_kv_heads * head_dim);
        let norm = |weights: &mut Weights, name: &str, len: usize| {
            let weight = format!("{name}.weight");
            weights.vector(&[part(&weight, len)], 1.0)
        };
        let projection = |weights: &mut Weights, inputs: usize, parts: &[(&str, usize)], bias: Bias| {
            let named = |suffix: &str| {
                parts.iter().map(|(name, len)| part(&format!("{name}.{suffix}"), *len)).collect::<Vec<_>>()
            };
            let matrix = weights.matrix(inputs, &named("weight"))?;
            let bias = match bias {
                Bias::Present => Some(weights.vector(&named("bias"), 0.0)?),
                Bias::Absent => None,
            };
            Ok::<_, ModelError>(Projection { matrix, bias })
        };
        let qkv = [(names.query, query_size), (names.key, kv_size), (names.value, kv_size)];
        let gate_up = [(names.gate, config.intermediate_size), (names.up, config.intermediate_size)];
        let qk_norm = match config.qk_norm {
            QkNorm::Absent => None,
            QkNorm::PerHead => Some(HeadNorms {
                query: norm(weights, names.query_norm, head_dim)?,
                key: norm(weights, names.key_norm, head_dim)?,
            }),
        };
        Ok(Self {
            input_norm: norm(weights, names.input_norm, hidden)?,
            qkv: projection(weights, hidden, &qkv, config.qkv_bias)?,
            qk_norm,
            attention_output: projection(weights, query_size, &[(names.attention_output, hidden)], config.output_bias)?,
            post_attention_norm: norm(weights, names.post_attention_norm, hidden)?,
            gate_up: projection(weights, hidden, &gate_up, config.mlp_bias)?,
            down: projection(weights, config.intermediate_size, &[(names.down, hidden)], config.mlp_bias)?,
            sliding_window: config.layer_windows[layer],
        })
    }
}

impl Projection {
    fn apply(&self, device: &Device, input: &Tensor, out: &mut Tensor) -> Result<(), ModelError> {
        Ok(ops::matmul(device, input, &self.matrix, self.bias.as_ref(), out)?)
    }
}

impl Workspace {
    fn new(device: &Device) -> Self {
        let empty = || Tensor::zeros(device, 0, 0);
        Self {
            residual: empty(),
            normed: empty(),
            qkv: empty(),
            attention: empty(),
            delta: empty(),
            gate_up: empty(),
            activated: empty(),
            gathered: empty(),
            hidden: empty(),
            logits: empty(),
        }
    }
}

#[cfg(test)]
mod tests;
