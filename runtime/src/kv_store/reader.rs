//! A segment's file, opened: its header checked in full, its tokens and blocks checked when they are read.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use scheduler::{KvKey, block_keys};

use super::cipher::{Guarded, SegmentCipher};
use super::header_json::LENGTH_BYTES;
use super::layout::{FIRST_BLOCK_ROW, Form, HEAD_ROW, KEY_BYTES, Layout, TOKENS_ROW};
use super::{
    Disk, Encryption, HEADER_BYTES_MAX, MasterKey, SegmentFault, SegmentFile, SegmentHeader, SegmentId, SegmentKeys,
    SegmentPart, header_json,
};

/// One read of this size usually has the header, the keys and the checks.
const FIRST_READ_BYTES: usize = 8 << 10;

/// An open segment. Reading it changes nothing, so threads can share it.
pub(super) struct SegmentReader {
    file: File,
    listed: SegmentFile,
    layout: Layout,
    data_start: u64,
    cipher: SegmentCipher,
    checks: Vec<u8>,
}

impl SegmentReader {
    /// Opens the file of this name and checks all of it but tokens and blocks.
    pub fn open(
        disk: &dyn Disk,
        folder: &Path,
        name: &OsStr,
        form: Form,
        key: Option<&MasterKey>,
    ) -> Result<Self, SegmentFault> {
        let id = name.to_str().and_then(SegmentId::of_file_name).ok_or(SegmentFault::Name)?;
        let file = disk.open(&folder.join(name)).map_err(not_opened)?;
        let metadata = file.metadata().map_err(SegmentFault::read(SegmentPart::Header))?;
        if !metadata.is_file() {
            return Err(SegmentFault::NotAFile);
        }
        let file_bytes = metadata.len();
        let mut head = Head { disk, file: &file, file_bytes, bytes: Vec::new() };
        let (mut header, found_form, data_start) = head.header()?;
        if header.id != id {
            return Err(SegmentFault::Name);
        }
        if found_form != form {
            let expected = match form {
                Form::Cache => "a cache directory",
                Form::Portable => "a cube",
            };
            return Err(SegmentFault::Form { expected });
        }
        let layout = Layout::of(&header, form);
        let expected = data_start as u64 + layout.data_bytes();
        if expected != file_bytes {
            return Err(SegmentFault::FileBytes { expected, found: file_bytes });
        }
        let cipher = cipher_of(&header, key)?;
        let (keys, checks) = head.keys_and_checks(&layout, data_start, &cipher)?;
        if form == Form::Cache {
            header.keys = Some(keys_from_bytes(&keys));
        }
        let listed = SegmentFile { header: Arc::new(header), file_bytes };
        Ok(Self { file, listed, layout, data_start: data_start as u64, cipher, checks })
    }

    /// What the file says about itself.
    pub fn header(&self) -> &SegmentHeader {
        &self.listed.header
    }

    /// The same, with the file's size.
    pub fn listed(&self) -> &SegmentFile {
        &self.listed
    }

    /// The tokens of the whole chain. Where the segment has keys, they are checked against the tokens.
    pub fn read_tokens(&self, disk: &dyn Disk) -> Result<Vec<u32>, SegmentFault> {
        let part = SegmentPart::Tokens;
        let range = &self.layout.tokens;
        // Not more than the file has: its size was compared with the header's numbers.
        let mut bytes = vec![0; usize::try_from(range.end - range.start).expect("a chain is limited: this is a bug")];
        disk.read_exact_at(&self.file, &mut bytes, self.data_start + range.start).map_err(SegmentFault::read(part))?;
        if !self.cipher.open(Guarded::Tokens, &mut bytes, &self.checks[self.layout.row(TOKENS_ROW)]) {
            return Err(SegmentFault::Checksum { part });
        }
        let (tokens, []) = bytes.as_chunks() else { unreachable!("tokens have four bytes each: this is a bug") };
        let tokens: Vec<u32> = tokens.iter().map(|token| u32::from_le_bytes(*token)).collect();
        self.check_keys(&tokens)?;
        Ok(tokens)
    }

    /// Reads a block, `block` being its index in the segment, into as many bytes as a block has.
    pub fn read_block(&self, disk: &dyn Disk, block: u32, into: &mut [u8]) -> Result<(), SegmentFault> {
        assert!(block < self.header().num_blocks && into.len() == self.header().identity.block_bytes);
        let part = SegmentPart::Block(block);
        let offset = self.data_start + self.layout.block_start(block);
        disk.read_exact_at(&self.file, into, offset).map_err(SegmentFault::read(part))?;
        let check = &self.checks[self.layout.row(FIRST_BLOCK_ROW + block as usize)];
        if self.cipher.open(Guarded::Block(block), into, check) { Ok(()) } else { Err(SegmentFault::Checksum { part }) }
    }

