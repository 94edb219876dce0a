//! What a segment says about itself.

use std::fmt;
use std::io;

use scheduler::KvKey;

use super::identity::{hex, unhex};
use super::{KvIdentity, SEGMENT_SUFFIX};

/// Most blocks in a file.
pub const BLOCKS_MAX: usize = 64;
/// Most tokens of a block.
pub const BLOCK_TOKENS_MAX: u32 = 1 << 16;
/// Most bytes of a block.
pub const BLOCK_BYTES_MAX: usize = 256 << 20;
/// Most tokens from position 0 to a segment's end.
pub const CHAIN_TOKENS_MAX: u64 = 4 << 20;
/// Most bytes of a header.
pub const HEADER_BYTES_MAX: usize = 1 << 20;
/// Most bytes of a name in a [`KvIdentity`].
pub const IDENTITY_BYTES_MAX: usize = 256;
/// Most sources of a segment; more are as good as unknown.
pub const SOURCES_MAX: usize = 4096;
/// Most bytes of a source's id.
pub const SOURCE_BYTES_MAX: usize = 256;

/// Names a segment: random, so that a file's name says nothing of what is in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId([u8; 16]);

impl SegmentId {
    /// A new one.
    pub(super) fn random() -> io::Result<Self> {
        random_bytes().map(Self)
    }

    /// The id that this text is.
    pub(super) fn parse(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }

    /// The id of the segment in a file of this name; `None` when it is no segment's name.
    pub(super) fn of_file_name(name: &str) -> Option<Self> {
        Self::parse(name.strip_suffix(SEGMENT_SUFFIX)?)
    }

    /// The name of the segment's file.
    pub fn file_name(self) -> String {
        format!("{self}{SEGMENT_SUFFIX}")
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Tells whose segment it is without telling who that is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantTag([u8; 16]);

impl TenantTag {
    /// From its bytes, which must come from the tenant's salt, never from the name.
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The tag that belongs to a tenant's salt; it does not give the salt away.
    pub fn of_salt(salt: &[u8; 32]) -> Self {
        let [tag, _rest] = halves(blake3::derive_key("memos kv store v1 tenant tag", salt));
        Self(tag)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for TenantTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for TenantTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which items of plaintext memory the tokens were made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lineage {
    /// These and no others; none at all for a text without memories.
    Known(Vec<String>),
    /// Not known: the segment goes whenever anything of its tenant is erased.
    Unknown,
}

/// How keys, tokens and blocks are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Readable, with BLAKE3 checksums.
    None,
    /// AES-256-GCM.
    Aes256Gcm {
        /// Tells which master key it takes.
        key_id: [u8; 8],
        /// With master key and tenant makes the file's key.
        file_salt: [u8; 32],
    },
}

/// The addresses of a segment's blocks, under the salt of this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentKeys {
    /// Parent key of the chain's first block.
    pub root: KvKey,
    /// Keys of the segment's blocks, in order.
    pub blocks: Vec<KvKey>,
}

/// All of a segment but its tokens and bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Names it, and its file.
    pub id: SegmentId,
    /// What its bytes depend on besides the tokens.
    pub identity: KvIdentity,
    /// Whose it is.
    pub tenant: TenantTag,
    /// Index of its first block in the chain.
    pub first_block: u32,
    /// How many blocks it holds.
    pub num_blocks: u32,
    /// The blocks' addresses; `None` in the portable form.
    pub keys: Option<SegmentKeys>,
    /// What the tokens were made of.
    pub lineage: Lineage,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// How it is protected.
    pub encryption: Encryption,
}

impl SegmentHeader {
    /// Tokens from position 0 to the segment's end.
    pub fn num_tokens(&self) -> u64 {
        let num_blocks = u64::from(self.first_block) + u64::from(self.num_blocks);
        num_blocks.saturating_mul(u64::from(self.identity.block_size))
    }
}

/// Bytes from the system's generator.
pub(super) fn random_bytes<const LEN: usize>() -> io::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

fn halves(bytes: [u8; 32]) -> [[u8; 16]; 2] {
    let (left, right) = bytes.split_at(16);
    [left, right].map(|half| half.try_into().expect("half of 32 bytes is 16: this is a bug"))
}
