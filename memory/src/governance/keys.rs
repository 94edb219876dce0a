//! API keys: making, revoking and checking them. The HTTP layer asks `KeyStore` who a caller is; `key_file` stores the records.
//!
//! A key is 256 bits from the operating system, so nobody can search for it and a fast hash is the right one: slow
//! password hashes protect secrets that can be guessed. Only a BLAKE3 hash in a context of its own is kept.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::key_file::{self, FileStamp};
use crate::MemoryError;

/// What every key that is made here starts with.
pub const KEY_PREFIX: &str = "mk-";
/// How often at most the file is looked at while serving, so the longest a revoked key lives on.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(1);
/// Greatest length of a tenant name in bytes.
const TENANT_LEN_MAX: usize = 64;
/// A longer text cannot be a key and is not hashed.
const PRESENTED_LEN_MAX: usize = 512;
/// BLAKE3 key-derivation context: the same key hashed for another purpose gives another hash.
const HASH_CONTEXT: &str = "memos 2026-01 api key hash v1";

/// Name of a tenant, checked: 1 to 64 letters, digits, `-`, `_` or `.`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantName(String);

impl TenantName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantName {
    type Err = MemoryError;

    fn from_str(name: &str) -> Result<Self, MemoryError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > TENANT_LEN_MAX || !name.bytes().all(allowed) {
            return Err(MemoryError::InvalidTenant { name: name.to_owned(), max_len: TENANT_LEN_MAX });
        }
        Ok(Self(name.to_owned()))
    }
}

impl TryFrom<String> for TenantName {
    type Error = MemoryError;

    fn try_from(name: String) -> Result<Self, MemoryError> {
        name.parse()
    }
}

impl From<TenantName> for String {
    fn from(name: TenantName) -> Self {
        name.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// See the models and count tokens.
    Read,
    /// Generate text.
    Infer,
    /// See figures about all tenants.
    Observe,
}

/// What the holder of a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, figures of all tenants included.
    Admin,
    /// Generate and read, within the key's tenant.
    User,
    /// Read only: models and tokenisation, no generation.
    Reader,
}

impl Role {
    /// Whether the role includes the permission. Default deny: what is not listed is refused.
    pub fn allows(self, permission: Permission) -> bool {
        match self {
            Self::Admin => matches!(permission, Permission::Read | Permission::Infer | Permission::Observe),
            Self::User => matches!(permission, Permission::Read | Permission::Infer),
            Self::Reader => matches!(permission, Permission::Read),
        }
    }

    /// The role's name in the key file and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::User => "user",
            Self::Reader => "reader",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = MemoryError;

    fn from_str(name: &str) -> Result<Self, MemoryError> {
        match name {
            "admin" => Ok(Self::Admin),
            "user" => Ok(Self::User),
            "reader" => Ok(Self::Reader),
            _ => Err(MemoryError::UnknownRole { name: name.to_owned() }),
        }
    }
}

/// A key in plain text: it exists while it is made and shown once. `Debug` does not show it.
pub struct ApiKey(String);

impl ApiKey {
    fn random() -> Result<Self, MemoryError> {
        Ok(Self(format!("{KEY_PREFIX}{}", blake3::Hash::from_bytes(random_bytes()?).to_hex())))
    }

    /// The secret itself, to be shown to its owner.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKey(hidden)")
    }
}

/// Hash of a key. Comparison takes the same time wherever the hashes differ (`blake3::Hash` promises that).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct KeyHash(blake3::Hash);

impl KeyHash {
    fn of(key: &str) -> Self {
        Self(blake3::Hash::from_bytes(blake3::derive_key(HASH_CONTEXT, key.as_bytes())))
    }
}

impl TryFrom<String> for KeyHash {
    type Error = blake3::HexError;

    fn try_from(hex: String) -> Result<Self, blake3::HexError> {
        blake3::Hash::from_hex(hex).map(Self)
    }
}

impl From<KeyHash> for String {
    fn from(hash: KeyHash) -> Self {
        hash.0.to_hex().to_string()
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyHash(hidden)")
    }
}

