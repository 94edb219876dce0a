//! `KvKey`, the content address of a KV block: two blocks with the same key hold the same bytes.
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Domain tags of the two kinds of hash input. Both are 16 bytes, so neither is a prefix of the other.
const ROOT_DOMAIN: &[u8; 16] = b"memos kv root v1";
const BLOCK_DOMAIN: &[u8; 16] = b"memos kv block 1";

/// A 256-bit BLAKE3 that names a KV block by everything its contents depend on: the constants of [`KeyRoot`], and
/// every token from the start of the sequence to the end of the block.
///
/// The root contains a secret salt, so keys cannot be chosen by a client, and the hash table over them can use
/// their bytes as they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KvKey([u8; 32]);

/// What is constant for all blocks that may share: each field separates keys.
#[derive(Clone, Copy, Debug)]
pub struct KeyRoot<'a> {
    /// Hash of the model's configuration and weights.
    pub model_fingerprint: [u8; 32],
    /// Element type of the stored keys and values.
    pub kv_dtype: &'a str,
    /// Name of the memory layout of a block.
    pub kv_layout: &'a str,
    /// Tokens per block.
    pub block_size: u32,
    /// Hash of the rotary tables.
    pub rope_fingerprint: [u8; 32],
    /// Backend, reduction order and kernel revision.
    pub numerics_id: &'a str,
    /// Content hash of the adapter, never its name.
    pub adapter: Option<[u8; 32]>,
    /// From the server's secret and the tenant's id, never from what a client sends.
    pub tenant_salt: [u8; 32],
}

impl KeyRoot<'_> {
    /// The parent of every sequence's first block.
    pub fn key(&self) -> KvKey {
        let mut input = Vec::with_capacity(256);
        input.extend_from_slice(ROOT_DOMAIN);
        push_field(&mut input, &self.model_fingerprint);
        push_field(&mut input, self.kv_dtype.as_bytes());
        push_field(&mut input, self.kv_layout.as_bytes());
        push_field(&mut input, &self.block_size.to_le_bytes());
        push_field(&mut input, &self.rope_fingerprint);
        push_field(&mut input, self.numerics_id.as_bytes());
        // An absent adapter is an empty field; a present one has 32 bytes, so the two cannot meet.
        push_field(&mut input, self.adapter.as_ref().map_or(&[], |hash| hash.as_slice()));
        push_field(&mut input, &self.tenant_salt);
        KvKey(*blake3::hash(&input).as_bytes())
    }
}

impl KvKey {
    /// The key of the block that holds `tokens` right after the block (or root) that `self` names.
    pub fn child(&self, tokens: &[u32]) -> KvKey {
        self.child_with(tokens, &mut Vec::with_capacity(child_input_len(tokens.len())))
    }

    /// The key that [`KvKey::as_bytes`] gave: keys outlive the process in files.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// [`KvKey::child`] with a buffer that a loop can reuse. One-shot hashing of a flat buffer costs half of feeding
    /// the fields to a streaming hasher one by one.
    fn child_with(&self, tokens: &[u32], input: &mut Vec<u8>) -> KvKey {
        input.clear();
        input.extend_from_slice(BLOCK_DOMAIN);
        input.extend_from_slice(&self.0);
        input.extend_from_slice(&(tokens.len() as u64).to_le_bytes());
        for token in tokens {
            input.extend_from_slice(&token.to_le_bytes());
        }
        KvKey(*blake3::hash(input).as_bytes())
    }
}

/// The keys of all full blocks of `tokens`, in order; the tokens of a last, partial block have none.
///
/// # Panics
/// When `block_size` is 0.
pub fn block_keys(root: KvKey, tokens: &[u32], block_size: usize) -> Vec<KvKey> {
    assert!(block_size > 0, "block_size must be at least 1");
    let mut input = Vec::with_capacity(child_input_len(block_size));
    let mut parent = root;
    let keys = tokens.chunks_exact(block_size).map(|block| {
        parent = parent.child_with(block, &mut input);
        parent
    });
    keys.collect()
}

