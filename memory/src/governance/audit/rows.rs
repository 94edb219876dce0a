//! Reading the audit log: its size, and its entries by filter.

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::super::actor::Subject;
use super::super::error::GovernanceError;
use super::{AuditEntry, Outcome, StoredFields};
use crate::{CubeId, ItemId, Timestamp};

/// Most entries that one listing returns.
pub const LIST_LEN_MAX: usize = 1_000;

/// Which entries are asked for; everything that is set must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// From this number on.
    pub from_seq: u64,
    /// That name this memory.
    pub item: Option<ItemId>,
    /// By this subject: a tenant's users and agents count as the tenant.
    pub by: Option<Subject>,
    /// Of this action.
    pub action: Option<String>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

/// Number of entries.
///
/// # Errors
/// The database fails.
pub fn size(conn: &Connection) -> Result<u64, GovernanceError> {
    let last: Option<i64> = conn
        .prepare_cached("SELECT max(seq) FROM audit_entries")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(GovernanceError::database("read the audit log"))?;
    last.map_or(Ok(0), |last| u64::try_from(last).map(|last| last + 1).map_err(|_| corrupt("seq")))
}

/// The entries that fit the filter, oldest first: at most `limit` and [`LIST_LEN_MAX`].
///
/// # Errors
/// The database fails or holds a row that was not written by this program.
pub fn list(conn: &Connection, filter: &AuditFilter, limit: usize) -> Result<Vec<AuditEntry>, GovernanceError> {
    let mut conditions = vec!["seq >= ?".to_owned()];
    let mut params = vec![Value::Integer(to_sql(filter.from_seq)?)];
    let mut require = |condition: &str, values: Vec<Value>| {
        conditions.push(condition.to_owned());
        params.extend(values);
    };
    if let Some(item) = &filter.item {
        let condition = "seq IN (SELECT seq FROM audit_objects WHERE item = ?)";
        require(condition, vec![Value::Blob(item.as_bytes().to_vec())]);
    }
    if let Some(by) = &filter.by {
        let names = by.names();
        require("(actor = ? OR actor GLOB ?)", vec![Value::Text(names.exact), Value::Text(names.glob)]);
    }
    if let Some(action) = &filter.action {
        require("action = ?", vec![Value::Text(action.clone())]);
    }
    if let Some(since) = filter.since {
        require("at >= ?", vec![Value::Integer(since.unix_ms())]);
    }
    if let Some(until) = filter.until {
        require("at < ?", vec![Value::Integer(until.unix_ms())]);
    }
    let limit = limit.min(LIST_LEN_MAX);
    let sql =
        format!("SELECT {COLUMNS} FROM audit_entries WHERE {} ORDER BY seq LIMIT {limit}", conditions.join(" AND "));
    let failed = || GovernanceError::database("read the audit log");
    let mut statement = conn.prepare_cached(&sql).map_err(failed())?;
    let mut rows = statement.query(params_from_iter(params)).map_err(failed())?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next().map_err(failed())? {
        let (seq, fields, _commitment) = from_row(row)?;
        let details = fields.details.map(|json| serde_json::from_str(&json)).transpose();
        entries.push(AuditEntry {
            seq,
            at: fields.at,
            actor: fields.actor,
            action: fields.action,
            objects: parse_objects(fields.objects.as_deref())?,
            cube: fields.cube,
            outcome: fields.outcome,
            reason: fields.reason,
            details: details.map_err(|_| corrupt("details"))?,
        });
    }
    Ok(entries)
}

pub(super) const COLUMNS: &str = "seq, at, actor, action, objects, cube, outcome, reason, details, commitment";

/// Number, fields and commitment of a row of [`COLUMNS`].
pub(super) fn from_row(row: &Row<'_>) -> Result<(u64, StoredFields, [u8; 32]), GovernanceError> {
    let failed = || GovernanceError::database("read an audit entry");
    let seq = u64::try_from(row.get::<_, i64>(0).map_err(failed())?).map_err(|_| corrupt("seq"))?;
    let fields = StoredFields {
        at: Timestamp::from_unix_ms(row.get(1).map_err(failed())?).ok_or_else(|| corrupt("at"))?,
        actor: row.get(2).map_err(failed())?,
        action: row.get(3).map_err(failed())?,
        objects: row.get(4).map_err(failed())?,
        cube: CubeId::from_bytes(row.get(5).map_err(failed())?),
        outcome: row.get::<_, String>(6).map_err(failed())?.parse::<Outcome>().map_err(|_| corrupt("outcome"))?,
        reason: row.get(7).map_err(failed())?,
        details: row.get(8).map_err(failed())?,
    };
    Ok((seq, fields, row.get(9).map_err(failed())?))
}

pub(super) fn parse_objects(bytes: Option<&[u8]>) -> Result<Vec<ItemId>, GovernanceError> {
    let (ids, rest) = bytes.unwrap_or_default().as_chunks::<16>();
    if rest.is_empty() { Ok(ids.iter().copied().map(ItemId::from_bytes).collect()) } else { Err(corrupt("objects")) }
}

/// A number of an entry as SQLite keeps it.
pub(super) fn to_sql(seq: u64) -> Result<i64, GovernanceError> {
    i64::try_from(seq).map_err(|_| GovernanceError::TooLarge {
        field: "the number of an audit entry",
        actual: usize::MAX,
        limit: usize::try_from(i64::MAX).unwrap_or(usize::MAX),
    })
}

/// A place in a level of the tree as SQLite keeps it; places are below the size, which [`to_sql`] checked.
pub(super) fn place_to_sql(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

pub(super) fn corrupt(column: &'static str) -> GovernanceError {
    GovernanceError::CorruptRow { table: "audit_entries", column }
}
