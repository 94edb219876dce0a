//! A model with a KV pool and nothing else: tests choose tokens, positions and blocks of each row themselves.

use std::path::Path;

use kernels::{CpuOptions, DType, Device, Isa, KvPool};
use models::{BatchInput, LoadFormat, LoadOptions, Model, ModelSource};

/// How a test's model is set up.
#[derive(Debug, Clone, Copy)]
pub struct PagedOptions {
    /// Instruction set; `None`: see [`exact_isa`].
    pub isa: Option<Isa>,
    /// Compute threads.
    pub num_threads: usize,
    /// Precision of the KV pool.
    pub kv_dtype: DType,
    /// Tokens a block.
    pub block_size: usize,
    /// Blocks in the pool.
    pub num_blocks: usize,
}

impl Default for PagedOptions {
    fn default() -> Self {
        Self { isa: None, num_threads: 2, kv_dtype: DType::F32, block_size: 16, num_blocks: 96 }
    }
}

/// Rows of one sequence in a forward pass.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Token of each row.
    pub tokens: &'a [u32],
    /// Position of each row in its sequence.
    pub positions: &'a [u32],
    /// Blocks of the sequence, at least up to the greatest position.
    pub block_table: &'a [u32],
}

/// Model, device and pool.
pub struct PagedModel {
    device: Device,
    model: Model,
    pool: KvPool,
    block_size: usize,
}

/// The best instruction set of this machine that computes in float32 throughout.
///
/// The one with bf16 dot products rounds activations, so it is compared with references elsewhere, more loosely.
pub fn exact_isa() -> Isa {
    if Isa::Avx512.is_available() { Isa::Avx512 } else { Isa::detect() }
}

impl PagedModel {
    /// Loads the checkpoint in `folder`.
    ///
    /// # Errors
    /// Whatever the loader says.
    pub fn load(folder: &Path, options: &PagedOptions) -> anyhow::Result<Self> {
        let num_threads = std::num::NonZeroUsize::new(options.num_threads);
        let device = Device::cpu(CpuOptions { num_threads, isa: Some(options.isa.unwrap_or_else(exact_isa)) })?;
        let load = LoadOptions { format: LoadFormat::Safetensors, dtype: None, max_positions: None };
        let model = Model::load(&device, &ModelSource::Folder(folder.to_owned()), load)?;
        let pool = KvPool::new(&device, model.kv_shape(options.block_size, options.kv_dtype), options.num_blocks)?;
        Ok(Self { device, model, pool, block_size: options.block_size })
    }

    /// The loaded model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Names the arithmetic.
    pub fn numerics_id(&self) -> &'static str {
        self.device.numerics_id()
    }

    /// Tokens a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Computes the pieces in one forward pass; returns the logits of every row, `[num_rows][vocab_size]`.
    ///
    /// # Errors
    /// Whatever the model says.
    ///
    /// # Panics
    /// When a block table is too short.
    pub fn forward(&mut self, pieces: &[Piece<'_>]) -> anyhow::Result<Vec<Vec<f32>>> {
        let arrays = Arrays::of(pieces, self.block_size);
        let logits = self.model.forward(&self.device, &arrays.as_batch(), &mut self.pool)?;
        Ok((0..logits.num_rows()).map(|row| logits.row(row).to_vec()).collect())
    }

    /// Computes one sequence at consecutive positions from `start` on.
    ///
    /// # Errors
    /// Whatever the model says.
    pub fn extend(&mut self, start: usize, tokens: &[u32], block_table: &[u32]) -> anyhow::Result<Vec<Vec<f32>>> {
        let positions: Vec<u32> = (start as u32..).take(tokens.len()).collect();
        self.forward(&[Piece { tokens, positions: &positions, block_table }])
    }
}

/// The flat arrays of one forward pass, with logits wanted of every row.
#[derive(Default)]
struct Arrays {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    cu_rows: Vec<u32>,
    context_lens: Vec<u32>,
    block_tables: Vec<u32>,
    block_table_offsets: Vec<u32>,
    logit_rows: Vec<u32>,
}

impl Arrays {
    fn of(pieces: &[Piece<'_>], block_size: usize) -> Self {
        let mut arrays = Self { cu_rows: vec![0], block_table_offsets: vec![0], ..Self::default() };
        for piece in pieces {
            let slot = |&position: &u32| {
                let position = position as usize;
                piece.block_table[position / block_size] * block_size as u32 + (position % block_size) as u32
            };
            let context_len = piece.positions.iter().max().expect("a piece has rows") + 1;
            let num_blocks = (context_len as usize).div_ceil(block_size);
            arrays.tokens.extend(piece.tokens);
            arrays.positions.extend(piece.positions);
            arrays.slots.extend(piece.positions.iter().map(slot));
            arrays.cu_rows.push(arrays.tokens.len() as u32);
            arrays.context_lens.push(context_len);
            arrays.block_tables.extend(&piece.block_table[..num_blocks]);
            arrays.block_table_offsets.push(arrays.block_tables.len() as u32);
        }
        arrays.logit_rows = (0..arrays.tokens.len() as u32).collect();
        arrays
    }

    fn as_batch(&self) -> BatchInput<'_> {
        BatchInput {
            tokens: &self.tokens,
            positions: &self.positions,
            slots: &self.slots,
            cu_rows: &self.cu_rows,
            context_lens: &self.context_lens,
            block_tables: &self.block_tables,
            block_table_offsets: &self.block_table_offsets,
            logit_rows: &self.logit_rows,
        }
    }
}
