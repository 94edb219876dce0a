//! Walking the memory graph: breadth first, within limits, and never through what the caller may not read.

use std::collections::{HashSet, VecDeque};

use rusqlite::params;

use super::StoreError;
use super::graph::{EdgeKind, Entity, EntityId, unix_ms};
use super::items::{ItemRow, Reader};
use crate::item::{Item, Scope};
use crate::{ItemId, MemoryError, Timestamp};

/// Most steps from the start.
pub const DEPTH_MAX: usize = 8;
/// Most nodes that one walk returns.
pub const NUM_NODES_MAX: usize = 10_000;
/// Most links of one sort that are followed at one node, the newest first: names that everything mentions would
/// otherwise be the whole walk.
pub const FANOUT_MAX: usize = 128;

/// Where a walk begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At a memory.
    Item(ItemId),
    /// At a name, whatever its case.
    Entity(String),
}

/// How far a walk goes, and for whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Walk {
    /// Where it begins; what is unknown or may not be read is left out.
    pub starts: Vec<Start>,
    /// Most steps; from memory to name is one, and from there to the next memory another. At most [`DEPTH_MAX`].
    pub depth: usize,
    /// Most nodes, the starts included. At most [`NUM_NODES_MAX`].
    pub num_nodes: usize,
    /// The graph as it was recorded at that moment; `None`: now.
    pub at: Option<Timestamp>,
    /// Who walks: decides on private relations.
    pub viewer: Scope,
}

/// What a walk comes by.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// A memory, as it was at the moment of the walk.
    Item(Box<Item>),
    /// A name.
    Entity(Entity),
}

/// How a node was come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// The walk began there.
    Start,
    /// By an edge between memories, in whichever direction.
    Edge(EdgeKind),
    /// A memory mentions the name.
    Mention,
    /// By a relation between names with this label.
    Relation(String),
}

/// A node of a walk.
#[derive(Debug, Clone, PartialEq)]
pub struct Reached {
    /// What is there.
    pub node: Node,
    /// Steps from the start.
    pub depth: usize,
    /// The last step.
    pub link: Link,
    /// Index of the node before it in [`Traversal::reached`]; `None` for a start.
    pub from: Option<usize>,
}

/// What a walk found.
#[derive(Debug, Clone, PartialEq)]
pub struct Traversal {
    /// The nodes, nearest first.
    pub reached: Vec<Reached>,
    /// Whether a limit on nodes or links left something out. What may not be read does not count.
    pub is_cut: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Item(ItemRow),
    Entity(EntityId),
}

struct Walker<'a, F> {
    reader: &'a Reader<'a>,
    walk: &'a Walk,
    may_read: F,
    /// Nodes that were come to, whether they may be read or not.
    seen: HashSet<Key>,
    queue: VecDeque<(Key, usize)>,
    found: Traversal,
}

impl Reader<'_> {
    /// Walks the graph from the starts. `may_read` decides on every memory: one that it refuses is neither returned
    /// nor walked through, and a name or relation that only such memories know is not reached.
    ///
    /// # Errors
    /// For a limit that is out of bounds, or a file that cannot be read.
    pub fn traverse(&self, walk: &Walk, may_read: impl Fn(&Item) -> bool) -> Result<Traversal, StoreError> {
        if walk.depth > DEPTH_MAX {
            return Err(StoreError::OutOfLimit { what: "depth", num: walk.depth, limit: DEPTH_MAX });
        }
        if !(1..=NUM_NODES_MAX).contains(&walk.num_nodes) {
            return Err(StoreError::OutOfLimit { what: "nodes", num: walk.num_nodes, limit: NUM_NODES_MAX });
        }
        let found = Traversal { reached: Vec::new(), is_cut: false };
        let (seen, queue) = (HashSet::new(), VecDeque::new());
        let mut walker = Walker { reader: self, walk, may_read, seen, queue, found };
        for start in &walk.starts {
            match start {
                Start::Item(id) => {
                    if let Some(row) = self.row_of(*id)? {
                        walker.come_to_item(row, 0, Link::Start, None)?;
                    }
                }
                Start::Entity(name) => {
                    if let Some(entity) = self.entity(name)? {
                        walker.start_at_entity(entity)?;
                    }
                }
            }
        }
        while let Some((key, index)) = walker.queue.pop_front() {
            if walker.found.reached[index].depth < walk.depth {
                walker.step_from(key, index)?;
            }
        }
        Ok(walker.found)
    }

    /// What is one step away from a memory: the memories linked to it and the names that it mentions.
    ///
    /// # Errors
    /// As [`Self::traverse`].
    pub fn neighbours(
        &self,
        id: ItemId,
        viewer: &Scope,
        may_read: impl Fn(&Item) -> bool,
    ) -> Result<Vec<Reached>, StoreError> {
        let starts = vec![Start::Item(id)];
        let walk = Walk { starts, depth: 1, num_nodes: NUM_NODES_MAX, at: None, viewer: viewer.clone() };
        let mut reached = self.traverse(&walk, may_read)?.reached;
        reached.retain(|reached| reached.link != Link::Start);
        Ok(reached)
    }
}

