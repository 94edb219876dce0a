//! What KV bytes depend on besides their tokens, and whether those of one model serve another.

use std::fmt::Write as _;

use scheduler::{KeyRoot, KvKey};

use super::SegmentHeader;

/// The constants of a model's KV: bytes of equal identity and equal tokens are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvIdentity {
    /// Hash of the model's configuration and weights.
    pub model_fingerprint: [u8; 32],
    /// Element type of the stored keys and values.
    pub kv_dtype: String,
    /// Name of the memory layout of a block.
    pub kv_layout: String,
    /// Tokens per block.
    pub block_size: u32,
    /// Hash of the rotary tables.
    pub rope_fingerprint: [u8; 32],
    /// Backend, reduction order and kernel revision.
    pub numerics_id: String,
    /// Content hash of the adapter.
    pub adapter: Option<[u8; 32]>,
    /// Bytes of one block.
    pub block_bytes: usize,
}

impl KvIdentity {
    /// The parent key of the first block of every chain of this identity and tenant.
    pub fn root_key(&self, tenant_salt: [u8; 32]) -> KvKey {
        let root = KeyRoot {
            model_fingerprint: self.model_fingerprint,
            kv_dtype: &self.kv_dtype,
            kv_layout: &self.kv_layout,
            block_size: self.block_size,
            rope_fingerprint: self.rope_fingerprint,
            numerics_id: &self.numerics_id,
            adapter: self.adapter,
            tenant_salt,
        };
        root.key()
    }
}

/// How far stored KV equals what the model would compute itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exactness {
    /// Bit for bit.
    Exact,
    /// The same computation by other numerics: another box, another revision of the kernels.
    Imported,
}

/// A constant that differs, so that the stored KV is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its {field} is {found}, expected {expected}")]
pub struct IdentityMismatch {
    /// Which constant.
    pub field: &'static str,
    /// What is needed.
    pub expected: String,
    /// What the file has.
    pub found: String,
}

/// Whether a segment serves a model: exactly, or imported where only the numerics differ.
///
/// # Errors
/// Anything else differs.
pub fn check_identity(header: &SegmentHeader, expected: &KvIdentity) -> Result<Exactness, IdentityMismatch> {
    let found = &header.identity;
    same("model fingerprint", expected.model_fingerprint, found.model_fingerprint, |hash| hex(&hash))?;
    same("kv dtype", &expected.kv_dtype, &found.kv_dtype, |name| format!("{name:?}"))?;
    same("kv layout", &expected.kv_layout, &found.kv_layout, |name| format!("{name:?}"))?;
    same("block size", expected.block_size, found.block_size, |size| size.to_string())?;
    same("block bytes", expected.block_bytes, found.block_bytes, |size| size.to_string())?;
    same("rope fingerprint", expected.rope_fingerprint, found.rope_fingerprint, |hash| hex(&hash))?;
    let adapter = |hash: Option<[u8; 32]>| hash.map_or("none".to_owned(), |hash| hex(&hash));
    same("adapter", expected.adapter, found.adapter, adapter)?;
    let is_exact = expected.numerics_id == found.numerics_id;
    Ok(if is_exact { Exactness::Exact } else { Exactness::Imported })
}

fn same<T: PartialEq>(
    field: &'static str,
    expected: T,
    found: T,
    show: impl Fn(T) -> String,
) -> Result<(), IdentityMismatch> {
    if expected == found {
        return Ok(());
    }
    Err(IdentityMismatch { field, expected: show(expected), found: show(found) })
}

/// The bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything: this is a bug");
        text
    })
}

/// The bytes that [`hex`] wrote; `None` for any other text.
pub(super) fn unhex<const LEN: usize>(text: &str) -> Option<[u8; LEN]> {
    let is_canonical = text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != 2 * LEN || !is_canonical {
        return None;
    }
    let mut bytes = [0; LEN];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}
