//! What can go wrong when it is decided, recorded or limited who may do what, with the values that say where.

use std::io;
use std::path::{Path, PathBuf};

use super::quota::QuotaResource;
use super::rights::Right;

/// Why an operation of governance failed.
#[derive(Debug, thiserror::Error)]
pub enum GovernanceError {
    /// The database refused; nothing of the transaction may be kept.
    #[error("the cube's database failed to {action}: {source}")]
    Database {
        /// What was tried, as a verb.
        action: &'static str,
        /// What SQLite answered.
        source: rusqlite::Error,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A row holds what this program does not write.
    #[error("a row of {table} holds a {column} that this program does not write")]
    CorruptRow {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gave no random bytes: {reason}")]
    NoEntropy {
        /// What it said.
        reason: String,
    },
    /// A user or agent name that cannot be.
    #[error(
        "{name:?} is not a {what} name: it takes 1 to {max_len} bytes without control or invisible characters, \
         and no space at its ends"
    )]
    InvalidScopeName {
        /// `user` or `agent`.
        what: &'static str,
        /// The name that was given, cut.
        name: String,
        /// Greatest length in bytes.
        max_len: usize,
    },
    /// A text that names no subject of a grant.
    #[error("{text:?} is not a subject: it takes \"tenant\", \"tenant/user:name\" or \"tenant/agent:name\"")]
    InvalidSubject {
        /// The text that was given, cut.
        text: String,
    },
    /// There is no such thing, or the caller may not know of it; the two answer alike.
    #[error("there is no such {what}")]
    NotFound {
        /// What was asked for.
        what: &'static str,
    },
    /// The caller may see the object but not do this with it.
    #[error("not allowed: {action} on this {what}")]
    Forbidden {
        /// Name of the action.
        action: &'static str,
        /// The object.
        what: &'static str,
    },
    /// A grant of more than its giver holds.
    #[error("only what one holds can be granted, and the right {right} is not held with the right to share it")]
    GrantExceedsHeld {
        /// The right that was to be granted.
        right: Right,
    },
    /// A grant that would outlive the right of its giver, or has ended already.
    #[error("the grant would end at {asked}, but must end after {after} and at the latest at {latest}")]
    GrantExpiry {
        /// The end that was asked for, or "never".
        asked: String,
        /// Now.
        after: String,
        /// The latest end that can be given, or "never".
        latest: String,
    },
    /// The cube holds as many grants as it may.
    #[error("the cube has {limit} grants in force, which is the limit: revoke some")]
    TooManyGrants {
        /// The limit.
        limit: usize,
    },
    /// A policy text that does not parse, or does not fit the schema.
    #[error("line {line} of the policy text: {reason}")]
    PolicyText {
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A policy text that is too long, or holds too many policies.
    #[error("the policy text has {actual} {unit}, more than {limit}")]
    PolicyTextTooLong {
        /// Of what.
        unit: &'static str,
        /// How many there are.
        actual: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The policy engine could not take the request.
    #[error("the policy could not be evaluated: {reason}")]
    PolicyEngine {
        /// What it said.
        reason: String,
    },
    /// A field of an audit entry, a receipt or a rule is larger than it may be.
    #[error("{field} has {actual}, more than {limit}")]
    TooLarge {
        /// The field.
        field: &'static str,
        /// Its size.
        actual: usize,
        /// The limit.
        limit: usize,
    },
    /// A field that does not have the form it must have.
    #[error("{field} {reason}")]
    InvalidField {
        /// The field.
        field: &'static str,
        /// What it must be.
        reason: &'static str,
    },
    /// The stored tree lacks a node, so the log can no longer be appended to or proven.
    #[error("the audit log is damaged: node {index} of level {level} is missing")]
    AuditDamaged {
        /// Level of the node; leaves are level 0.
        level: u32,
        /// Its place in the level.
        index: u64,
    },
    /// A proof was asked for a size that the log does not have.
    #[error("the audit log has {size} entries; {asked} was asked for")]
    AuditRange {
        /// Entries there are.
        size: u64,
        /// Entry or size that was asked for.
        asked: u64,
    },
    /// A proof that proves nothing.
    #[error("the proof does not lead to the root")]
    ProofRejected,
    /// A signature that was not made by the key for this content.
    #[error("the signature of {what} is not the key's")]
    SignatureRejected {
        /// What was signed.
        what: &'static str,
    },
    /// Reads of others' memory wait to be recorded, and no more of them may wait.
    #[error("the audit of reads is full: {limit} reads wait to be recorded")]
    ReadAuditFull {
        /// The limit.
        limit: usize,
    },
    /// The batch of reads could not be recorded, so none of them may be answered.
    #[error("the read could not be recorded in the audit log")]
    ReadAuditFailed,
    /// The batch of reads was not recorded in time.
    #[error("the read was not recorded in the audit log within {waited_ms} ms")]
    ReadAuditTimeout {
        /// How long was waited.
        waited_ms: u64,
    },
    /// The file of signed heads is not what this program writes.
    #[error("line {line} of the heads file {path} is broken: {reason}", path = path.display())]
    HeadsFileBroken {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// A head that is not newer than the newest of the file.
    #[error("the heads file holds a head of {newest} entries; one of {size} does not come after it")]
    HeadNotNewer {
        /// Size of the newest head.
        newest: u64,
        /// Size of the head that was to be appended.
        size: u64,
    },
    /// A tenant would store more than it may.
    #[error("the quota of {resource} is {limit}: {used} are used and {asked} more were asked for")]
    QuotaExceeded {
        /// Of what.
        resource: QuotaResource,
        /// In use now.
        used: u64,
        /// What was to be added.
        asked: u64,
        /// The quota.
        limit: u64,
    },
    /// An erasure is not finished: something is still held, or the write-ahead log was not truncated.
    #[error("the receipt of erasure {audit_seq} cannot be read: {reason}")]
    ReceiptDamaged {
        /// Number of the erasure's audit entry.
        audit_seq: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// An erasure that is not through was declared final.
    #[error("the erasure is not final: {reason}")]
    ErasureNotFinal {
        /// What is missing.
        reason: &'static str,
    },
}

impl GovernanceError {
    /// A database error with what was tried, for `map_err`.
    pub(crate) fn database(action: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Database { action, source }
    }

    /// An input or output error with the file it happened on, for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// A text cut to what an error may repeat of it.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}
