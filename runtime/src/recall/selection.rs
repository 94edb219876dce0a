//! Which of the memories that were found go into the prompt, and in which order they stand there.
//!
//! The most relevant ones are chosen, then put into the order in which they were written down: equal sets of memories give
//! equal prompts, so that the prefix cache holds them, and of two that disagree the newer one stands later.

use std::cmp::Ordering;
use std::collections::HashMap;

use memory::ItemId;
use memory::cube::CubeName;
use memory::item::Item;
use memory::search::trace::{Outcome, ResultTrace};

use super::block::MemoryTemplate;

/// A memory that was found, before it is chosen.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub cube: CubeName,
    pub item: Item,
    pub trace: ResultTrace,
    /// Its text as it may stand in the prompt; `None` where it may not.
    pub text: Option<String>,
}

/// A memory in the prompt.
#[derive(Debug, Clone)]
pub struct Recalled {
    /// Where it is kept.
    pub cube: CubeName,
    /// The memory.
    pub item: Item,
    /// Its line in the prompt.
    pub line: String,
    /// How relevant it is: the score of the fused ranking.
    pub score: f32,
    /// Why it is here.
    pub trace: ResultTrace,
}

/// Why a memory that was found is not in the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// Others were more relevant.
    LessRelevant,
    /// One that says the same is there.
    Duplicate,
    /// It did not fit into the budget.
    OverBudget,
    /// It spells tokens of the model in a way that could not be undone.
    Unsafe,
}

impl DropReason {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LessRelevant => "less_relevant",
            Self::Duplicate => "duplicate",
            Self::OverBudget => "over_budget",
            Self::Unsafe => "unsafe_text",
        }
    }
}

/// A memory that was found and is not in the prompt.
#[derive(Debug, Clone)]
pub struct Dropped {
    /// Where it is kept.
    pub cube: CubeName,
    /// Which one.
    pub id: ItemId,
    /// Why.
    pub reason: DropReason,
    /// The whole story.
    pub trace: ResultTrace,
}

impl Dropped {
    /// One that the search of its cube left out.
    pub(super) fn by_search(cube: CubeName, trace: ResultTrace) -> Self {
        let reason = match trace.outcome {
            Outcome::DuplicateOf { .. } => DropReason::Duplicate,
            Outcome::OverBudget { .. } => DropReason::OverBudget,
            Outcome::Kept { .. } | Outcome::LessDiverse => DropReason::LessRelevant,
        };
        Self { cube, id: trace.item, reason, trace }
    }

    fn of(candidate: Candidate, reason: DropReason, outcome: Outcome) -> Self {
        let trace = ResultTrace { outcome, ..candidate.trace };
        Self { cube: candidate.cube, id: candidate.item.id, reason, trace }
    }
}

/// What a prompt recalls.
#[derive(Debug, Clone, Default)]
pub struct Recall {
    /// The memories in the prompt, in the order in which they stand there.
    pub memories: Vec<Recalled>,
    /// What was found and left out.
    pub dropped: Vec<Dropped>,
    /// The block for the system turn; `None` where there is no memory.
    pub block: Option<String>,
    /// Tokens of that block.
    pub num_tokens: usize,
}

/// What may be chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Most memories.
    pub limit: usize,
    /// Most tokens of the block.
    pub budget_tokens: usize,
}

/// Chooses among the candidates of all cubes and writes the block.
pub(super) fn select(
    mut candidates: Vec<Candidate>,
    bounds: Bounds,
    template: &MemoryTemplate,
    count_tokens: impl Fn(&str) -> usize,
) -> Recall {
    candidates.sort_by(by_relevance);
    let mut recall = Recall::default();
    let mut lines: HashMap<String, ItemId> = HashMap::new();
    let mut spent = count_tokens(&template.block([]));
    for candidate in candidates {
        let Some(text) = &candidate.text else {
            let outcome = candidate.trace.outcome.clone();
            recall.dropped.push(Dropped::of(candidate, DropReason::Unsafe, outcome));
            continue;
        };
        let line = template.line(text, &candidate.item);
        if let Some(&item) = lines.get(&line) {
            recall.dropped.push(Dropped::of(candidate, DropReason::Duplicate, Outcome::DuplicateOf { item }));
            continue;
        }
        if recall.memories.len() >= bounds.limit {
            recall.dropped.push(Dropped::of(candidate, DropReason::LessRelevant, Outcome::LessDiverse));
            continue;
        }
        // With its line break, which may be a token of its own.
        let num_tokens = count_tokens(&format!("\n{line}"));
        if spent.saturating_add(num_tokens) > bounds.budget_tokens {
            recall.dropped.push(Dropped::of(candidate, DropReason::OverBudget, Outcome::OverBudget { num_tokens }));
            continue;
        }
        spent += num_tokens;
        lines.insert(line.clone(), candidate.item.id);
        let Candidate { cube, item, mut trace, .. } = candidate;
        trace.outcome = Outcome::Kept { rank: recall.memories.len() + 1, num_tokens: Some(num_tokens) };
        recall.memories.push(Recalled { cube, item, line, score: trace.fused_score, trace });
    }
    fit(&mut recall, bounds.budget_tokens, template, count_tokens);
    recall.memories.sort_by(canonical);
    recall
}

/// Writes the block and takes the least relevant memories out again while it is too long: tokens of lines alone do not
/// quite add up to those of the lines together.
fn fit(recall: &mut Recall, budget_tokens: usize, template: &MemoryTemplate, count_tokens: impl Fn(&str) -> usize) {
    while !recall.memories.is_empty() {
        let mut ordered: Vec<&Recalled> = recall.memories.iter().collect();
        ordered.sort_by(|left, right| canonical(left, right));
        let block = template.block(ordered.iter().map(|memory| memory.line.as_str()));
        let num_tokens = count_tokens(&block);
        if num_tokens <= budget_tokens {
            (recall.num_tokens, recall.block) = (num_tokens, Some(block));
            return;
        }
        if let Some(Recalled { cube, item, mut trace, .. }) = recall.memories.pop() {
            if let Outcome::Kept { num_tokens: Some(num_tokens), .. } = trace.outcome {
                trace.outcome = Outcome::OverBudget { num_tokens };
            }
            recall.dropped.push(Dropped { cube, id: item.id, reason: DropReason::OverBudget, trace });
        }
    }
}

/// Best first; among equals the newer one, then by id, so that the order is always the same.
fn by_relevance(left: &Candidate, right: &Candidate) -> Ordering {
    let newest_first = || (right.item.created_at, right.item.id).cmp(&(left.item.created_at, left.item.id));
    right.trace.fused_score.total_cmp(&left.trace.fused_score).then_with(newest_first)
}

/// The order in the prompt: as they were written down.
fn canonical(left: &Recalled, right: &Recalled) -> Ordering {
    (left.item.created_at, left.item.id).cmp(&(right.item.created_at, right.item.id))
}
