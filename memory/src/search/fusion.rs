//! Fusion: one ranking out of several, which agree on rows but not on what a score means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::top::Score;
use super::{Hit, Row, SearchError};

/// What found a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListKind {
    /// Words in common.
    Lexical,
    /// A similar meaning.
    Vector,
    /// A connection to what was found.
    Graph,
}

/// One ranking, the best first.
#[derive(Debug, Clone, Copy)]
pub struct RankedList<'a> {
    /// What made it.
    pub kind: ListKind,
    /// Its results; no row twice.
    pub hits: &'a [Hit],
}

/// How much each list counts; finite and not negative. A list of weight 0 adds its rows at the end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Of the lexical list.
    pub lexical: f32,
    /// Of the vector list.
    pub vector: f32,
    /// Of the graph list.
    pub graph: f32,
}

impl Weights {
    fn of(&self, kind: ListKind) -> f32 {
        match kind {
            ListKind::Lexical => self.lexical,
            ListKind::Vector => self.vector,
            ListKind::Graph => self.graph,
        }
    }
}

impl Default for Weights {
    /// Words and meaning alike; what is only connected counts half.
    fn default() -> Self {
        Self { lexical: 1.0, vector: 1.0, graph: 0.5 }
    }
}

/// How lists become one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fusion {
    /// The sum of `weight / (k + rank)` with ranks from 1 (Cormack et al., 2009, "Reciprocal Rank Fusion outperforms
    /// Condorcet and individual Rank Learning Methods"). Needs no comparable scores; robust, but blind to how much
    /// better one result is than the next.
    ReciprocalRank {
        /// How flat the ranks are; 60 in the paper.
        k: f32,
        /// Per list.
        weights: Weights,
    },
    /// The weighted mean of scores, each list's scaled so that its best is 1 and its floor 0 (Bruch et al., 2023, "An
    /// Analysis of Fusion Functions for Hybrid Retrieval"). Keeps how much better one result is than the next.
    ConvexCombination {
        /// Per list.
        weights: Weights,
        /// Where a list's 0 is.
        floor: Floor,
    },
}

/// Which score of a list counts as nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Floor {
    /// The least score in the list: uses the full range, but depends on how long the list is.
    Least,
    /// The least possible: 0 for BM25 and graphs, -1 for a cosine. Does not depend on the list's length.
    Possible,
}

impl Default for Fusion {
    fn default() -> Self {
        Self::ReciprocalRank { k: 60.0, weights: Weights::default() }
    }
}

/// Where one list had a row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FoundBy {
    /// Which list.
    pub list: ListKind,
    /// From 1.
    pub rank: usize,
    /// Its score there.
    pub score: f32,
}

/// A row of the fused ranking.
#[derive(Debug, Clone, PartialEq)]
pub struct Fused {
    /// Which memory.
    pub row: Row,
    /// The fused score; greater is better.
    pub score: f32,
    /// The lists that had it, in the order they were given.
    pub found_by: Vec<FoundBy>,
}

