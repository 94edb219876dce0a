//! From one vector per token to one unit vector per text, as `modules.json` and `1_Pooling/config.json` say.

use serde_json::Value;

use crate::fields::Fields;
use crate::{ModelError, ModelSource};

const MODULES_FILE: &str = "modules.json";
const POOLING_FILE: &str = "1_Pooling/config.json";
const POOLING_FOLDER: &str = "1_Pooling";
/// Most modules of a pipeline that are looked at.
const MAX_MODULES: usize = 16;

/// One way to make one vector of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PoolingMode {
    /// The first token's.
    Cls,
    /// The largest element of each column.
    Max,
    /// The mean of each column.
    Mean,
}

/// The modes whose results, one behind the other, are a text's vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pooling {
    pub modes: Vec<PoolingMode>,
    /// Whether the tokens of a prompt are pooled like the text's.
    pub prompt: PooledPrompt,
}

/// Whether the tokens of a prompt take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PooledPrompt {
    Included,
    LeftOut,
}

/// Every flag of the configuration file, in the order in which results are put together; `None`: not implemented.
const FLAGS: [(&str, &str, Option<PoolingMode>); 6] = [
    ("pooling_mode_cls_token", "cls", Some(PoolingMode::Cls)),
    ("pooling_mode_max_tokens", "max", Some(PoolingMode::Max)),
    ("pooling_mode_mean_tokens", "mean", Some(PoolingMode::Mean)),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", None),
    ("pooling_mode_weightedmean_tokens", "weightedmean", None),
    ("pooling_mode_lasttoken", "lasttoken", None),
];

impl Pooling {
    /// The pooling of a model; the mean of all tokens when it has no `modules.json` or no pooling configuration.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedEmbedding`] for a pipeline with other parts than an encoder, pooling and normalisation,
    /// or for another pooling mode; what is wrong with the files.
    pub fn load(source: &ModelSource, hidden_size: usize) -> Result<Self, ModelError> {
        if let Some(json) = source.read(MODULES_FILE)? {
            check_modules(&json)?;
        }
        match source.read_json(POOLING_FILE)? {
            Some(value) => Self::parse(&value, hidden_size),
            None => Ok(Self { modes: vec![PoolingMode::Mean], prompt: PooledPrompt::Included }),
        }
    }

    fn parse(value: &Value, hidden_size: usize) -> Result<Self, ModelError> {
        let fields = Fields::new(POOLING_FILE, "the file", value)?;
        for name in ["word_embedding_dimension", "embedding_dimension"] {
            if fields.count(name, 1..=usize::MAX)?.is_some_and(|dimension| dimension != hidden_size) {
                return Err(fields.invalid(name, "the hidden size that config.json has"));
            }
        }
        let mut modes = named_modes(&fields)?;
        if modes.is_empty() {
            for (flag, name, mode) in FLAGS {
                if fields.flag(flag)? == Some(true) {
                    modes.push(mode.ok_or_else(|| unsupported_mode(name))?);
                }
            }
        }
        if modes.is_empty() {
            modes.push(PoolingMode::Mean);
        }
        let is_included = fields.flag("include_prompt")?.unwrap_or(true);
        let prompt = if is_included { PooledPrompt::Included } else { PooledPrompt::LeftOut };
        Ok(Self { modes, prompt })
    }

    /// Length of a pooled vector.
    pub fn dim(&self, hidden_size: usize) -> usize {
        self.modes.len() * hidden_size
    }

    /// The unit vector of a text whose tokens have these vectors, `[num_tokens, hidden_size]`; `Err` with its length
    /// when it has no direction.
    pub fn pool(&self, hidden: &[f32], hidden_size: usize) -> Result<Vec<f32>, f64> {
        let mut pooled = Vec::with_capacity(self.dim(hidden_size));
        for mode in &self.modes {
            match mode {
                PoolingMode::Cls => pooled.extend_from_slice(&hidden[..hidden_size]),
                PoolingMode::Max => pooled.extend(max_rows(hidden, hidden_size)),
                PoolingMode::Mean => pooled.extend(mean_rows(hidden, hidden_size)),
            }
        }
        let length = pooled.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        if !(length.is_finite() && length > 0.0) {
            return Err(length);
        }
        pooled.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
        Ok(pooled)
    }
}

