//! The audit log: who did what to which memory, when, why, and whether it was allowed. It is written in the transaction
//! of the change that it tells of, so there is no change without its entry.
//!
//! ```text
//! audit_entries   seq, what happened, commitment      commitment = BLAKE3(nonce || canonical bytes of the entry)
//! audit_nonces    seq, nonce                          the leaf of the tree holds the commitment
//! audit_nodes     level >= 1, index, hash             complete subtrees, so that appends and proofs are cheap
//! audit_heads     size, root, time, signature         also kept outside: see `heads_file`
//! ```
//!
//! To erase an entry is to destroy its nonce and what it says. The commitment stays, so every proof stays valid, and
//! without the nonce nobody can test a guess at what the entry said. An erasure is itself an entry which names the
//! numbers of those erased; an entry without a nonce that none names has been tampered with.

mod append;
mod heads;
mod heads_file;
mod reads;
mod rows;
mod verify;

#[cfg(test)]
mod tamper_tests;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use append::{append, erase_entries};
pub use heads::{
    ConsistencyProof, InclusionProof, TreeHead, consistency_proof, inclusion_proof, latest_head, sign_head,
};
pub use heads_file::{HeadsFile, NUM_HEADS_MAX};
pub use reads::{NUM_READS_WAITING_MAX, ReadAudit, ReadBatch, ReadTicket};
pub use rows::{AuditFilter, LIST_LEN_MAX, list, size};
pub use verify::{AuditReport, Finding, NUM_FINDINGS_MAX, verify};

use super::canonical::Canonical;
use super::error::{GovernanceError, cut};
use crate::{CubeId, ItemId, MemoryError, Timestamp};

/// Greatest length of an action's name in bytes.
pub const ACTION_BYTES_MAX: usize = 64;
/// Most memories that one entry names; a larger change makes several entries.
pub const NUM_OBJECTS_MAX: usize = 1024;
/// Greatest length of a reason in bytes.
pub const REASON_BYTES_MAX: usize = 1024;
/// Greatest size of the details, as JSON, in bytes.
pub const DETAILS_BYTES_MAX: usize = 4 << 10;
/// The action of an entry which tells that others were erased.
pub const ERASE_ACTION: &str = "audit.erase";

/// Tables of the audit log.
pub const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS audit_entries (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT,
    action TEXT NOT NULL,
    objects BLOB,
    cube BLOB NOT NULL CHECK (length(cube) = 16),
    outcome TEXT NOT NULL CHECK (outcome IN ('allowed', 'denied', 'failed')),
    reason TEXT,
    details TEXT,
    commitment BLOB NOT NULL CHECK (length(commitment) = 32)
) STRICT;
CREATE TABLE IF NOT EXISTS audit_nonces (
    seq INTEGER PRIMARY KEY,
    nonce BLOB NOT NULL CHECK (length(nonce) = 32)
) STRICT;
CREATE TABLE IF NOT EXISTS audit_objects (
    item BLOB NOT NULL CHECK (length(item) = 16),
    seq INTEGER NOT NULL,
    PRIMARY KEY (item, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit_nodes (
    level INTEGER NOT NULL,
    place INTEGER NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, place)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit_heads (
    size INTEGER NOT NULL,
    root BLOB NOT NULL CHECK (length(root) = 32),
    at INTEGER NOT NULL,
    cube BLOB NOT NULL CHECK (length(cube) = 16),
    public_key BLOB NOT NULL CHECK (length(public_key) = 32),
    signature BLOB NOT NULL CHECK (length(signature) = 64),
    PRIMARY KEY (size, public_key)
) STRICT, WITHOUT ROWID;
";

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was permitted and done.
    Allowed,
    /// The policy refused.
    Denied,
    /// It was permitted but could not be done.
    Failed,
}

impl Outcome {
    /// The name in rows and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = MemoryError;

    fn from_str(name: &str) -> Result<Self, MemoryError> {
        let known = [Self::Allowed, Self::Denied, Self::Failed].into_iter().find(|outcome| outcome.as_str() == name);
        known.ok_or_else(|| MemoryError::UnknownName {
            what: "an outcome",
            name: cut(name),
            known: "allowed, denied, failed",
        })
    }
}

/// Something that happened. It names memories by id; the text of a memory never belongs here.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEvent {
    /// When.
    pub at: Timestamp,
    /// Canonical name of who did it.
    pub actor: String,
    /// What was done: lower-case words with dots, such as `item.create`, or the name of a policy's action.
    pub action: String,
    /// The memories it concerns, at most [`NUM_OBJECTS_MAX`].
    pub objects: Vec<ItemId>,
    /// In which cube.
    pub cube: CubeId,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, in the actor's words.
    pub reason: Option<String>,
    /// What else belongs to it: policy ids, counts.
    pub details: Option<serde_json::Value>,
}

