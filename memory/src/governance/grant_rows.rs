//! The rows of the grants: the statements that read and write them, and the checks of what is read.

use rusqlite::{Connection, Row, params};

use super::actor::Actor;
use super::error::GovernanceError;
use super::grants::{Grant, GrantId, NUM_GRANTS_MAX, NewGrant};
use super::rights::Right;
use crate::{CubeId, ItemId, Timestamp};

/// The columns that [`select`] expects, in its order.
pub(super) const COLUMNS: &str =
    "id, item, subject, access, granted_by, granted_at, expires_at, revoked_at, revoked_by";

/// One grant in force, as far as giving on its strength needs it.
pub(super) struct HeldGrant {
    pub(super) id: GrantId,
    pub(super) item: Option<ItemId>,
    pub(super) right: Right,
    pub(super) expires_at: Option<Timestamp>,
}

pub(super) fn held_grants(
    conn: &Connection,
    cube: &CubeId,
    actor: &Actor,
    now: Timestamp,
) -> Result<Vec<HeldGrant>, GovernanceError> {
    let action = "read grants";
    let mut statement = conn
        .prepare_cached(
            "SELECT id, item, access, expires_at FROM grants WHERE cube = ?1 AND subject = ?2 AND revoked_at IS NULL
             AND (expires_at IS NULL OR expires_at > ?3)",
        )
        .map_err(GovernanceError::database(action))?;
    let mut held = Vec::new();
    for subject in actor.subjects() {
        let mut rows = statement
            .query(params![&cube.as_bytes()[..], subject.to_string(), now.unix_ms()])
            .map_err(GovernanceError::database(action))?;
        while let Some(row) = rows.next().map_err(GovernanceError::database(action))? {
            let failed = || GovernanceError::database(action);
            held.push(HeldGrant {
                id: GrantId(row.get(0).map_err(failed())?),
                item: row.get::<_, Option<[u8; 16]>>(1).map_err(failed())?.map(ItemId::from_bytes),
                right: row.get::<_, String>(2).map_err(failed())?.parse().map_err(|_| corrupt("access"))?,
                expires_at: to_moment(row.get(3).map_err(failed())?, "expires_at")?,
            });
        }
    }
    Ok(held)
}

pub(super) fn revoke_with_descendants(
    conn: &Connection,
    id: GrantId,
    by: &str,
    now: Timestamp,
) -> Result<Vec<GrantId>, GovernanceError> {
    conn.prepare_cached(
        "WITH RECURSIVE ended (id) AS (
            VALUES (?1) UNION SELECT child FROM grant_parents JOIN ended ON grant_parents.parent = ended.id
         )
         UPDATE grants SET revoked_at = ?2, revoked_by = ?3
         WHERE id IN (SELECT id FROM ended) AND revoked_at IS NULL RETURNING id",
    )
    .and_then(|mut statement| {
        statement.query_map(params![id.0, now.unix_ms(), by], |row| row.get(0).map(GrantId))?.collect()
    })
    .map_err(GovernanceError::database("revoke a grant"))
}

pub(super) fn check_number(conn: &Connection, cube: &CubeId, now: Timestamp) -> Result<(), GovernanceError> {
    let in_force: i64 = conn
        .prepare_cached(
            "SELECT count(*) FROM grants WHERE cube = ?1 AND revoked_at IS NULL
             AND (expires_at IS NULL OR expires_at > ?2)",
        )
        .and_then(|mut statement| statement.query_row(params![&cube.as_bytes()[..], now.unix_ms()], |row| row.get(0)))
        .map_err(GovernanceError::database("count the grants"))?;
    if usize::try_from(in_force).is_ok_and(|in_force| in_force < NUM_GRANTS_MAX) {
        return Ok(());
    }
    Err(GovernanceError::TooManyGrants { limit: NUM_GRANTS_MAX })
}

pub(super) fn insert(
    conn: &Connection,
    cube: &CubeId,
    new: &NewGrant,
    granted_by: &str,
    now: Timestamp,
    expires_at: Option<Timestamp>,
) -> Result<i64, GovernanceError> {
    conn.prepare_cached(
        "INSERT INTO grants (cube, item, subject, access, granted_by, granted_at, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .and_then(|mut statement| {
        statement.insert(params![
            &cube.as_bytes()[..],
            new.object.item().map(|item| &item.as_bytes()[..]),
            new.subject.to_string(),
            new.right.as_str(),
            granted_by,
            now.unix_ms(),
            expires_at.map(Timestamp::unix_ms),
        ])
    })
    .map_err(GovernanceError::database("write a grant"))
}

pub(super) fn find_same(
    conn: &Connection,
    cube: &CubeId,
    new: &NewGrant,
    granted_by: &str,
    expires_at: Option<Timestamp>,
) -> Result<Option<Grant>, GovernanceError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM grants WHERE cube = ?1 AND item IS ?2 AND subject = ?3 AND access = ?4
         AND granted_by = ?5 AND expires_at IS ?6 AND revoked_at IS NULL LIMIT 1"
    );
    let found = select(
        conn,
        &sql,
        params![
            &cube.as_bytes()[..],
            new.object.item().map(|item| &item.as_bytes()[..]),
            new.subject.to_string(),
            new.right.as_str(),
            granted_by,
            expires_at.map(Timestamp::unix_ms),
        ],
    )?;
    Ok(found.into_iter().next())
}

pub(super) fn get(conn: &Connection, cube: &CubeId, id: GrantId) -> Result<Option<Grant>, GovernanceError> {
    let sql = format!("SELECT {COLUMNS} FROM grants WHERE cube = ?1 AND id = ?2");
    Ok(select(conn, &sql, params![&cube.as_bytes()[..], id.0])?.into_iter().next())
}

pub(super) fn select(
    conn: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<Grant>, GovernanceError> {
    let action = "read grants";
    let mut statement = conn.prepare_cached(sql).map_err(GovernanceError::database(action))?;
    let mut rows = statement.query(params).map_err(GovernanceError::database(action))?;
    let mut grants = Vec::new();
    while let Some(row) = rows.next().map_err(GovernanceError::database(action))? {
        grants.push(from_row(row)?);
    }
    Ok(grants)
}

fn from_row(row: &Row<'_>) -> Result<Grant, GovernanceError> {
    let failed = || GovernanceError::database("read a grant");
    Ok(Grant {
        id: GrantId(row.get(0).map_err(failed())?),
        item: row.get::<_, Option<[u8; 16]>>(1).map_err(failed())?.map(ItemId::from_bytes),
        subject: row.get::<_, String>(2).map_err(failed())?.parse().map_err(|_| corrupt("subject"))?,
        right: row.get::<_, String>(3).map_err(failed())?.parse().map_err(|_| corrupt("access"))?,
        granted_by: row.get(4).map_err(failed())?,
        granted_at: to_moment(row.get(5).map_err(failed())?, "granted_at")?.ok_or_else(|| corrupt("granted_at"))?,
        expires_at: to_moment(row.get(6).map_err(failed())?, "expires_at")?,
        revoked_at: to_moment(row.get(7).map_err(failed())?, "revoked_at")?,
        revoked_by: row.get(8).map_err(failed())?,
    })
}

fn to_moment(unix_ms: Option<i64>, column: &'static str) -> Result<Option<Timestamp>, GovernanceError> {
    unix_ms.map(|unix_ms| Timestamp::from_unix_ms(unix_ms).ok_or_else(|| corrupt(column))).transpose()
}

fn corrupt(column: &'static str) -> GovernanceError {
    GovernanceError::CorruptRow { table: "grants", column }
}
