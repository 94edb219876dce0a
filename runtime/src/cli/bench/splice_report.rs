//! What a splice run comes to: exact answers and distances over chats, times of one prompt; as JSON and as tables.

use serde::Serialize;

use super::splice::{SpliceArgs, TokenChat};
use super::splice_chats::Kind;
use super::statistics::Repetitions;
use crate::cli::table::{Table, figure};

/// What a segment was computed behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Surroundings {
    /// Nothing: position 0.
    Isolated,
    /// The system turn up to the first memory.
    Preamble,
    /// That, and the other memories in another order.
    Shuffled,
}

/// One way to splice.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Method {
    pub context: Surroundings,
    pub first_tokens: usize,
    /// Share of the moved rows that are computed through all layers.
    pub ratio: Option<f32>,
}

/// What one way came to over all chats.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Quality {
    /// `None`: the full computation.
    pub method: Option<Method>,
    pub exact: f64,
    /// Known, updated, unknown.
    pub exact_by_kind: [f64; 3],
    /// Over all answer tokens: share whose most likely token is that of the full computation.
    pub same_top: f64,
    pub logit_divergence_mean: f64,
    pub logit_divergence_max: f64,
    /// Of the prompt's tokens, how many went through all layers.
    pub share_computed: f64,
}

/// What one way took.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Timing {
    pub method: Option<Method>,
    pub share_computed: f64,
    pub ms: Repetitions,
    pub ratio_to_cold: f64,
}

/// Sums over chats.
#[derive(Default)]
pub(super) struct Tally {
    exact: [usize; 3],
    asked: [usize; 3],
    same_top: usize,
    num_rows: usize,
    divergence_sum: f64,
    divergence_max: f64,
    computed: usize,
    /// Tokens of all prompts.
    pub prompt: usize,
}

fn top(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a))).unwrap_or(0)
}

impl Tally {
    /// Adds one chat: rows that went through all layers, the answer's logits and those of the full computation.
    pub fn add(&mut self, chat: &TokenChat, computed: usize, logits: &[Vec<f32>], full: &[Vec<f32>]) {
        let kind = Kind::ALL.iter().position(|kind| *kind == chat.kind).unwrap_or(0);
        let is_exact = logits.iter().zip(&chat.answer).all(|(logits, token)| top(logits) == *token as usize);
        self.exact[kind] += usize::from(is_exact);
        self.asked[kind] += 1;
        self.computed += computed;
        for (logits, full) in logits.iter().zip(full) {
            self.same_top += usize::from(top(logits) == top(full));
            self.num_rows += 1;
            let differences = || logits.iter().zip(full).map(|(a, b)| f64::from((a - b).abs()));
            self.divergence_sum += differences().sum::<f64>() / logits.len() as f64;
            self.divergence_max = self.divergence_max.max(differences().fold(0.0, f64::max));
        }
    }

    /// What it came to.
    pub fn quality(&self, method: Option<Method>) -> Quality {
        let share = |part: usize, of: usize| part as f64 / of.max(1) as f64;
        Quality {
            method,
            exact: share(self.exact.iter().sum(), self.asked.iter().sum()),
            exact_by_kind: [0, 1, 2].map(|kind| share(self.exact[kind], self.asked[kind])),
            same_top: share(self.same_top, self.num_rows),
            logit_divergence_mean: self.divergence_sum / self.num_rows.max(1) as f64,
            logit_divergence_max: self.divergence_max,
            share_computed: share(self.computed, self.prompt),
        }
    }
}

fn cells(method: Option<Method>) -> [String; 3] {
    let Some(Method { context, first_tokens, ratio }) = method else {
        return ["full computation".to_owned(), "-".to_owned(), "-".to_owned()];
    };
    let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.0}%", ratio * 100.0));
    [format!("{context:?}").to_lowercase(), first_tokens.to_string(), ratio]
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// A table of qualities; empty without any.
pub(super) fn quality_text(rows: &[Quality]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        "segments behind",
        "first tokens",
        "selected",
        "exact",
        "known",
        "updated",
        "unknown",
        "same top",
        "mean |d|",
        "max |d|",
        "computed",
    ]);
    for row in rows {
        let kinds = row.exact_by_kind.map(percent);
        let divergence = [row.logit_divergence_mean, row.logit_divergence_max].map(|value| figure(Some(value)));
        let mut line = cells(row.method).to_vec();
        line.push(percent(row.exact));
        line.extend(kinds);
        line.push(percent(row.same_top));
        line.extend(divergence);
        line.push(percent(row.share_computed));
        table.push(line);
    }
    format!("{table}\n")
}

/// A table of times.
pub(super) fn timing_text(args: &SpliceArgs, rows: &[Timing]) -> String {
    let mut table = Table::new(&["time", "first tokens", "selected", "ms", "min", "max", "of cold", "computed"]);
    for row in rows {
        let mut line = cells(row.method).to_vec();
        line.extend([row.ms.median, row.ms.min, row.ms.max].map(|value| figure(Some(value))));
        line.extend([percent(row.ratio_to_cold), percent(row.share_computed)]);
        table.push(line);
    }
    format!("{} segments of {} tokens in a new order\n\n{table}", args.segments, args.segment_len)
}
