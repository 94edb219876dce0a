//! Packing a cube into one file to carry, and unpacking it with every byte checked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{CubeDirectory, CubeError, CubeName, MANIFEST_FILE, Manifest};
use crate::Clock;
use crate::durable;
use crate::governance::TenantName;
use crate::store::Store;

/// What packed cubes end in.
pub const ARCHIVE_EXTENSION: &str = "memcube";
const CHECKSUMS_FILE: &str = "checksums.json";
const STORE_FILE: &str = "memory.sqlite";
/// How the folders of work under way begin; no cube's name does.
pub(super) const SCRATCH_PREFIX: &str = ".memcube-";
/// Files of an archive in the order they stand in it.
const FILES: [&str; 3] = [MANIFEST_FILE, CHECKSUMS_FILE, STORE_FILE];
/// The first two are small.
const SMALL_FILE_BYTES_MAX: u64 = 1 << 20;

/// BLAKE3 of each file of the archive but this list, in hex.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checksums {
    blake3: BTreeMap<String, String>,
}

/// A cube that was unpacked.
#[derive(Debug)]
pub struct Unpacked {
    /// Its folder.
    pub folder: PathBuf,
    /// Its manifest, with the new name and owner.
    pub manifest: Manifest,
    /// Who owned it where it was packed.
    pub packed_by: TenantName,
}

/// Packs the cube as it is now into the file `path`, which must not be there yet.
///
/// # Errors
/// The file is there, or the operating system refuses; then no file is left.
pub fn pack(cube: &CubeDirectory, path: &Path) -> Result<(), CubeError> {
    if path.exists() {
        return Err(CubeError::Exists { path: path.to_owned() });
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let scratch = Scratch::new(parent)?;
    let store = scratch.0.join(STORE_FILE);
    cube.copy_store(&store)?;
    let manifest = cube.manifest().to_bytes();
    let mut blake3 = BTreeMap::new();
    blake3.insert(MANIFEST_FILE.to_owned(), blake3::hash(&manifest).to_hex().to_string());
    let hash = hash_file(&store).map_err(CubeError::io("read", &store))?;
    blake3.insert(STORE_FILE.to_owned(), hash.to_hex().to_string());
    let checksums = serde_json::to_vec_pretty(&Checksums { blake3 }).expect("plain data becomes JSON: this is a bug");
    let packed = scratch.0.join("packed");
    write_archive(&packed, &manifest, &checksums, &store).map_err(CubeError::io("write", &packed))?;
    fs::rename(&packed, path).map_err(CubeError::io("write", path))?;
    durable::sync_folder_of(path).map_err(CubeError::io("sync", path))
}

fn write_archive(path: &Path, manifest: &[u8], checksums: &[u8], store: &Path) -> io::Result<()> {
    let mut archive = tar::Builder::new(durable::create(path)?);
    append(&mut archive, MANIFEST_FILE, manifest.len() as u64, manifest)?;
    append(&mut archive, CHECKSUMS_FILE, checksums.len() as u64, checksums)?;
    let store = File::open(store)?;
    append(&mut archive, STORE_FILE, store.metadata()?.len(), store)?;
    archive.into_inner()?.sync_all()
}

fn append(archive: &mut tar::Builder<File>, name: &str, size: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    archive.append_data(&mut header, name, content)
}

/// Where an archive is unpacked, and as whose cube.
#[derive(Debug)]
pub struct UnpackTarget<'a> {
    /// Folder of the cubes.
    pub parent: &'a Path,
    /// New name; `None`: as it was.
    pub name: Option<CubeName>,
    /// Who owns it from now on.
    pub owner: TenantName,
    /// Where "now" comes from.
    pub clock: Clock,
    /// Tables of other modules, as for [`CubeDirectory::open`].
    pub extra_schema: &'a [&'a str],
}

