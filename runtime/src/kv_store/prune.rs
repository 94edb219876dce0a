//! Making the segments of a cube fewer: those of other models, or the oldest until they fit.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use memory::durable;
use scheduler::{KvKey, block_keys};

use super::layout::Form;
use super::reader::SegmentReader;
use super::start::segment_names;
use super::{IdentityMismatch, KvIdentity, KvStoreError, MasterKey, OsDisk, SegmentFault, check_identity};

/// What goes. Damaged files always do.
#[derive(Clone, Copy, Debug)]
pub enum Prune<'a> {
    /// What this model cannot use.
    Foreign(&'a KvIdentity),
    /// The oldest, but nothing that a newer one continues, until so many bytes are left.
    ToBytes(u64),
}

/// Why a file was removed.
#[derive(Debug, thiserror::Error)]
pub enum PruneReason {
    /// It cannot be used.
    #[error(transparent)]
    Damaged(SegmentFault),
    /// It is of another model.
    #[error(transparent)]
    Foreign(IdentityMismatch),
    /// It was the oldest when there were too many bytes.
    #[error("there were too many bytes")]
    OverBudget,
}

/// What is left and what is gone.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Names of the files that are gone, with the reason.
    pub removed: Vec<(String, PruneReason)>,
    /// Names of the files that could not be read and may still be good: under another key, for instance.
    pub unread: Vec<(String, SegmentFault)>,
    /// Bytes of the segments that are left.
    pub bytes_left: u64,
}

struct Segment {
    name: OsString,
    file_bytes: u64,
    created_ms: u64,
    /// Key of the block before its first, under a root that all chains of a tenant share here.
    parent: Option<KvKey>,
    /// Keys of its blocks.
    keys: Vec<KvKey>,
}

/// Removes portable segments from a folder.
///
/// # Errors
/// The folder cannot be listed or a file cannot be removed.
pub fn prune(folder: &Path, what: Prune<'_>, key: Option<&MasterKey>) -> Result<Pruned, KvStoreError> {
    let mut pruned = Pruned::default();
    let mut segments = Vec::new();
    for name in segment_names(folder)? {
        let reason = match read(folder, &name, what, key) {
            Ok(Ok(segment)) => {
                segments.push(segment);
                continue;
            }
            Ok(Err(mismatch)) => PruneReason::Foreign(mismatch),
            Err(fault) if fault.is_damage() => PruneReason::Damaged(fault),
            Err(fault) => {
                pruned.unread.push((name.to_string_lossy().into_owned(), fault));
                continue;
            }
        };
        remove(folder, name, reason, &mut pruned)?;
    }
    let goes = match what {
        Prune::Foreign(_) => Vec::new(),
        Prune::ToBytes(max_bytes) => oldest_leaves(&segments, max_bytes),
    };
    pruned.bytes_left = segments.iter().map(|segment| segment.file_bytes).sum();
    for place in goes {
        pruned.bytes_left -= segments[place].file_bytes;
        remove(folder, segments[place].name.clone(), PruneReason::OverBudget, &mut pruned)?;
    }
    if !pruned.removed.is_empty() {
        durable::sync_folder_of(&folder.join("entry")).map_err(KvStoreError::io("sync", folder))?;
    }
    Ok(pruned)
}

fn read(
    folder: &Path,
    name: &OsString,
    what: Prune<'_>,
    key: Option<&MasterKey>,
) -> Result<Result<Segment, IdentityMismatch>, SegmentFault> {
    let reader = SegmentReader::open(&OsDisk, folder, name, Form::Portable, key)?;
    let header = reader.header();
    if let Prune::Foreign(identity) = what
        && let Err(mismatch) = check_identity(header, identity)
    {
        return Ok(Err(mismatch));
    }
    let tokens = reader.read_tokens(&OsDisk)?;
    // Tenants do not share chains; their tags keep them apart here as their salts do elsewhere.
    let mut salt = [0; 32];
    salt[..16].copy_from_slice(header.tenant.as_bytes());
    let mut keys = block_keys(header.identity.root_key(salt), &tokens, header.identity.block_size as usize);
    let parent = keys.drain(..header.first_block as usize).next_back();
    Ok(Ok(Segment {
        name: name.clone(),
        file_bytes: reader.listed().file_bytes,
        created_ms: header.created_ms,
        parent,
        keys,
    }))
}

/// The segments that go so that `max_bytes` are left, in order: always the oldest that none of those left continues.
fn oldest_leaves(segments: &[Segment], max_bytes: u64) -> Vec<usize> {
    let mut holders: HashMap<KvKey, Vec<usize>> = HashMap::new();
    for (place, segment) in segments.iter().enumerate() {
        for key in &segment.keys {
            holders.entry(*key).or_default().push(place);
        }
    }
    // Whoever holds the block before a segment's first is continued by it.
    let parents_of = |place: usize| {
        let holders = segments[place].parent.and_then(|key| holders.get(&key));
        holders.map_or([].as_slice(), Vec::as_slice).iter().copied()
    };
    let mut num_children = vec![0usize; segments.len()];
    for place in 0..segments.len() {
        parents_of(place).for_each(|parent| num_children[parent] += 1);
    }
    let age = |place: usize| (segments[place].created_ms, place);
    let mut leaves: BTreeSet<(u64, usize)> =
        (0..segments.len()).filter(|place| num_children[*place] == 0).map(age).collect();
    let mut bytes_left: u64 = segments.iter().map(|segment| segment.file_bytes).sum();
    let mut goes = Vec::new();
    while bytes_left > max_bytes {
        let (_created, place) = leaves.pop_first().expect("a chain ends somewhere: this is a bug");
        bytes_left -= segments[place].file_bytes;
        goes.push(place);
        for parent in parents_of(place) {
            num_children[parent] -= 1;
            if num_children[parent] == 0 {
                leaves.insert(age(parent));
            }
        }
    }
    goes
}

fn remove(folder: &Path, name: OsString, reason: PruneReason, pruned: &mut Pruned) -> Result<(), KvStoreError> {
    let path = folder.join(&name);
    // A folder under such a name is not ours.
    if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        pruned.unread.push((name.to_string_lossy().into_owned(), SegmentFault::NotAFile));
        return Ok(());
    }
    fs::remove_file(&path).map_err(KvStoreError::io("remove", &path))?;
    pruned.removed.push((name.to_string_lossy().into_owned(), reason));
    Ok(())
}