impl Fusion {
    /// Fuses the lists: all their rows, the best first, the lower row first among equals.
    ///
    /// # Errors
    /// [`SearchError::InvalidParameter`] for a weight or `k` that is negative or no number.
    pub fn fuse(&self, lists: &[RankedList<'_>]) -> Result<Vec<Fused>, SearchError> {
        self.check()?;
        let mut fused: BTreeMap<Row, (f64, Vec<FoundBy>)> = BTreeMap::new();
        for list in lists {
            for (index, (hit, part)) in list.hits.iter().zip(self.parts(list)).enumerate() {
                let (sum, found_by) = fused.entry(hit.row).or_default();
                // Sums in f64 and in the order of the lists: the same lists give the same bits.
                *sum += part;
                found_by.push(FoundBy { list: list.kind, rank: index + 1, score: hit.score });
            }
        }
        let fused = fused.into_iter().map(|(row, (sum, found_by))| Fused { row, score: sum as f32, found_by });
        let mut fused: Vec<Fused> = fused.collect();
        fused.sort_by(|left, right| Score(right.score).cmp(&Score(left.score)).then(left.row.cmp(&right.row)));
        Ok(fused)
    }

    /// What a list gives to each of its rows.
    fn parts(&self, list: &RankedList<'_>) -> Vec<f64> {
        match self {
            Self::ReciprocalRank { k, weights } => {
                let weight = f64::from(weights.of(list.kind));
                (1..=list.hits.len()).map(|rank| weight / (f64::from(*k) + rank as f64)).collect()
            }
            Self::ConvexCombination { weights, floor } => {
                let weight = f64::from(weights.of(list.kind));
                let scores = list.hits.iter().map(|hit| f64::from(hit.score));
                let floor = match (floor, list.kind) {
                    (Floor::Least, _) => scores.clone().fold(f64::INFINITY, f64::min),
                    (Floor::Possible, ListKind::Vector) => -1.0,
                    (Floor::Possible, ListKind::Lexical | ListKind::Graph) => 0.0,
                };
                let range = scores.clone().fold(f64::NEG_INFINITY, f64::max) - floor;
                // A list whose scores are all the same says only that it has these rows.
                scores.map(|score| weight * if range > 0.0 { (score - floor) / range } else { 1.0 }).collect()
            }
        }
    }

    fn check(&self) -> Result<(), SearchError> {
        let (k, weights) = match self {
            Self::ReciprocalRank { k, weights } => (*k, weights),
            Self::ConvexCombination { weights, .. } => (0.0, weights),
        };
        let parameters = [("k", k), ("lexical", weights.lexical), ("vector", weights.vector), ("graph", weights.graph)];
        match parameters.into_iter().find(|(_, value)| !value.is_finite() || *value < 0.0) {
            Some((name, value)) => Err(SearchError::InvalidParameter {
                name,
                value: f64::from(value),
                expected: "a finite number that is not negative",
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(rows: &[(u32, f32)]) -> Vec<Hit> {
        rows.iter().map(|&(row, score)| Hit { row: Row(row), score }).collect()
    }

    fn fuse(fusion: Fusion, lexical: &[(u32, f32)], vector: &[(u32, f32)]) -> Vec<(u32, f32)> {
        let lists = [(ListKind::Lexical, hits(lexical)), (ListKind::Vector, hits(vector))];
        let lists: Vec<_> = lists.iter().map(|(kind, hits)| RankedList { kind: *kind, hits }).collect();
        let fused = fusion.fuse(&lists).expect("valid");
        fused.into_iter().map(|fused| (fused.row.0, fused.score)).collect()
    }

    #[test]
    fn ranks_add_up_by_weight() {
        let fused = fuse(Fusion::default(), &[(1, 9.0), (2, 8.0)], &[(2, 0.9), (3, 0.1)]);
        let expected = [(2, 1.0 / 62.0 + 1.0 / 61.0), (1, 1.0 / 61.0), (3, 1.0 / 62.0)];
        for ((row, score), (expected_row, expected_score)) in fused.iter().zip(expected) {
            assert_eq!(*row, expected_row);
            assert!((score - expected_score).abs() < 1e-7);
        }
        let weights = Weights { lexical: 0.0, vector: 1.0, graph: 1.0 };
        let fused = fuse(Fusion::ReciprocalRank { k: 0.0, weights }, &[(1, 9.0), (2, 8.0)], &[(2, 0.9), (3, 0.1)]);
        assert_eq!(fused, [(2, 1.0), (3, 0.5), (1, 0.0)]);
    }

    #[test]
    fn scores_add_up_on_the_chosen_scale() {
        let weights = Weights { lexical: 0.25, vector: 0.75, graph: 0.0 };
        let (lexical, vector) = ([(1, 8.0), (2, 4.0)], [(2, 1.0), (3, 0.0)]);
        let least = Fusion::ConvexCombination { weights, floor: Floor::Least };
        assert_eq!(fuse(least, &lexical, &vector), [(2, 0.75), (1, 0.25), (3, 0.0)]);
        let possible = Fusion::ConvexCombination { weights, floor: Floor::Possible };
        assert_eq!(fuse(possible, &lexical, &vector), [(2, 0.875), (3, 0.375), (1, 0.25)]);
        assert_eq!(fuse(least, &[(5, 3.0), (4, 3.0)], &[]), [(4, 0.25), (5, 0.25)]);
    }

    #[test]
    fn equals_are_ordered_by_row_and_traced_to_their_lists() {
        let (lexical, vector) = (hits(&[(9, 1.0), (3, 0.5)]), hits(&[(3, 0.7), (9, 0.6)]));
        let lists = [
            RankedList { kind: ListKind::Lexical, hits: &lexical },
            RankedList { kind: ListKind::Vector, hits: &vector },
        ];
        let fused = Fusion::default().fuse(&lists).expect("valid");
        assert_eq!(fused.iter().map(|fused| fused.row.0).collect::<Vec<_>>(), [3, 9]);
        let by = |list, rank, score| FoundBy { list, rank, score };
        assert_eq!(fused[0].found_by, [by(ListKind::Lexical, 2, 0.5), by(ListKind::Vector, 1, 0.7)]);
        assert_eq!(fused[0].score, fused[1].score);
    }

    #[test]
    fn methods_are_configurable_and_nonsense_is_refused() {
        let json = r#"{"method":"reciprocal_rank","k":10,"weights":{"lexical":1,"vector":2,"graph":0}}"#;
        let fusion: Fusion = serde_json::from_str(json).expect("a method");
        assert!(matches!(fusion, Fusion::ReciprocalRank { k: 10.0, .. }));
        let nothing = Weights { lexical: 0.0, vector: f32::NAN, graph: 0.0 };
        for fusion in [
            Fusion::ReciprocalRank { k: -1.0, weights: Weights::default() },
            Fusion::ReciprocalRank { k: 60.0, weights: nothing },
            Fusion::ConvexCombination { weights: nothing, floor: Floor::Least },
        ] {
            assert!(matches!(fusion.fuse(&[]), Err(SearchError::InvalidParameter { .. })), "{fusion:?}");
        }
    }
}
