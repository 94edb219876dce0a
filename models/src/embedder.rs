//! Texts to unit vectors: a sentence embedder of the BERT family from a Hugging Face or sentence-transformers folder.
//!
//! [`BertEmbedder::load`] reads the files, [`BertEmbedder::embed`] tokenizes, packs texts into batches without padding,
//! runs the encoder in f32 on the CPU and pools. What the vectors mean is named by [`BertEmbedder::id`].

use std::fmt;

use crate::checkpoint::Checkpoint;
use crate::{ModelError, ModelSource};

mod config;
mod encoder;
mod families;
mod ops;
mod pooling;
mod prompts;
mod text;
mod weights;

pub use prompts::{Prompts, Purpose};

use config::EncoderConfig;
use encoder::{Encoder, PackedTexts};
use pooling::{PooledPrompt, Pooling};
use text::TextEncoder;
use weights::EncoderWeights;

/// Tokens that go through the encoder at once; a longer text is a batch of its own.
const MAX_BATCH_TOKENS: usize = 512;
/// Most texts that are embedded in one call.
pub const MAX_TEXTS: usize = 1 << 16;

/// How an embedder is loaded.
#[derive(Debug, Clone, Default)]
pub struct EmbedderOptions {
    /// Prompts in place of those that the model's files name: many models were trained with prompts that their files
    /// do not mention.
    pub prompts: Option<Prompts>,
}

/// Names a space of vectors: two embedders have the same id only if they give the same text the same vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EmbedderId([u8; 32]);

impl EmbedderId {
    /// The id as bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for EmbedderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A sentence embedder. It can be used from several threads at once.
pub struct BertEmbedder {
    encoder: Encoder,
    text: TextEncoder,
    pooling: Pooling,
    prompts: Prompts,
    id: EmbedderId,
}

impl BertEmbedder {
    /// Reads `config.json`, the safetensors, `tokenizer.json`, and where they are `modules.json`,
    /// `1_Pooling/config.json`, `sentence_bert_config.json` and `config_sentence_transformers.json`.
    ///
    /// # Errors
    /// [`ModelError`] that names the file, field or tensor that is missing, broken, not supported or contradicts
    /// another.
    pub fn load(source: &ModelSource, options: EmbedderOptions) -> Result<Self, ModelError> {
        let config = EncoderConfig::load(source)?;
        let pooling = Pooling::load(source, config.hidden_size)?;
        let prompts = match options.prompts {
            Some(prompts) => prompts,
            None => Prompts::load(source)?,
        };
        prompts.check()?;
        if pooling.prompt == PooledPrompt::LeftOut && prompts != Prompts::default() {
            let (file, name, value) = ("1_Pooling/config.json", "include_prompt", "false".to_owned());
            return Err(ModelError::UnsupportedEmbedding { file, name, value, supported: "true, or no prompts" });
        }
        let text = TextEncoder::load(source, config.max_positions())?;
        let prefix = config.family.prefix;
        let encoder = Encoder::load(config, EncoderWeights::new(Checkpoint::open(source)?, prefix))?;
        let id = embedder_id(&encoder, &text, &pooling, &prompts)?;
        Ok(Self { encoder, text, pooling, prompts, id })
    }

