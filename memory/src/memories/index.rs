//! The indexes of one cube in memory: words, vectors, and the head of every memory that filters and permissions look at.
//!
//! Built from the rows when a cube is mounted and changed after each commit, before the write is answered. Nothing of it
//! is on disk, so an erasure has no index file to chase.

use std::collections::HashMap;

use super::{Embedder, MemoriesError};
use crate::item::{Item, ItemKind, Scope};
use crate::lifecycle::ItemState;
use crate::search::analyzer::Analyzed;
use crate::search::duplicates::TextHash;
use crate::search::lexical::{Bm25, LexicalIndex};
use crate::search::vectors::{Embedding, VectorIndex};
use crate::search::{Row, SearchError};
use crate::store::{ItemRow, Reader, StoreError};
use crate::{ItemId, Timestamp};

/// What filters and permissions look at, without asking the store.
#[derive(Debug, Clone)]
pub struct ItemHead {
    /// Which memory.
    pub id: ItemId,
    /// Its kind.
    pub kind: ItemKind,
    /// Its state.
    pub state: ItemState,
    /// Whose it is, as it is stored.
    pub scope: Scope,
    /// Since when it is true.
    pub valid_from: Option<Timestamp>,
    /// Until when.
    pub valid_to: Option<Timestamp>,
    /// Its labels.
    pub tags: Vec<String>,
    /// Names it mentions, folded.
    pub entities: Vec<String>,
    hash: TextHash,
}

impl ItemHead {
    fn of(item: &Item) -> Self {
        Self {
            id: item.id,
            kind: item.kind,
            state: item.state,
            scope: item.scope.clone(),
            valid_from: item.valid_from,
            valid_to: item.valid_to,
            tags: item.tags.clone(),
            entities: item.entities.iter().map(|name| crate::store::fold_name(name)).collect(),
            hash: TextHash::of(&item.text),
        }
    }

    /// Whether it is true in the world at this moment.
    pub fn is_valid_at(&self, moment: Timestamp) -> bool {
        self.valid_from.is_none_or(|from| from <= moment) && self.valid_to.is_none_or(|to| moment < to)
    }
}

/// See the module's description.
pub struct CubeIndex {
    heads: HashMap<Row, ItemHead>,
    rows: HashMap<ItemId, Row>,
    by_hash: HashMap<TextHash, Vec<Row>>,
    by_entity: HashMap<String, Vec<Row>>,
    lexical: LexicalIndex,
    vectors: Option<VectorIndex>,
}

impl CubeIndex {
    /// An empty index, with room for the vectors of this embedder.
    ///
    /// # Errors
    /// The embedder has no dimensions, or too many.
    pub fn new(embedder: Option<&dyn Embedder>) -> Result<Self, SearchError> {
        let vectors = embedder.map(|embedder| VectorIndex::new(embedder.id().clone(), embedder.dim())).transpose()?;
        Ok(Self {
            heads: HashMap::new(),
            rows: HashMap::new(),
            by_hash: HashMap::new(),
            by_entity: HashMap::new(),
            lexical: LexicalIndex::new(Bm25::default()),
            vectors,
        })
    }

    /// The index of everything in the store.
    ///
    /// # Errors
    /// The store cannot be read, or holds more than the index can.
    pub fn build(reader: &Reader<'_>, embedder: Option<&dyn Embedder>) -> Result<Self, MemoriesError> {
        let mut index = Self::new(embedder)?;
        reader.for_each_current(|row, item| index.put(row, item).map_err(StoreError::step))?;
        if let Some(embedder) = embedder {
            let put = |row, vector: &[f32]| match index.put_vector(row, embedder, vector) {
                // A cube that was carried here may hold anything; without its vector a memory is found by its words.
                Err(SearchError::ZeroVector | SearchError::NotFinite { .. }) => Ok(()),
                put => put.map_err(StoreError::step),
            };
            reader.for_each_vector(embedder.id().as_str(), put)?;
        }
        index.lexical.shrink_to_fit();
        Ok(index)
    }

