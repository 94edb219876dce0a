//! What one actor may do with the items of one cube: the SQL condition that a query joins, and its twin in memory.
//!
//! Two ways lead to an item. The owner's role reaches every item whose scope fits what the actor asserted: who speaks
//! for the user `ann` reaches what belongs to `ann` or to nobody in particular. A grant reaches the whole cube or one
//! item whatever the scope, since scopes of the owner mean nothing in another tenant.

use rusqlite::types::Value;

use super::Role;
use super::TenantName;
use super::actor::Actor;
use super::grants::GrantSet;
use super::rights::{Right, RightSet};
use crate::item::Scope;
use crate::{CubeId, ItemId, Timestamp};

/// What governance has to know of a cube.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CubeRef {
    /// Which cube.
    pub id: CubeId,
    /// What its owner calls it; operators' policies may ask for it.
    pub name: String,
    /// Whose it is.
    pub owner: TenantName,
}

/// The rights that a role has on the cubes of its own tenant.
pub fn role_rights(role: Role) -> RightSet {
    match role {
        Role::Admin => Right::Admin.included(),
        Role::User => Right::Write.included(),
        Role::Reader => Right::Read.included(),
    }
}

/// How far an allowed action reaches into the cube.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// To every item that the actor's scope or a grant on the cube reaches.
    Cube,
    /// To items that were granted one by one.
    GrantedItems,
}

/// Which items of a cube one actor may use with one right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemAccess {
    right: Right,
    reach: Reach,
    grants: GrantSet,
    cube: CubeId,
    subjects: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reach {
    /// Every item.
    All,
    /// Items of no user and no agent, or of these.
    Scoped { user: Option<String>, agent: Option<String> },
    /// None but what is granted item by item.
    Granted,
}

/// The names that the items' columns have in the query which the condition is a part of. The id is a 16-byte BLOB; the
/// scope columns are TEXT or null.
#[derive(Debug, Clone, Copy)]
pub struct ItemColumns {
    /// Such as `items.id`.
    pub id: &'static str,
    /// Such as `items.user`.
    pub user: &'static str,
    /// Such as `items.agent`.
    pub agent: &'static str,
}

/// A condition for a WHERE clause, in parentheses, with its numbered parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlCondition {
    /// The condition; its first parameter has the number that was asked for, the others follow.
    pub sql: String,
    /// The values of the parameters in their order.
    pub params: Vec<Value>,
}

impl ItemAccess {
    pub(super) fn new(actor: &Actor, cube: &CubeRef, right: Right, extent: Extent, grants: GrantSet) -> Self {
        let reach = match extent {
            Extent::GrantedItems => Reach::Granted,
            Extent::Cube if grants.on_cube().contains(right) => Reach::All,
            Extent::Cube => Self::by_role(actor, cube).reach,
        };
        let subjects = actor.subjects().iter().map(ToString::to_string).collect();
        Self { right, reach, grants, cube: cube.id, subjects }
    }

    /// What the role alone reaches, without any grant.
    pub(super) fn by_role(actor: &Actor, cube: &CubeRef) -> Self {
        let (user, agent) = (actor.user().map(str::to_owned), actor.agent().map(str::to_owned));
        let reach = if cube.owner != *actor.tenant() {
            Reach::Granted
        } else if user.is_none() && agent.is_none() {
            Reach::All
        } else {
            Reach::Scoped { user, agent }
        };
        Self { right: Right::Read, reach, grants: GrantSet::default(), cube: cube.id, subjects: Vec::new() }
    }

    /// Whether the item may be used. The scope is the stored one, never one that a request claims.
    pub fn allows(&self, id: &ItemId, scope: &Scope) -> bool {
        self.reaches(scope) || self.grants.on_item(id).contains(self.right)
    }

    /// Whether an item may be made with this scope: only what the actor would reach afterwards without a grant on it.
    pub fn allows_new(&self, scope: &Scope) -> bool {
        self.reaches(scope)
    }

    /// Whether every item of the cube may be used, those to come included.
    pub fn is_whole_cube(&self) -> bool {
        self.reach == Reach::All
    }

    fn reaches(&self, scope: &Scope) -> bool {
        let fits =
            |wanted: &Option<String>, stored: &Option<String>| wanted.is_none() || stored.is_none() || wanted == stored;
        match &self.reach {
            Reach::All => true,
            Reach::Scoped { user, agent } => fits(user, &scope.user) && fits(agent, &scope.agent),
            Reach::Granted => false,
        }
    }

    /// When the access must be decided anew although no grant was changed, because one ends by itself.
    pub fn valid_until(&self) -> Option<Timestamp> {
        self.grants.valid_until()
    }

    /// The condition under which a row is one that [`ItemAccess::allows`]; item grants are looked up in the same
    /// query, so that one which was revoked or has ended since does not count. Needs the tables of
    /// [`super::grants::SCHEMA`].
    pub fn sql(&self, columns: ItemColumns, first_param: usize, now: Timestamp) -> SqlCondition {
        let mut params: Vec<Value> = Vec::new();
        let mut bind = |value: Value| {
            params.push(value);
            format!("?{}", first_param + params.len() - 1)
        };
        let reached = match &self.reach {
            Reach::All => return SqlCondition { sql: "(1)".to_owned(), params: Vec::new() },
            Reach::Granted => "0".to_owned(),
            Reach::Scoped { user, agent } => {
                let mut parts = Vec::new();
                for (column, wanted) in [(columns.user, user), (columns.agent, agent)] {
                    if let Some(wanted) = wanted {
                        let wanted = bind(Value::Text(wanted.clone()));
                        parts.push(format!("({column} IS NULL OR {column} = {wanted})"));
                    }
                }
                parts.join(" AND ")
            }
        };
        // What the role caps is left out of the set that was loaded; an empty set needs no look at the rows.
        if !self.grants.on_some_item().contains(self.right) {
            return SqlCondition { sql: format!("({reached})"), params };
        }
        let cube = bind(Value::Blob(self.cube.as_bytes().to_vec()));
        let now = bind(Value::Integer(now.unix_ms()));
        let subjects: Vec<String> = self.subjects.iter().map(|name| bind(Value::Text(name.clone()))).collect();
        let giving: Vec<String> = Right::ALL
            .into_iter()
            .filter(|held| held.included().contains(self.right))
            .map(|held| format!("'{held}'"))
            .collect();
        let sql = format!(
            "({reached} OR EXISTS (SELECT 1 FROM grants AS item_grant WHERE item_grant.cube = {cube}
             AND item_grant.item = {id} AND item_grant.subject IN ({subjects}) AND item_grant.access IN ({giving})
             AND item_grant.revoked_at IS NULL
             AND (item_grant.expires_at IS NULL OR item_grant.expires_at > {now})))",
            id = columns.id,
            subjects = subjects.join(", "),
            giving = giving.join(", "),
        );
        SqlCondition { sql, params }
    }
}
