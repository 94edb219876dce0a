//! The vector index: exact nearest neighbours by cosine, scanned with SIMD over a mirror in bytes.
//!
//! The mirror takes two bytes a dimension (77 MB for 100,000 vectors of 384; the f32 originals would add 154 MB and
//! stay where they are stored). Only the coarse half is scanned. Every approximate score comes with a proven bound on
//! its error ([`mirror`]), so a search knows which vectors can still be among the best and looks closer at those only:
//! first with the fine half, then, if asked, with the originals. No vector is lost to a guess about how many candidates
//! are enough: [`VectorIndex::search_exact`] returns what comparing all originals would, ties included.
mod mirror;
mod scan;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;

use self::mirror::{Layers, QuantisedQuery};
use super::top::{Ranked, Score, Top};
use super::{Hit, NUM_HITS_MAX, Row, SearchError};

/// Most dimensions of a vector.
pub const NUM_DIMENSIONS_MAX: usize = 8192;
/// Most vectors of an index.
pub const NUM_VECTORS_MAX: usize = 1 << 24;
/// Greatest length of an embedder's id in bytes.
pub const EMBEDDER_ID_BYTES_MAX: usize = 256;

/// Names the model (and revision, pooling, prefix) that made a vector. Vectors of two embedders are not comparable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EmbedderId(String);