fn child_input_len(num_tokens: usize) -> usize {
    BLOCK_DOMAIN.len() + 32 + size_of::<u64>() + num_tokens * size_of::<u32>()
}

fn push_field(input: &mut Vec<u8>, field: &[u8]) {
    input.extend_from_slice(&(field.len() as u64).to_le_bytes());
    input.extend_from_slice(field);
}

impl fmt::Debug for KvKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Eight digits tell keys apart in a test's output.
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Hash for KvKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// Takes the first eight bytes of a key as its hash: they are as uniform as any hash of them.
#[derive(Clone, Copy, Default)]
pub(crate) struct KeyHasher(u64);

pub(crate) type BuildKeyHasher = BuildHasherDefault<KeyHasher>;

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only KvKey is hashed here, and it writes one u64: this is a bug")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root<'a>() -> KeyRoot<'a> {
        KeyRoot {
            model_fingerprint: [1; 32],
            kv_dtype: "bf16",
            kv_layout: "layers-kv-heads",
            block_size: 16,
            rope_fingerprint: [2; 32],
            numerics_id: "cpu-fma-1",
            adapter: None,
            tenant_salt: [3; 32],
        }
    }

    #[test]
    fn every_root_field_separates_keys() {
        let variants = [
            root(),
            KeyRoot { model_fingerprint: [9; 32], ..root() },
            KeyRoot { kv_dtype: "f32", ..root() },
            KeyRoot { kv_layout: "heads-kv-layers", ..root() },
            KeyRoot { block_size: 32, ..root() },
            KeyRoot { rope_fingerprint: [9; 32], ..root() },
            KeyRoot { numerics_id: "cpu-fma-2", ..root() },
            KeyRoot { adapter: Some([0; 32]), ..root() },
            KeyRoot { adapter: Some([9; 32]), ..root() },
            KeyRoot { tenant_salt: [9; 32], ..root() },
        ];
        let mut keys: Vec<KvKey> = variants.iter().map(KeyRoot::key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), variants.len());
    }

    #[test]
    fn shifting_bytes_between_fields_changes_the_key() {
        let short = KeyRoot { kv_dtype: "bf", kv_layout: "16layers", ..root() };
        let long = KeyRoot { kv_dtype: "bf16", kv_layout: "layers", ..root() };
        assert_ne!(short.key(), long.key());
    }

    #[test]
    fn shifting_tokens_between_blocks_changes_the_key() {
        let parent = root().key();
        assert_ne!(parent.child(&[1, 2]).child(&[3]), parent.child(&[1]).child(&[2, 3]));
        assert_ne!(parent.child(&[1, 2, 3]), parent.child(&[1, 2]).child(&[3]));
        assert_ne!(parent.child(&[]), parent.child(&[0]));
        assert_ne!(parent.child(&[0]), parent.child(&[0, 0]));
    }

    #[test]
    fn a_root_is_never_a_block() {
        // The same bytes under the other domain tag.
        let parent = root().key();
        assert_ne!(parent, parent.child(&[]));
        assert_ne!(ROOT_DOMAIN, BLOCK_DOMAIN);
    }

    #[test]
    fn the_same_block_after_another_prefix_has_another_key() {
        let tokens = [1, 1, 2, 2, 2, 2];
        let keys = block_keys(root().key(), &tokens, 2);
        assert_eq!(keys.len(), 3);
        assert_ne!(keys[1], keys[2]);
    }

    #[test]
    fn a_partial_block_has_no_key() {
        let parent = root().key();
        assert_eq!(block_keys(parent, &[1, 2, 3, 4, 5], 4), [parent.child(&[1, 2, 3, 4])]);
        assert_eq!(block_keys(parent, &[1, 2, 3], 4), []);
    }

    #[test]
    fn a_key_survives_being_bytes() {
        let key = root().key();
        assert_eq!(KvKey::from_bytes(*key.as_bytes()), key);
    }

    #[test]
    fn keys_are_stable_across_releases() {
        // Keys are written to disk: a change of this value is a change of format and needs a new domain tag.
        let key = root().key().child(&[7; 16]);
        assert_eq!(format!("{key:?}"), "2851298b");
    }
}