/// One key as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRecord {
    /// Public name of the key, random and unrelated to the secret.
    pub id: String,
    hash: KeyHash,
    /// Whose data it opens.
    pub tenant: TenantName,
    /// What it allows.
    pub role: Role,
    /// When it was made, seconds since 1970.
    pub created_unix_s: u64,
    /// When it was revoked, seconds since 1970; `None` while it is valid.
    pub revoked_unix_s: Option<u64>,
}

/// A key that was just made: the record that is kept and the secret that is not.
#[derive(Debug)]
pub struct NewKey {
    /// What the file holds.
    pub record: KeyRecord,
    /// To be shown once.
    pub key: ApiKey,
}

/// Who a caller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whose data is opened.
    pub tenant: TenantName,
    /// What is allowed.
    pub role: Role,
}

/// What a presented key, or none, leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// There has never been a key: the server is open (and listens on loopback only).
    Open,
    /// A valid key.
    Granted(Identity),
    /// Keys are configured and none was presented.
    Missing,
    /// The key is unknown or revoked; which of the two is not told.
    Refused,
}

/// The keys of a server: those of the file, re-read when it changes, and at most one from the command line.
#[derive(Debug)]
pub struct KeyStore {
    path: Option<PathBuf>,
    single: Option<(KeyHash, Identity)>,
    cached: Mutex<CachedKeys>,
}

#[derive(Debug)]
struct CachedKeys {
    records: Vec<KeyRecord>,
    stamp: Option<FileStamp>,
    /// Once keys were seen, a file that disappears or loses all records closes the server and does not open it.
    ever_configured: bool,
    checked_at: Option<Instant>,
    usable: Usable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Usable {
    Yes,
    /// The file could not be read: a revocation in it could be missed, so nothing is granted until it can.
    No,
}

impl KeyStore {
    /// Keys from a file, which need not exist yet.
    ///
    /// # Errors
    /// A file that cannot be read, is broken, newer than this program, or writable by others.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, MemoryError> {
        let mut store = Self::without_file();
        store.path = Some(path.into());
        store.refresh(&mut store.lock_cached())?;
        Ok(store)
    }

    /// No key file: everyone is let in unless [`KeyStore::with_key`] adds a key.
    pub fn without_file() -> Self {
        let cached = CachedKeys {
            records: Vec::new(),
            stamp: None,
            ever_configured: false,
            checked_at: None,
            usable: Usable::Yes,
        };
        Self { path: None, single: None, cached: Mutex::new(cached) }
    }

    /// Adds one key that is given in plain text (`--api-key`); it lives in memory only.
    #[must_use]
    pub fn with_key(mut self, key: &str, identity: Identity) -> Self {
        self.single = Some((KeyHash::of(key), identity));
        self
    }

    /// Whether callers need a key: there is one from the command line, or the file holds a record, be it revoked.
    pub fn is_configured(&self) -> bool {
        self.single.is_some() || self.lock_cached().ever_configured
    }

    /// The tenants of all keys that are not revoked.
    pub fn tenants(&self) -> Vec<TenantName> {
        let cached = self.lock_cached();
        let records = cached.records.iter().filter(|record| record.revoked_unix_s.is_none());
        let single = self.single.iter().map(|(_, identity)| identity.tenant.clone());
        let mut tenants: Vec<TenantName> = records.map(|record| record.tenant.clone()).chain(single).collect();
        tenants.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        tenants.dedup();
        tenants
    }

    /// Tells who presents this key. The file is looked at again when the last look is [`RELOAD_INTERVAL`] old.
    ///
    /// # Errors
    /// The file changed and cannot be used: nobody is let in until it can.
    pub fn authenticate(&self, presented: Option<&str>) -> Result<Access, MemoryError> {
        let mut cached = self.lock_cached();
        let due = cached.checked_at.is_none_or(|at| at.elapsed() >= RELOAD_INTERVAL);
        // An unusable file is looked at on every request, so that each of them gets the reason.
        if due || cached.usable == Usable::No {
            self.refresh(&mut cached)?;
        }
        if self.single.is_none() && !cached.ever_configured {
            return Ok(Access::Open);
        }
        let Some(presented) = presented else { return Ok(Access::Missing) };
        if presented.len() > PRESENTED_LEN_MAX {
            return Ok(Access::Refused);
        }
        let hash = KeyHash::of(presented);
        let single = self.single.as_ref().filter(|(key, _)| *key == hash).map(|(_, identity)| identity.clone());
        // Every record is compared, so that the time taken does not tell which one matched.
        let from_file = cached.records.iter().fold(None, |found, record| {
            let matches = record.hash == hash && record.revoked_unix_s.is_none();
            if matches { Some(Identity { tenant: record.tenant.clone(), role: record.role }) } else { found }
        });
        Ok(single.or(from_file).map_or(Access::Refused, Access::Granted))
    }

