//! Checkpoints and logits that `reference/make_reference.py` stored with transformers, read back for comparison.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// One checkpoint with what transformers computed from it.
pub struct ReferenceCase {
    /// Name of its folder.
    pub name: String,
    /// Where the checkpoint is.
    pub folder: PathBuf,
    /// Prompts of different lengths.
    pub prompts: Vec<ReferencePrompt>,
}

/// A prompt, its greedy continuation, and the logits of some rows.
pub struct ReferencePrompt {
    /// Prompt, then the continuation.
    pub tokens: Vec<u32>,
    /// How many of `tokens` are the prompt.
    pub prompt_len: usize,
    /// Positions in `tokens` whose logits are stored, ascending.
    pub rows: Vec<usize>,
    /// Logits of these rows, `[num_rows][vocab_size]`.
    pub logits: Vec<Vec<f32>>,
}

impl ReferenceCase {
    /// All cases, in order of name.
    ///
    /// # Errors
    /// A file is missing or is not what the script writes.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        let cases = reference_folder().join("cases");
        let entries = std::fs::read_dir(&cases).with_context(|| format!("{}", cases.display()))?;
        let folders: Result<Vec<PathBuf>, std::io::Error> = entries.map(|entry| Ok(entry?.path())).collect();
        let mut folders = folders?;
        folders.sort();
        folders.iter().map(|folder| Self::read(folder).with_context(|| format!("{}", folder.display()))).collect()
    }

    /// The case of this name.
    ///
    /// # Errors
    /// As [`all`](Self::all).
    pub fn named(name: &str) -> anyhow::Result<Self> {
        let folder = reference_folder().join("cases").join(name);
        Self::read(&folder).with_context(|| format!("{}", folder.display()))
    }

    fn read(folder: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(folder.join("reference.safetensors"))?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let metadata: BTreeMap<String, String> =
            header.metadata().clone().context("no metadata")?.into_iter().collect();
        let prompt_lens: Vec<usize> = serde_json::from_str(metadata.get("prompt_len").context("no prompt_len")?)?;
        ensure!(!prompt_lens.is_empty(), "no prompts");
        let stored = SafeTensors::deserialize(&bytes)?;
        let prompts: anyhow::Result<Vec<ReferencePrompt>> = prompt_lens
            .into_iter()
            .enumerate()
            .map(|(index, prompt_len)| ReferencePrompt::read(&stored, index, prompt_len))
            .collect();
        let name = folder.file_name().context("no name")?.to_string_lossy().into_owned();
        Ok(Self { name, folder: folder.to_owned(), prompts: prompts? })
    }

    /// The longest prompt without its continuation.
    ///
    /// # Panics
    /// Never: a case that was read has prompts.
    pub fn longest_prompt(&self) -> &[u32] {
        let prompt = self.prompts.iter().max_by_key(|prompt| prompt.prompt_len).expect("prompts were checked");
        &prompt.tokens[..prompt.prompt_len]
    }
}

impl ReferencePrompt {
    fn read(stored: &SafeTensors<'_>, index: usize, prompt_len: usize) -> anyhow::Result<Self> {
        let tokens: Vec<u32> = integers(&stored.tensor(&format!("tokens.{index}"))?)?;
        let rows: Vec<u32> = integers(&stored.tensor(&format!("rows.{index}"))?)?;
        let logits = stored.tensor(&format!("logits.{index}"))?;
        ensure!(logits.dtype() == Dtype::F32 && logits.shape()[0] == rows.len(), "logits do not match rows");
        ensure!(prompt_len < tokens.len(), "no continuation");
        let values: Vec<f32> =
            logits.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let logits = values.chunks(logits.shape()[1]).map(<[f32]>::to_vec).collect();
        Ok(Self { tokens, prompt_len, rows: rows.into_iter().map(|row| row as usize).collect(), logits })
    }
}

/// Folder of the stored references.
pub fn reference_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reference")
}

/// Folder of the test data beside the checkout, which is not part of the repository.
pub fn shared_data_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data")
}

fn integers(tensor: &TensorView<'_>) -> anyhow::Result<Vec<u32>> {
    ensure!(tensor.dtype() == Dtype::I64, "{:?} instead of I64", tensor.dtype());
    let words = tensor.data().as_chunks::<8>().0.iter();
    words.map(|bytes| Ok(u32::try_from(i64::from_le_bytes(*bytes))?)).collect()
}
