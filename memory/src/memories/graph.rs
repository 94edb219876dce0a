//! The graph's part of a search: from the names in the question to the memories that mention them, and on from there.

use std::collections::HashMap;

use super::MemoriesError;
use super::index::CubeIndex;
use super::search::{SearchRequest, Sieve};
use crate::search::{Hit, Row};
use crate::store::{self, Link, Node, Reader, Start, Walk};

/// Steps in the graph: name, memory, name, memory.
const GRAPH_DEPTH: usize = 3;
const GRAPH_NODES_MAX: usize = 200;
/// Names of a question are looked for in runs of at most so many words.
const NAME_WORDS_MAX: usize = 4;

/// Rows that the graph leads to, with the labels on the way.
pub(super) type GraphPaths = HashMap<Row, Vec<String>>;

/// Memories that the graph leads to from the names in the question.
pub(super) fn graph_paths(
    reader: &Reader<'_>,
    index: &CubeIndex,
    sieve: &Sieve<'_>,
    request: &SearchRequest,
) -> Result<GraphPaths, MemoriesError> {
    let starts: Vec<Start> = names_in(&request.query, index).into_iter().map(Start::Entity).collect();
    if starts.is_empty() {
        return Ok(GraphPaths::new());
    }
    let viewer = sieve.viewer.clone();
    let walk = Walk { starts, depth: GRAPH_DEPTH, num_nodes: GRAPH_NODES_MAX, at: request.as_of, viewer };
    let found = reader.traverse(&walk, |item| {
        sieve.access.allows(&item.id, &item.scope) && !sieve.without.contains(&item.id) && item.state.is_recalled()
    })?;
    let mut labels: Vec<Vec<String>> = Vec::with_capacity(found.reached.len());
    let mut paths = GraphPaths::new();
    for reached in &found.reached {
        let mut path = reached.from.and_then(|from| labels.get(from).cloned()).unwrap_or_default();
        match (&reached.link, &reached.node) {
            (Link::Start, Node::Entity(entity)) => path.push(entity.name.clone()),
            (Link::Start, Node::Item(_)) => {}
            (Link::Edge(kind), _) => path.push(kind.to_string()),
            (Link::Mention, Node::Entity(entity)) => path.push(entity.name.clone()),
            (Link::Mention, Node::Item(_)) => path.push("mentions".to_owned()),
            (Link::Relation(label), _) => path.push(label.clone()),
        }
        if let Node::Item(item) = &reached.node
            && let Some(row) = index.row(item.id)
        {
            paths.entry(row).or_insert_with(|| path.clone());
        }
        labels.push(path);
    }
    Ok(paths)
}

/// The nearest first; among equally near ones the lower row.
pub(super) fn graph_hits(paths: &GraphPaths, limit: usize, may: impl Fn(Row) -> bool) -> Vec<Hit> {
    let mut hits: Vec<Hit> = paths
        .iter()
        .filter(|(row, _)| may(**row))
        .map(|(row, path)| Hit { row: *row, score: 1.0 / path.len().max(1) as f32 })
        .collect();
    hits.sort_by(|left, right| right.score.total_cmp(&left.score).then(left.row.cmp(&right.row)));
    hits.truncate(limit);
    hits
}

/// The names in a question that some memory mentions: the longest runs of words first, none inside another.
fn names_in(query: &str, index: &CubeIndex) -> Vec<String> {
    let words: Vec<&str> = query
        .split_whitespace()
        .map(|word| word.trim_matches(|letter: char| !letter.is_alphanumeric()))
        .map(|word| word.strip_suffix("'s").or_else(|| word.strip_suffix("’s")).unwrap_or(word))
        .filter(|word| !word.is_empty())
        .collect();
    let mut names = Vec::new();
    let mut start = 0;
    while start < words.len() {
        let longest = (1..=NAME_WORDS_MAX.min(words.len() - start)).rev().find_map(|len| {
            let name = store::fold_name(&words[start..start + len].join(" "));
            (!index.mentioning(&name).is_empty()).then_some((len, name))
        });
        match longest {
            Some((len, name)) => {
                if !names.contains(&name) {
                    names.push(name);
                }
                start += len;
            }
            None => start += 1,
        }
    }
    names
}
