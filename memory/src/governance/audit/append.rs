//! Appending to the audit log, and erasing what entries say.

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;

use super::super::error::GovernanceError;
use super::super::merkle::{NodeHash, NodePlace, completed_by};
use super::rows::{self, size};
use super::{AuditEvent, ERASE_ACTION, StoredFields};
use crate::ItemId;

/// Most numbers of erased entries that one entry names, so that its details stay within their limit.
pub(super) const NUM_ERASED_PER_ENTRY_MAX: usize = 180;

/// Appends an entry inside the caller's transaction and returns its number. When this fails the transaction must be
/// rolled back: what cannot be recorded must not happen.
///
/// # Errors
/// A field is larger than it may be, the stored tree is damaged, or the database fails.
pub fn append(conn: &Connection, event: &AuditEvent) -> Result<u64, GovernanceError> {
    let fields = StoredFields::from_event(event)?;
    let seq = size(conn)?;
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| GovernanceError::NoEntropy { reason: error.to_string() })?;
    let commitment = fields.commitment(seq, &nonce);
    let row = rows::to_sql(seq)?;
    let failed = || GovernanceError::database("append to the audit log");
    conn.prepare_cached(
        "INSERT INTO audit_entries (seq, at, actor, action, objects, cube, outcome, reason, details, commitment)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )
    .and_then(|mut statement| {
        statement.execute(params![
            row,
            fields.at.unix_ms(),
            fields.actor,
            fields.action,
            fields.objects,
            &fields.cube.as_bytes()[..],
            fields.outcome.as_str(),
            fields.reason,
            fields.details,
            &commitment[..],
        ])
    })
    .map_err(failed())?;
    conn.prepare_cached("INSERT INTO audit_nonces (seq, nonce) VALUES (?1, ?2)")
        .and_then(|mut statement| statement.execute(params![row, &nonce[..]]))
        .map_err(failed())?;
    for item in &event.objects {
        conn.prepare_cached("INSERT OR IGNORE INTO audit_objects (item, seq) VALUES (?1, ?2)")
            .and_then(|mut statement| statement.execute(params![&item.as_bytes()[..], row]))
            .map_err(failed())?;
    }
    grow_tree(conn, seq, NodeHash::leaf(&commitment))?;
    Ok(seq)
}

/// Erases what the entries of these numbers say, inside the caller's transaction: nonce, actor, memories, reason and
/// details are destroyed; time, action, cube, outcome and commitment stay. The event tells who does so and why; its
/// details are replaced by the numbers. Entries that tell of erasures are left alone, since the proof needs them.
/// Returns how many entries were erased.
///
/// # Errors
/// As [`append`].
pub fn erase_entries(conn: &Connection, seqs: &[u64], event: &AuditEvent) -> Result<usize, GovernanceError> {
    let mut erased = Vec::new();
    for &seq in seqs {
        if erase_one(conn, seq)? {
            erased.push(seq);
        }
    }
    for part in erased.chunks(NUM_ERASED_PER_ENTRY_MAX) {
        let mut event = event.clone();
        event.action = ERASE_ACTION.to_owned();
        event.details = Some(json!({ "seqs": part }));
        append(conn, &event)?;
    }
    Ok(erased.len())
}

fn erase_one(conn: &Connection, seq: u64) -> Result<bool, GovernanceError> {
    let failed = || GovernanceError::database("erase audit entries");
    let row = rows::to_sql(seq)?;
    let found: Option<Option<Vec<u8>>> = conn
        .prepare_cached(
            "SELECT objects FROM audit_entries WHERE seq = ?1 AND action <> ?2
             AND EXISTS (SELECT 1 FROM audit_nonces WHERE audit_nonces.seq = audit_entries.seq)",
        )
        .and_then(|mut statement| statement.query_row(params![row, ERASE_ACTION], |row| row.get(0)).optional())
        .map_err(failed())?;
    let Some(objects) = found else { return Ok(false) };
    for item in rows::parse_objects(objects.as_deref())? {
        remove_object(conn, &item, row)?;
    }
    for sql in [
        "DELETE FROM audit_nonces WHERE seq = ?1",
        "UPDATE audit_entries SET actor = NULL, objects = NULL, reason = NULL, details = NULL WHERE seq = ?1",
    ] {
        conn.prepare_cached(sql).and_then(|mut statement| statement.execute([row])).map_err(failed())?;
    }
    Ok(true)
}

fn remove_object(conn: &Connection, item: &ItemId, row: i64) -> Result<(), GovernanceError> {
    conn.prepare_cached("DELETE FROM audit_objects WHERE item = ?1 AND seq = ?2")
        .and_then(|mut statement| statement.execute(params![&item.as_bytes()[..], row]))
        .map_err(GovernanceError::database("erase audit entries"))?;
    Ok(())
}

/// Stores each subtree that the leaf completes: one in the mean, as many as the size has trailing one bits.
fn grow_tree(conn: &Connection, seq: u64, leaf: NodeHash) -> Result<(), GovernanceError> {
    let mut hash = leaf;
    for (parent, left) in completed_by(seq) {
        hash = NodeHash::parent(&stored_node(conn, left)?, &hash);
        conn.prepare_cached("INSERT INTO audit_nodes (level, place, hash) VALUES (?1, ?2, ?3)")
            .and_then(|mut statement| {
                statement.execute(params![parent.level, rows::place_to_sql(parent.index), &hash.0[..]])
            })
            .map_err(GovernanceError::database("append to the audit log"))?;
    }
    Ok(())
}

/// A complete subtree as it is stored; leaves are made from the entries' commitments.
pub(super) fn stored_node(conn: &Connection, place: NodePlace) -> Result<NodeHash, GovernanceError> {
    let failed = || GovernanceError::database("read the audit log's tree");
    let index = rows::place_to_sql(place.index);
    let hash: Option<[u8; 32]> = if place.level == 0 {
        conn.prepare_cached("SELECT commitment FROM audit_entries WHERE seq = ?1")
            .and_then(|mut statement| statement.query_row([index], |row| row.get(0)).optional())
            .map_err(failed())?
            .map(|commitment: [u8; 32]| NodeHash::leaf(&commitment).0)
    } else {
        conn.prepare_cached("SELECT hash FROM audit_nodes WHERE level = ?1 AND place = ?2")
            .and_then(|mut statement| statement.query_row(params![place.level, index], |row| row.get(0)).optional())
            .map_err(failed())?
    };
    hash.map(NodeHash).ok_or(GovernanceError::AuditDamaged { level: place.level, index: place.index })
}
