//! Grants: which rights on a cube or on one item were given to whom. Rows live in the cube's own database, so that a
//! search joins them; [`super::access::ItemAccess`] is what one actor gets out of them.
//!
//! A grant that was given on the strength of another names it as its parent, and ends with it. So nobody passes on
//! more, or for longer, than they hold.

use std::collections::HashMap;

use rusqlite::{Connection, params};
use serde::Serialize;

use super::Role;
use super::access::{CubeRef, ItemAccess, role_rights};
use super::actor::{Actor, Subject};
use super::error::GovernanceError;
use super::grant_rows::{self, COLUMNS, select};
use super::policy::{Action, Allowed};
use super::rights::{Right, RightSet};
use crate::item::Scope;
use crate::{CubeId, ItemId, Timestamp};

pub use super::grant_erasure::{erase_all, erase_for_item, erase_subject};

/// Most grants of one cube that are in force at a time.
pub const NUM_GRANTS_MAX: usize = 100_000;
/// Most grants that one listing returns.
pub const LIST_LEN_MAX: usize = 1_000;

/// Tables of the grants. `item` is null where the whole cube is granted.
pub const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS grants (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    cube BLOB NOT NULL CHECK (length(cube) = 16),
    item BLOB CHECK (item IS NULL OR length(item) = 16),
    subject TEXT NOT NULL,
    access TEXT NOT NULL CHECK (access IN ('read', 'write', 'share', 'admin')),
    granted_by TEXT NOT NULL,
    granted_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    revoked_by TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS grants_in_force_by_subject ON grants (cube, subject, item) WHERE revoked_at IS NULL;
CREATE INDEX IF NOT EXISTS grants_by_item ON grants (cube, item);
CREATE TABLE IF NOT EXISTS grant_parents (
    parent INTEGER NOT NULL REFERENCES grants (id) ON DELETE CASCADE,
    child INTEGER NOT NULL REFERENCES grants (id) ON DELETE CASCADE,
    PRIMARY KEY (parent, child)
) STRICT, WITHOUT ROWID;
";

/// Identity of a grant within its cube; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct GrantId(pub i64);

/// What a right is given on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantObject {
    /// The cube and all its items, later ones included.
    Cube,
    /// One item.
    Item {
        /// Which.
        id: ItemId,
        /// Its scope, which decides whether the giver may see it.
        scope: Scope,
    },
}

impl GrantObject {
    pub(super) fn item(&self) -> Option<&ItemId> {
        match self {
            Self::Cube => None,
            Self::Item { id, .. } => Some(id),
        }
    }

    fn what(&self) -> &'static str {
        match self {
            Self::Cube => "cube",
            Self::Item { .. } => "memory",
        }
    }
}

/// A grant to be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGrant {
    /// On what.
    pub object: GrantObject,
    /// For whom.
    pub subject: Subject,
    /// Which right.
    pub right: Right,
    /// When it ends by itself; `None`: with the right it was given on the strength of.
    pub expires_at: Option<Timestamp>,
}

/// A grant as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// Which one.
    pub id: GrantId,
    /// The item, or `None` for the whole cube.
    pub item: Option<ItemId>,
    /// For whom.
    pub subject: Subject,
    /// Which right.
    pub right: Right,
    /// Canonical name of the giver.
    pub granted_by: String,
    /// When it was given.
    pub granted_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
    /// Canonical name of who took it back.
    pub revoked_by: Option<String>,
}

/// The grants that one actor has in one cube at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantSet {
    /// Rights on the whole cube.
    pub(super) cube: RightSet,
    /// Rights on single items.
    pub(super) items: HashMap<ItemId, RightSet>,
    /// The earliest end of one of them: until then the set may be kept, unless grants are changed.
    pub(super) valid_until: Option<Timestamp>,
}

impl GrantSet {
    /// Reads the actor's grants that are in force.
    ///
    /// # Errors
    /// The database fails or holds a row that was not written by this program.
    pub fn load(conn: &Connection, cube: &CubeRef, actor: &Actor, now: Timestamp) -> Result<Self, GovernanceError> {
        let mut set = Self::default();
        for held in grant_rows::held_grants(conn, &cube.id, actor, now)? {
            let rights = cap_by_role(held.right.included(), actor.role());
            match held.item {
                None => set.cube = set.cube.union(rights),
                Some(item) => {
                    let on_item = set.items.entry(item).or_default();
                    *on_item = on_item.union(rights);
                }
            }
            if let Some(end) = held.expires_at {
                set.valid_until = Some(set.valid_until.map_or(end, |until| until.min(end)));
            }
        }
        Ok(set)
    }

