//! Search in one or several cubes, cut to a token budget, with the reason for each result where it is asked for.

use std::time::Duration;

use axum::response::Response;
use memory::memories::{Found, SearchRequest};
use memory::search::Row;
use memory::search::budget::cut_to_budget;
use memory::search::trace::{Outcome, ResultTrace};
use models::SpecialTokens;
use serde_json::{Value, json};

use super::call::{Call, ok};
use super::items::exact_scope;
use super::render;
use super::search_fields::{SearchFields, read_search};
use crate::http::error::ApiError;
use crate::http::state::Shared;

/// What all cubes gave together.
#[derive(Default)]
struct Gathered {
    results: Vec<Found>,
    left_out: Vec<ResultTrace>,
    embedding: Duration,
    searching: Duration,
}

/// `POST /v1/memories/search`
pub fn search(mut call: Call) -> Result<Response, ApiError> {
    let asked = read_search(&mut call)?;
    let mut gathered = gather(&call, &asked)?;
    let num_tokens = asked.budget_tokens.map(|budget| cut(&call.app, &mut gathered, budget));
    for (place, found) in gathered.results.iter_mut().enumerate() {
        if let Outcome::Kept { rank, .. } = &mut found.trace.outcome {
            *rank = place + 1;
        }
    }
    let result = |found: &Found| {
        let mut shown = json!({"score": render::short(found.trace.fused_score), "memory": render::memory(&found.item)});
        if asked.trace {
            shown["trace"] = json!(found.trace);
        }
        shown
    };
    let mut answer = json!({
        "object": "list",
        "results": gathered.results.iter().map(result).collect::<Vec<Value>>(),
        "num_tokens": num_tokens,
        "timing_ms": {"embedding": milliseconds(gathered.embedding), "searching": milliseconds(gathered.searching)},
    });
    if asked.trace {
        answer["left_out"] = json!(gathered.left_out);
    }
    Ok(ok(answer))
}

/// Searches the cubes one after the other. Ranks fuse to scores that mean the same in each, so their lists are one list
/// when they are put in order.
fn gather(call: &Call, asked: &SearchFields) -> Result<Gathered, ApiError> {
    let mut gathered = Gathered::default();
    // All cubes are found first: none is searched when one cannot be.
    let find = |cube: &Option<String>| call.place(call.actor(&asked.scope)?, cube.as_deref());
    let places = asked.cubes.iter().map(find).collect::<Result<Vec<_>, ApiError>>()?;
    for place in &places {
        let mut request: SearchRequest = asked.request.clone();
        request.filter.scope = exact_scope(place, asked.scope.clone(), asked.include_shared);
        let answer = place.run(|cube, actor| cube.search(actor, &request))?;
        gathered.results.extend(answer.results);
        gathered.left_out.extend(answer.left_out);
        gathered.embedding += answer.embedding;
        gathered.searching += answer.searching;
    }
    let score = |found: &Found| found.trace.fused_score;
    gathered.results.sort_by(|left, right| score(right).total_cmp(&score(left)));
    let beyond = gathered.results.split_off(asked.request.limit.min(gathered.results.len()));
    let less = |found: Found| ResultTrace { outcome: Outcome::LessDiverse, ..found.trace };
    gathered.left_out.extend(beyond.into_iter().map(less));
    Ok(gathered)
}

/// Leaves out what the budget has no room for, and says how many tokens the rest takes: each memory as a prompt shows
/// it, counted with the served model's tokenizer.
fn cut(app: &Shared, gathered: &mut Gathered, budget_tokens: usize) -> usize {
    let lines: Vec<String> = gathered.results.iter().map(|found| format!("- {}\n", found.item.text)).collect();
    let ranking = lines.iter().enumerate().map(|(place, line)| (Row(place as u32), line.as_str()));
    // What the tokenizer refuses never fits.
    let count =
        |text: &str| app.parts.tokenizer.encode(text, SpecialTokens::Skip).map_or(usize::MAX, |tokens| tokens.len());
    let cut = cut_to_budget(ranking, budget_tokens, count);
    let mut results: Vec<Option<Found>> = std::mem::take(&mut gathered.results).into_iter().map(Some).collect();
    for kept in &cut.kept {
        if let Some(mut found) = results[kept.row.0 as usize].take() {
            found.trace.outcome = Outcome::Kept { rank: 0, num_tokens: Some(kept.num_tokens) };
            gathered.results.push(found);
        }
    }
    for left in &cut.left_out {
        if let Some(found) = results[left.row.0 as usize].take() {
            let outcome = Outcome::OverBudget { num_tokens: left.num_tokens };
            gathered.left_out.push(ResultTrace { outcome, ..found.trace });
        }
    }
    cut.num_tokens
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
