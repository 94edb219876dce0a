//! The trace of a search: for each result, why it was chosen or not, as plain data for the API.

use serde::{Deserialize, Serialize};

use crate::ItemId;

use super::fusion::FoundBy;
use super::lexical::TermScore;

/// Why one memory is in the answer, or why it is not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultTrace {
    /// Which memory.
    pub item: ItemId,
    /// The lists that had it, each with its rank and score there.
    pub found_by: Vec<FoundBy>,
    /// Terms it has in common with the question, with their parts of the lexical score, the greatest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<TermScore>,
    /// Labels of the edges from what was found directly to this memory, the nearest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub graph_path: Vec<String>,
    /// Score of the fused ranking.
    pub fused_score: f32,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a memory that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It is in the answer.
    Kept {
        /// Its place there, from 1.
        rank: usize,
        /// Tokens it takes of the budget, where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        num_tokens: Option<usize>,
    },
    /// It did not fit into what was left of the budget.
    OverBudget {
        /// Tokens it would have taken.
        num_tokens: usize,
    },
    /// Others were more relevant, or told more that is new.
    LessDiverse,
    /// It says what this one, which was kept, says.
    DuplicateOf {
        /// The one that was kept.
        item: ItemId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::fusion::ListKind;

    #[test]
    fn a_trace_is_readable_json_and_comes_back() {
        let (item, other) = (ItemId::from_bytes([1; 16]), ItemId::from_bytes([2; 16]));
        let found_by = vec![FoundBy { list: ListKind::Lexical, rank: 1, score: 2.5 }];
        let terms = vec![TermScore { term: "bicycl".to_owned(), score: 2.5 }];
        let mut trace = ResultTrace {
            item,
            found_by,
            terms,
            graph_path: vec!["mentions".to_owned()],
            fused_score: 0.5,
            outcome: Outcome::Kept { rank: 1, num_tokens: None },
        };
        for (outcome, expected) in [
            (
                Outcome::Kept { rank: 1, num_tokens: Some(7) },
                r#"{"outcome":"kept","rank":1,"num_tokens":7}"#.to_owned(),
            ),
            (Outcome::OverBudget { num_tokens: 9 }, r#"{"outcome":"over_budget","num_tokens":9}"#.to_owned()),
            (Outcome::LessDiverse, r#"{"outcome":"less_diverse"}"#.to_owned()),
            (Outcome::DuplicateOf { item: other }, format!(r#"{{"outcome":"duplicate_of","item":"{other}"}}"#)),
        ] {
            trace.outcome = outcome;
            let json = serde_json::to_string(&trace).expect("plain data");
            assert!(json.ends_with(&format!(r#""fused_score":0.5,"outcome":{expected}}}"#)), "{json}");
            assert!(json.contains(r#""found_by":[{"list":"lexical","rank":1,"score":2.5}]"#), "{json}");
            assert_eq!(serde_json::from_str::<ResultTrace>(&json).expect("its own form"), trace);
        }
    }
}
