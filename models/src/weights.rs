//! Hands the decoder its matrices and vectors: from a checkpoint with every shape checked, or made up at random.

use std::borrow::Cow;
use std::collections::BTreeSet;

use kernels::{DType, Device, Matrix, MatrixPart, Vector};

use crate::checkpoint::{Checkpoint, StoredTensor};
use crate::conversion::{convert, to_f32};
use crate::dummy::DummyWeights;
use crate::{ModelError, fingerprint};

/// The weights of a model while it is being loaded.
pub(crate) struct Weights<'a> {
    device: &'a Device,
    origin: Origin,
    /// Type that matrices are converted to; `None` keeps them as stored.
    dtype: Option<DType>,
    /// Names of the tensors that went into the model.
    used: BTreeSet<String>,
}

enum Origin {
    Checkpoint(Checkpoint),
    Dummy(DummyWeights),
}

/// The common type of some tensors, and the bytes of each in it.
type TypedParts<'c> = (DType, Vec<Cow<'c, [u8]>>);

/// A tensor by name and its first dimension.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub name: String,
    pub len: usize,
}

impl<'a> Weights<'a> {
    /// Weights of a checkpoint, matrices converted to `dtype` if one is given.
    pub fn from_checkpoint(device: &'a Device, checkpoint: Checkpoint, dtype: Option<DType>) -> Self {
        Self { device, origin: Origin::Checkpoint(checkpoint), dtype, used: BTreeSet::new() }
    }

    /// Random weights.
    pub fn dummy(device: &'a Device, dummy: DummyWeights) -> Self {
        Self { device, origin: Origin::Dummy(dummy), dtype: None, used: BTreeSet::new() }
    }

    /// A matrix `[sum of lens, in_features]` whose parts are stored one by one as `[len, in_features]`.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::TensorShape`], [`ModelError::TensorDType`].
    pub fn matrix(&mut self, in_features: usize, parts: &[Part]) -> Result<Matrix, ModelError> {
        for part in parts {
            check_size(part, in_features)?;
        }
        let (dtype, data) = match &self.origin {
            Origin::Checkpoint(checkpoint) => self.stored_parts(checkpoint, in_features, parts)?,
            Origin::Dummy(dummy) => {
                let threads = self.device.num_threads();
                let make = |part: &Part| Cow::Owned(dummy.matrix(&part.name, part.len, in_features, threads));
                (dummy.dtype, parts.iter().map(make).collect())
            }
        };
        let packed: Vec<MatrixPart> =
            parts.iter().zip(&data).map(|(part, data)| MatrixPart { out_features: part.len, data }).collect();
        let matrix = Matrix::pack(self.device, dtype, in_features, &packed)?;
        self.used.extend(parts.iter().map(|part| part.name.clone()));
        Ok(matrix)
    }

    /// A vector of f32: the parts one behind the other. Dummy elements lie around `center`.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub fn vector(&mut self, parts: &[Part], center: f32) -> Result<Vector, ModelError> {
        let mut values = Vec::new();
        for part in parts {
            match &self.origin {
                Origin::Checkpoint(checkpoint) => {
                    let stored = required(checkpoint, &part.name, &[part.len])?;
                    values.extend(to_f32(stored.dtype, stored.bytes));
                }
                Origin::Dummy(dummy) => values.extend(dummy.vector(&part.name, part.len, center)),
            }
            self.used.insert(part.name.clone());
        }
        Ok(Vector::from_slice(self.device, &values))
    }

    /// Checks that an output matrix which the configuration ties to the embedding does not say otherwise.
    ///
    /// # Errors
    /// [`ModelError::TiedTensorDiffers`].
    pub fn check_tied(&self, embedding: &str, output: &str) -> Result<(), ModelError> {
        let Origin::Checkpoint(checkpoint) = &self.origin else { return Ok(()) };
        let (Some(embedding), Some(tied)) = (checkpoint.tensor(embedding)?, checkpoint.tensor(output)?) else {
            return Ok(());
        };
        let is_same = embedding.dtype == tied.dtype && embedding.shape == tied.shape && embedding.bytes == tied.bytes;
        if is_same { Ok(()) } else { Err(ModelError::TiedTensorDiffers { name: output.to_owned() }) }
    }

    /// Checks that no tensor of a layer was left unread, which would mean that the configuration contradicts the
    /// weights. Cached frequencies, which old checkpoints carry, are no weights.
    ///
    /// # Errors
    /// [`ModelError::UnexpectedTensor`] with the first such name.
    pub fn check_all_read(&self, layer_prefix: &str) -> Result<(), ModelError> {
        let Origin::Checkpoint(checkpoint) = &self.origin else { return Ok(()) };
        let is_unread = |name: &&str| {
            name.starts_with(layer_prefix) && !name.ends_with(".rotary_emb.inv_freq") && !self.used.contains(*name)
        };
        match checkpoint.names().filter(is_unread).min() {
            Some(name) => Err(ModelError::UnexpectedTensor { name: name.to_owned() }),
            None => Ok(()),
        }
    }

    /// Hash of every tensor that was read, or of what dummy weights are made from.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub fn fingerprint(&self) -> Result<[u8; 32], ModelError> {
        match &self.origin {
            Origin::Dummy(dummy) => Ok(fingerprint::of_dummy(dummy)),
            Origin::Checkpoint(checkpoint) => {
                let mut tensors = Vec::with_capacity(self.used.len());
                for name in &self.used {
                    let missing = || ModelError::MissingTensor { name: name.clone() };
                    tensors.push((name.as_str(), checkpoint.tensor(name)?.ok_or_else(missing)?));
                }
                Ok(fingerprint::of_tensors(&tensors, self.dtype, self.device.num_threads()))
            }
        }
    }

    /// Type and bytes of the parts of one matrix. Parts stored in different types are widened to f32.
    fn stored_parts<'c>(
        &self,
        checkpoint: &'c Checkpoint,
        in_features: usize,
        parts: &[Part],
    ) -> Result<TypedParts<'c>, ModelError> {
        let read = |part: &Part| required(checkpoint, &part.name, &[part.len, in_features]);
        let stored = parts.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let common = stored.iter().map(|tensor| tensor.dtype).reduce(|a, b| if a == b { a } else { DType::F32 });
        let dtype = self.dtype.or(common).unwrap_or(DType::F32);
        Ok((dtype, stored.iter().map(|tensor| convert(tensor.dtype, dtype, tensor.bytes)).collect()))
    }
}

/// The tensor of that name and shape.
pub(crate) fn required<'c>(
    checkpoint: &'c Checkpoint,
    name: &str,
    shape: &[usize],
) -> Result<StoredTensor<'c>, ModelError> {
    let tensor = checkpoint.tensor(name)?.ok_or_else(|| ModelError::MissingTensor { name: name.to_owned() })?;
    if tensor.shape != shape {
        let (expected, got) = (shape.to_vec(), tensor.shape.to_vec());
        return Err(ModelError::TensorShape { name: name.to_owned(), expected, got });
    }
    Ok(tensor)
}

/// Refuses a matrix whose size in bytes does not fit the address space.
fn check_size(part: &Part, in_features: usize) -> Result<(), ModelError> {
    let bytes = part.len as u128 * in_features as u128 * 4;
    if bytes > isize::MAX as u128 {
        return Err(ModelError::TooLarge { matrix: part.name.clone(), bytes });
    }
    Ok(())
}
