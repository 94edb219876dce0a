//! Signed tree heads and the proofs that lead to them.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::super::canonical::Canonical;
use super::super::error::GovernanceError;
use super::super::merkle::{self, NodeHash};
use super::super::signing::{AuditKey, PublicKey, SignatureBytes};
use super::append::stored_node;
use super::rows::{self, place_to_sql, size};
use super::{AuditEntry, StoredFields};
use crate::{CubeId, Timestamp};

/// Most heads that are kept in the cube itself; the newest ones. All of them go to the file outside.
const NUM_HEADS_IN_CUBE_MAX: i64 = 256;

/// The signed state of a log: whoever holds one can tell whether a later log continues it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeHead {
    /// Of which cube.
    pub cube: CubeId,
    /// Number of entries.
    pub size: u64,
    /// Root of the tree over them.
    pub root: NodeHash,
    /// When it was signed.
    pub at: Timestamp,
    /// By which key.
    pub public_key: PublicKey,
    /// The signature of all of the above.
    pub signature: SignatureBytes,
}

impl TreeHead {
    /// Checks the signature against the key that the head names; whether that key is to be trusted is another question.
    ///
    /// # Errors
    /// The signature is not that key's.
    pub fn verify(&self) -> Result<(), GovernanceError> {
        let message = head_message(&self.cube, self.size, &self.root, self.at);
        self.public_key.verify(&message, &self.signature, "a tree head")
    }
}

/// Proof that an entry is in the log of a head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InclusionProof {
    /// Number of the entry.
    pub seq: u64,
    /// Its commitment.
    pub commitment: NodeHash,
    /// What opens the commitment; `None` once the entry was erased.
    pub nonce: Option<NodeHash>,
    /// The siblings on the way to the root.
    pub path: Vec<NodeHash>,
    /// The signed head.
    pub head: TreeHead,
}

impl InclusionProof {
    /// Checks that the commitment is in the log of the head, and that the head is signed by this key.
    ///
    /// # Errors
    /// It is not.
    pub fn verify(&self, key: &PublicKey) -> Result<(), GovernanceError> {
        check_signer(&self.head, key)?;
        let leaf = NodeHash::leaf(&self.commitment.0);
        merkle::verify_inclusion(leaf, self.seq, self.head.size, &self.path, &self.head.root)
    }

    /// Checks as well that the commitment is one to this entry.
    ///
    /// # Errors
    /// It is not, or the nonce is gone.
    pub fn verify_entry(&self, key: &PublicKey, entry: &AuditEntry) -> Result<(), GovernanceError> {
        self.verify(key)?;
        let nonce = self.nonce.ok_or(GovernanceError::ProofRejected)?;
        let commitment = StoredFields::from_entry(entry).commitment(entry.seq, &nonce.0);
        if entry.seq == self.seq && commitment == self.commitment.0 {
            Ok(())
        } else {
            Err(GovernanceError::ProofRejected)
        }
    }
}

/// Proof that the log of one head continues that of an older one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyProof {
    /// The older head.
    pub old: TreeHead,
    /// The newer head.
    pub new: TreeHead,
    /// The nodes that both roots follow from.
    pub path: Vec<NodeHash>,
}

impl ConsistencyProof {
    /// Checks the proof and both signatures.
    ///
    /// # Errors
    /// The newer log does not continue the older one, or a head is not signed by this key.
    pub fn verify(&self, key: &PublicKey) -> Result<(), GovernanceError> {
        check_signer(&self.old, key)?;
        check_signer(&self.new, key)?;
        if self.old.cube != self.new.cube {
            return Err(GovernanceError::ProofRejected);
        }
        merkle::verify_consistency((self.old.size, &self.old.root), (self.new.size, &self.new.root), &self.path)
    }
}

/// Signs the log as it is, stores the head in the cube and returns it. The caller appends it to the heads file once
/// the transaction is durable: a head outside must never be ahead of the log.
///
/// # Errors
/// The stored tree is damaged, or the database fails.
pub fn sign_head(
    conn: &Connection,
    cube: &CubeId,
    key: &AuditKey,
    now: Timestamp,
) -> Result<TreeHead, GovernanceError> {
    let size = size(conn)?;
    let root = merkle::root(size, &mut |place| stored_node(conn, place))?;
    let signature = key.sign(&head_message(cube, size, &root, now));
    let head = TreeHead { cube: *cube, size, root, at: now, public_key: key.public(), signature };
    let failed = || GovernanceError::database("store a signed head");
    conn.prepare_cached(
        "INSERT OR REPLACE INTO audit_heads (size, root, at, cube, public_key, signature)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .and_then(|mut statement| {
        statement.execute(params![
            place_to_sql(size),
            &root.0[..],
            now.unix_ms(),
            &cube.as_bytes()[..],
            &head.public_key.as_bytes()[..],
            &signature.0[..],
        ])
    })
    .map_err(failed())?;
    conn.prepare_cached(
        "DELETE FROM audit_heads WHERE size <= (SELECT size FROM audit_heads ORDER BY size DESC LIMIT 1 OFFSET ?1)",
    )
    .and_then(|mut statement| statement.execute([NUM_HEADS_IN_CUBE_MAX]))
    .map_err(failed())?;
    Ok(head)
}