/// An entry as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditEntry {
    /// Its place in the log, from 0.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who; `None` once the entry was erased.
    pub actor: Option<String>,
    /// What.
    pub action: String,
    /// Which memories; empty once the entry was erased.
    pub objects: Vec<ItemId>,
    /// In which cube.
    pub cube: CubeId,
    /// How it ended.
    pub outcome: Outcome,
    /// Why.
    pub reason: Option<String>,
    /// What else belongs to it.
    pub details: Option<serde_json::Value>,
}

/// The fields of an entry in the form in which they are stored, so that what is hashed is what is read back.
struct StoredFields {
    at: Timestamp,
    actor: Option<String>,
    action: String,
    objects: Option<Vec<u8>>,
    cube: CubeId,
    outcome: Outcome,
    reason: Option<String>,
    details: Option<String>,
}

impl StoredFields {
    fn from_event(event: &AuditEvent) -> Result<Self, GovernanceError> {
        let too_large = |field, actual: usize, limit: usize| match actual > limit {
            true => Err(GovernanceError::TooLarge { field, actual, limit }),
            false => Ok(()),
        };
        too_large("the action of an audit entry", event.action.len(), ACTION_BYTES_MAX)?;
        too_large("the actor of an audit entry", event.actor.len(), super::actor::ACTOR_NAME_BYTES_MAX)?;
        too_large("the list of memories of an audit entry", event.objects.len(), NUM_OBJECTS_MAX)?;
        too_large("the reason", event.reason.as_ref().map_or(0, String::len), REASON_BYTES_MAX)?;
        let details = event.details.as_ref().map(ToString::to_string);
        too_large("the details of an audit entry", details.as_ref().map_or(0, String::len), DETAILS_BYTES_MAX)?;
        if event.action.is_empty() || !event.action.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.') {
            let (field, reason) = ("the action of an audit entry", "takes letters, digits and dots");
            return Err(GovernanceError::InvalidField { field, reason });
        }
        Ok(Self {
            at: event.at,
            actor: Some(event.actor.clone()),
            action: event.action.clone(),
            objects: Some(event.objects.iter().flat_map(ItemId::as_bytes).copied().collect()),
            cube: event.cube,
            outcome: event.outcome,
            reason: event.reason.clone(),
            details,
        })
    }

    fn from_entry(entry: &AuditEntry) -> Self {
        Self {
            at: entry.at,
            actor: entry.actor.clone(),
            action: entry.action.clone(),
            objects: Some(entry.objects.iter().flat_map(ItemId::as_bytes).copied().collect()),
            cube: entry.cube,
            outcome: entry.outcome,
            reason: entry.reason.clone(),
            details: entry.details.as_ref().map(ToString::to_string),
        }
    }

    /// Whether it says nothing any more.
    fn is_erased(&self) -> bool {
        self.actor.is_none() && self.objects.is_none() && self.reason.is_none() && self.details.is_none()
    }

    fn commitment(&self, seq: u64, nonce: &[u8; 32]) -> [u8; 32] {
        let bytes = Canonical::new("memos audit entry v1")
            .bytes(nonce)
            .number(seq)
            .moment(self.at)
            .optional(self.actor.as_deref().map(str::as_bytes))
            .text(&self.action)
            .optional(self.objects.as_deref())
            .bytes(self.cube.as_bytes())
            .text(self.outcome.as_str())
            .optional(self.reason.as_deref().map(str::as_bytes))
            .optional(self.details.as_deref().map(str::as_bytes))
            .into_bytes();
        *blake3::hash(&bytes).as_bytes()
    }
}
