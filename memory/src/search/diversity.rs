//! Diversity: of results that say the same, one is enough; the places go to others.

use serde::{Deserialize, Serialize};

use super::{Hit, Row, SearchError};

/// Most candidates that are compared with each other; those after it are left out. The work grows with their number
/// times the number of selected ones.
pub const NUM_CANDIDATES_MAX: usize = 1000;

/// Maximal marginal relevance (Carbonell & Goldstein, 1998, "The Use of MMR, Diversity-Based Reranking").
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diversity {
    /// 1: relevance alone; 0: difference alone. From 0 to 1.
    pub lambda: f32,
    /// Most results.
    pub limit: usize,
}

impl Default for Diversity {
    /// Mostly relevance.
    fn default() -> Self {
        Self { lambda: 0.8, limit: 20 }
    }
}

/// Why a candidate was not selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// It says what this selected one says.
    DuplicateOf(Row),
    /// Others were more relevant or more different until the limit was reached.
    BeyondLimit,
}

/// What became of the candidates.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Selection {
    /// In the order of selection, with the scores they came with.
    pub selected: Vec<Hit>,
    /// The others, in the order they came.
    pub left_out: Vec<(Row, LeftOut)>,
}

struct Candidate {
    hit: Hit,
    /// Its score on a scale from 0 to 1 over all candidates.
    relevance: f32,
    /// Similarity to the most similar one that is selected.
    similarity_max: f32,
    duplicate_of: Option<Row>,
}

impl Diversity {
    /// Selects candidates one by one, each time the one with the greatest
    /// `lambda relevance - (1 - lambda) similarity to the most similar selected one`, the earlier one among equals.
    ///
    /// `similarity` is from 0 (nothing in common) to 1; what is outside is cut, and NaN counts as 0. A similarity never
    /// makes a duplicate: two memories that differ in one number are similar and both needed. That is for
    /// `is_duplicate` to say, which is asked about pairs of a selected one and a candidate.
    ///
    /// # Errors
    /// [`SearchError::InvalidParameter`] for a lambda outside of 0 to 1.
    pub fn select(
        &self,
        candidates: &[Hit],
        similarity: impl Fn(Row, Row) -> f32,
        is_duplicate: impl Fn(Row, Row) -> bool,
    ) -> Result<Selection, SearchError> {
        if !(0.0..=1.0).contains(&self.lambda) {
            let value = f64::from(self.lambda);
            return Err(SearchError::InvalidParameter { name: "lambda", value, expected: "from 0 to 1" });
        }
        let (compared, rest) = candidates.split_at(candidates.len().min(NUM_CANDIDATES_MAX));
        let mut open = with_relevance(compared);
        let mut selected: Vec<Hit> = Vec::new();
        while selected.len() < self.limit {
            let Some(next) = self.best(&open) else { break };
            let chosen = open.remove(next).hit;
            selected.push(chosen);
            for other in open.iter_mut().filter(|other| other.duplicate_of.is_none()) {
                if is_duplicate(chosen.row, other.hit.row) {
                    other.duplicate_of = Some(chosen.row);
                    continue;
                }
                // By relevance alone, likeness has no weight.
                if self.lambda == 1.0 {
                    continue;
                }
                let similarity = similarity(chosen.row, other.hit.row);
                // `max` ignores a NaN.
                other.similarity_max = other.similarity_max.max(similarity).min(1.0);
            }
        }
        let reason = |other: Candidate| other.duplicate_of.map_or(LeftOut::BeyondLimit, LeftOut::DuplicateOf);
        let left_out = open.into_iter().map(|other| (other.hit.row, reason(other)));
        let left_out = left_out.chain(rest.iter().map(|hit| (hit.row, LeftOut::BeyondLimit)));
        Ok(Selection { selected, left_out: left_out.collect() })
    }

    fn best(&self, open: &[Candidate]) -> Option<usize> {
        let value = |other: &Candidate| self.lambda * other.relevance - (1.0 - self.lambda) * other.similarity_max;
        let mut best: Option<(usize, f32)> = None;
        for (index, other) in open.iter().enumerate().filter(|(_, other)| other.duplicate_of.is_none()) {
            if best.is_none_or(|(_, most)| value(other) > most) {
                best = Some((index, value(other)));
            }
        }
        best.map(|(index, _)| index)
    }
}

