//! Measures of a ranking against judgements: recall and normalized discounted cumulative gain, as trec_eval computes them.

use std::collections::HashMap;

use super::{DEEP, SHALLOW};

/// Means over all queries.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Quality {
    /// Share of the relevant documents among the first 10.
    pub(super) recall_shallow: f64,
    /// Among the first 100.
    pub(super) recall_deep: f64,
    /// Gains of the first 10, each divided by the logarithm of its place, in relation to the best possible.
    pub(super) ndcg_shallow: f64,
}

/// Sums over the queries so far.
#[derive(Debug, Default)]
pub(super) struct Judged {
    sum: Quality,
    num_queries: usize,
}

impl Judged {
    /// One query's two rankings.
    pub(super) fn add(&mut self, relevant: &HashMap<String, f64>, shallow: &[&str], deep: &[&str]) {
        self.sum.recall_shallow += recall(relevant, shallow, SHALLOW);
        self.sum.recall_deep += recall(relevant, deep, DEEP);
        self.sum.ndcg_shallow += ndcg(relevant, shallow, SHALLOW);
        self.num_queries += 1;
    }

    /// The means; zeros without queries.
    pub(super) fn quality(&self) -> Quality {
        let mean = |sum: f64| sum / self.num_queries.max(1) as f64;
        Quality {
            recall_shallow: mean(self.sum.recall_shallow),
            recall_deep: mean(self.sum.recall_deep),
            ndcg_shallow: mean(self.sum.ndcg_shallow),
        }
    }
}

fn recall(relevant: &HashMap<String, f64>, ranking: &[&str], depth: usize) -> f64 {
    let num_found = ranking.iter().take(depth).filter(|id| relevant.contains_key(**id)).count();
    num_found as f64 / relevant.len().max(1) as f64
}

fn ndcg(relevant: &HashMap<String, f64>, ranking: &[&str], depth: usize) -> f64 {
    let discounted = |gains: &mut dyn Iterator<Item = f64>| -> f64 {
        gains.take(depth).enumerate().map(|(place, gain)| gain / (place as f64 + 2.0).log2()).sum()
    };
    let mut best: Vec<f64> = relevant.values().copied().collect();
    best.sort_by(|one, two| two.total_cmp(one));
    let best = discounted(&mut best.into_iter());
    let gained = discounted(&mut ranking.iter().map(|id| relevant.get(*id).copied().unwrap_or(0.0)));
    if best > 0.0 { gained / best } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_those_of_the_definition() {
        let relevant = HashMap::from([("a".to_owned(), 1.0), ("b".to_owned(), 2.0)]);
        assert_eq!(ndcg(&relevant, &["b", "a"], 10), 1.0);
        let second = (1.0 + 2.0 / 3f64.log2()) / (2.0 + 1.0 / 3f64.log2());
        assert!((ndcg(&relevant, &["a", "b"], 10) - second).abs() < 1e-12);
        assert_eq!(ndcg(&relevant, &["x", "y"], 10), 0.0);
        assert_eq!((recall(&relevant, &["x", "a"], 10), recall(&relevant, &["x", "a"], 1)), (0.5, 0.0));
        let mut judged = Judged::default();
        judged.add(&relevant, &["b", "a"], &["b"]);
        judged.add(&relevant, &[], &[]);
        assert_eq!(judged.quality(), Quality { recall_shallow: 0.5, recall_deep: 0.25, ndcg_shallow: 0.5 });
    }
}
