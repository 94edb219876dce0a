//! Erasure of grants: those on a memory that is erased, and the name of a subject that is to be forgotten.

use rusqlite::{Connection, params};

use super::actor::{Actor, Subject};
use super::error::GovernanceError;
use super::grant_rows;
use super::grants::GrantId;
use crate::{CubeId, ItemId, Timestamp};

/// Removes every row about an item, as a part of its erasure. Returns how many there were.
///
/// # Errors
/// The database fails.
pub fn erase_for_item(conn: &Connection, cube: &CubeId, item: &ItemId) -> Result<usize, GovernanceError> {
    let action = "erase the grants of a memory";
    let key = params![&cube.as_bytes()[..], &item.as_bytes()[..]];
    // The store may run without foreign keys enforced, so the links are removed here and not by a cascade.
    conn.execute(
        "DELETE FROM grant_parents WHERE child IN (SELECT id FROM grants WHERE cube = ?1 AND item = ?2)
            OR parent IN (SELECT id FROM grants WHERE cube = ?1 AND item = ?2)",
        key,
    )
    .map_err(GovernanceError::database(action))?;
    conn.execute("DELETE FROM grants WHERE cube = ?1 AND item = ?2", key).map_err(GovernanceError::database(action))
}

/// Removes every grant of the cube with its history, as a cube from elsewhere is taken in: whom its former owner
/// trusted is nobody here. Returns how many there were.
///
/// # Errors
/// The database fails.
pub fn erase_all(conn: &Connection, cube: &CubeId) -> Result<usize, GovernanceError> {
    let action = "erase the grants of a cube";
    conn.execute(
        "DELETE FROM grant_parents WHERE child IN (SELECT id FROM grants WHERE cube = ?1)
            OR parent IN (SELECT id FROM grants WHERE cube = ?1)",
        [&cube.as_bytes()[..]],
    )
    .map_err(GovernanceError::database(action))?;
    conn.execute("DELETE FROM grants WHERE cube = ?1", [&cube.as_bytes()[..]])
        .map_err(GovernanceError::database(action))
}

/// Erases the name of a subject from all grants of the cube: what was given to it ends and is removed, what it gave
/// ends as well. Returns how many rows were touched.
///
/// # Errors
/// The database fails.
pub fn erase_subject(
    conn: &Connection,
    cube: &CubeId,
    subject: &Subject,
    by: &Actor,
    now: Timestamp,
) -> Result<usize, GovernanceError> {
    let action = "erase a subject's grants";
    let names = subject.names();
    let ids: Vec<i64> = conn
        .prepare(
            "SELECT id FROM grants WHERE cube = ?1 AND (subject = ?2 OR subject GLOB ?3 OR granted_by = ?2 OR granted_by GLOB ?3
             OR revoked_by = ?2 OR revoked_by GLOB ?3)",
        )
        .and_then(|mut statement| {
            let key = params![&cube.as_bytes()[..], names.exact, names.glob];
            statement.query_map(key, |row| row.get(0))?.collect()
        })
        .map_err(GovernanceError::database(action))?;
    let by = by.to_string();
    for &id in &ids {
        grant_rows::revoke_with_descendants(conn, GrantId(id), &by, now)?;
        let key = params![id, names.exact, names.glob];
        for sql in [
            "UPDATE grants SET granted_by = iif(granted_by = ?2 OR granted_by GLOB ?3, '', granted_by),
                revoked_by = iif(revoked_by = ?2 OR revoked_by GLOB ?3, '', revoked_by) WHERE id = ?1",
            "DELETE FROM grants WHERE id = ?1 AND (subject = ?2 OR subject GLOB ?3)",
        ] {
            conn.execute(sql, key).map_err(GovernanceError::database(action))?;
        }
    }
    conn.execute(
        "DELETE FROM grant_parents WHERE parent NOT IN (SELECT id FROM grants) OR child NOT IN (SELECT id FROM grants)",
        [],
    )
    .map_err(GovernanceError::database(action))?;
    Ok(ids.len())
}
