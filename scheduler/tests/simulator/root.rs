//! The roots of simulated chains.
use scheduler::{KeyRoot, KvKey};

/// A root that differs with its seed, which stands for the tenant.
pub fn root_key(root_seed: u64) -> KvKey {
    let mut tenant_salt = [0; 32];
    tenant_salt[..8].copy_from_slice(&root_seed.to_le_bytes());
    let root = KeyRoot {
        model_fingerprint: [1; 32],
        kv_dtype: "f32",
        kv_layout: "simulated",
        block_size: 1,
        rope_fingerprint: [2; 32],
        numerics_id: "simulated",
        adapter: None,
        tenant_salt,
    };
    root.key()
}