    /// A unit vector of [`dim`](Self::dim) numbers for every text. Texts longer than [`max_tokens`](Self::max_tokens)
    /// are cut; of each at most the first MiB is looked at.
    ///
    /// A text's vector is the same, bit for bit, whatever the other texts are.
    ///
    /// # Errors
    /// [`ModelError::TooManyTexts`] above [`MAX_TEXTS`]; [`ModelError::NoTokens`], [`ModelError::NoDirection`] for a
    /// text that has no vector; [`ModelError::BatchValue`] for a tokenizer that does not fit the model;
    /// [`ModelError::Encode`], [`ModelError::Tensor`].
    pub fn embed(&self, texts: &[&str], purpose: Purpose) -> Result<Vec<Vec<f32>>, ModelError> {
        if texts.len() > MAX_TEXTS {
            return Err(ModelError::TooManyTexts { got: texts.len(), max: MAX_TEXTS });
        }
        let mut vectors = Vec::with_capacity(texts.len());
        let mut batch = PackedTexts::default();
        for (index, text) in texts.iter().enumerate() {
            let tokens = self.text.encode(self.prompts.of(purpose), text)?;
            if tokens.ids.is_empty() {
                return Err(ModelError::NoTokens { text: index });
            }
            if batch.num_tokens() > 0 && batch.num_tokens() + tokens.ids.len() > MAX_BATCH_TOKENS {
                self.embed_batch(&std::mem::take(&mut batch), &mut vectors)?;
            }
            batch.push(&tokens);
        }
        if batch.num_tokens() > 0 {
            self.embed_batch(&batch, &mut vectors)?;
        }
        Ok(vectors)
    }

    /// Names the vectors: by the encoder's configuration and weights, tokenizer, length, pooling and prompts.
    pub fn id(&self) -> EmbedderId {
        self.id
    }

    /// Numbers in a vector.
    pub fn dim(&self) -> usize {
        self.pooling.dim(self.encoder.config().hidden_size)
    }

    /// Tokens of a text that take part in its vector, special tokens and prompt included.
    pub fn max_tokens(&self) -> usize {
        self.text.max_tokens
    }

    /// The prompts that are put in front of texts.
    pub fn prompts(&self) -> &Prompts {
        &self.prompts
    }

    /// Tokens of a whole text with special tokens and without prompt, also beyond [`max_tokens`](Self::max_tokens).
    ///
    /// # Errors
    /// [`ModelError::TextTooLong`] above 16 MiB, [`ModelError::Encode`].
    pub fn count_tokens(&self, text: &str) -> Result<usize, ModelError> {
        self.text.count(text)
    }

    /// Appends the vectors of a batch to those of the batches before it.
    fn embed_batch(&self, batch: &PackedTexts, vectors: &mut Vec<Vec<f32>>) -> Result<(), ModelError> {
        let hidden_size = self.encoder.config().hidden_size;
        let states = self.encoder.forward(batch)?;
        let mut rest = states.as_slice();
        for len in batch.lens() {
            let (text, behind) = rest.split_at(len * hidden_size);
            let no_direction = |length| ModelError::NoDirection { text: vectors.len(), length };
            let vector = self.pooling.pool(text, hidden_size).map_err(no_direction)?;
            vectors.push(vector);
            rest = behind;
        }
        Ok(())
    }
}

impl fmt::Debug for BertEmbedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BertEmbedder").field("id", &self.id.to_string()).finish_non_exhaustive()
    }
}

/// The hash of everything that a vector depends on.
fn embedder_id(
    encoder: &Encoder,
    text: &TextEncoder,
    pooling: &Pooling,
    prompts: &Prompts,
) -> Result<EmbedderId, ModelError> {
    let config = encoder.config();
    let mut hasher = blake3::Hasher::new_derive_key("memos 2026 embedder v1");
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    field(config.family.name.as_bytes());
    for size in [
        config.vocab_size,
        config.hidden_size,
        config.num_layers,
        config.num_heads,
        config.intermediate_size,
        config.num_positions,
        config.pad_token_id,
        config.num_types,
        text.max_tokens,
    ] {
        field(&(size as u64).to_le_bytes());
    }
    field(&config.layer_norm_eps.to_le_bytes());
    field(format!("{:?} {:?} {:?}", config.activation, text.case, pooling.modes).as_bytes());
    field(prompts.query.as_bytes());
    field(prompts.passage.as_bytes());
    field(&text.hash);
    field(&encoder.fingerprint()?);
    Ok(EmbedderId(*hasher.finalize().as_bytes()))
}

#[cfg(test)]
mod tests;