/// The newest head that is stored in the cube.
///
/// # Errors
/// The database fails or holds a row that was not written by this program.
pub fn latest_head(conn: &Connection) -> Result<Option<TreeHead>, GovernanceError> {
    let sql = format!("SELECT {HEAD_COLUMNS} FROM audit_heads ORDER BY size DESC LIMIT 1");
    let failed = || GovernanceError::database("read the signed heads");
    let mut statement = conn.prepare_cached(&sql).map_err(failed())?;
    let found = statement.query_row([], |row| Ok(head_from_row(row))).optional().map_err(failed())?;
    found.transpose()
}

/// All heads that are stored in the cube, oldest first.
pub(super) fn stored_heads(conn: &Connection) -> Result<Vec<TreeHead>, GovernanceError> {
    let sql = format!("SELECT {HEAD_COLUMNS} FROM audit_heads ORDER BY size");
    let failed = || GovernanceError::database("read the signed heads");
    let mut statement = conn.prepare_cached(&sql).map_err(failed())?;
    let mut rows = statement.query([]).map_err(failed())?;
    let mut heads = Vec::new();
    while let Some(row) = rows.next().map_err(failed())? {
        heads.push(head_from_row(row)?);
    }
    Ok(heads)
}

/// Proves that an entry is in the log of a head.
///
/// # Errors
/// The entry is not among those of the head, the head is ahead of the log, the log is damaged, or the database fails.
pub fn inclusion_proof(conn: &Connection, seq: u64, head: &TreeHead) -> Result<InclusionProof, GovernanceError> {
    check_range(conn, head.size)?;
    if seq >= head.size {
        return Err(GovernanceError::AuditRange { size: head.size, asked: seq });
    }
    let path = merkle::inclusion_proof(seq, head.size, &mut |place| stored_node(conn, place))?;
    let (commitment, nonce): ([u8; 32], Option<[u8; 32]>) = conn
        .prepare_cached("SELECT commitment, nonce FROM audit_entries LEFT JOIN audit_nonces USING (seq) WHERE seq = ?1")
        .and_then(|mut statement| statement.query_row([place_to_sql(seq)], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(GovernanceError::database("read the audit log"))?;
    let (commitment, nonce) = (NodeHash(commitment), nonce.map(NodeHash));
    Ok(InclusionProof { seq, commitment, nonce, path, head: head.clone() })
}

/// Proves that the log of the new head continues that of the old one.
///
/// # Errors
/// The old head is newer, a head is ahead of the log, the log is damaged, or the database fails.
pub fn consistency_proof(
    conn: &Connection,
    old: &TreeHead,
    new: &TreeHead,
) -> Result<ConsistencyProof, GovernanceError> {
    check_range(conn, new.size)?;
    if old.size > new.size {
        return Err(GovernanceError::AuditRange { size: new.size, asked: old.size });
    }
    let path = merkle::consistency_proof(old.size, new.size, &mut |place| stored_node(conn, place))?;
    Ok(ConsistencyProof { old: old.clone(), new: new.clone(), path })
}

const HEAD_COLUMNS: &str = "cube, size, root, at, public_key, signature";

fn head_from_row(row: &Row<'_>) -> Result<TreeHead, GovernanceError> {
    let failed = || GovernanceError::database("read a signed head");
    Ok(TreeHead {
        cube: CubeId::from_bytes(row.get(0).map_err(failed())?),
        size: u64::try_from(row.get::<_, i64>(1).map_err(failed())?).map_err(|_| rows::corrupt("size"))?,
        root: NodeHash(row.get(2).map_err(failed())?),
        at: Timestamp::from_unix_ms(row.get(3).map_err(failed())?).ok_or_else(|| rows::corrupt("at"))?,
        public_key: PublicKey::from_bytes(row.get(4).map_err(failed())?),
        signature: SignatureBytes(row.get(5).map_err(failed())?),
    })
}

fn check_range(conn: &Connection, asked: u64) -> Result<(), GovernanceError> {
    let size = size(conn)?;
    if asked > size { Err(GovernanceError::AuditRange { size, asked }) } else { Ok(()) }
}

fn check_signer(head: &TreeHead, key: &PublicKey) -> Result<(), GovernanceError> {
    if head.public_key != *key {
        return Err(GovernanceError::SignatureRejected { what: "a tree head" });
    }
    head.verify()
}

fn head_message(cube: &CubeId, size: u64, root: &NodeHash, at: Timestamp) -> Vec<u8> {
    Canonical::new("memos audit head v1").bytes(cube.as_bytes()).number(size).bytes(&root.0).moment(at).into_bytes()
}
