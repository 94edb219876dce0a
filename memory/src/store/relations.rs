//! Relations between the names that memories mention: who knows whom, what belongs where, and who may see that.

use rusqlite::{Row, params};

use super::StoreError;
use super::content::{By, checked_line, checked_scope};
use super::graph::{Entity, EntityId, stored_moment, unix_ms};
use super::items::{NUM_ITEMS_PER_CALL_MAX, Reader};
use super::write::{WriteTransaction, check_not_held};
use crate::item::{LABEL_BYTES_MAX, Scope};
use crate::{ItemId, Timestamp};

/// A relation in this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationId(i64);

impl RelationId {
    /// The number that stands for it in this store.
    pub fn get(self) -> i64 {
        self.0
    }

    /// The relation with this number; whether there is one shows when it is used.
    pub fn from_number(number: i64) -> Self {
        Self(number)
    }
}

/// Who sees a relation, beyond who may read the memory that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    /// Whoever is inside this scope.
    Private(Scope),
    /// Everybody.
    Shared,
}

impl Visibility {
    /// Whether a caller of this scope sees it.
    pub fn admits(&self, viewer: &Scope) -> bool {
        match self {
            Self::Private(owner) => owner.contains(viewer),
            Self::Shared => true,
        }
    }
}

/// A relation to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRelation {
    /// The name where it begins.
    pub from: String,
    /// The name where it leads.
    pub to: String,
    /// What it says, such as `works for`.
    pub label: String,
    /// The memory that says so.
    pub source: ItemId,
    /// Who sees it.
    pub visibility: Visibility,
}

/// A relation between two names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Which.
    pub id: RelationId,
    /// The name where it begins.
    pub from: Entity,
    /// The name where it leads.
    pub to: Entity,
    /// What it says.
    pub label: String,
    /// The memory that says so.
    pub source: ItemId,
    /// Who sees it.
    pub visibility: Visibility,
    /// Since when it is recorded.
    pub recorded_at: Timestamp,
    /// When it was taken back; `None`: it holds.
    pub ended_at: Option<Timestamp>,
}

const SELECT: &str = "SELECT r.relation, a.entity, a.name, b.entity, b.name, r.label, item.id, r.visibility,
    r.owner_user, r.owner_agent, r.owner_session, r.recorded_at, r.ended_at FROM relations AS r
    JOIN entities AS a ON a.entity = r.from_entity JOIN entities AS b ON b.entity = r.to_entity
    JOIN items AS item ON item.row = r.source_row";

impl WriteTransaction<'_> {
    /// Records a relation. One that holds already, from the same memory and for the same viewers, stays as it is.
    ///
    /// # Errors
    /// When the memory is unknown or held, a private relation has no owner, or a name is out of bounds.
    pub fn relate(&self, new: NewRelation) -> Result<RelationId, StoreError> {
        self.whole(|| {
            let (row, source) = self.load(new.source)?;
            check_not_held(&source)?;
            let label = checked_line("label", &new.label, LABEL_BYTES_MAX)?;
            let (from, to) = (checked_name("from", &new.from)?, checked_name("to", &new.to)?);
            let (visibility, owner) = match new.visibility {
                Visibility::Shared => ("shared", Scope::default()),
                Visibility::Private(owner) if owner == Scope::default() => return Err(StoreError::NoOwner),
                Visibility::Private(owner) => ("private", checked_scope(owner)?),
            };
            let (from, to) = (self.entity_for(&from)?, self.entity_for(&to)?);
            let sql = "SELECT relation FROM relations WHERE source_row = ? AND from_entity = ? AND to_entity = ?
                       AND label = ? AND visibility = ? AND owner_user IS ? AND owner_agent IS ?
                       AND owner_session IS ? AND ended_at IS NULL";
            let mut find = self.connection().prepare_cached(sql)?;
            let values =
                params![row.get(), from.get(), to.get(), label, visibility, owner.user, owner.agent, owner.session];
            let mut known = find.query(values)?;
            if let Some(known) = known.next()? {
                return Ok(RelationId(known.get(0)?));
            }
            let sql = "INSERT INTO relations (source_row, from_entity, to_entity, label, visibility, owner_user,
                       owner_agent, owner_session, recorded_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
            self.connection().prepare_cached(sql)?.execute(params![
                row.get(),
                from.get(),
                to.get(),
                label,
                visibility,
                owner.user,
                owner.agent,
                owner.session,
                self.now().unix_ms(),
            ])?;
            Ok(RelationId(self.connection().last_insert_rowid()))
        })
    }

    /// Takes a relation back. It stays visible to reads of earlier moments; one that has ended stays as it is.
    ///
    /// # Errors
    /// When there is no such relation, or the memory that it comes from is held.
    pub fn end_relation(&self, id: RelationId, by: By<'_>) -> Result<(), StoreError> {
        self.whole(|| {
            by.check()?;
            let relation = self.relation(id)?.ok_or(StoreError::UnknownRelation { id: id.0 })?;
            let (_row, source) = self.load(relation.source)?;
            check_not_held(&source)?;
            let sql = "UPDATE relations SET ended_at = ? WHERE relation = ? AND ended_at IS NULL";
            self.connection().prepare_cached(sql)?.execute([self.now().unix_ms(), id.0])?;
            Ok(())
        })
    }
}