    /// Reads all blocks.
    pub fn read_all(&self, disk: &dyn Disk) -> Result<Vec<Vec<u8>>, SegmentFault> {
        let read = |block| {
            let mut bytes = vec![0; self.header().identity.block_bytes];
            self.read_block(disk, block, &mut bytes).map(|()| bytes)
        };
        (0..self.header().num_blocks).map(read).collect()
    }

    fn check_keys(&self, tokens: &[u32]) -> Result<(), SegmentFault> {
        let Some(keys) = &self.header().keys else { return Ok(()) };
        let chain = block_keys(keys.root, tokens, self.header().identity.block_size as usize);
        let own = &chain[self.header().first_block as usize..];
        match (0..).zip(own.iter().zip(&keys.blocks)).find(|(_block, (expected, found))| expected != found) {
            Some((block, _keys)) => Err(SegmentFault::Keys { block }),
            None => Ok(()),
        }
    }
}

/// The start of a file, read piece by piece as far as what was read before says it goes.
struct Head<'a> {
    disk: &'a dyn Disk,
    file: &'a File,
    file_bytes: u64,
    bytes: Vec<u8>,
}

impl Head<'_> {
    /// The header without its keys, and where the data begin.
    fn header(&mut self) -> Result<(SegmentHeader, Form, usize), SegmentFault> {
        let file_bytes = self.file_bytes;
        if file_bytes < LENGTH_BYTES as u64 {
            return Err(SegmentFault::TooShort { file_bytes });
        }
        self.read_up_to(FIRST_READ_BYTES.min(usize::try_from(file_bytes).unwrap_or(usize::MAX)))?;
        let length = self.bytes.first_chunk().expect("eight bytes were read: this is a bug");
        let length = u64::from_le_bytes(*length);
        let found = usize::try_from(length).ok().filter(|length| *length <= HEADER_BYTES_MAX);
        let Some(length) = found else {
            return Err(super::SegmentProblem::HeaderBytes { found: length, max: HEADER_BYTES_MAX }.into());
        };
        let data_start = LENGTH_BYTES + length;
        if data_start as u64 > file_bytes {
            return Err(SegmentFault::FileBytes { expected: data_start as u64, found: file_bytes });
        }
        self.read_up_to(data_start)?;
        let (header, form) = header_json::parse(&self.bytes[LENGTH_BYTES..data_start])?;
        Ok((header, form, data_start))
    }

    /// The keys, readable, and the rows of checks, once the first row has confirmed both and the header.
    fn keys_and_checks(
        &mut self,
        layout: &Layout,
        data_start: usize,
        cipher: &SegmentCipher,
    ) -> Result<(Vec<u8>, Vec<u8>), SegmentFault> {
        let at = |offset: u64| data_start + usize::try_from(offset).expect("a head is limited: this is a bug");
        self.read_up_to(at(layout.checks.end))?;
        let header = &self.bytes[..data_start];
        let mut keys = self.bytes[at(layout.keys.start)..at(layout.keys.end)].to_vec();
        let checks = self.bytes[at(layout.checks.start)..at(layout.checks.end)].to_vec();
        let (first_row, other_rows) = checks.split_at(layout.row(HEAD_ROW).end);
        if cipher.open(Guarded::Head { header, other_rows }, &mut keys, first_row) {
            Ok((keys, checks))
        } else {
            Err(SegmentFault::Checksum { part: SegmentPart::Header })
        }
    }

    fn read_up_to(&mut self, end: usize) -> Result<(), SegmentFault> {
        let start = self.bytes.len();
        if end <= start {
            return Ok(());
        }
        self.bytes.resize(end, 0);
        let read = self.disk.read_exact_at(self.file, &mut self.bytes[start..], start as u64);
        read.map_err(SegmentFault::read(SegmentPart::Header))
    }
}

fn cipher_of(header: &SegmentHeader, key: Option<&MasterKey>) -> Result<SegmentCipher, SegmentFault> {
    match (header.encryption, key) {
        (Encryption::Aes256Gcm { key_id, .. }, Some(key)) if key_id != key.id() => Err(SegmentFault::OtherKey),
        (encryption, key) => SegmentCipher::new(encryption, header.tenant, key).ok_or(SegmentFault::NoKey),
    }
}

fn keys_from_bytes(bytes: &[u8]) -> SegmentKeys {
    let (keys, []) = bytes.as_chunks::<KEY_BYTES>() else { unreachable!("keys have 32 bytes each: this is a bug") };
    let mut keys = keys.iter().map(|key| KvKey::from_bytes(*key));
    let root = keys.next().expect("the root comes first: this is a bug");
    SegmentKeys { root, blocks: keys.collect() }
}

fn not_opened(error: io::Error) -> SegmentFault {
    // What the system says of a symbolic link that is not followed, and of a socket.
    let not_files = [Errno::LOOP, Errno::NXIO].map(Errno::raw_os_error);
    match error.raw_os_error() {
        Some(number) if not_files.contains(&number) => SegmentFault::NotAFile,
        _ if error.kind() == io::ErrorKind::NotFound => SegmentFault::Missing,
        _ => SegmentFault::Io { part: SegmentPart::Header, source: error },
    }
}
