//! What can go wrong with a cube as a whole: its folder, its manifest, its archive.

use std::io;
use std::path::{Path, PathBuf};

use super::CubeName;
use crate::CubeId;
use crate::store::StoreError;

/// Why a cube cannot be made, opened, packed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum CubeError {
    /// A text that is no name of a cube.
    #[error(
        "{name:?} is not a cube name: it takes 1 to 64 of a-z, 0-9, '-', '_' and '.', with a letter or digit at both ends"
    )]
    InvalidName {
        /// The name that was given, cut.
        name: String,
    },
    /// The folder or file is there already.
    #[error("{} is there already", .path.display())]
    Exists {
        /// The folder or file.
        path: PathBuf,
    },
    /// There is no such cube.
    #[error("{} is not there", .path.display())]
    Missing {
        /// The folder or file.
        path: PathBuf,
    },
    /// The folder is not a cube.
    #[error("{} is not a cube: {problem}", .path.display())]
    Foreign {
        /// The folder or file.
        path: PathBuf,
        /// How that shows.
        problem: String,
    },
    /// A later version of this program wrote it.
    #[error("{} has cube format version {found}, but this program reads up to {supported}", .path.display())]
    Newer {
        /// The folder or file.
        path: PathBuf,
        /// Version that it claims.
        found: u64,
        /// Latest version that is understood here.
        supported: u64,
    },
    /// A part of the cube is not what it should be.
    #[error("{} is damaged: {problem}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Another process has the cube open.
    #[error("the cube {} is in use by another process", .path.display())]
    Locked {
        /// Its folder.
        path: PathBuf,
    },
    /// The same cube is here already; a second one would share its audit log's heads.
    #[error("the cube {id} is here already, as {name}: two of one cube cannot be in one data directory")]
    SameCube {
        /// Which one.
        id: CubeId,
        /// Under which name.
        name: CubeName,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The store inside the cube.
    #[error("the memory of cube {cube}: {source}")]
    Store {
        /// Which cube.
        cube: CubeId,
        /// What it said.
        #[source]
        source: StoreError,
    },
}

impl CubeError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            _ => Self::Io { action, path, source },
        }
    }
}