impl EmbedderId {
    /// From its name.
    ///
    /// # Errors
    /// When it is empty or too long.
    pub fn new(name: impl Into<String>) -> Result<Self, SearchError> {
        let name = name.into();
        if name.is_empty() || name.len() > EMBEDDER_ID_BYTES_MAX {
            return Err(SearchError::InvalidEmbedderId { limit: EMBEDDER_ID_BYTES_MAX, got: name.len() });
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EmbedderId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// A vector and where it comes from. Its length does not matter, only its direction.
#[derive(Debug, Clone, Copy)]
pub struct Embedding<'a> {
    /// Who made it.
    pub embedder: &'a EmbedderId,
    /// `[dim]`
    pub values: &'a [f32],
}

/// See the module's description.
pub struct VectorIndex {
    embedder: EmbedderId,
    dim: usize,
    slots: HashMap<Row, u32>,
    /// By slot, these four. Slots are dense: a removed one is filled with the last.
    rows: Vec<Row>,
    layers: Vec<Layers>,
    /// `[num_slots, stride]`
    coarse: Vec<i8>,
    /// `[num_slots, stride]`
    fine: Vec<i8>,
}

impl VectorIndex {
    /// For vectors of one embedder.
    ///
    /// # Errors
    /// When there are no dimensions or too many.
    pub fn new(embedder: EmbedderId, dim: usize) -> Result<Self, SearchError> {
        if dim == 0 || dim > NUM_DIMENSIONS_MAX {
            return Err(SearchError::InvalidDimension { limit: NUM_DIMENSIONS_MAX, got: dim });
        }
        let (slots, rows, layers) = (HashMap::new(), Vec::new(), Vec::new());
        Ok(Self { embedder, dim, slots, rows, layers, coarse: Vec::new(), fine: Vec::new() })
    }

    /// Whose vectors these are.
    pub fn embedder(&self) -> &EmbedderId {
        &self.embedder
    }

    /// Dimensions of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether this row has a vector here.
    pub fn contains(&self, row: Row) -> bool {
        self.slots.contains_key(&row)
    }

    /// Bytes that the index holds, estimated from its capacities.
    pub fn heap_bytes(&self) -> usize {
        self.coarse.capacity()
            + self.fine.capacity()
            + self.layers.capacity() * size_of::<Layers>()
            + self.rows.capacity() * size_of::<Row>()
            + self.slots.capacity() * 8 / 7 * (size_of::<(Row, u32)>() + 1)
    }

    /// Puts the vector of a row in, in place of the one it had. A refused vector changes nothing.
    ///
    /// # Errors
    /// When the vector is of another embedder or dimension, has no direction or a NaN, or when the index is full.
    pub fn insert(&mut self, row: Row, embedding: Embedding<'_>) -> Result<(), SearchError> {
        let unit = self.check(embedding)?;
        if !self.contains(row) && self.len() == NUM_VECTORS_MAX {
            return Err(SearchError::Full { limit: NUM_VECTORS_MAX });
        }
        self.remove(row);
        let layers = mirror::quantise(&unit, &mut self.coarse, &mut self.fine);
        self.slots.insert(row, self.rows.len() as u32);
        self.rows.push(row);
        self.layers.push(layers);
        Ok(())
    }

    /// Takes a row's vector out; says whether it was there.
    pub fn remove(&mut self, row: Row) -> bool {
        let Some(slot) = self.slots.remove(&row) else { return false };
        let slot = slot as usize;
        let (stride, last) = (mirror::stride(self.dim), self.rows.len() - 1);
        for layer in [&mut self.coarse, &mut self.fine] {
            layer.copy_within(last * stride.., slot * stride);
            layer.truncate(last * stride);
        }
        self.layers.swap_remove(slot);
        self.rows.swap_remove(slot);
        if let Some(moved) = self.rows.get(slot) {
            self.slots.insert(*moved, slot as u32);
        }
        true
    }

    /// The best `limit` rows that the filter lets through, from the mirror alone. Scores are off by less than 0.0002
    /// for embeddings as models make them, and what is missing is at most twice that better than what is there.
    ///
    /// # Errors
    /// When the query is of another embedder or dimension, has no direction or a NaN.
    pub fn search(
        &self,
        query: Embedding<'_>,
        limit: usize,
        filter: impl Fn(Row) -> bool,
    ) -> Result<Vec<Hit>, SearchError> {
        let unit = self.check(query)?;
        let limit = limit.min(NUM_HITS_MAX).min(self.len());
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut top = Top::new(limit);
        for Candidate { slot, score, .. } in self.candidates(&QuantisedQuery::new(&unit), limit, filter) {
            top.offer(Ranked { score: Score(score), row: self.rows[slot] });
        }
        Ok(to_hits(top))
    }

    /// The best `limit` rows that the filter lets through by their exact cosine (in f64, rounded once to f32): exactly
    /// those that comparing with every original would give. `original` reads a vector as it was inserted, mostly for
    /// little more than `limit` rows, but for every one of many that are equally near. A row whose original is gone or
    /// unusable keeps its score from the mirror.
    ///
    /// # Errors
    /// When the query is of another embedder or dimension, has no direction or a NaN.
    pub fn search_exact(
        &self,
        query: Embedding<'_>,
        limit: usize,
        filter: impl Fn(Row) -> bool,
        original: impl Fn(Row) -> Option<Vec<f32>>,
    ) -> Result<Vec<Hit>, SearchError> {
        let unit = self.check(query)?;
        let limit = limit.min(NUM_HITS_MAX).min(self.len());
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut candidates = self.candidates(&QuantisedQuery::new(&unit), limit, filter);
        candidates.sort_by(|left, right| right.score_max().total_cmp(&left.score_max()));
        let mut top = Top::new(limit);
        for candidate in candidates {
            // None after this one can be among the best either. An equal score can, by its row.
            if top.worst().is_some_and(|worst: Ranked<Score>| worst.score.0 > candidate.score_max()) {
                break;
            }
            let row = self.rows[candidate.slot];
            let values = original(row).filter(|values| values.len() == self.dim);
            let exact = values.and_then(|values| mirror::cosine(&unit, &values).ok());
            top.offer(Ranked { score: Score(exact.unwrap_or(candidate.score)), row });
        }
        Ok(to_hits(top))
    }

    /// Cosine of two rows from the mirror, off by less than 0.0002 mostly; `None` when one has no vector.
    pub fn similarity(&self, left: Row, right: Row) -> Option<f32> {
        let (left, right) = (*self.slots.get(&left)? as usize, *self.slots.get(&right)? as usize);
        let (stride, layers) = (mirror::stride(self.dim), &self.layers);
        let values = |slot: usize| {
            let place = slot * stride..(slot + 1) * stride;
            let (coarse, fine) = (&self.coarse[place.clone()], &self.fine[place]);
            let (coarse_scale, fine_scale) = (layers[slot].coarse_scale, layers[slot].fine_scale);
            coarse
                .iter()
                .zip(fine)
                .map(move |(&coarse, &fine)| f32::from(coarse) * coarse_scale + f32::from(fine) * fine_scale)
        };
        Some(values(left).zip(values(right)).map(|(left, right)| left * right).sum())
    }

    /// Slots that can be among the best `limit`, as far as the mirror knows.
    fn candidates(&self, query: &QuantisedQuery, limit: usize, filter: impl Fn(Row) -> bool) -> Vec<Candidate> {
        let scores = scan::scores(&self.layers, &self.coarse, query);
        let coarse = |slot: usize| {
            let error = query.error_with(self.layers[slot].coarse_error);
            Candidate { slot, score: scores[slot], error }
        };
        let passes = |slot: usize| filter(self.rows[slot]);
        let floor = score_floor((0..scores.len()).map(coarse), limit, passes);
        let possible = (0..scores.len()).map(coarse).filter(|candidate| candidate.score_max() >= floor);
        let possible = possible.filter(|candidate| passes(candidate.slot));
        let mut refined: Vec<Candidate> = possible.map(|candidate| self.refine(query, candidate.slot)).collect();
        let floor = score_floor(refined.iter().copied(), limit, |_| true);
        refined.retain(|candidate| candidate.score_max() >= floor);
        refined
    }

    /// The score by both layers.
    fn refine(&self, query: &QuantisedQuery, slot: usize) -> Candidate {
        let (layers, stride) = (self.layers[slot], query.levels.len());
        let place = slot * stride..(slot + 1) * stride;
        let coarse = mirror::dot(&self.coarse[place.clone()], &query.levels) as f32 * layers.coarse_scale;
        let fine = mirror::dot(&self.fine[place], &query.levels) as f32 * layers.fine_scale;
        Candidate { slot, score: (coarse + fine) * query.scale, error: query.error_with(layers.fine_error) }
    }

    fn check(&self, embedding: Embedding<'_>) -> Result<Vec<f64>, SearchError> {
        if *embedding.embedder != self.embedder {
            let (expected, got) = (self.embedder.0.clone(), embedding.embedder.0.clone());
            return Err(SearchError::WrongEmbedder { expected, got });
        }
        if embedding.values.len() != self.dim {
            return Err(SearchError::WrongDimension { expected: self.dim, got: embedding.values.len() });
        }
        mirror::unit(embedding.values)
    }
}

/// A slot with its approximate score and how far from the exact one that may be.
#[derive(Clone, Copy)]
struct Candidate {
    slot: usize,
    score: f32,
    error: f32,
}

impl Candidate {
    fn score_max(self) -> f32 {
        self.score + self.error
    }

    fn score_min(self) -> f32 {
        self.score - self.error
    }
}

/// A score that at least `limit` of the candidates that pass are sure to reach.
fn score_floor(candidates: impl Iterator<Item = Candidate>, limit: usize, passes: impl Fn(usize) -> bool) -> f32 {
    let mut heap = BinaryHeap::new();
    let mut floor = f32::NEG_INFINITY;
    for candidate in candidates {
        let score = candidate.score_min();
        if score <= floor || !passes(candidate.slot) {
            continue;
        }
        heap.push(Reverse(Score(score)));
        if heap.len() > limit {
            heap.pop();
        }
        if heap.len() == limit {
            floor = heap.peek().map_or(floor, |least| least.0.0);
        }
    }
    floor
}

fn to_hits(top: Top<Score>) -> Vec<Hit> {
    top.into_sorted().into_iter().map(|ranked| Hit { row: ranked.row, score: ranked.score.0 }).collect()
}

#[cfg(test)]
mod tests;