    /// Makes a key, stores its hash, and returns the key: the only time that it can be seen.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds as many keys as it may.
    pub fn create(path: impl Into<PathBuf>, tenant: TenantName, role: Role) -> Result<NewKey, MemoryError> {
        let path = path.into();
        let _lock = key_file::lock(&path)?;
        let mut records = key_file::read(&path)?.map_or_else(Vec::new, |(records, _)| records);
        if records.len() >= key_file::NUM_KEYS_MAX {
            return Err(MemoryError::TooManyKeys { limit: key_file::NUM_KEYS_MAX });
        }
        let key = ApiKey::random()?;
        let id_hex = blake3::Hash::from_bytes(random_bytes()?).to_hex();
        let record = KeyRecord {
            id: format!("key-{}", &id_hex[..16]),
            hash: KeyHash::of(key.expose()),
            tenant,
            role,
            created_unix_s: unix_now_s(),
            revoked_unix_s: None,
        };
        records.push(record.clone());
        key_file::write(&path, records)?;
        Ok(NewKey { record, key })
    }

    /// All keys of the file in the order they were made; none where there is no file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn list(path: impl Into<PathBuf>) -> Result<Vec<KeyRecord>, MemoryError> {
        Ok(key_file::read(&path.into())?.map_or_else(Vec::new, |(records, _)| records))
    }

    /// Revokes a key for good and returns its record; a running server notices within [`RELOAD_INTERVAL`].
    /// Revoking a revoked key changes nothing.
    ///
    /// # Errors
    /// No key has the id, or the file cannot be read or written.
    pub fn revoke(path: impl Into<PathBuf>, id: &str) -> Result<KeyRecord, MemoryError> {
        let path = path.into();
        let _lock = key_file::lock(&path)?;
        let mut records = key_file::read(&path)?.map_or_else(Vec::new, |(records, _)| records);
        let record = records
            .iter_mut()
            .find(|record| record.id == id)
            .ok_or_else(|| MemoryError::UnknownKey { id: id.to_owned() })?;
        if record.revoked_unix_s.is_some() {
            return Ok(record.clone());
        }
        record.revoked_unix_s = Some(unix_now_s());
        let revoked = record.clone();
        key_file::write(&path, records)?;
        Ok(revoked)
    }

    fn lock_cached(&self) -> MutexGuard<'_, CachedKeys> {
        // Nothing panics while the lock is held; were it to, the cached keys would still be whole.
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refresh(&self, cached: &mut CachedKeys) -> Result<(), MemoryError> {
        let Some(path) = &self.path else { return Ok(()) };
        cached.checked_at = Some(Instant::now());
        let found = key_file::stamp(path).inspect_err(|_| cached.usable = Usable::No)?;
        if found.is_none() && cached.ever_configured {
            cached.usable = Usable::No;
            return Err(MemoryError::KeyFileGone { path: path.clone() });
        }
        if found == cached.stamp && cached.usable == Usable::Yes {
            return Ok(());
        }
        match key_file::read(path).inspect_err(|_| cached.usable = Usable::No)? {
            None => cached.stamp = None,
            Some((records, stamp)) => {
                cached.ever_configured |= !records.is_empty();
                cached.records = records;
                cached.stamp = Some(stamp);
            }
        }
        cached.usable = Usable::Yes;
        Ok(())
    }
}

fn random_bytes() -> Result<[u8; 32], MemoryError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| MemoryError::NoEntropy { reason: error.to_string() })?;
    Ok(bytes)
}

fn unix_now_s() -> u64 {
    // A clock before 1970 is reported as 1970: the time of a key is information, nothing depends on it.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