impl<F: Fn(&Item) -> bool> Walker<'_, F> {
    /// That a name is known is itself told by the memories that name it, so one of them has to be readable.
    fn start_at_entity(&mut self, entity: Entity) -> Result<(), StoreError> {
        let mut is_readable = !self.relations(entity.id)?.is_empty();
        for row in self.reader.mentions_of(entity.id, self.walk.at, FANOUT_MAX)? {
            is_readable = is_readable || self.readable(row)?.is_some();
        }
        if is_readable {
            self.come_to_entity(entity, 0, Link::Start, None);
        }
        Ok(())
    }

    fn step_from(&mut self, key: Key, index: usize) -> Result<(), StoreError> {
        let depth = self.found.reached[index].depth + 1;
        match key {
            Key::Item(row) => {
                for (row, kind) in self.linked(row)? {
                    self.come_to_item(row, depth, Link::Edge(kind), Some(index))?;
                }
                let Node::Item(item) = &self.found.reached[index].node else { return Ok(()) };
                for entity in self.reader.entities_of(item.id, self.walk.at)? {
                    self.come_to_entity(entity, depth, Link::Mention, Some(index));
                }
            }
            Key::Entity(entity) => {
                for relation in self.relations(entity)? {
                    let other = if relation.from.id == entity { relation.to } else { relation.from };
                    self.come_to_entity(other, depth, Link::Relation(relation.label), Some(index));
                }
                let rows = self.reader.mentions_of(entity, self.walk.at, FANOUT_MAX + 1)?;
                self.found.is_cut |= rows.len() > FANOUT_MAX;
                for row in rows.into_iter().take(FANOUT_MAX) {
                    self.come_to_item(row, depth, Link::Mention, Some(index))?;
                }
            }
        }
        Ok(())
    }

    /// The relations at a name that come from memories which may be read.
    fn relations(&mut self, entity: EntityId) -> Result<Vec<super::relations::Relation>, StoreError> {
        let mut relations = self.reader.relations_of(entity, &self.walk.viewer, self.walk.at, FANOUT_MAX + 1)?;
        self.found.is_cut |= relations.len() > FANOUT_MAX;
        relations.truncate(FANOUT_MAX);
        let mut readable = Vec::new();
        for relation in relations {
            if let Some(row) = self.reader.row_of(relation.source)?
                && self.readable(row)?.is_some()
            {
                readable.push(relation);
            }
        }
        Ok(readable)
    }

    /// The memories at the other ends of the edges of one.
    fn linked(&mut self, row: ItemRow) -> Result<Vec<(ItemRow, EdgeKind)>, StoreError> {
        let sql = "SELECT CASE from_row WHEN ?1 THEN to_row ELSE from_row END, kind FROM edges
                   WHERE (from_row = ?1 OR to_row = ?1) AND recorded_at <= ?2 AND (ended_at IS NULL OR ended_at > ?2)
                   ORDER BY edge DESC LIMIT ?3";
        let mut statement = self.reader.connection().prepare_cached(sql)?;
        let limit = FANOUT_MAX as i64 + 1;
        let mut rows = statement.query(params![row.get(), unix_ms(self.walk.at), limit])?;
        let mut linked = Vec::new();
        while let Some(row) = rows.next()? {
            let kind: String = row.get(1)?;
            let kind = kind.parse().map_err(|error: MemoryError| StoreError::Damaged { reason: error.to_string() })?;
            linked.push((ItemRow::from_number(row.get(0)?), kind));
        }
        self.found.is_cut |= linked.len() > FANOUT_MAX;
        linked.truncate(FANOUT_MAX);
        Ok(linked)
    }

    /// The memory at the moment of the walk, if it may be read.
    fn readable(&self, row: ItemRow) -> Result<Option<Item>, StoreError> {
        let item = match (self.reader.get_row(row)?, self.walk.at) {
            (Some(item), Some(moment)) => self.reader.as_of(item.id, moment)?,
            (item, _) => item,
        };
        Ok(item.filter(|item| (self.may_read)(item)))
    }

    fn come_to_item(&mut self, row: ItemRow, depth: usize, link: Link, from: Option<usize>) -> Result<(), StoreError> {
        let key = Key::Item(row);
        if self.seen.insert(key)
            && let Some(item) = self.readable(row)?
        {
            self.add(key, Reached { node: Node::Item(Box::new(item)), depth, link, from });
        }
        Ok(())
    }

    fn come_to_entity(&mut self, entity: Entity, depth: usize, link: Link, from: Option<usize>) {
        let key = Key::Entity(entity.id);
        if self.seen.insert(key) {
            self.add(key, Reached { node: Node::Entity(entity), depth, link, from });
        }
    }

    fn add(&mut self, key: Key, reached: Reached) {
        if self.found.reached.len() == self.walk.num_nodes {
            self.found.is_cut = true;
            return;
        }
        self.queue.push_back((key, self.found.reached.len()));
        self.found.reached.push(reached);
    }
}