fn with_relevance(candidates: &[Hit]) -> Vec<Candidate> {
    let scores = || candidates.iter().map(|hit| hit.score).filter(|score| score.is_finite());
    let (least, most) = (scores().fold(f32::INFINITY, f32::min), scores().fold(f32::NEG_INFINITY, f32::max));
    let relevance = |score: f32| if most > least && score.is_finite() { (score - least) / (most - least) } else { 0.0 };
    let candidate = |&hit: &Hit| {
        let relevance = relevance(hit.score);
        Candidate { hit, relevance, similarity_max: 0.0, duplicate_of: None }
    };
    candidates.iter().map(candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(scores: &[f32]) -> Vec<Hit> {
        (0..).zip(scores).map(|(row, &score)| Hit { row: Row(row), score }).collect()
    }

    fn rows(selection: &Selection) -> Vec<u32> {
        selection.selected.iter().map(|hit| hit.row.0).collect()
    }

    /// Rows of the same ten are much alike.
    fn alike(left: Row, right: Row) -> f32 {
        if left.0 / 10 == right.0 / 10 { 0.9 } else { 0.1 }
    }

    fn select(lambda: f32, limit: usize, candidates: &[Hit]) -> Selection {
        Diversity { lambda, limit }.select(candidates, alike, |_, _| false).expect("valid")
    }

    #[test]
    fn lambda_goes_from_relevance_to_difference() {
        let mut candidates = hits(&[1.0, 0.9, 0.8]);
        candidates.push(Hit { row: Row(10), score: 0.7 });
        candidates.push(Hit { row: Row(20), score: 0.4 });
        assert_eq!(rows(&select(1.0, 3, &candidates)), [0, 1, 2]);
        assert_eq!(rows(&select(0.5, 3, &candidates)), [0, 10, 1]);
        assert_eq!(rows(&select(0.0, 3, &candidates)), [0, 10, 20]);
        let selection = select(0.5, 3, &candidates);
        assert_eq!(selection.left_out, [(Row(2), LeftOut::BeyondLimit), (Row(20), LeftOut::BeyondLimit)]);
    }

    #[test]
    fn every_candidate_is_accounted_for_once() {
        let candidates = hits(&(0..1200).map(|row| 1.0 / (row + 1) as f32).collect::<Vec<_>>());
        for limit in [0, 1, 7, 2000] {
            let selection = select(0.8, limit, &candidates);
            let mut all = rows(&selection);
            all.extend(selection.left_out.iter().map(|(row, _)| row.0));
            all.sort_unstable();
            assert_eq!(all, (0..1200).collect::<Vec<_>>(), "limit {limit}");
        }
    }

    #[test]
    fn only_what_is_called_a_duplicate_is_one() {
        let candidates = hits(&[3.0, 2.0, 1.0]);
        let same = |left: Row, right: Row| left.0 + right.0 == 1;
        let selection = Diversity { lambda: 1.0, limit: 9 }.select(&candidates, |_, _| 1.0, same).expect("valid");
        assert_eq!(rows(&selection), [0, 2]);
        assert_eq!(selection.left_out, [(Row(1), LeftOut::DuplicateOf(Row(0)))]);
    }

    #[test]
    fn equal_scores_and_no_numbers_keep_the_order() {
        assert_eq!(rows(&select(1.0, 9, &hits(&[1.0, 1.0, 1.0]))), [0, 1, 2]);
        let strange = hits(&[f32::NAN, f32::INFINITY, 1.0, 0.5]);
        let selection = Diversity { lambda: 0.5, limit: 9 }.select(&strange, |_, _| f32::NAN, |_, _| false);
        assert_eq!(rows(&selection.expect("valid")), [2, 0, 1, 3]);
        for lambda in [-0.1, 1.1, f32::NAN] {
            assert!(Diversity { lambda, limit: 1 }.select(&[], alike, |_, _| false).is_err());
        }
    }
}
