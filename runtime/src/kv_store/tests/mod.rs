//! Tests of the store, and what they share: small segments with known bytes.

mod damage;
mod faults;
mod hostile;
mod mutation;
mod portable;
mod quarantine;
mod round_trip;

use std::path::{Path, PathBuf};

use scheduler::KvKey;

use super::*;

const CREATED_MS: u64 = 1_764_000_000_000;
const KEYS: [Option<[u8; 32]>; 2] = [None, Some([42; 32])];

/// What one segment should hold.
struct Sample {
    identity: KvIdentity,
    salt: [u8; 32],
    first_block: u32,
    tokens: Vec<u32>,
    blocks: Vec<Vec<u8>>,
    lineage: Lineage,
}

impl Sample {
    /// Blocks `first_block..` of the chain that the seed names.
    fn new(seed: u8, first_block: u32, num_blocks: u32) -> Self {
        let identity = identity();
        let num_tokens = (first_block + num_blocks) * identity.block_size;
        // The prefix does not depend on where a segment ends, so that segments of one seed continue each other.
        let tokens =
            (0..num_tokens).map(|position| u32::from(seed) << 16 | (position.wrapping_mul(2_654_435_761) >> 17));
        let blocks = (first_block..first_block + num_blocks).map(|block| noise(seed, block, identity.block_bytes));
        let lineage = Lineage::Known(vec!["item-1".to_owned(), "item \"2\"".to_owned()]);
        Self { tokens: tokens.collect(), blocks: blocks.collect(), identity, salt: [7; 32], first_block, lineage }
    }

    fn root(&self) -> KvKey {
        self.identity.root_key(self.salt)
    }

    fn keys(&self) -> Vec<KvKey> {
        let keys = scheduler::block_keys(self.root(), &self.tokens, self.identity.block_size as usize);
        keys[self.first_block as usize..].to_vec()
    }

    fn as_new(&self) -> NewSegment<'_> {
        NewSegment {
            identity: &self.identity,
            tenant: TenantTag::of_salt(&self.salt),
            root: self.root(),
            first_block: self.first_block,
            tokens: &self.tokens,
            lineage: &self.lineage,
            created_ms: CREATED_MS,
        }
    }

    fn write_to(&self, store: &KvStore) -> SegmentFile {
        store.write(&self.as_new(), &self.blocks).expect("is written")
    }

    fn assert_reads_from(&self, store: &KvStore, segment: &SegmentFile) {
        let header = &segment.header;
        assert_eq!(header.keys.as_ref().expect("has keys").blocks, self.keys());
        assert_eq!(store.tokens(header.id).expect("tokens are read"), self.tokens);
        assert_eq!(read_all(store, segment).expect("blocks are read"), self.blocks);
    }
}

fn identity() -> KvIdentity {
    KvIdentity {
        model_fingerprint: [1; 32],
        kv_dtype: "bf16".to_owned(),
        kv_layout: "layers-kv-heads".to_owned(),
        block_size: 4,
        rope_fingerprint: [2; 32],
        numerics_id: "cpu-fma-1".to_owned(),
        adapter: Some([3; 32]),
        block_bytes: 96,
    }
}

fn noise(seed: u8, block: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[seed]).update(&block.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn options(key: Option<[u8; 32]>) -> KvStoreOptions {
    KvStoreOptions { max_bytes: 1 << 30, master_key: key.map(MasterKey::new) }
}

fn open(folder: &Path, key: Option<[u8; 32]>) -> Opened {
    KvStore::open(folder, options(key)).expect("the store opens")
}

fn read_all(store: &KvStore, segment: &SegmentFile) -> Result<Vec<Vec<u8>>, KvReadError> {
    let num_blocks = segment.header.num_blocks;
    let mut blocks = vec![vec![0xEE; segment.header.identity.block_bytes]; num_blocks as usize];
    store.read_blocks(segment.header.id, 0..num_blocks, &mut blocks)?;
    Ok(blocks)
}

fn path_of(folder: &Path, segment: &SegmentFile) -> PathBuf {
    folder.join(segment.header.id.file_name())
}

/// Names of all files in the folder, without the lock.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is listed");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name != "lock").collect();
    names.sort();
    names
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn fault_of(error: KvReadError) -> SegmentFault {
    match error {
        KvReadError::File { fault, .. } => fault,
        other => panic!("expected a fault of the file, got {other:?}"),
    }
}