impl Reader<'_> {
    /// One relation, whoever may see it.
    ///
    /// # Errors
    /// When the file cannot be read; so for every read here.
    pub fn relation(&self, id: RelationId) -> Result<Option<Relation>, StoreError> {
        let mut statement = self.connection().prepare_cached(&format!("{SELECT} WHERE r.relation = ?"))?;
        let mut rows = statement.query([id.0])?;
        rows.next()?.map(relation_from).transpose()
    }

    /// The relations at a name, in both directions, that a caller of this scope sees, at that moment or now; the
    /// newest first. Whether the caller may read the memories that they come from is not decided here.
    pub fn relations_of(
        &self,
        entity: EntityId,
        viewer: &Scope,
        at: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<Relation>, StoreError> {
        let sql = format!(
            "{SELECT} WHERE (r.from_entity = ?1 OR r.to_entity = ?1) AND r.recorded_at <= ?2
             AND (r.ended_at IS NULL OR r.ended_at > ?2) AND (r.visibility = 'shared' OR (
                 (r.owner_user IS NULL OR r.owner_user = ?3) AND (r.owner_agent IS NULL OR r.owner_agent = ?4)
                 AND (r.owner_session IS NULL OR r.owner_session = ?5)))
             ORDER BY r.relation DESC LIMIT ?6"
        );
        let mut statement = self.connection().prepare_cached(&sql)?;
        let limit = limit.min(NUM_ITEMS_PER_CALL_MAX) as i64;
        let values = params![entity.get(), unix_ms(at), viewer.user, viewer.agent, viewer.session, limit];
        let mut rows = statement.query(values)?;
        let mut relations = Vec::new();
        while let Some(row) = rows.next()? {
            relations.push(relation_from(row)?);
        }
        Ok(relations)
    }
}

fn checked_name(field: &'static str, name: &str) -> Result<String, StoreError> {
    checked_line(field, name, LABEL_BYTES_MAX)
}

fn relation_from(row: &Row<'_>) -> Result<Relation, StoreError> {
    let visibility: String = row.get(7)?;
    let visibility = match visibility.as_str() {
        "shared" => Visibility::Shared,
        // Whatever else it may say, it was not to be seen by everybody.
        _ => Visibility::Private(Scope { user: row.get(8)?, agent: row.get(9)?, session: row.get(10)? }),
    };
    Ok(Relation {
        id: RelationId(row.get(0)?),
        from: Entity { id: EntityId(row.get(1)?), name: row.get(2)? },
        to: Entity { id: EntityId(row.get(3)?), name: row.get(4)? },
        label: row.get(5)?,
        source: ItemId::from_bytes(row.get(6)?),
        visibility,
        recorded_at: stored_moment(row.get(11)?)?,
        ended_at: row.get::<_, Option<i64>>(12)?.map(stored_moment).transpose()?,
    })
}
