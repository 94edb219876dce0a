//! The memory graph as it is written and looked up: edges between memories, the names they mention, and relations
//! between those names. `traverse` walks it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use rusqlite::{OptionalExtension, Row, params};

use super::StoreError;
use super::items::{ItemRow, NUM_ITEMS_PER_CALL_MAX, Reader};
use super::write::WriteTransaction;
use crate::{ItemId, MemoryError, Timestamp};

/// How one memory is linked to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EdgeKind {
    /// The first was made from the second.
    DerivedFrom,
    /// The first lives on in the second.
    MergedInto,
    /// The first says what is so instead of the second.
    Supersedes,
}

impl EdgeKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::DerivedFrom, Self::MergedInto, Self::Supersedes];

    /// The name in the file and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DerivedFrom => "derived_from",
            Self::MergedInto => "merged_into",
            Self::Supersedes => "supersedes",
        }
    }
}

impl fmt::Display for EdgeKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for EdgeKind {
    type Err = MemoryError;

    fn from_str(name: &str) -> Result<Self, MemoryError> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == name);
        known.ok_or_else(|| MemoryError::UnknownName {
            what: "a kind of edge",
            name: name.chars().take(64).collect(),
            known: "derived_from, merged_into, supersedes",
        })
    }
}

/// A link between two memories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Where it begins.
    pub from: ItemId,
    /// Where it leads.
    pub to: ItemId,
    /// How they are linked.
    pub kind: EdgeKind,
    /// Since when it is recorded.
    pub recorded_at: Timestamp,
    /// When it was taken back; `None`: it holds.
    pub ended_at: Option<Timestamp>,
}

/// A name that memories mention, in this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId(pub(super) i64);

impl EntityId {
    /// The number that stands for it in this store.
    pub fn get(self) -> i64 {
        self.0
    }
}

/// A name that memories mention: a person, a place, a thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Which.
    pub id: EntityId,
    /// As the oldest memory that mentions it spells it.
    pub name: String,
}

/// The form under which spellings of a name are the same: lower case, single spaces.
pub fn fold_name(name: &str) -> String {
    name.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

impl Reader<'_> {
    /// The edges at a memory in both directions, newest first, ended ones included.
    ///
    /// # Errors
    /// When the file cannot be read; so for every read here.
    pub fn edges_of(&self, id: ItemId, limit: usize) -> Result<Vec<Edge>, StoreError> {
        let sql = "SELECT a.id, b.id, e.kind, e.recorded_at, e.ended_at FROM edges AS e
                   JOIN items AS a ON a.row = e.from_row JOIN items AS b ON b.row = e.to_row
                   WHERE e.from_row = ?1 OR e.to_row = ?1 ORDER BY e.edge DESC LIMIT ?2";
        let Some(row) = self.row_of(id)? else { return Ok(Vec::new()) };
        let mut statement = self.connection().prepare_cached(sql)?;
        let mut rows = statement.query([row.get(), super::items::checked_limit(limit)?])?;
        let mut edges = Vec::new();
        while let Some(row) = rows.next()? {
            edges.push(edge_from(row)?);
        }
        Ok(edges)
    }

    /// The name as it is known here, whatever its case. That it is known tells that some memory mentions it, so what
    /// a caller may learn of it is decided by the memories behind it.
    pub fn entity(&self, name: &str) -> Result<Option<Entity>, StoreError> {
        let mut statement = self.connection().prepare_cached("SELECT entity, name FROM entities WHERE folded = ?")?;
        Ok(statement.query_row([fold_name(name)], entity_from).optional()?)
    }

    /// The names that a memory mentions at that moment, or now.
    pub fn entities_of(&self, id: ItemId, at: Option<Timestamp>) -> Result<Vec<Entity>, StoreError> {
        let Some(row) = self.row_of(id)? else { return Ok(Vec::new()) };
        let sql = "SELECT DISTINCT e.entity, e.name FROM mentions AS m JOIN entities AS e ON e.entity = m.entity
                   WHERE m.row = ?1 AND m.recorded_at <= ?2 AND (m.ended_at IS NULL OR m.ended_at > ?2)
                   ORDER BY e.entity";
        let mut statement = self.connection().prepare_cached(sql)?;
        let entities = statement.query_map([row.get(), unix_ms(at)], entity_from)?;
        Ok(entities.collect::<Result<_, _>>()?)
    }

    /// The rows of the memories that mention a name at that moment, or now; the newest first.
    pub fn mentions_of(
        &self,
        entity: EntityId,
        at: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<ItemRow>, StoreError> {
        let sql = "SELECT DISTINCT row FROM mentions WHERE entity = ?1 AND recorded_at <= ?2
                   AND (ended_at IS NULL OR ended_at > ?2) ORDER BY row DESC LIMIT ?3";
        let mut statement = self.connection().prepare_cached(sql)?;
        let limit = limit.min(NUM_ITEMS_PER_CALL_MAX) as i64;
        let rows = statement.query_map([entity.0, unix_ms(at), limit], |row| row.get(0).map(ItemRow::from_number))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn has_open_edge(&self, from: ItemRow, to: ItemRow, kind: EdgeKind) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM edges WHERE from_row = ? AND to_row = ? AND kind = ? AND ended_at IS NULL";
        let mut statement = self.connection().prepare_cached(sql)?;
        Ok(statement.exists(params![from.get(), to.get(), kind.as_str()])?)
    }

    /// Whether `row` is `by`, or is superseded by it directly or through others.
    pub(super) fn is_superseded(&self, row: ItemRow, by: ItemRow) -> Result<bool, StoreError> {
        let sql = "WITH RECURSIVE newer (row) AS (SELECT ?1 UNION SELECT e.from_row FROM edges AS e JOIN newer
                   ON e.to_row = newer.row WHERE e.kind = 'supersedes' AND e.ended_at IS NULL)
                   SELECT 1 FROM newer WHERE row = ?2";
        Ok(self.connection().prepare_cached(sql)?.exists([row.get(), by.get()])?)
    }
}