/// Modes by the name or list of names in `pooling_mode`, as newer files have it; none when it is absent.
fn named_modes(fields: &Fields) -> Result<Vec<PoolingMode>, ModelError> {
    let name = "pooling_mode";
    let wrong = || fields.invalid(name, "the name of a pooling mode, or a list of names");
    let names = match fields.get(name) {
        None => return Ok(Vec::new()),
        Some(Value::Array(names)) if (1..=FLAGS.len()).contains(&names.len()) => names.as_slice(),
        Some(Value::Array(_)) => return Err(wrong()),
        Some(single) => std::slice::from_ref(single),
    };
    let mode = |value: &Value| {
        let name = value.as_str().ok_or_else(wrong)?;
        let known = FLAGS.iter().find(|(_, known, _)| *known == name);
        known.and_then(|(_, _, mode)| *mode).ok_or_else(|| unsupported_mode(name))
    };
    names.iter().map(mode).collect()
}

fn unsupported_mode(name: &str) -> ModelError {
    let (name, value) = ("pooling_mode", name.to_owned());
    ModelError::UnsupportedEmbedding { file: POOLING_FILE, name, value, supported: "mean, cls, max" }
}

/// Refuses a pipeline with a part that would be left out: a dense layer changes every vector.
fn check_modules(json: &[u8]) -> Result<(), ModelError> {
    let file = MODULES_FILE;
    let value: Value = serde_json::from_slice(json).map_err(|source| ModelError::Json { file, source })?;
    let wrong = |expected| ModelError::InvalidField {
        file,
        name: "the file",
        value: crate::fields::shortened(&value),
        expected,
    };
    let modules = value.as_array().ok_or_else(|| wrong("a list of modules"))?;
    if modules.len() > MAX_MODULES {
        return Err(wrong("at most 16 modules"));
    }
    for module in modules {
        let fields = Fields::new(file, "a module", module)?;
        let class = fields.text("type")?.ok_or_else(|| fields.missing("type"))?;
        let path = fields.text("path")?.unwrap_or("");
        // The class with the Python module it is in; only its last part has stayed the same over versions.
        match (class.rsplit('.').next().unwrap_or(class), path) {
            ("Transformer", "") | ("Pooling", POOLING_FOLDER) | ("Normalize", _) => {}
            ("Transformer", _) => return Err(fields.invalid("path", "an empty path for the encoder")),
            ("Pooling", _) => return Err(fields.invalid("path", "1_Pooling for the pooling")),
            _ => {
                let supported = "Transformer, Pooling, Normalize";
                let value = class.to_owned();
                return Err(ModelError::UnsupportedEmbedding { file, name: "type", value, supported });
            }
        }
    }
    Ok(())
}

fn mean_rows(hidden: &[f32], hidden_size: usize) -> Vec<f32> {
    let mut sums = vec![0.0f32; hidden_size];
    for row in hidden.chunks_exact(hidden_size) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    let num_rows = (hidden.len() / hidden_size) as f32;
    sums.iter_mut().for_each(|sum| *sum /= num_rows);
    sums
}

fn max_rows(hidden: &[f32], hidden_size: usize) -> Vec<f32> {
    let mut largest = vec![f32::NEG_INFINITY; hidden_size];
    for row in hidden.chunks_exact(hidden_size) {
        // A comparison would let a NaN pass unseen.
        largest.iter_mut().zip(row).for_each(|(max, x)| *max = if *x <= *max { *max } else { *x });
    }
    largest
}
