//! The checks of a segment: BLAKE3 of what is readable, tags of AES-256-GCM of what is encrypted.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};

use super::identity::unhex;
use super::{Encryption, TenantTag};

/// The key that the keys of all files are made from. It is the operator's; nothing of it is on disk.
#[derive(Clone)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// From its bytes, which must be random.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From 64 hexadecimal digits; `None` when the text is something else.
    pub fn from_hex(digits: &str) -> Option<Self> {
        unhex(&digits.to_ascii_lowercase()).map(Self)
    }

    /// Tells master keys apart without giving one away: a file under another key is not taken for a damaged one.
    pub(super) fn id(&self) -> [u8; 8] {
        let hash = blake3::derive_key("memos kv store v1 key id", &self.0);
        let [a, b, c, d, e, f, g, h, ..] = hash;
        [a, b, c, d, e, f, g, h]
    }

    /// A key for one file of one tenant. The salt is random, so no two files share a key, and a nonce only has to
    /// differ within its file.
    fn file_key(&self, tenant: TenantTag, file_salt: &[u8; 32]) -> LessSafeKey {
        let mut material = [0; 48];
        material[..32].copy_from_slice(&self.0);
        material[32..].copy_from_slice(tenant.as_bytes());
        let tenant_key = blake3::derive_key("memos kv store v1 tenant key", &material);
        let file_key = blake3::keyed_hash(&tenant_key, file_salt);
        let key = UnboundKey::new(&AES_256_GCM, file_key.as_bytes());
        LessSafeKey::new(key.expect("AES-256 takes 32 bytes: this is a bug"))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// What a check is of.
#[derive(Clone, Copy)]
pub(super) enum Guarded<'a> {
    /// The keys, together with these bytes: the header, and the checks of everything else.
    Head {
        /// As it stands in the file.
        header: &'a [u8],
        /// All rows but the first.
        other_rows: &'a [u8],
    },
    Tokens,
    Block(u32),
}

impl Guarded<'_> {
    /// Differs for all parts of a file.
    fn nonce(self) -> Nonce {
        let number = match self {
            Self::Head { .. } => 0,
            Self::Tokens => 1,
            Self::Block(block) => 2 + u64::from(block),
        };
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&number.to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    fn associated_data(self) -> Vec<u8> {
        match self {
            Self::Head { header, other_rows } => [header, other_rows].concat(),
            Self::Tokens | Self::Block(_) => Vec::new(),
        }
    }

    fn hash(self, bytes: &[u8]) -> blake3::Hash {
        match self {
            Self::Head { header, other_rows } => {
                let mut hasher = blake3::Hasher::new_derive_key("memos kv store v1 head");
                hasher.update(&(header.len() as u64).to_le_bytes()).update(header);
                hasher.update(&(other_rows.len() as u64).to_le_bytes()).update(other_rows);
                hasher.update(bytes).finalize()
            }
            Self::Tokens | Self::Block(_) => blake3::hash(bytes),
        }
    }
}

/// How one file's parts are checked, and made unreadable where that is wanted.
pub(super) enum SegmentCipher {
    Plain,
    Aes(Box<LessSafeKey>),
}

impl SegmentCipher {
    /// The cipher of a file. `key` must be there for an encrypted one.
    pub fn new(encryption: Encryption, tenant: TenantTag, key: Option<&MasterKey>) -> Option<Self> {
        match (encryption, key) {
            (Encryption::None, _) => Some(Self::Plain),
            (Encryption::Aes256Gcm { file_salt, .. }, Some(key)) => {
                Some(Self::Aes(Box::new(key.file_key(tenant, &file_salt))))
            }
            (Encryption::Aes256Gcm { .. }, None) => None,
        }
    }

    /// Appends the check of a part to `checks`, and gives its bytes as they are to be written: as they are, or
    /// encrypted in `scratch`.
    pub fn protect<'a>(
        &self,
        part: Guarded<'_>,
        bytes: &'a [u8],
        scratch: &'a mut Vec<u8>,
        checks: &mut Vec<u8>,
    ) -> &'a [u8] {
        match self {
            Self::Plain => {
                checks.extend_from_slice(part.hash(bytes).as_bytes());
                bytes
            }
            Self::Aes(key) => {
                scratch.clear();
                scratch.extend_from_slice(bytes);
                let aad = Aad::from(part.associated_data());
                let tag = key.seal_in_place_separate_tag(part.nonce(), aad, scratch);
                checks.extend_from_slice(tag.expect("a part is far below the cipher's limit: this is a bug").as_ref());
                scratch
            }
        }
    }

    /// Makes a part readable in place. `false` when it or its check was changed; `bytes` then hold anything.
    #[must_use]
    pub fn open(&self, part: Guarded<'_>, bytes: &mut [u8], check: &[u8]) -> bool {
        match self {
            Self::Plain => check == part.hash(bytes).as_bytes(),
            Self::Aes(key) => {
                let Ok(tag) = Tag::try_from(check) else { return false };
                let aad = Aad::from(part.associated_data());
                key.open_in_place_separate_tag(part.nonce(), aad, tag, bytes, 0..).is_ok()
            }
        }
    }
}