    /// Rights on the whole cube.
    pub fn on_cube(&self) -> RightSet {
        self.cube
    }

    /// Rights on one item by a grant on it alone.
    pub fn on_item(&self, item: &ItemId) -> RightSet {
        self.items.get(item).copied().unwrap_or_default()
    }

    /// Rights that are held on at least one item.
    pub fn on_some_item(&self) -> RightSet {
        self.items.values().fold(RightSet::NONE, |all, rights| all.union(*rights))
    }

    /// When the set must be read again although no grant was changed.
    pub fn valid_until(&self) -> Option<Timestamp> {
        self.valid_until
    }
}

/// Gives a right. A grant that is there already, from the same giver and with the same end, is returned as it is.
///
/// # Errors
/// The giver does not hold the right with the right to share it, the end lies in the past or after that of the
/// giver's own right, the cube holds too many grants, or the database fails.
pub fn grant(
    conn: &Connection,
    permission: &Allowed,
    giver: &Actor,
    new: &NewGrant,
    now: Timestamp,
) -> Result<Grant, GovernanceError> {
    let cube = permission.cube();
    let authority = authority_of(conn, permission, giver, new, now)?;
    let expires_at = match (new.expires_at, authority.until) {
        (Some(asked), latest) if asked <= now || latest.is_some_and(|latest| asked > latest) => {
            let never = || "never".to_owned();
            return Err(GovernanceError::GrantExpiry {
                asked: asked.to_string(),
                after: now.to_string(),
                latest: latest.map_or_else(never, |latest| latest.to_string()),
            });
        }
        (Some(asked), _) => Some(asked),
        (None, latest) => latest,
    };
    let granted_by = giver.to_string();
    if let Some(existing) = grant_rows::find_same(conn, &cube.id, new, &granted_by, expires_at)? {
        return Ok(existing);
    }
    grant_rows::check_number(conn, &cube.id, now)?;
    let id = GrantId(grant_rows::insert(conn, &cube.id, new, &granted_by, now, expires_at)?);
    for parent in authority.parents {
        conn.prepare_cached("INSERT OR IGNORE INTO grant_parents (parent, child) VALUES (?1, ?2)")
            .and_then(|mut statement| statement.execute([parent.0, id.0]))
            .map_err(GovernanceError::database("write a grant"))?;
    }
    Ok(Grant {
        id,
        item: new.object.item().copied(),
        subject: new.subject.clone(),
        right: new.right,
        granted_by,
        granted_at: now,
        expires_at,
        revoked_at: None,
        revoked_by: None,
    })
}

/// Takes a grant back, and with it all that were given on its strength. Returns those that ended now: none when it
/// was taken back before. The giver may do so, and who has the right to administer the object.
///
/// # Errors
/// There is no such grant or the actor may not know of it, the actor may not take it back, or the database fails.
pub fn revoke(
    conn: &Connection,
    cube: &CubeRef,
    actor: &Actor,
    id: GrantId,
    now: Timestamp,
) -> Result<Vec<GrantId>, GovernanceError> {
    let unknown = GovernanceError::NotFound { what: "grant" };
    let Some(grant) = grant_rows::get(conn, &cube.id, id)? else { return Err(unknown) };
    let held = GrantSet::load(conn, cube, actor, now)?;
    // A name narrows: who speaks for one user of the owner administers through grants only.
    let is_owner = cube.owner == *actor.tenant() && actor.user().is_none() && actor.agent().is_none();
    let owned = if is_owner { role_rights(actor.role()) } else { RightSet::NONE };
    let on_item = grant.item.map_or(RightSet::NONE, |item| held.on_item(&item));
    let rights = owned.union(held.on_cube()).union(on_item);
    let name = actor.to_string();
    let concerns_actor = grant.subject.includes(actor);
    if grant.granted_by != name && !rights.contains(Right::Admin) {
        let known = concerns_actor || rights.contains(Right::Share);
        return Err(if known { GovernanceError::Forbidden { action: "revoke", what: "grant" } } else { unknown });
    }
    grant_rows::revoke_with_descendants(conn, id, &name, now)
}