impl WriteTransaction<'_> {
    pub(super) fn insert_edge(&self, from: ItemRow, to: ItemRow, kind: EdgeKind) -> Result<(), StoreError> {
        let sql = "INSERT INTO edges (from_row, to_row, kind, recorded_at) VALUES (?, ?, ?, ?)";
        let mut statement = self.connection().prepare_cached(sql)?;
        statement.execute(params![from.get(), to.get(), kind.as_str(), self.now().unix_ms()])?;
        Ok(())
    }

    pub(super) fn end_edge(&self, from: ItemRow, to: ItemRow, kind: EdgeKind) -> Result<(), StoreError> {
        let sql = "UPDATE edges SET ended_at = ? WHERE from_row = ? AND to_row = ? AND kind = ? AND ended_at IS NULL";
        let mut statement = self.connection().prepare_cached(sql)?;
        statement.execute(params![self.now().unix_ms(), from.get(), to.get(), kind.as_str()])?;
        Ok(())
    }

    /// The entity of a name, made where there is none.
    pub(super) fn entity_for(&self, name: &str) -> Result<EntityId, StoreError> {
        let folded = fold_name(name);
        let mut find = self.connection().prepare_cached("SELECT entity FROM entities WHERE folded = ?")?;
        if let Some(entity) = find.query_row([&folded], |row| row.get(0).map(EntityId)).optional()? {
            return Ok(entity);
        }
        let mut insert = self.connection().prepare_cached("INSERT INTO entities (folded, name) VALUES (?, ?)")?;
        insert.execute([folded.as_str(), name])?;
        Ok(EntityId(self.connection().last_insert_rowid()))
    }

    /// Makes the open mentions of a memory follow its entities.
    pub(super) fn sync_mentions(&self, row: ItemRow, before: &[String], after: &[String]) -> Result<(), StoreError> {
        let now = self.now().unix_ms();
        for name in before.iter().filter(|name| !after.contains(name)) {
            let sql = "UPDATE mentions SET ended_at = ? WHERE row = ? AND spelling = ? AND ended_at IS NULL";
            self.connection().prepare_cached(sql)?.execute(params![now, row.get(), name])?;
        }
        for name in after.iter().filter(|name| !before.contains(name)) {
            self.insert_mention(row, name, now, None)?;
        }
        Ok(())
    }

    /// Writes the mentions of a memory anew from its versions, after their contents were rewritten.
    pub(super) fn rebuild_mentions(&self, row: ItemRow, id: ItemId) -> Result<(), StoreError> {
        self.connection().prepare_cached("DELETE FROM mentions WHERE row = ?")?.execute([row.get()])?;
        // Name, and since when it is mentioned without a break.
        let mut open: Vec<(String, i64)> = Vec::new();
        for version in self.history(id)? {
            let (moment, names) = (version.item.recorded_at.unix_ms(), version.item.entities);
            let (still, ended): (Vec<_>, Vec<_>) = open.into_iter().partition(|(name, _since)| names.contains(name));
            for (name, since) in ended {
                self.insert_mention(row, &name, since, Some(moment))?;
            }
            open = still;
            for name in names {
                if !open.iter().any(|(known, _since)| *known == name) {
                    open.push((name, moment));
                }
            }
        }
        for (name, since) in open {
            self.insert_mention(row, &name, since, None)?;
        }
        Ok(())
    }

    /// The entities that a memory has to do with: by mention, or by a relation that it is the source of.
    pub(super) fn entities_touched_by(&self, row: ItemRow) -> Result<BTreeSet<i64>, StoreError> {
        let sql = "SELECT entity FROM mentions WHERE row = ?1 UNION SELECT from_entity FROM relations WHERE
                   source_row = ?1 UNION SELECT to_entity FROM relations WHERE source_row = ?1";
        let mut statement = self.connection().prepare_cached(sql)?;
        let entities = statement.query_map([row.get()], |row| row.get(0))?;
        Ok(entities.collect::<Result<_, _>>()?)
    }

    /// Removes those of the entities that nothing mentions any more, and spells the others as a memory that is left
    /// does. Returns how many were removed.
    pub(super) fn drop_unmentioned(&self, entities: &BTreeSet<i64>) -> Result<u64, StoreError> {
        let mut num_removed = 0;
        for &entity in entities {
            let sql = "DELETE FROM entities WHERE entity = ?1 AND NOT EXISTS (SELECT 1 FROM mentions WHERE entity = ?1)
                       AND NOT EXISTS (SELECT 1 FROM relations WHERE from_entity = ?1)
                       AND NOT EXISTS (SELECT 1 FROM relations WHERE to_entity = ?1)";
            num_removed += self.connection().prepare_cached(sql)?.execute([entity])? as u64;
            let sql = "UPDATE entities SET name = coalesce((SELECT spelling FROM mentions WHERE entity = ?1
                       ORDER BY row, mention LIMIT 1), folded) WHERE entity = ?1";
            self.connection().prepare_cached(sql)?.execute([entity])?;
        }
        Ok(num_removed)
    }

    fn insert_mention(&self, row: ItemRow, name: &str, since: i64, until: Option<i64>) -> Result<(), StoreError> {
        let entity = self.entity_for(name)?;
        let sql = "INSERT INTO mentions (row, entity, spelling, recorded_at, ended_at) VALUES (?, ?, ?, ?, ?)";
        self.connection().prepare_cached(sql)?.execute(params![row.get(), entity.0, name, since, until])?;
        Ok(())
    }
}

/// A moment for a condition: one that is later than all others stands for now.
pub(super) fn unix_ms(at: Option<Timestamp>) -> i64 {
    at.map_or(i64::MAX - 1, Timestamp::unix_ms)
}

pub(super) fn entity_from(row: &Row<'_>) -> rusqlite::Result<Entity> {
    Ok(Entity { id: EntityId(row.get(0)?), name: row.get(1)? })
}

/// A moment that was written from a valid one.
pub(super) fn stored_moment(unix_ms: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_unix_ms(unix_ms).ok_or_else(|| StoreError::Damaged { reason: format!("{unix_ms} is no moment") })
}

fn edge_from(row: &Row<'_>) -> Result<Edge, StoreError> {
    let kind: String = row.get(2)?;
    Ok(Edge {
        from: ItemId::from_bytes(row.get(0)?),
        to: ItemId::from_bytes(row.get(1)?),
        kind: kind.parse().map_err(|error: MemoryError| StoreError::Damaged { reason: error.to_string() })?,
        recorded_at: stored_moment(row.get(3)?)?,
        ended_at: row.get::<_, Option<i64>>(4)?.map(stored_moment).transpose()?,
    })
}
