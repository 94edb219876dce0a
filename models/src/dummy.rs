//! Random weights from a configuration alone (`--load-format dummy`): for benchmarks and tests, no file needed.

use half::{bf16, f16};
use kernels::DType;

/// Elements that one thread fills at a time.
const PIECE_LEN: usize = 1 << 16;

/// Fills tensors with numbers that depend on the seed, the tensor's name and the element's index only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DummyWeights {
    pub seed: u64,
    pub dtype: DType,
}

impl DummyWeights {
    /// A matrix with elements of mean 0 and variance `1 / in_features`, which keeps activations near 1 in size.
    /// Little-endian bytes, `[out_features, in_features]`.
    pub fn matrix(&self, name: &str, out_features: usize, in_features: usize, num_threads: usize) -> Vec<u8> {
        let start = self.stream(name);
        // A uniform number in ±a has variance a²/3.
        let amplitude = (3.0 / in_features as f32).sqrt();
        let size = self.dtype.size_bytes();
        let mut bytes = vec![0; out_features * in_features * size];
        let pieces = std::sync::Mutex::new(bytes.chunks_mut(PIECE_LEN * size).enumerate());
        let next_piece = || pieces.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
        std::thread::scope(|scope| {
            for _ in 0..num_threads.max(1) {
                scope.spawn(|| {
                    while let Some((piece, bytes)) = next_piece() {
                        let first = start.wrapping_add((piece * PIECE_LEN) as u64);
                        fill(self.dtype, first, amplitude, bytes);
                    }
                });
            }
        });
        bytes
    }

    /// `len` numbers around `center`, at most 0.1 away.
    pub fn vector(&self, name: &str, len: usize, center: f32) -> Vec<f32> {
        let start = self.stream(name);
        (0..len as u64).map(|index| center + 0.1 * unit(start.wrapping_add(index))).collect()
    }

    /// Where the tensor's numbers begin in the one sequence of all numbers.
    fn stream(&self, name: &str) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(name.as_bytes());
        let hash = hasher.finalize();
        u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes: this is a bug"))
    }
}

/// Writes the numbers `first..` of the sequence, scaled.
fn fill(dtype: DType, first: u64, amplitude: f32, bytes: &mut [u8]) {
    let value = |index: usize| amplitude * unit(first.wrapping_add(index as u64));
    match dtype {
        DType::F32 => {
            for (index, chunk) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *chunk = value(index).to_le_bytes();
            }
        }
        DType::BF16 => {
            for (index, chunk) in bytes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                *chunk = bf16::from_f32(value(index)).to_le_bytes();
            }
        }
        DType::F16 => {
            for (index, chunk) in bytes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                *chunk = f16::from_f32(value(index)).to_le_bytes();
            }
        }
    }
}

/// The `index`-th number of the sequence, uniform in -1..1: SplitMix64 (Steele et al., OOPSLA 2014), whose state is a
/// counter, so that every element can be computed on its own.
fn unit(index: u64) -> f32 {
    let mut z = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    // The top 24 bits as a signed fraction: exact in f32.
    ((z >> 40) as i32 - (1 << 23)) as f32 * (1.0 / (1 << 23) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversion::to_f32;

    #[test]
    fn dummy_matrices_depend_on_seed_and_name_but_not_on_threads() {
        let weights = DummyWeights { seed: 7, dtype: DType::BF16 };
        let other = DummyWeights { seed: 8, dtype: DType::BF16 };
        let matrix = weights.matrix("a", 300, 500, 1);
        assert_eq!(matrix, weights.matrix("a", 300, 500, 3));
        assert_ne!(matrix, weights.matrix("b", 300, 500, 1));
        assert_ne!(matrix, other.matrix("a", 300, 500, 1));
    }

    #[test]
    fn dummy_matrices_have_the_stated_mean_and_variance() {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let values = to_f32(dtype, &DummyWeights { seed: 1, dtype }.matrix("m", 400, 250, 2));
            let count = values.len() as f64;
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
            let variance = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>() / count;
            assert!(mean.abs() < 1e-3, "{dtype}: mean {mean}");
            assert!((variance * 250.0 - 1.0).abs() < 0.02, "{dtype}: variance {variance}");
        }
    }
}
