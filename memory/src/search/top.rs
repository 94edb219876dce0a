//! The best few of many: a bounded heap whose order is total, so that results never depend on the order of arrival.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::Row;

/// A row with its score. Greater is better: the higher score, and among equals the lower row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ranked<S> {
    pub score: S,
    pub row: Row,
}

impl<S: Ord> Ord for Ranked<S> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.cmp(&other.score).then_with(|| other.row.cmp(&self.row))
    }
}

impl<S: Ord> PartialOrd for Ranked<S> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// An `f32` with a total order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Score(pub f32);

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Score {}

/// The best `limit` of what was offered.
pub(crate) struct Top<S: Ord> {
    limit: usize,
    heap: BinaryHeap<Reverse<Ranked<S>>>,
}

impl<S: Ord + Copy> Top<S> {
    /// Holds nothing yet.
    ///
    /// # Panics
    /// When `limit` is 0: there would be no worst one to compare with.
    pub fn new(limit: usize) -> Self {
        assert!(limit > 0, "the best 0 of anything need no heap");
        Self { limit, heap: BinaryHeap::new() }
    }

    /// The worst of the best, once there are `limit` of them: what comes below it is of no interest.
    pub fn worst(&self) -> Option<Ranked<S>> {
        if self.heap.len() < self.limit { None } else { self.heap.peek().map(|worst| worst.0) }
    }

    /// Whether an offer of this would be taken.
    pub fn would_take(&self, ranked: Ranked<S>) -> bool {
        self.worst().is_none_or(|worst| ranked > worst)
    }

    /// Takes it if it is among the best so far.
    pub fn offer(&mut self, ranked: Ranked<S>) {
        if self.heap.len() < self.limit {
            self.heap.push(Reverse(ranked));
        } else if let Some(mut worst) = self.heap.peek_mut()
            && ranked > worst.0
        {
            *worst = Reverse(ranked);
        }
    }

    /// The best first.
    pub fn into_sorted(self) -> Vec<Ranked<S>> {
        self.heap.into_sorted_vec().into_iter().map(|reversed| reversed.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::random::Random;

    #[test]
    fn the_best_are_those_of_a_full_sort_in_any_order_of_arrival() {
        let mut random = Random(7);
        for limit in [1, 2, 10, 100] {
            let mut all: Vec<Ranked<u32>> =
                (0..60).map(|row| Ranked { score: random.below(9) as u32, row: Row(row) }).collect();
            for index in (1..all.len()).rev() {
                all.swap(index, random.below(index + 1));
            }
            let mut top = Top::new(limit);
            for &ranked in &all {
                let taken = top.would_take(ranked);
                top.offer(ranked);
                assert_eq!(taken, top.heap.iter().any(|kept| kept.0 == ranked));
            }
            all.sort_by(|left, right| right.score.cmp(&left.score).then(left.row.cmp(&right.row)));
            all.truncate(limit);
            assert_eq!(top.into_sorted(), all);
        }
    }
}
