//! The one error type of the crate: what is wrong with a model's files, a request's values or a batch.

use std::path::PathBuf;

use kernels::KernelError;

use crate::InvalidParameter;

/// Why a model could not be found, loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file of the model could not be read.
    #[error("could not read {}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file the model cannot do without is not there.
    #[error("{place} has no {file}")]
    MissingFile {
        /// The model's folder, or `embedded model`.
        place: String,
        /// Name of the file.
        file: &'static str,
    },
    /// A folder holds pickled weights only; they are refused because reading them can run code.
    #[error("{place} has its weights as {found} only; safetensors are needed")]
    PickledWeights {
        /// The model's folder.
        place: String,
        /// The file found.
        found: &'static str,
    },
    /// A file is larger than anything of its kind should be.
    #[error("{file} is {got_bytes} bytes, at most {max_bytes} are read")]
    FileTooLarge {
        /// Name of the file.
        file: String,
        /// Its size.
        got_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// A JSON file is not JSON, or not of the expected shape.
    #[error("{file} is not valid")]
    Json {
        /// Name of the file.
        file: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A field of a configuration file is missing.
    #[error("{file} has no {name}")]
    MissingField {
        /// Name of the file.
        file: &'static str,
        /// Name of the field.
        name: &'static str,
    },
    /// A field of a configuration file has a value that is not allowed.
    #[error("{file}: {name} is {value}, expected {expected}")]
    InvalidField {
        /// Name of the file.
        file: &'static str,
        /// Name of the field.
        name: &'static str,
        /// The value as JSON (shortened).
        value: String,
        /// What is allowed, in words.
        expected: &'static str,
    },
    /// Two fields of `config.json` contradict each other.
    #[error("config.json: {name} is {value}, which must {relation} {other_name} = {other}")]
    InconsistentFields {
        /// The field.
        name: &'static str,
        /// Its value.
        value: usize,
        /// How they should relate: `be a multiple of`, `not exceed`, ….
        relation: &'static str,
        /// The field it contradicts.
        other_name: &'static str,
        /// That field's value.
        other: usize,
    },
    /// The model's architecture is none that this program runs.
    #[error("architecture {architecture:?} is not supported; supported: {supported}")]
    UnknownArchitecture {
        /// The first of `architectures`, else `model_type`.
        architecture: String,
        /// The supported ones, comma-separated.
        supported: String,
    },
    /// A part of the configuration asks for something that is not implemented.
    #[error("config.json: {name} = {value:?} is not supported; supported: {supported}")]
    Unsupported {
        /// Which feature: `rope_type`, `hidden_act`, ….
        name: &'static str,
        /// The value asked for.
        value: String,
        /// What is supported.
        supported: &'static str,
    },
    /// A safetensors file is broken, truncated or has overlapping tensors.
    #[error("{file} is not a valid safetensors file")]
    BrokenWeights {
        /// The file.
        file: String,
        /// What is wrong.
        source: safetensors::SafeTensorError,
    },
    /// The header of a safetensors file is larger than the limit.
    #[error("the header of {file} is {got_bytes} bytes, at most {max_bytes} are read")]
    WeightsHeaderTooLarge {
        /// The file.
        file: String,
        /// Its declared size.
        got_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// A shard's name in the index is not a plain file name, so it could point outside of the folder.
    #[error("model.safetensors.index.json names shard {name:?}, which is not a plain .safetensors file name")]
    ShardName {
        /// The name.
        name: String,
    },
    /// The index maps to more files than any model needs.
    #[error("model.safetensors.index.json names {got} shards, at most {max} are opened")]
    TooManyShards {
        /// Number of shards named.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// A tensor that the configuration calls for is not in the weights.
    #[error("tensor {name} is missing from the weights")]
    MissingTensor {
        /// Its name.
        name: String,
    },
    /// A tensor's shape is not the one that the configuration calls for.
    #[error("tensor {name} has shape {got:?}, the configuration calls for {expected:?}")]
    TensorShape {
        /// Its name.
        name: String,
        /// Shape by the configuration.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// A tensor is stored in a type that is not supported.
    #[error("tensor {name} is stored as {got}, supported: F32, BF16, F16")]
    TensorDType {
        /// Its name.
        name: String,
        /// The stored type.
        got: String,
    },
    /// The weights have a layer tensor that the configuration does not account for.
    #[error("the weights hold tensor {name}, which the configuration does not account for")]
    UnexpectedTensor {
        /// Its name.
        name: String,
    },
    /// `tie_word_embeddings` is true, but the weights hold an output matrix that differs from the embedding.
    #[error("config.json ties the word embeddings, but {name} differs from the embedding matrix")]
    TiedTensorDiffers {
        /// Name of the output matrix.
        name: String,
    },
    /// A kernel refused its arguments or ran out of memory.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Two arrays of a batch do not fit together.
    #[error("batch: {array} has {got} entries, expected {expected}")]
    BatchLength {
        /// Which array.
        array: &'static str,
        /// Entries needed.
        expected: usize,
        /// Entries given.
        got: usize,
    },
    /// An offset array of a batch does not rise from 0 to the length of what it divides.
    #[error("batch: {array}[{index}] = {value}, expected a value in {min}..={max}")]
    BatchOffset {
        /// Which array.
        array: &'static str,
        /// Index of the entry.
        index: usize,
        /// The entry.
        value: u32,
        /// Smallest allowed.
        min: u32,
        /// Largest allowed.
        max: u32,
    },
    /// A value of a batch is out of range.
    #[error("batch: {array}[{index}] = {value} must be below {limit}")]
    BatchValue {
        /// Which array.
        array: &'static str,
        /// Index of the entry.
        index: usize,
        /// The entry.
        value: u32,
        /// The exclusive limit.
        limit: usize,
    },
    /// Rows are to be chosen at a layer where there is nothing to choose by.
    #[error(
        "selective recomputation after {got} full layers: expected at least 1, and less than the model's {num_layers}"
    )]
    FullLayers {
        /// The number asked for.
        got: usize,
        /// Layers of the model.
        num_layers: usize,
    },
    /// Keys are to be moved further than the model has positions.
    #[error("keys cannot be moved by {delta} positions, at most {max} either way")]
    PositionShift {
        /// The move.
        delta: i64,
        /// The largest move.
        max: usize,
    },
    /// A row would be written elsewhere than where its sequence's block table says.
    #[error("batch: row {row} at position {position} has slot {got}, its block table says {expected}")]
    BatchSlot {
        /// The row.
        row: usize,
        /// Its position.
        position: u32,
        /// The slot by the block table.
        expected: u64,
        /// The slot given.
        got: u32,
    },
    /// The KV pool was made for another model.
    #[error("the KV pool's {what} is {got}, the model needs {expected}")]
    PoolShape {
        /// Which size.
        what: &'static str,
        /// What the model needs.
        expected: usize,
        /// What the pool has.
        got: usize,
    },
    /// The tokenizer file could not be understood.
    #[error("tokenizer.json is not a tokenizer this program can use")]
    Tokenizer {
        /// What the tokenizer library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tokenizer library panicked on the file.
    #[error("tokenizer.json makes the tokenizer library fail: {message}")]
    TokenizerPanic {
        /// The panic's message.
        message: String,
    },
    /// The tokenizer's decoder is of a kind whose text cannot be streamed.
    #[error("tokenizer.json has decoder {decoder}; supported: {supported}")]
    UnsupportedDecoder {
        /// The decoder as JSON (shortened).
        decoder: String,
        /// The supported ones.
        supported: &'static str,
    },
    /// Text could not be encoded.
    #[error("the text could not be tokenized")]
    Encode {
        /// What the tokenizer library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The text is longer than what is encoded in one piece.
    #[error("the text is {got_bytes} bytes, at most {max_bytes} are tokenized")]
    TextTooLong {
        /// Its size.
        got_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// A chat template could not be compiled.
    #[error("the chat template {name:?} is not valid")]
    TemplateSyntax {
        /// Name of the template.
        name: String,
        /// Where and why.
        source: minijinja::Error,
    },
    /// The chat template refused the messages (it called `raise_exception`).
    #[error("the chat template refused the conversation: {message}")]
    TemplateRefused {
        /// What the template said.
        message: String,
    },
    /// The chat template failed on these messages.
    #[error("the chat template failed on this conversation")]
    TemplateRender {
        /// Where and why.
        source: minijinja::Error,
    },
    /// A chat template has no entry for what was asked.
    #[error("the model has no chat template named {name:?}")]
    TemplateName {
        /// The name asked for.
        name: String,
    },
    /// The last message is to be continued, but the rendered text does not show its content.
    #[error("the last message cannot be continued: it has no content that the chat template shows")]
    FinalMessage,
    /// A message has content of a kind that the model cannot read.
    #[error("messages[{message}].content[{part}] has type {kind:?}; this model reads text only")]
    ContentPart {
        /// Index of the message.
        message: usize,
        /// Index of the part.
        part: usize,
        /// Its type.
        kind: String,
    },
    /// The messages are not an array of objects.
    #[error("messages[{message}] is {found}, expected {expected}")]
    InvalidMessage {
        /// Index of the message.
        message: usize,
        /// What was found (shortened).
        found: String,
        /// What is expected.
        expected: &'static str,
    },
    /// A sampling parameter has a value that is not allowed.
    #[error(transparent)]
    InvalidParameter(#[from] InvalidParameter),
    /// The model produced a logit that is no number; sampling from it would be garbage.
    #[error("the logit of token {token} is {value}")]
    NotFiniteLogit {
        /// The token.
        token: u32,
        /// Its logit: NaN or positive infinity (or all are negative infinity).
        value: f32,
    },
    /// Logits and vocabulary do not have the same size.
    #[error("{got} logits were given for a vocabulary of {expected}")]
    LogitCount {
        /// The vocabulary's size.
        expected: usize,
        /// Logits given.
        got: usize,
    },
    /// A model name that is neither a folder nor a hub id.
    #[error("{model:?} is neither a folder nor a hub id of the form name or owner/name")]
    ModelName {
        /// The name.
        model: String,
    },
    /// The model is not in the cache and the network may not be used.
    #[error("{model:?} is not in the cache {} and downloads are off", cache.display())]
    NotCached {
        /// The hub id.
        model: String,
        /// The cache folder.
        cache: PathBuf,
    },
    /// A cached model lacks a file and the network may not be used.
    #[error("the cached copy of {model:?} has no {file} and downloads are off")]
    IncompleteCache {
        /// The hub id.
        model: String,
        /// The file.
        file: String,
    },
    /// The hub could not be reached, refused, or broke off.
    #[error("could not download {model:?} from {endpoint}")]
    Download {
        /// The hub id.
        model: String,
        /// The hub.
        endpoint: String,
        /// What went wrong.
        source: Box<hf_hub::api::sync::ApiError>,
    },
    /// A revision that is no branch, tag or commit.
    #[error("{revision:?} is not a revision: expected a branch, tag or commit")]
    Revision {
        /// The revision.
        revision: String,
    },
    /// A hub answered with a file name that would be written outside of the cache.
    #[error("the hub lists file {name:?} for {model:?}, which is not a plain file name")]
    HubFileName {
        /// The hub id.
        model: String,
        /// The file name.
        name: String,
    },
    /// A type was asked for that a weight cannot be converted to.
    #[error("{name} has dtype {value:?}; supported: float32, bfloat16, float16")]
    UnknownDType {
        /// Where the type was asked for.
        name: &'static str,
        /// The type.
        value: String,
    },
    /// More positions were asked for than the model has been made for.
    #[error("max_positions is {got}, expected 1 to {max}")]
    MaxPositions {
        /// What was asked for.
        got: usize,
        /// The model's context.
        max: usize,
    },
    /// Weights cannot be made up in the stored type.
    #[error("weights of {matrix} take {bytes} bytes, which overflows the address space")]
    TooLarge {
        /// The matrix.
        matrix: String,
        /// Elements times size.
        bytes: u128,
    },
    /// A file of an embedding model asks for something that is not implemented.
    #[error("{file}: {name} = {value:?} is not supported; supported: {supported}")]
    UnsupportedEmbedding {
        /// Name of the file.
        file: &'static str,
        /// Which feature.
        name: &'static str,
        /// The value asked for.
        value: String,
        /// What is supported.
        supported: &'static str,
    },
    /// A weight is no number; everything computed from it would be none either.
    #[error("tensor {name} holds {value} at element {index}")]
    NotFiniteWeight {
        /// The tensor.
        name: String,
        /// Index of the first such element.
        index: usize,
        /// The element.
        value: f32,
    },
    /// A tensor operation of the embedding model failed.
    #[error("the embedding model could not be computed")]
    Tensor {
        /// What the tensor library said.
        source: Box<candle_core::Error>,
    },
    /// More texts were given than are embedded in one call.
    #[error("{got} texts were given, at most {max} are embedded in one call")]
    TooManyTexts {
        /// Texts given.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// A text has no token, so there is nothing to embed.
    #[error("texts[{text}] has no token")]
    NoTokens {
        /// Index of the text.
        text: usize,
    },
    /// The model computed a vector that points nowhere or is no number.
    #[error("texts[{text}] has a vector of length {length}, which cannot be made a unit vector")]
    NoDirection {
        /// Index of the text.
        text: usize,
        /// The vector's length: 0, infinite or NaN.
        length: f64,
    },
}

impl From<candle_core::Error> for ModelError {
    fn from(source: candle_core::Error) -> Self {
        Self::Tensor { source: Box::new(source) }
    }
}