/// What a packed cube says about itself, read without unpacking it; the rest of the file is not checked.
///
/// # Errors
/// The file is no packed cube, or newer.
pub fn packed_manifest(archive: &Path) -> Result<Manifest, CubeError> {
    let foreign = |problem: String| CubeError::Foreign { path: archive.to_owned(), problem };
    let unreadable = |error: io::Error| foreign(format!("it cannot be read as a packed cube: {error}"));
    let mut reader = tar::Archive::new(File::open(archive).map_err(CubeError::io("open", archive))?);
    let mut entries = reader.entries().map_err(unreadable)?;
    let entry = next_entry(&mut entries, MANIFEST_FILE).map_err(foreign)?;
    let mut bytes = Vec::new();
    entry.take(SMALL_FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
    Manifest::parse(archive, &bytes)
}

/// Unpacks an archive into a new cube folder. The cube keeps its id. `prepare` may change or refuse the store before the
/// folder gets its name, so that no cube is ever there unprepared.
///
/// # Errors
/// The file is no packed cube, newer or damaged, or the folder is there already; what `prepare` returns. No folder is
/// left then.
pub fn unpack<E: From<CubeError>>(
    archive: &Path,
    target: UnpackTarget<'_>,
    prepare: impl FnOnce(&Store) -> Result<(), E>,
) -> Result<Unpacked, E> {
    let UnpackTarget { parent, name, owner, clock, extra_schema } = target;
    let file = File::open(archive).map_err(CubeError::io("open", archive))?;
    let scratch = Scratch::new(parent)?;
    let mut manifest = extract(archive, file, &scratch.0)?;
    let packed_by = std::mem::replace(&mut manifest.owner, owner);
    if let Some(name) = name {
        manifest.name = name;
    }
    let folder = parent.join(manifest.name.as_str());
    if folder.exists() {
        return Err(CubeError::Exists { path: folder }.into());
    }
    manifest.write(&scratch.0)?;
    let opened = CubeDirectory::open(&scratch.0, clock, extra_schema)?;
    if let Some(finding) = opened.verify()?.findings.first() {
        return Err(CubeError::Damaged { path: archive.to_owned(), problem: finding.to_string() }.into());
    }
    prepare(opened.store())?;
    drop(opened);
    fs::rename(&scratch.0, &folder).map_err(CubeError::io("rename", &folder))?;
    durable::sync_folder_of(&folder).map_err(CubeError::io("sync", &folder))?;
    Ok(Unpacked { folder, manifest, packed_by })
}

/// Writes the archive's files into `folder`, checked, and returns the manifest as it was packed.
fn extract(archive: &Path, file: File, folder: &Path) -> Result<Manifest, CubeError> {
    let foreign = |problem: String| CubeError::Foreign { path: archive.to_owned(), problem };
    let damaged = |problem: String| CubeError::Damaged { path: archive.to_owned(), problem };
    let unreadable = |error: io::Error| foreign(format!("it cannot be read as a packed cube: {error}"));
    let mut reader = tar::Archive::new(file);
    let mut entries = reader.entries().map_err(unreadable)?;
    let mut small = Vec::new();
    for expected in &FILES[..2] {
        let entry = next_entry(&mut entries, expected).map_err(foreign)?;
        let mut bytes = Vec::new();
        entry.take(SMALL_FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
        small.push(bytes);
    }
    let manifest = Manifest::parse(archive, &small[0])?;
    let checksums: Checksums =
        serde_json::from_slice(&small[1]).map_err(|error| damaged(format!("{CHECKSUMS_FILE}: {error}")))?;
    let check = |name: &str, found: blake3::Hash| {
        let expected = checksums.blake3.get(name).and_then(|hex| blake3::Hash::from_hex(hex).ok());
        match expected {
            Some(expected) if expected == found => Ok(()),
            Some(_) => Err(damaged(format!("{name} does not have the checksum that {CHECKSUMS_FILE} gives"))),
            None => Err(damaged(format!("{CHECKSUMS_FILE} has no checksum of {name}"))),
        }
    };
    check(MANIFEST_FILE, blake3::hash(&small[0]))?;
    let store = folder.join(STORE_FILE);
    let mut entry = next_entry(&mut entries, STORE_FILE).map_err(foreign)?;
    let mut hasher = blake3::Hasher::new();
    let mut written = durable::create(&store).map_err(CubeError::io("write", &store))?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let len = entry.read(&mut buffer).map_err(|error| damaged(format!("{STORE_FILE}: {error}")))?;
        if len == 0 {
            break;
        }
        hasher.update(&buffer[..len]);
        written.write_all(&buffer[..len]).map_err(CubeError::io("write", &store))?;
    }
    written.sync_all().map_err(CubeError::io("write", &store))?;
    check(STORE_FILE, hasher.finalize())?;
    drop(entry);
    match entries.next() {
        None => Ok(manifest),
        Some(_) => Err(foreign("it holds more than a packed cube".to_owned())),
    }
}

/// The next entry, which must be a plain file of this name: an archive decides nothing about where its files go.
fn next_entry<'a>(entries: &mut tar::Entries<'a, File>, expected: &str) -> Result<tar::Entry<'a, File>, String> {
    match entries.next() {
        Some(Ok(entry)) => {
            let is_plain = entry.header().entry_type() == tar::EntryType::Regular;
            if is_plain && entry.path_bytes().as_ref() == expected.as_bytes() {
                return Ok(entry);
            }
            Err(format!("it holds {:?} where {expected} is expected", String::from_utf8_lossy(&entry.path_bytes())))
        }
        Some(Err(error)) => Err(format!("{expected} cannot be read: {error}")),
        None => Err(format!("it ends where {expected} is expected")),
    }
}

fn hash_file(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize())
}

/// A folder for work under way; removed with everything in it unless it was renamed away.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Self, CubeError> {
        let folder = parent.join(format!("{SCRATCH_PREFIX}{}", crate::CubeId::new()));
        durable::create_folder(&folder).map_err(CubeError::io("make", &folder))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Gone already when it was renamed; a folder that cannot be removed is left, named as what it is.
        let _ = fs::remove_dir_all(&self.0);
    }
}
