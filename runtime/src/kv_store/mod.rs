//! KV blocks as files: the disk tier of the KV cache, and the portable form in which a cube carries them.
//!
//! A file holds a *segment*: consecutive blocks of one chain of tokens. It is a safetensors file:
//!
//! ```text
//! 8 bytes  length of the header, little endian
//! header   JSON: `__metadata__` (what it is, whose, where from) and the places of the tensors below
//! keys     U8  [1 + num_blocks, 32]        the chain's root, then the key of each block; not in the portable form
//! checks   U8  [2 + num_blocks, 32 or 16]  one row for header, keys and the other rows; one for tokens; one a block
//! tokens   U32 [num_tokens]                the whole chain, from position 0 to the segment's end
//! blocks   U8  [num_blocks, block_bytes]   opaque here; see `kernels::kv_pool`
//! ```
//!
//! Plain files have rows of BLAKE3. With a master key, keys, tokens and blocks are AES-256-GCM under a key of the
//! tenant and the file, and the rows are its tags: equal texts then look different in every file, and the header, which
//! stays readable, belongs to the tag of the first row.
//!
//! Nothing here knows why a segment is kept or dropped, and nothing runs by itself: every call is blocking I/O on the
//! caller's thread. Bytes are read with positioned reads, never mapped: a mapped file that is truncated kills the process.

mod cipher;
mod disk;
mod draft;
mod error;
mod header;
mod header_json;
mod identity;
mod layout;
mod open_segments;
mod portable;
mod prune;
mod quarantine;
mod reader;
mod start;
mod store;
#[cfg(test)]
mod tests;

pub use cipher::MasterKey;
pub use disk::{Disk, OsDisk};
pub use draft::NewSegment;
pub use error::{KvReadError, KvStoreError, SegmentFault, SegmentPart, SegmentProblem};
pub use header::{
    BLOCK_BYTES_MAX, BLOCK_TOKENS_MAX, BLOCKS_MAX, CHAIN_TOKENS_MAX, Encryption, HEADER_BYTES_MAX, IDENTITY_BYTES_MAX,
    Lineage, SOURCE_BYTES_MAX, SOURCES_MAX, SegmentHeader, SegmentId, SegmentKeys, TenantTag,
};
pub use identity::{Exactness, IdentityMismatch, KvIdentity, check_identity};
pub use open_segments::OPEN_SEGMENTS_MAX;
pub use portable::{Accept, Exported, ImportRefusal, ImportReport, ImportTarget, Imported, VerifiedFile, verify};
pub use prune::{Prune, PruneReason, Pruned, prune};
pub use quarantine::{Kept, QUARANTINE_BYTES_MAX, QUARANTINE_FILES_MAX, REASONS_MAX, RefusedFile};
pub use start::Opened;
pub use store::{KvStore, KvStoreOptions, Removed, SEGMENTS_MAX, SegmentFile};

/// What every segment's file name ends in.
pub const SEGMENT_SUFFIX: &str = ".kv.safetensors";
/// What a file that is being written ends in; a crash may leave one.
const TEMPORARY_SUFFIX: &str = ".tmp";
