//! The data directory of a server: locked by one process, stamped with a format version, home of the server secret.
//!
//! ```text
//! <data dir>/            0700
//!   lock                 held while a server runs
//!   format.json          {"format_version":1}
//!   server_secret        32 random bytes, 0600; salts of all tenants are derived from it
//!   keys.json            API keys, hashes only (see memory::governance)
//!   audit_key            32 random bytes, 0600; signs the audit logs of all cubes
//!   cubes/               one folder per MemCube (see memory::cube)
//!   heads/               signed heads of the cubes' audit logs, kept outside of the cubes
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use memory::durable;

/// Version of the layout above. A server refuses a newer one instead of guessing.
const FORMAT_VERSION: u64 = 1;
const SECRET_LEN: usize = 32;

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Neither an option nor the environment names a place.
    #[error("no data directory: give --data-dir, or set MEMOS_DATA_DIR or HOME")]
    NoPlace,
    /// Another process holds the lock.
    #[error("the data directory {} is in use by another memos process", .path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A newer memos wrote it.
    #[error("the data directory {} has format version {found}; this memos knows up to {FORMAT_VERSION}", .path.display())]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// What its stamp says.
        found: u64,
    },
    /// A file in it is not what it should be.
    #[error("{}: {problem}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// An open data directory. The lock is held until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    server_secret: [u8; SECRET_LEN],
    audit_seed: [u8; SECRET_LEN],
    _lock: File,
}

impl DataDir {
    /// Opens the directory and makes what is missing.
    ///
    /// # Errors
    /// In use, written by a newer memos, damaged, or not accessible.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let io_error = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error(path))?;
        let lock_path = path.join("lock");
        let lock = private_file().truncate(false).open(&lock_path).map_err(io_error(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(DataDirError::Locked { path: path.to_owned() }),
            Err(fs::TryLockError::Error(source)) => return Err(DataDirError::Io { path: lock_path, source }),
        }
        check_format(path)?;
        let server_secret = read_or_make_secret(&path.join("server_secret"))?;
        let audit_seed = read_or_make_secret(&path.join("audit_key"))?;
        for folder in [cubes_folder(path), heads_folder(path)] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io_error(&folder))?;
        }
        Ok(Self { path: path.to_owned(), server_secret, audit_seed, _lock: lock })
    }

    /// Where the cubes are.
    pub fn cubes_folder(&self) -> PathBuf {
        cubes_folder(&self.path)
    }

    /// Where signed heads of audit logs are kept, outside of the cubes.
    pub fn heads_folder(&self) -> PathBuf {
        heads_folder(&self.path)
    }

    /// The seed of the key that signs audit logs.
    pub fn audit_seed(&self) -> [u8; SECRET_LEN] {
        self.audit_seed
    }

    /// Where KV blocks are kept, if nothing else is said.
    pub fn kv_folder(&self) -> PathBuf {
        self.path.join("kv")
    }

    /// How often cached KV was forgotten.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn cache_epoch(&self) -> Result<CacheEpoch, DataDirError> {
        let path = self.path.join("cache_epoch");
        let value = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_not_a_number| DataDirError::Damaged {
                path: path.clone(),
                problem: format!("holds {} bytes that are no number", text.len()),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(source) => return Err(DataDirError::Io { path, source }),
        };
        Ok(CacheEpoch { path: Some(path), value })
    }

    /// Where the API keys are.
    pub fn keys_path(&self) -> PathBuf {
        keys_path(&self.path)
    }

    /// The secret that all tenant salts are derived from.
    pub fn server_secret(&self) -> [u8; SECRET_LEN] {
        self.server_secret
    }
}

/// A number that goes up whenever cached KV is forgotten, and is part of every key of it: nothing that was computed before
/// can be found after, whatever is still on disk.
#[derive(Debug, Clone, Default)]
pub struct CacheEpoch {
    path: Option<PathBuf>,
    value: u64,
}

impl CacheEpoch {
    /// The number when the directory was opened; 0 without a directory.
    pub fn value(&self) -> u64 {
        self.value
    }

    /// The number after `current`, durable when this returns. When it cannot be written the process goes on with it, and
    /// says so: until the next start it holds all the same.
    pub fn advance(&self, current: u64) -> u64 {
        let next = current + 1;
        if let Some(path) = &self.path
            && let Err(error) = durable::write(path, next.to_string().as_bytes())
        {
            tracing::error!(%error, path = %path.display(), "the cache epoch could not be written");
        }
        next
    }
}

/// Where the API keys of a data directory are; `memos key` changes them while a server holds the lock.
pub fn keys_path(data_dir: &Path) -> PathBuf {
    data_dir.join("keys.json")
}

fn cubes_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("cubes")
}

fn heads_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("heads")
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

fn check_format(data_dir: &Path) -> Result<(), DataDirError> {
    let path = data_dir.join("format.json");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let stamp = format!("{{\"format_version\":{FORMAT_VERSION}}}\n");
            return write_durably(&path, stamp.as_bytes());
        }
        Err(source) => return Err(DataDirError::Io { path, source }),
    };
    let version = serde_json::from_str::<serde_json::Value>(&text)
        .ok()
        .and_then(|stamp| stamp.get("format_version").and_then(serde_json::Value::as_u64));
    match version {
        Some(found) if found > FORMAT_VERSION => Err(DataDirError::NewerFormat { path: data_dir.to_owned(), found }),
        Some(_known) => Ok(()),
        None => Err(DataDirError::Damaged { path, problem: "has no format_version".to_owned() }),
    }
}

fn read_or_make_secret(path: &Path) -> Result<[u8; SECRET_LEN], DataDirError> {
    match fs::read(path) {
        Ok(bytes) => <[u8; SECRET_LEN]>::try_from(bytes.as_slice()).map_err(|_length| DataDirError::Damaged {
            path: path.to_owned(),
            problem: format!("holds {} bytes, expected {SECRET_LEN}", bytes.len()),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut secret = [0u8; SECRET_LEN];
            getrandom::fill(&mut secret)
                .map_err(|error| DataDirError::Io { path: path.to_owned(), source: io::Error::other(error) })?;
            write_durably(path, &secret)?;
            Ok(secret)
        }
        Err(source) => Err(DataDirError::Io { path: path.to_owned(), source }),
    }
}

/// After a crash the file is whole or absent.
fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), DataDirError> {
    durable::write(path, bytes).map_err(|source| DataDirError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_survives_a_restart_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("data");
        let first = DataDir::open(&path).expect("opens").server_secret();
        let second = DataDir::open(&path).expect("opens again").server_secret();
        assert_eq!(first, second);
        assert_ne!(first, [0; SECRET_LEN]);
        let mode = fs::metadata(path.join("server_secret")).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_second_server_is_refused_while_the_first_runs() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let first = DataDir::open(folder.path()).expect("opens");
        assert!(matches!(DataDir::open(folder.path()), Err(DataDirError::Locked { .. })));
        drop(first);
        assert!(DataDir::open(folder.path()).is_ok());
    }

    #[test]
    fn a_newer_format_and_a_damaged_secret_are_named() {
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::write(folder.path().join("format.json"), "{\"format_version\":2}").expect("written");
        assert!(matches!(DataDir::open(folder.path()), Err(DataDirError::NewerFormat { found: 2, .. })));
        fs::write(folder.path().join("format.json"), "{\"format_version\":1}").expect("written");
        fs::write(folder.path().join("server_secret"), "short").expect("written");
        assert!(matches!(DataDir::open(folder.path()), Err(DataDirError::Damaged { .. })));
    }
}
