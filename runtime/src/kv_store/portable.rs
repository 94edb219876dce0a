//! The portable form: segments leave a cache directory without their keys, and enter another under its own.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use scheduler::KvKey;

use super::draft::Draft;
use super::layout::Form;
use super::reader::SegmentReader;
use super::start::segment_names;
use super::{
    Disk, Exactness, KvIdentity, KvReadError, KvStore, KvStoreError, MasterKey, NewSegment, OsDisk, SegmentFault,
    SegmentFile, SegmentHeader, SegmentId, TenantTag, check_identity,
};

/// What an export made.
#[derive(Debug, Default)]
pub struct Exported {
    /// The new files, in the order of the segments that were asked for.
    pub files: Vec<SegmentFile>,
    /// Segments that could not be read.
    pub skipped: Vec<KvReadError>,
}

/// As what segments are taken in.
#[derive(Clone, Copy, Debug)]
pub struct ImportTarget<'a> {
    /// What they must serve.
    pub identity: &'a KvIdentity,
    /// Whether only what is exact is wanted.
    pub accept: Accept,
    /// Salt of the tenant that they are for.
    pub tenant_salt: [u8; 32],
    /// The tenant's tag.
    pub tenant: TenantTag,
    /// What the files are encrypted under, if they are.
    pub key: Option<&'a MasterKey>,
}

/// What is wanted of segments that were computed elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// Only those that equal what would be computed here.
    ExactOnly,
    /// Also those of other numerics. Their keys have these numerics in their root, so that they are never found by
    /// whoever asks for exact ones.
    Imported,
}

/// A segment that was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// It.
    pub file: SegmentFile,
    /// How far it equals what would be computed here.
    pub exactness: Exactness,
}

/// Why a file was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum ImportRefusal {
    /// It cannot be used, or not by this model.
    #[error(transparent)]
    Fault(#[from] SegmentFault),
    /// It is of other numerics, and only exact segments are wanted.
    #[error("it was computed by {found:?}, and only KV of {expected:?} is taken")]
    NotExact {
        /// Numerics that are needed.
        expected: String,
        /// Numerics of the file.
        found: String,
    },
    /// All of its blocks are here already.
    #[error("its blocks are here already")]
    AlreadyHere,
    /// It does not fit into the budget, or cannot be written.
    #[error(transparent)]
    Store(#[from] KvStoreError),
}

/// What an import did.
#[derive(Debug, Default)]
pub struct ImportReport {
    /// The new segments.
    pub imported: Vec<Imported>,
    /// Files that were not taken, by their names. They are left as they are.
    pub refused: Vec<(String, ImportRefusal)>,
}

impl KvStore {
    /// Writes segments into a folder in their portable form, encrypted if a key is given. They get new ids.
    ///
    /// # Errors
    /// A file cannot be written; those before it are whole.
    pub fn export(&self, ids: &[SegmentId], folder: &Path, key: Option<&MasterKey>) -> Result<Exported, KvStoreError> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(KvStoreError::io("make", folder))?;
        let mut exported = Exported::default();
        for &id in ids {
            let reader = match self.opened(id) {
                Ok(reader) => reader,
                Err(error) => {
                    exported.skipped.push(error);
                    continue;
                }
            };
            match Content::read(&reader, &*self.disk) {
                Ok(content) => {
                    let header = reader.header();
                    let root = header.keys.as_ref().expect("a cached segment has keys: this is a bug").root;
                    let new = content.as_new(header, (header.tenant, root));
                    let draft = Draft::new(&new, content.blocks.len(), Form::Portable, key)?;
                    exported.files.push(draft.write(&*self.disk, folder, &content.blocks)?);
                }
                Err(fault) => exported.skipped.push(KvReadError::File { id, fault }),
            }
        }
        Ok(exported)
    }

    /// Takes in what a folder has for this model and tenant, under keys of the tenant's salt. What is not for this model
    /// is refused and left where it is.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn import(&self, folder: &Path, target: &ImportTarget<'_>) -> Result<ImportReport, KvStoreError> {
        let mut report = ImportReport::default();
        let mut readers = Vec::new();
        for name in segment_names(folder)? {
            match self.acceptable(folder, &name, target) {
                Ok(exactness) => readers.push((exactness, name)),
                Err(refusal) => report.refused.push((name.to_string_lossy().into_owned(), refusal)),
            }
        }
        // What is at the start of chains is of use even where the budget ends before the rest.
        readers.sort_by_key(|((first_block, _exactness), _name)| *first_block);
        let mut known: HashSet<KvKey> = HashSet::new();
        for segment in self.segments() {
            known.extend(segment.header.keys.iter().flat_map(|keys| &keys.blocks));
        }
        for ((_first_block, exactness), name) in readers {
            match self.take_in(folder, &name, target, &mut known) {
                Ok(file) => report.imported.push(Imported { file, exactness }),
                Err(refusal) => report.refused.push((name.to_string_lossy().into_owned(), refusal)),
            }
        }
        Ok(report)
    }

    /// Where the segment begins, and how exact it is, if it is wanted.
    fn acceptable(
        &self,
        folder: &Path,
        name: &OsStr,
        target: &ImportTarget<'_>,
    ) -> Result<(u32, Exactness), ImportRefusal> {
        let reader = SegmentReader::open(&*self.disk, folder, name, Form::Portable, target.key)?;
        let header = reader.header();
        let exactness = check_identity(header, target.identity).map_err(SegmentFault::from)?;
        match (exactness, target.accept) {
            (Exactness::Imported, Accept::ExactOnly) => Err(ImportRefusal::NotExact {
                expected: target.identity.numerics_id.clone(),
                found: header.identity.numerics_id.clone(),
            }),
            _ => Ok((header.first_block, exactness)),
        }
    }

    fn take_in(
        &self,
        folder: &Path,
        name: &OsStr,
        target: &ImportTarget<'_>,
        known: &mut HashSet<KvKey>,
    ) -> Result<SegmentFile, ImportRefusal> {
        let reader = SegmentReader::open(&*self.disk, folder, name, Form::Portable, target.key)?;
        let header = reader.header();
        // The file's own numerics: what they computed is not what the numerics here would have.
        let root = header.identity.root_key(target.tenant_salt);
        let tokens = reader.read_tokens(&*self.disk)?;
        let keys = scheduler::block_keys(root, &tokens, header.identity.block_size as usize);
        let own = &keys[header.first_block as usize..];
        if own.iter().all(|key| known.contains(key)) {
            return Err(ImportRefusal::AlreadyHere);
        }
        let content = Content { tokens, blocks: reader.read_all(&*self.disk)? };
        let written = self.write(&content.as_new(header, (target.tenant, root)), &content.blocks)?;
        known.extend(own);
        Ok(written)
    }
}

