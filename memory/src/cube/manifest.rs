//! The manifest: the small JSON file that says what a cube is, read before anything else of it.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{CubeError, CubeName};
use crate::durable;
use crate::governance::TenantName;
use crate::{CubeId, Timestamp};

/// File name of the manifest inside a cube.
pub const MANIFEST_FILE: &str = "manifest.json";
/// Version of the folder's layout. A newer one is refused instead of guessed at.
pub const FORMAT_VERSION: u64 = 1;
/// What the field `format` says.
const FORMAT: &str = "memcube";
/// A larger file is no manifest.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Most models that a cube keeps KV or adapters of.
const NUM_MODELS_MAX: usize = 64;

/// What a cube says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    /// Version of the folder's layout.
    pub format_version: u64,
    /// Identity, kept when the cube is renamed or carried away.
    pub id: CubeId,
    /// Name under which it is mounted.
    pub name: CubeName,
    /// Tenant whose cube it is.
    pub owner: TenantName,
    /// When it was made.
    pub created_at: Timestamp,
    /// Fingerprints of the models (BLAKE3 of configuration and weights, hex) that the cube holds KV or adapters of.
    pub model_fingerprints: Vec<String>,
}

impl Manifest {
    /// The manifest of a new cube.
    pub fn new(name: CubeName, owner: TenantName, created_at: Timestamp) -> Self {
        Self {
            format: FORMAT.to_owned(),
            format_version: FORMAT_VERSION,
            id: CubeId::new(),
            name,
            owner,
            created_at,
            model_fingerprints: Vec::new(),
        }
    }

    /// Reads the manifest of the cube in `folder`.
    ///
    /// # Errors
    /// There is none, it is not a cube's, or it is of a later version.
    pub fn read(folder: &Path) -> Result<Self, CubeError> {
        let path = folder.join(MANIFEST_FILE);
        let metadata = fs::metadata(&path).map_err(CubeError::io("read", &path))?;
        if metadata.len() > MANIFEST_BYTES_MAX {
            let problem = format!("its manifest has {} bytes; the limit is {MANIFEST_BYTES_MAX}", metadata.len());
            return Err(CubeError::Foreign { path: folder.to_owned(), problem });
        }
        Self::parse(folder, &fs::read(&path).map_err(CubeError::io("read", &path))?)
    }

    /// Reads a manifest from its bytes; `place` is the folder or archive that errors name.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub fn parse(place: &Path, bytes: &[u8]) -> Result<Self, CubeError> {
        let foreign = |problem: String| CubeError::Foreign { path: place.to_owned(), problem };
        let json: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|error| foreign(format!("its manifest is not JSON: {error}")))?;
        if json.get("format").and_then(|format| format.as_str()) != Some(FORMAT) {
            return Err(foreign(format!("its manifest does not say \"format\": {FORMAT:?}")));
        }
        // The version comes before the other fields, which a later version may have changed.
        match json.get("format_version").and_then(serde_json::Value::as_u64) {
            Some(found) if found > FORMAT_VERSION => {
                Err(CubeError::Newer { path: place.to_owned(), found, supported: FORMAT_VERSION })
            }
            Some(FORMAT_VERSION) => {
                let manifest: Self = serde_json::from_value(json).map_err(|error| {
                    foreign(format!("its manifest is not what version {FORMAT_VERSION} writes: {error}"))
                })?;
                if manifest.model_fingerprints.len() > NUM_MODELS_MAX {
                    return Err(foreign(format!("its manifest names {} models", manifest.model_fingerprints.len())));
                }
                Ok(manifest)
            }
            Some(found) => Err(foreign(format!("its manifest has format version {found}, which never was"))),
            None => Err(foreign("its manifest has no format_version".to_owned())),
        }
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("plain data becomes JSON: this is a bug");
        bytes.push(b'\n');
        bytes
    }

    /// Writes the manifest into `folder`: whole or not at all.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn write(&self, folder: &Path) -> Result<(), CubeError> {
        let path = folder.join(MANIFEST_FILE);
        durable::write(&path, &self.to_bytes()).map_err(CubeError::io("write", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let name = "notes".parse().expect("a name");
        let owner = "acme".parse().expect("a tenant");
        Manifest::new(name, owner, Timestamp::from_unix_ms(0).expect("1970"))
    }

    fn parse(text: &str) -> Result<Manifest, CubeError> {
        Manifest::parse(Path::new("cube"), text.as_bytes())
    }

    #[test]
    fn a_manifest_reads_back_as_it_was_written() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let manifest = manifest();
        manifest.write(folder.path()).expect("written");
        assert_eq!(Manifest::read(folder.path()).expect("read"), manifest);
    }

    #[test]
    fn foreign_newer_and_odd_manifests_are_told_apart() {
        let text = String::from_utf8(manifest().to_bytes()).expect("JSON is UTF-8");
        assert!(parse(&text).is_ok());
        let newer = text.replace("\"format_version\": 1", "\"format_version\": 2");
        assert!(matches!(parse(&newer), Err(CubeError::Newer { found: 2, supported: 1, .. })));
        let changes = [
            ("\"format_version\": 1", "\"format_version\": 0"),
            ("\"format_version\": 1", "\"format_version\": \"1\""),
            ("memcube", "zip"),
            ("\"notes\"", "\"../notes\""),
            ("\"acme\"", "\"\""),
            ("{", ""),
        ];
        for (from, to) in changes {
            assert!(matches!(parse(&text.replacen(from, to, 1)), Err(CubeError::Foreign { .. })), "{from} -> {to}");
        }
        assert!(matches!(parse(""), Err(CubeError::Foreign { .. })));
    }

    #[test]
    fn a_folder_without_manifest_is_missing_one() {
        let folder = tempfile::tempdir().expect("temporary folder");
        assert!(matches!(Manifest::read(folder.path()), Err(CubeError::Missing { .. })));
    }
}
