//! Where a model's files come from (a folder, or bytes embedded in the binary), and reading them within limits.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::ModelError;
use crate::fields::Fields;

/// Largest configuration, index, template or tokenizer file that is read.
const MAX_TEXT_FILE_BYTES: u64 = 256 << 20;

/// The place a model is loaded from.
#[derive(Debug, Clone)]
pub enum ModelSource {
    /// A folder in Hugging Face layout.
    Folder(PathBuf),
    /// Files that are part of the program.
    Embedded(EmbeddedModel),
}

/// A model whose files are embedded in the binary.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedModel {
    /// `config.json`.
    pub config: &'static [u8],
    /// `model.safetensors`.
    pub weights: &'static [u8],
    /// `tokenizer.json`.
    pub tokenizer: &'static [u8],
    /// `tokenizer_config.json`, with the chat template.
    pub tokenizer_config: &'static [u8],
    /// `generation_config.json`.
    pub generation_config: &'static [u8],
}

impl ModelSource {
    /// The source in words, for messages.
    pub fn describe(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::Embedded(_) => "embedded model".to_owned(),
        }
    }

    /// The bytes of a small file, or `None` when the model does not have it.
    ///
    /// # Errors
    /// [`ModelError::ReadFile`], [`ModelError::FileTooLarge`].
    pub(crate) fn read(&self, file: &'static str) -> Result<Option<Vec<u8>>, ModelError> {
        match self {
            Self::Folder(folder) => read_limited(&folder.join(file)),
            Self::Embedded(embedded) => Ok(embedded.file(file).map(<[u8]>::to_vec)),
        }
    }

    /// Like [`read`](Self::read), for a file that must be there.
    pub(crate) fn read_required(&self, file: &'static str) -> Result<Vec<u8>, ModelError> {
        self.read(file)?.ok_or_else(|| ModelError::MissingFile { place: self.describe(), file })
    }

    /// A JSON file that holds one object, or `None` when the model does not have it.
    ///
    /// # Errors
    /// What [`read`](Self::read) reports, [`ModelError::Json`], [`ModelError::InvalidField`] for another kind of value.
    pub(crate) fn read_json(&self, file: &'static str) -> Result<Option<Value>, ModelError> {
        let Some(bytes) = self.read(file)? else { return Ok(None) };
        let value = serde_json::from_slice(&bytes).map_err(|source| ModelError::Json { file, source })?;
        Fields::new(file, "the file", &value)?;
        Ok(Some(value))
    }
}

impl EmbeddedModel {
    fn file(&self, name: &str) -> Option<&'static [u8]> {
        match name {
            "config.json" => Some(self.config),
            "tokenizer.json" => Some(self.tokenizer),
            "tokenizer_config.json" => Some(self.tokenizer_config),
            "generation_config.json" => Some(self.generation_config),
            _ => None,
        }
    }
}

/// Reads a whole file of at most [`MAX_TEXT_FILE_BYTES`]; `None` when it does not exist.
fn read_limited(path: &Path) -> Result<Option<Vec<u8>>, ModelError> {
    let failed = |source| ModelError::ReadFile { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_TEXT_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_TEXT_FILE_BYTES {
        let got_bytes = std::fs::metadata(path).map_err(failed)?.len();
        let file = path.display().to_string();
        return Err(ModelError::FileTooLarge { file, got_bytes, max_bytes: MAX_TEXT_FILE_BYTES });
    }
    Ok(Some(bytes))
}