/// The grants of a cube in the order they were given, ended ones included: at most `limit` and [`LIST_LEN_MAX`] of
/// them after the given one. Whether the caller may see them is decided before.
///
/// # Errors
/// The database fails or holds a row that was not written by this program.
pub fn list(
    conn: &Connection,
    cube: &CubeId,
    item: Option<&ItemId>,
    after: Option<GrantId>,
    limit: usize,
) -> Result<Vec<Grant>, GovernanceError> {
    let limit = i64::try_from(limit.min(LIST_LEN_MAX)).unwrap_or(i64::MAX);
    let after = after.map_or(0, |id| id.0);
    let sql = format!(
        "SELECT {COLUMNS} FROM grants WHERE cube = ?1 AND (?2 IS NULL OR item = ?2) AND id > ?3 ORDER BY id LIMIT ?4"
    );
    select(conn, &sql, params![&cube.as_bytes()[..], item.map(|item| &item.as_bytes()[..]), after, limit])
}

/// Every grant for or by a subject, for the export of what is held about it. At most [`LIST_LEN_MAX`] after the given.
///
/// # Errors
/// The database fails or holds a row that was not written by this program.
pub fn list_about(
    conn: &Connection,
    cube: &CubeId,
    subject: &Subject,
    after: Option<GrantId>,
) -> Result<Vec<Grant>, GovernanceError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM grants WHERE cube = ?1 AND id > ?4
         AND (subject = ?2 OR subject GLOB ?3 OR granted_by = ?2 OR granted_by GLOB ?3)
         ORDER BY id LIMIT {LIST_LEN_MAX}"
    );
    let names = subject.names();
    select(conn, &sql, params![&cube.as_bytes()[..], names.exact, names.glob, after.map_or(0, |id| id.0)])
}

/// On the strength of what a grant is given, and until when that lasts.
struct Authority {
    parents: Vec<GrantId>,
    until: Option<Timestamp>,
}

fn authority_of(
    conn: &Connection,
    permission: &Allowed,
    giver: &Actor,
    new: &NewGrant,
    now: Timestamp,
) -> Result<Authority, GovernanceError> {
    let cube = permission.cube();
    let what = new.object.what();
    if permission.action() != Action::ShareItems || *permission.actor() != *giver {
        return Err(GovernanceError::Forbidden { action: Action::ShareItems.as_str(), what });
    }
    let held: Vec<grant_rows::HeldGrant> = grant_rows::held_grants(conn, &cube.id, giver, now)?
        .into_iter()
        .filter(|held| held.item.is_none() || held.item.as_ref() == new.object.item())
        .collect();
    // A name narrows: a user of the owner's shares what that user sees, and the whole cube only with a grant on it.
    let access = ItemAccess::by_role(giver, cube);
    let owned = match &new.object {
        GrantObject::Cube if access.is_whole_cube() => role_rights(giver.role()),
        GrantObject::Item { id, scope } if access.allows(id, scope) => role_rights(giver.role()),
        GrantObject::Cube | GrantObject::Item { .. } => RightSet::NONE,
    };
    let strongest = |right: Right| {
        let giving = |held: &&grant_rows::HeldGrant| cap_by_role(held.right.included(), giver.role()).contains(right);
        // A grant without an end lasts longest.
        held.iter().filter(giving).max_by_key(|held| held.expires_at.map_or(i64::MAX, Timestamp::unix_ms))
    };
    let is_reached = match &new.object {
        GrantObject::Cube => permission.access().is_whole_cube(),
        GrantObject::Item { id, scope } => permission.access().allows(id, scope),
    };
    let mut authority = Authority { parents: Vec::new(), until: None };
    for right in [new.right, Right::Share] {
        if owned.contains(right) {
            continue;
        }
        match strongest(right) {
            Some(held) => {
                authority.parents.push(held.id);
                authority.until = [authority.until, held.expires_at].into_iter().flatten().min();
            }
            // An operator's policy may let a role share that does not hold the right to: what it owns, no more, and
            // not on the strength of a right to share something else.
            None if right == Right::Share && new.right != Right::Share && owned.contains(new.right) && is_reached => {}
            None => return Err(GovernanceError::GrantExceedsHeld { right: new.right }),
        }
    }
    Ok(authority)
}

/// A reader's key only reads, whatever was granted to its tenant.
fn cap_by_role(rights: RightSet, role: Role) -> RightSet {
    match role {
        Role::Reader if rights.contains(Right::Read) => Right::Read.included(),
        Role::Reader => RightSet::NONE,
        Role::User | Role::Admin => rights,
    }
}