    /// Puts a memory in, in place of what it was. Its vector stays only while its text does.
    ///
    /// # Errors
    /// The index is full.
    pub fn put(&mut self, row: ItemRow, item: &Item) -> Result<(), SearchError> {
        let row = to_row(row)?;
        let head = ItemHead::of(item);
        if self.heads.get(&row).is_some_and(|before| before.hash != head.hash)
            && let Some(vectors) = &mut self.vectors
        {
            vectors.remove(row);
        }
        self.unlink(row);
        // What has left the prompt for good needs no words: archived memories are still found on request, merged ones
        // through the memory that they went into.
        self.lexical.insert(row, &Analyzed::of_document(&indexed_text(item)))?;
        self.rows.insert(head.id, row);
        self.by_hash.entry(head.hash).or_default().push(row);
        for name in &head.entities {
            self.by_entity.entry(name.clone()).or_default().push(row);
        }
        self.heads.insert(row, head);
        Ok(())
    }

    /// Puts the vector of a memory in.
    ///
    /// # Errors
    /// It is not one of this index's embedder, or not usable.
    pub fn put_vector(&mut self, row: ItemRow, embedder: &dyn Embedder, vector: &[f32]) -> Result<(), SearchError> {
        let row = to_row(row)?;
        match &mut self.vectors {
            Some(vectors) => vectors.insert(row, Embedding { embedder: embedder.id(), values: vector }),
            None => Ok(()),
        }
    }

    /// Takes a memory out with everything that came from it.
    pub fn remove(&mut self, row: ItemRow) {
        let Ok(row) = to_row(row) else { return };
        self.unlink(row);
        self.lexical.remove(row);
        if let Some(vectors) = &mut self.vectors {
            vectors.remove(row);
        }
        if let Some(head) = self.heads.remove(&row) {
            self.rows.remove(&head.id);
        }
    }

    /// Removes the row from the lists that its head leads to.
    fn unlink(&mut self, row: Row) {
        let Some(head) = self.heads.get(&row) else { return };
        remove_from(&mut self.by_hash, &head.hash, row);
        for name in &head.entities {
            remove_from(&mut self.by_entity, name, row);
        }
    }

    /// The head of a row.
    pub fn head(&self, row: Row) -> Option<&ItemHead> {
        self.heads.get(&row)
    }

    /// All heads.
    pub fn heads(&self) -> impl Iterator<Item = &ItemHead> {
        self.heads.values()
    }

    /// The row of a memory.
    pub fn row(&self, id: ItemId) -> Option<Row> {
        self.rows.get(&id).copied()
    }

    /// Words.
    pub fn lexical(&self) -> &LexicalIndex {
        &self.lexical
    }

    /// Vectors, where there is an embedder.
    pub fn vectors(&self) -> Option<&VectorIndex> {
        self.vectors.as_ref()
    }

    /// Rows with the same text as this, for any reader.
    pub fn same_text(&self, hash: TextHash) -> &[Row] {
        self.by_hash.get(&hash).map_or(&[], Vec::as_slice)
    }

    /// Rows that mention this name, given folded.
    pub fn mentioning(&self, folded_name: &str) -> &[Row] {
        self.by_entity.get(folded_name).map_or(&[], Vec::as_slice)
    }

    /// How many memories have no vector of the index's embedder. Every vector belongs to a memory.
    pub fn num_without_vector(&self) -> usize {
        self.vectors.as_ref().map_or(0, |vectors| self.heads.len() - vectors.len())
    }
}

/// What of a memory can be searched for: its text and its labels.
fn indexed_text(item: &Item) -> String {
    let mut text = item.text.clone();
    for label in item.tags.iter().chain(item.entities.iter().filter(|name| !item.text.contains(name.as_str()))) {
        text.push(' ');
        text.push_str(label);
    }
    text
}

fn remove_from<K: std::hash::Hash + Eq>(lists: &mut HashMap<K, Vec<Row>>, key: &K, row: Row) {
    if let Some(rows) = lists.get_mut(key) {
        rows.retain(|other| *other != row);
        if rows.is_empty() {
            lists.remove(key);
        }
    }
}

/// The store numbers rows with 64 bits, the index with 32.
pub fn to_row(row: ItemRow) -> Result<Row, SearchError> {
    u32::try_from(row.get()).map(Row).map_err(|_| SearchError::Full { limit: u32::MAX as usize })
}

/// The row in the store.
pub fn to_item_row(row: Row) -> ItemRow {
    ItemRow::from_number(i64::from(row.0))
}
