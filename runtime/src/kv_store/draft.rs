//! A segment on its way to a file: checked, laid out, written under a temporary name, synced, renamed.

use std::path::Path;
use std::sync::Arc;

use scheduler::{KvKey, block_keys};

use super::cipher::{Guarded, SegmentCipher};
use super::header::random_bytes;
use super::layout::{Form, KEY_BYTES, Layout, row_bytes};
use super::{
    BLOCKS_MAX, Disk, Encryption, HEADER_BYTES_MAX, KvIdentity, KvStoreError, Lineage, MasterKey, SegmentFile,
    SegmentHeader, SegmentId, SegmentKeys, SegmentProblem, TEMPORARY_SUFFIX, TenantTag, header_json,
};

/// What the blocks are that are to be kept.
#[derive(Clone, Copy, Debug)]
pub struct NewSegment<'a> {
    /// What their bytes depend on besides the tokens.
    pub identity: &'a KvIdentity,
    /// Whose they are.
    pub tenant: TenantTag,
    /// Parent key of the chain's first block, under the tenant's salt.
    pub root: KvKey,
    /// Index of the first of them in the chain.
    pub first_block: u32,
    /// Everything from position 0 to the end of the last of them.
    pub tokens: &'a [u32],
    /// What the tokens were made of.
    pub lineage: &'a Lineage,
    /// The time, in milliseconds since 1970.
    pub created_ms: u64,
}

/// A segment whose file can be written.
pub(super) struct Draft<'a> {
    header: SegmentHeader,
    encoded: Vec<u8>,
    layout: Layout,
    cipher: SegmentCipher,
    tokens: &'a [u32],
}

impl<'a> Draft<'a> {
    /// Checks everything but the blocks themselves.
    pub fn new(
        new: &NewSegment<'a>,
        num_blocks: usize,
        form: Form,
        key: Option<&MasterKey>,
    ) -> Result<Self, KvStoreError> {
        let too_many = SegmentProblem::NumBlocks { found: num_blocks, max: BLOCKS_MAX };
        let no_randomness = KvStoreError::io("read", Path::new("random bytes of the system"));
        let encryption = match key.map(|key| Ok((key.id(), random_bytes()?))).transpose() {
            Err(error) => return Err(no_randomness(error)),
            Ok(Some((key_id, file_salt))) => Encryption::Aes256Gcm { key_id, file_salt },
            Ok(None) => Encryption::None,
        };
        let mut header = SegmentHeader {
            id: SegmentId::random().map_err(no_randomness)?,
            identity: new.identity.clone(),
            tenant: new.tenant,
            first_block: new.first_block,
            num_blocks: u32::try_from(num_blocks).map_err(|_overflow| too_many)?,
            keys: None,
            lineage: new.lineage.clone(),
            created_ms: new.created_ms,
            encryption,
        };
        header_json::check_limits(&header)?;
        if new.tokens.len() as u64 != header.num_tokens() {
            let (expected, found) = (header.num_tokens(), new.tokens.len());
            return Err(SegmentProblem::NumTokens { expected, found }.into());
        }
        if form == Form::Cache {
            header.keys = Some(keys_of(new));
        }
        let encoded = header_json::encode(&header, form);
        if encoded.len() - header_json::LENGTH_BYTES > HEADER_BYTES_MAX {
            let found = (encoded.len() - header_json::LENGTH_BYTES) as u64;
            return Err(SegmentProblem::HeaderBytes { found, max: HEADER_BYTES_MAX }.into());
        }
        let layout = Layout::of(&header, form);
        let cipher = SegmentCipher::new(encryption, new.tenant, key);
        let cipher = cipher.expect("it is encrypted only where there is a key: this is a bug");
        Ok(Self { header, encoded, layout, cipher, tokens: new.tokens })
    }

    /// Size of the file.
    pub fn file_bytes(&self) -> u64 {
        self.encoded.len() as u64 + self.layout.data_bytes()
    }

    /// Writes the file into the folder. When that fails nothing of it stays.
    pub fn write<B: AsRef<[u8]>>(
        &self,
        disk: &dyn Disk,
        folder: &Path,
        blocks: &[B],
    ) -> Result<SegmentFile, KvStoreError> {
        let expected = self.header.identity.block_bytes;
        for (block, bytes) in blocks.iter().enumerate() {
            let found = bytes.as_ref().len();
            if found != expected {
                return Err(SegmentProblem::BlockLen { block, expected, found }.into());
            }
        }
        let path = folder.join(self.header.id.file_name());
        let temporary = folder.join(format!("{}{TEMPORARY_SUFFIX}", self.header.id));
        let written = self.write_durably(disk, &temporary, &path, blocks);
        if written.is_err() {
            // Whichever of the two is there. What cannot be removed either is found at the next start.
            for leftover in [&temporary, &path] {
                let _gone = disk.remove(leftover);
            }
        }
        written?;
        Ok(SegmentFile { header: Arc::new(self.header.clone()), file_bytes: self.file_bytes() })
    }

    fn write_durably<B: AsRef<[u8]>>(
        &self,
        disk: &dyn Disk,
        temporary: &Path,
        path: &Path,
        blocks: &[B],
    ) -> Result<(), KvStoreError> {
        let file = disk.create(temporary).map_err(KvStoreError::io("create", temporary))?;
        let failed = || KvStoreError::io("write", temporary);
        let data_start = self.encoded.len() as u64;
        let mut scratch = Vec::new();
        let mut checks = Vec::new();
        let tokens: Vec<u8> = self.tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let tokens = self.cipher.protect(Guarded::Tokens, &tokens, &mut scratch, &mut checks).to_vec();
        for (block, bytes) in (0u32..).zip(blocks) {
            let bytes = self.cipher.protect(Guarded::Block(block), bytes.as_ref(), &mut scratch, &mut checks);
            let offset = data_start + self.layout.block_start(block);
            disk.write_all_at(&file, bytes, offset).map_err(failed())?;
        }
        let head = self.head(&checks, &tokens);
        disk.write_all_at(&file, &head, 0).map_err(failed())?;
        disk.sync(&file).map_err(KvStoreError::io("sync", temporary))?;
        disk.rename(temporary, path).map_err(KvStoreError::io("rename", temporary))?;
        disk.sync_folder_of(path).map_err(KvStoreError::io("sync the folder of", path))
    }

    /// All that stands before the blocks.
    fn head(&self, other_rows: &[u8], tokens: &[u8]) -> Vec<u8> {
        let keys = self.header.keys.as_ref().map_or_else(Vec::new, keys_to_bytes);
        let (mut scratch, mut first_row) = (Vec::new(), Vec::with_capacity(row_bytes(self.header.encryption)));
        let guarded = Guarded::Head { header: &self.encoded, other_rows };
        let keys = self.cipher.protect(guarded, &keys, &mut scratch, &mut first_row);
        [&self.encoded, keys, &first_row, other_rows, tokens].concat()
    }
}

fn keys_of(new: &NewSegment<'_>) -> SegmentKeys {
    // Computed here and not taken from the caller, so that no file can hold keys that do not belong to its tokens.
    let mut blocks = block_keys(new.root, new.tokens, new.identity.block_size as usize);
    blocks.drain(..new.first_block as usize);
    SegmentKeys { root: new.root, blocks }
}

fn keys_to_bytes(keys: &SegmentKeys) -> Vec<u8> {
    let mut bytes = Vec::with_capacity((1 + keys.blocks.len()) * KEY_BYTES);
    bytes.extend_from_slice(keys.root.as_bytes());
    keys.blocks.iter().for_each(|key| bytes.extend_from_slice(key.as_bytes()));
    bytes
}
