//! Receipts of erasures as rows of the cube's database: written with the erasure itself, completed when it is through.

use rusqlite::{Connection, OptionalExtension, params};

use super::error::GovernanceError;
use super::receipt::{ErasureReceipt, ErasureStatus};

/// The table. A receipt is named by the audit entry that tells who asked for the erasure.
pub const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS erasure_receipts (
    audit_seq INTEGER PRIMARY KEY,
    is_final INTEGER NOT NULL,
    receipt TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS erasure_receipts_open ON erasure_receipts (audit_seq) WHERE is_final = 0;";
/// Most receipts in one answer.
pub const LIST_LEN_MAX: usize = 1_000;

/// Which receipts are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All.
    All,
    /// Those of erasures that are not through.
    Pending,
}

/// Writes a receipt in place of what was kept of the same erasure.
pub fn put(connection: &Connection, receipt: &ErasureReceipt) -> Result<(), GovernanceError> {
    let text = serde_json::to_string(receipt).expect("a receipt is plain data: this is a bug");
    let is_final = matches!(receipt.status, ErasureStatus::Final { .. });
    let sql = "INSERT INTO erasure_receipts (audit_seq, is_final, receipt) VALUES (?, ?, ?) \
               ON CONFLICT (audit_seq) DO UPDATE SET is_final = excluded.is_final, receipt = excluded.receipt";
    let written = connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(params![to_row(receipt.audit_seq), is_final, text]));
    written.map(|_num_rows| ()).map_err(GovernanceError::database("keep a receipt"))
}

/// The receipt of the erasure with this audit entry.
pub fn get(connection: &Connection, audit_seq: u64) -> Result<Option<ErasureReceipt>, GovernanceError> {
    let sql = "SELECT receipt FROM erasure_receipts WHERE audit_seq = ?";
    let text: Option<String> = connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row([to_row(audit_seq)], |row| row.get(0)).optional())
        .map_err(GovernanceError::database("read a receipt"))?;
    text.map(|text| parse(audit_seq, &text)).transpose()
}

/// Receipts from this audit entry on, at most `limit`.
pub fn list(
    connection: &Connection,
    wanted: Wanted,
    from_seq: u64,
    limit: usize,
) -> Result<Vec<ErasureReceipt>, GovernanceError> {
    let sql = match wanted {
        Wanted::All => {
            "SELECT audit_seq, receipt FROM erasure_receipts WHERE audit_seq >= ? ORDER BY audit_seq LIMIT ?"
        }
        Wanted::Pending => {
            "SELECT audit_seq, receipt FROM erasure_receipts WHERE audit_seq >= ? AND is_final = 0 \
             ORDER BY audit_seq LIMIT ?"
        }
    };
    let limit = limit.min(LIST_LEN_MAX) as i64;
    let rows: Vec<(i64, String)> = connection
        .prepare_cached(sql)
        .and_then(|mut statement| {
            let rows = statement.query_map(params![to_row(from_seq), limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
        .map_err(GovernanceError::database("read receipts"))?;
    rows.into_iter().map(|(seq, text)| parse(seq.unsigned_abs(), &text)).collect()
}

fn to_row(audit_seq: u64) -> i64 {
    i64::try_from(audit_seq).unwrap_or(i64::MAX)
}

fn parse(audit_seq: u64, text: &str) -> Result<ErasureReceipt, GovernanceError> {
    serde_json::from_str(text).map_err(|error| GovernanceError::ReceiptDamaged { audit_seq, reason: error.to_string() })
}