/// All bytes of a segment.
struct Content {
    tokens: Vec<u32>,
    blocks: Vec<Vec<u8>>,
}

impl Content {
    fn read(reader: &SegmentReader, disk: &dyn Disk) -> Result<Self, SegmentFault> {
        Ok(Self { tokens: reader.read_tokens(disk)?, blocks: reader.read_all(disk)? })
    }

    fn as_new<'a>(&'a self, header: &'a SegmentHeader, (tenant, root): (TenantTag, KvKey)) -> NewSegment<'a> {
        NewSegment {
            identity: &header.identity,
            tenant,
            root,
            first_block: header.first_block,
            tokens: &self.tokens,
            lineage: &header.lineage,
            created_ms: header.created_ms,
        }
    }
}

/// What a check of a file found.
#[derive(Debug)]
pub struct VerifiedFile {
    /// Its name.
    pub file_name: String,
    /// The segment, every byte of it checked, or what is wrong with it.
    pub result: Result<SegmentFile, SegmentFault>,
}

/// Checks every byte of all portable segments in a folder.
///
/// # Errors
/// The folder cannot be listed.
pub fn verify(folder: &Path, key: Option<&MasterKey>) -> Result<Vec<VerifiedFile>, KvStoreError> {
    let check = |name: &OsStr| {
        let reader = SegmentReader::open(&OsDisk, folder, name, Form::Portable, key)?;
        reader.read_tokens(&OsDisk)?;
        let mut buffer = vec![0; reader.header().identity.block_bytes];
        for block in 0..reader.header().num_blocks {
            reader.read_block(&OsDisk, block, &mut buffer)?;
        }
        Ok(reader.listed().clone())
    };
    let verified = segment_names(folder)?
        .into_iter()
        .map(|name| VerifiedFile { file_name: name.to_string_lossy().into_owned(), result: check(&name) });
    Ok(verified.collect())
}
