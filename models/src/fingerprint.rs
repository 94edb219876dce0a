//! Names a model by content: BLAKE3 over what the configuration and every weight byte contribute to its results.

use std::sync::Mutex;

use kernels::DType;

use crate::checkpoint::StoredTensor;
use crate::config::ModelConfig;
use crate::dummy::DummyWeights;

/// Bytes hashed by one thread at a time.
const PIECE_BYTES: usize = 4 << 20;

/// The fingerprint of a model: its configuration in canonical form and the hash of its weights.
///
/// Fields that change no result (token ids, the declared type, the length of the position table) do not enter.
pub(crate) fn of_model(config: &ModelConfig, weights: [u8; 32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("memos 2026 model fingerprint v1");
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    field(config.family.name.as_bytes());
    for size in [
        config.vocab_size,
        config.hidden_size,
        config.num_layers,
        config.num_heads,
        config.num_kv_heads,
        config.head_dim,
        config.intermediate_size,
    ] {
        field(&(size as u64).to_le_bytes());
    }
    field(&config.rms_norm_eps.to_le_bytes());
    field(&config.rope.fingerprint());
    for window in &config.layer_windows {
        field(&window.unwrap_or(0).to_le_bytes());
    }
    let parts = (config.qkv_bias, config.output_bias, config.mlp_bias, config.qk_norm, config.tie_word_embeddings);
    field(format!("{parts:?}").as_bytes());
    field(&weights);
    *hasher.finalize().as_bytes()
}

/// The hash of dummy weights: what they are computed from.
pub(crate) fn of_dummy(dummy: &DummyWeights) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("memos 2026 dummy weights v1");
    hasher.update(&dummy.seed.to_le_bytes()).update(dummy.dtype.to_string().as_bytes());
    *hasher.finalize().as_bytes()
}

/// The hash of tensors (in the order given) and of the type that matrices are converted to.
///
/// Every tensor is cut into pieces that threads hash independently; the hash is over names, types, shapes and the
/// pieces' hashes, so it does not depend on the number of threads or on how tensors are spread over files.
pub(crate) fn of_tensors(
    tensors: &[(&str, StoredTensor<'_>)],
    converted_to: Option<DType>,
    num_threads: usize,
) -> [u8; 32] {
    let pieces: Vec<&[u8]> = tensors.iter().flat_map(|(_, tensor)| tensor.bytes.chunks(PIECE_BYTES)).collect();
    let mut hashes = vec![[0; 32]; pieces.len()];
    let work = Mutex::new(pieces.iter().zip(&mut hashes));
    let next = || work.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..num_threads.clamp(1, pieces.len().max(1)) {
            scope.spawn(|| {
                while let Some((piece, hash)) = next() {
                    *hash = *blake3::hash(piece).as_bytes();
                }
            });
        }
    });
    let mut hasher = blake3::Hasher::new_derive_key("memos 2026 model weights v1");
    let converted_to = converted_to.map_or_else(|| "as stored".to_owned(), |dtype| dtype.to_string());
    hasher.update(format!("{}\n{converted_to}\n", tensors.len()).as_bytes());
    let mut hashes = hashes.iter();
    for (name, tensor) in tensors {
        hasher.update(format!("{name:?} {} {:?}\n", tensor.dtype, tensor.shape).as_bytes());
        for hash in hashes.by_ref().take(tensor.bytes.len().div_ceil(PIECE_BYTES)) {
            hasher.update(hash);
        }
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(parts: &[(&str, &[u8])], threads: usize) -> [u8; 32] {
        let shape = [parts[0].1.len() / 2];
        let tensor = |bytes| StoredTensor { dtype: DType::BF16, shape: &shape, bytes };
        let tensors: Vec<_> = parts.iter().map(|(name, bytes)| (*name, tensor(*bytes))).collect();
        of_tensors(&tensors, None, threads)
    }

    #[test]
    fn any_changed_byte_or_name_changes_the_hash_and_threads_do_not() {
        let mut bytes: Vec<u8> = (0..3 * PIECE_BYTES + 10).map(|index| (index * 7 % 251) as u8).collect();
        let whole = fingerprint(&[("a", &bytes)], 1);
        assert_eq!(whole, fingerprint(&[("a", &bytes)], 5));
        assert_ne!(whole, fingerprint(&[("b", &bytes)], 1));
        for index in [0, PIECE_BYTES - 1, PIECE_BYTES, bytes.len() - 1] {
            bytes[index] ^= 1;
            assert_ne!(whole, fingerprint(&[("a", &bytes)], 1), "byte {index}");
            bytes[index] ^= 1;
        }
        assert_eq!(whole, fingerprint(&[("a", &bytes)], 2));
    }

    #[test]
    fn dummy_weights_are_named_by_seed_and_type() {
        let base = of_dummy(&DummyWeights { seed: 1, dtype: DType::F32 });
        assert_ne!(base, of_dummy(&DummyWeights { seed: 2, dtype: DType::F32 }));
        assert_ne!(base, of_dummy(&DummyWeights { seed: 1, dtype: DType::BF16 }));
    }
}
