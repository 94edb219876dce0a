//! MemCube: the portable container of memory. A folder with a manifest and one SQLite file, or the same packed into one file.
//!
//! ```text
//! <cube>/              0700
//!   manifest.json      what it is: format version, id, name, owner, models (see `manifest`)
//!   memory.sqlite      plaintext memory, the only truth (see `store`); -wal and -shm beside it while it is open
//!   snapshots/         copies of the store to compare with; erasures reach them
//!   lock               held by the process that has the cube open
//! <cube>.memcube       manifest.json, checksums.json, memory.sqlite in a tar archive (see `archive`)
//! ```

mod archive;
mod directory;
mod error;
mod manifest;
mod name;

pub use archive::{ARCHIVE_EXTENSION, UnpackTarget, Unpacked, pack, packed_manifest, unpack};
pub use directory::{CubeDirectory, CubeReport, ListedCube, SnapshotName, list, remove_leftovers};
pub use error::CubeError;
pub use manifest::{FORMAT_VERSION, MANIFEST_FILE, Manifest};
pub use name::{CubeName, NAME_LEN_MAX};
