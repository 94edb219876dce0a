//! Safetensors on disk or embedded: opens one file or the shards of an index, and hands out tensors by name.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use kernels::{DType, MappedFile};
use safetensors::{Dtype as StoredDType, SafeTensors};
use serde::Deserialize;

use crate::{ModelError, ModelSource};

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// Largest header that is parsed; a 400-billion-parameter model has about 1 MiB in all.
const MAX_HEADER_BYTES: u64 = 32 << 20;
/// Most shards that an index may name.
const MAX_SHARDS: usize = 1024;

/// Weight files, opened and with their headers checked.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    files: Vec<WeightFile>,
    tensors: HashMap<String, TensorRecord>,
}

/// One tensor of a checkpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredTensor<'a> {
    pub dtype: DType,
    pub shape: &'a [usize],
    /// Row-major, little-endian, any alignment.
    pub bytes: &'a [u8],
}

#[derive(Debug)]
enum WeightFile {
    Mapped(MappedFile),
    Embedded(&'static [u8]),
}

#[derive(Debug)]
struct TensorRecord {
    file: usize,
    dtype: StoredDType,
    shape: Vec<usize>,
    range: Range<usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl WeightFile {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(file) => file.as_bytes(),
            Self::Embedded(bytes) => bytes,
        }
    }
}

impl Checkpoint {
    /// Opens the weights of a model: `model.safetensors`, else the shards of `model.safetensors.index.json`.
    ///
    /// # Errors
    /// [`ModelError::MissingFile`] or [`ModelError::PickledWeights`] when there are none, and what is wrong with them:
    /// [`ModelError::BrokenWeights`], [`ModelError::WeightsHeaderTooLarge`], [`ModelError::ShardName`],
    /// [`ModelError::TooManyShards`], [`ModelError::MissingTensor`] (named in the index, in no shard).
    pub fn open(source: &ModelSource) -> Result<Self, ModelError> {
        let mut checkpoint = Self { files: Vec::new(), tensors: HashMap::new() };
        match source {
            ModelSource::Embedded(embedded) => {
                let tensors = checkpoint.add(SINGLE_FILE, WeightFile::Embedded(embedded.weights))?;
                checkpoint.tensors.extend(tensors);
            }
            ModelSource::Folder(folder) if folder.join(SINGLE_FILE).is_file() => {
                let tensors = checkpoint.add_from(folder, SINGLE_FILE)?;
                checkpoint.tensors.extend(tensors);
            }
            ModelSource::Folder(folder) => match source.read(INDEX_FILE)? {
                Some(json) => checkpoint.add_shards(folder, &json)?,
                None => return Err(no_weights(source, folder)),
            },
        }
        Ok(checkpoint)
    }

    /// The tensor of that name, or `None`.
    ///
    /// # Errors
    /// [`ModelError::TensorDType`] when it is stored in a type that is not supported.
    pub fn tensor(&self, name: &str) -> Result<Option<StoredTensor<'_>>, ModelError> {
        let Some(record) = self.tensors.get(name) else { return Ok(None) };
        let dtype = match record.dtype {
            StoredDType::F32 => DType::F32,
            StoredDType::BF16 => DType::BF16,
            StoredDType::F16 => DType::F16,
            other => return Err(ModelError::TensorDType { name: name.to_owned(), got: other.to_string() }),
        };
        let bytes = &self.files[record.file].as_bytes()[record.range.clone()];
        Ok(Some(StoredTensor { dtype, shape: &record.shape, bytes }))
    }

    /// Names of all tensors, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Opens the shards of an index; a tensor is taken from the shard that the index names.
    fn add_shards(&mut self, folder: &Path, json: &[u8]) -> Result<(), ModelError> {
        let index: Index =
            serde_json::from_slice(json).map_err(|source| ModelError::Json { file: INDEX_FILE, source })?;
        let mut tensors_by_shard: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, shard) in &index.weight_map {
            tensors_by_shard.entry(shard).or_default().push(tensor);
        }
        if tensors_by_shard.len() > MAX_SHARDS {
            return Err(ModelError::TooManyShards { got: tensors_by_shard.len(), max: MAX_SHARDS });
        }
        for (shard, tensors) in tensors_by_shard {
            if !is_plain_file_name(shard) {
                return Err(ModelError::ShardName { name: shard.to_owned() });
            }
            let mut held = self.add_from(folder, shard)?;
            for name in tensors {
                let record = held.remove(name).ok_or_else(|| ModelError::MissingTensor { name: name.to_owned() })?;
                self.tensors.insert(name.to_owned(), record);
            }
        }
        Ok(())
    }

    fn add_from(&mut self, folder: &Path, name: &str) -> Result<HashMap<String, TensorRecord>, ModelError> {
        let file = WeightFile::Mapped(MappedFile::open(&folder.join(name))?);
        self.add(name, file)
    }

    /// Checks a file's header and returns the tensors it holds.
    fn add(&mut self, name: &str, file: WeightFile) -> Result<HashMap<String, TensorRecord>, ModelError> {
        let bytes = file.as_bytes();
        if let Some(declared) = bytes.first_chunk::<8>().map(|chunk| u64::from_le_bytes(*chunk))
            && declared > MAX_HEADER_BYTES
        {
            let (file, max_bytes) = (name.to_owned(), MAX_HEADER_BYTES);
            return Err(ModelError::WeightsHeaderTooLarge { file, got_bytes: declared, max_bytes });
        }
        let broken = |source| ModelError::BrokenWeights { file: name.to_owned(), source };
        let (header_bytes, metadata) = SafeTensors::read_metadata(bytes).map_err(broken)?;
        // The file begins with the header's length in 8 bytes; offsets count from behind the header.
        let data_start = 8 + header_bytes;
        let index = self.files.len();
        let record = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
            let range = data_start + info.data_offsets.0..data_start + info.data_offsets.1;
            (name, TensorRecord { file: index, dtype: info.dtype, shape: info.shape.clone(), range })
        };
        let tensors = metadata.tensors().into_iter().map(record).collect();
        self.files.push(file);
        Ok(tensors)
    }
}

/// A name that cannot leave the folder, whatever the platform's separators are.
fn is_plain_file_name(name: &str) -> bool {
    name.ends_with(".safetensors") && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0'])
}

/// The error for a folder without safetensors: says so when it has pickled weights instead.
fn no_weights(source: &ModelSource, folder: &Path) -> ModelError {
    let place = source.describe();
    for found in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
        if folder.join(found).exists() {
            return ModelError::PickledWeights { place, found };
        }
    }
    ModelError::MissingFile { place, file: SINGLE_FILE }
}

#[cfg(test)]
mod tests;
