//! Models on top of kernels: configuration, weights, the decoder, tokenizer, chat template, sampler, embedder, hub cache.
//!
//! [`Model::load`] reads a Hugging Face folder or an embedded model; [`Model::forward`] runs one step over flat arrays.
//! Text goes through [`Tokenizer`] and [`ChatTemplate`], logits through [`Sampler`]; [`embedder::BertEmbedder`] makes
//! vectors of texts. Nothing here knows HTTP or sequences.
#![forbid(unsafe_code)]

mod batch;
mod chat_template;
mod checkpoint;
mod config;
mod conversion;
mod decode_stream;
mod decoder;
mod dummy;
pub mod embedder;
mod error;
mod families;
mod fields;
mod fingerprint;
mod generation_config;
pub mod hub;
mod logprobs;
mod model;
mod rope;
mod sampler;
mod sampling_params;
mod selective;
mod softmax;
mod source;
mod tokenizer;
mod top_p;
mod weights;

pub use batch::BatchInput;
pub use chat_template::{ChatInput, ChatTemplate, Continuation};
pub use config::{ModelConfig, parse_dtype};
pub use decode_stream::DecodeStream;
pub use error::ModelError;
pub use families::{Bias, Family, QkNorm};
pub use generation_config::GenerationConfig;
pub use logprobs::{TokenLogprob, log_softmax_top};
pub use model::{LoadFormat, LoadOptions, Model};
pub use rope::{RopeConfig, RopeScaling, Yarn, YarnBounds};
pub use sampler::Sampler;
pub use sampling_params::{InvalidParameter, SamplingParams};
pub use selective::RowSelection;
pub use source::{EmbeddedModel, ModelSource};
pub use tokenizer::{SpecialText, SpecialTokens, TextStart, Tokenizer};
