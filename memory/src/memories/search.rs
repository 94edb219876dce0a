//! Search in one cube: words, vectors and graph, fused, cleaned of duplicates, each result with the trace of why it is there.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::graph::{GraphPaths, graph_hits, graph_paths};
use super::index::{CubeIndex, ItemHead, to_item_row};
use super::mounted::MountedCube;
use super::{MemoriesError, Purpose};
use crate::governance::{Action, Actor, ItemAccess};
use crate::item::{Item, ItemKind, Scope};
use crate::lifecycle::ItemState;
use crate::search::diversity::{Diversity, LeftOut};
use crate::search::duplicates::{DuplicateProfile, Verdict};
use crate::search::fusion::{Fused, Fusion, ListKind, RankedList};
use crate::search::lexical::LexicalQuery;
use crate::search::trace::{Outcome, ResultTrace};
use crate::search::vectors::Embedding;
use crate::search::{Hit, Row};
use crate::store::{self, ItemFilter, ItemRow, ListRequest, Reader};
use crate::{ItemId, Timestamp};

/// Most results of one search.
pub const NUM_RESULTS_MAX: usize = 1_000;
/// Longest question in bytes.
pub const QUERY_BYTES_MAX: usize = 64 << 10;
/// What-if and past reads look at no more memories than this.
pub const NUM_PAST_ITEMS_MAX: usize = 20_000;
/// Each list is this many times as long as the answer, so that fusion has something to choose from…
const LIST_FACTOR: usize = 4;
/// …and at least this long.
const LIST_LEN_MIN: usize = 100;
/// Candidates that are compared with each other are this many times as many as the answer.
const COMPARED_FACTOR: usize = 3;

/// Which ways of finding are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Methods {
    /// Words in common.
    pub lexical: bool,
    /// Similar meaning; without an embedder it finds nothing.
    pub vector: bool,
    /// Connections from the names in the question.
    pub graph: bool,
}

impl Default for Methods {
    fn default() -> Self {
        Self { lexical: true, vector: true, graph: true }
    }
}

/// Which memories may be results. What is empty fits everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SearchFilter {
    /// Of these kinds.
    pub kinds: Vec<ItemKind>,
    /// In these states; empty: those that are recalled.
    pub states: Vec<ItemState>,
    /// With all of these tags.
    pub tags_all: Vec<String>,
    /// With one of these tags.
    pub tags_any: Vec<String>,
    /// Inside this scope.
    pub scope: Scope,
    /// True in the world at this moment; `None`: now.
    pub valid_at: Option<Timestamp>,
}

/// A search.
#[derive(Debug, Clone)]
pub struct SearchRequest {
    /// The question; nothing in it is syntax.
    pub query: String,
    /// Most results.
    pub limit: usize,
    /// Which memories may be results.
    pub filter: SearchFilter,
    /// As they were recorded at this moment; `None`: now. Then only words and graph are searched.
    pub as_of: Option<Timestamp>,
    /// What if these were not there.
    pub without: Vec<ItemId>,
    /// What if these said something else. Then only words and graph are searched.
    pub instead: Vec<(ItemId, String)>,
    /// Ways of finding.
    pub methods: Methods,
    /// How lists become one.
    pub fusion: Fusion,
    /// 1: by relevance alone; less: results that differ from each other (see [`Diversity`]).
    pub lambda: f32,
}

impl SearchRequest {
    /// A search with the usual options.
    pub fn new(query: impl Into<String>, limit: usize) -> Self {
        Self {
            query: query.into(),
            limit,
            filter: SearchFilter::default(),
            as_of: None,
            without: Vec::new(),
            instead: Vec::new(),
            methods: Methods::default(),
            fusion: Fusion::default(),
            lambda: 1.0,
        }
    }
}

/// One result.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The memory, as it was asked for.
    pub item: Item,
    /// Why it is here.
    pub trace: ResultTrace,
}

/// What a search gave.
#[derive(Debug, Clone, Default)]
pub struct SearchAnswer {
    /// The results, best first.
    pub results: Vec<Found>,
    /// What was found and left out, with the reason.
    pub left_out: Vec<ResultTrace>,
    /// Time to embed the question.
    pub embedding: Duration,
    /// Time for everything else.
    pub searching: Duration,
}

/// The question in the forms that the lists need.
struct Question<'a> {
    request: &'a SearchRequest,
    lexical: LexicalQuery,
    vector: Option<Vec<f32>>,
}

/// What may be a result for this caller.
pub(super) struct Sieve<'a> {
    pub(super) access: &'a ItemAccess,
    /// Who looks: decides on private relations. Never the scope that a request asks for.
    pub(super) viewer: Scope,
    filter: &'a SearchFilter,
    pub(super) without: HashSet<ItemId>,
    valid_at: Timestamp,
}

impl Sieve<'_> {
    fn lets_through(&self, head: &ItemHead) -> bool {
        let filter = self.filter;
        let of_state =
            if filter.states.is_empty() { head.state.is_recalled() } else { filter.states.contains(&head.state) };
        of_state
            && (filter.kinds.is_empty() || filter.kinds.contains(&head.kind))
            && head.is_valid_at(self.valid_at)
            && filter.scope.contains(&head.scope)
            && filter.tags_all.iter().all(|tag| head.tags.contains(tag))
            && (filter.tags_any.is_empty() || filter.tags_any.iter().any(|tag| head.tags.contains(tag)))
            && !self.without.contains(&head.id)
            && self.access.allows(&head.id, &head.scope)
    }
}

impl MountedCube {
    /// Searches the memories that the actor may read.
    ///
    /// # Errors
    /// The actor may not read here, the request is out of bounds, or embedder or store fail.
    pub fn search(&self, actor: &Actor, request: &SearchRequest) -> Result<SearchAnswer, MemoriesError> {
        check(request)?;
        let allowed = self.permit(actor, Action::ReadItems)?;
        let needs_past = request.as_of.is_some() || !request.instead.is_empty();
        let began = Instant::now();
        let vector = if request.methods.vector && !needs_past && !request.query.trim().is_empty() {
            self.embed(&[&request.query], Purpose::Query)?.and_then(|mut vectors| vectors.pop())
        } else {
            None
        };
        let embedding = began.elapsed();
        let question = Question { request, lexical: LexicalQuery::new(&request.query), vector };
        let sieve = Sieve {
            access: allowed.access(),
            viewer: viewer(actor),
            filter: &request.filter,
            without: request.without.iter().copied().collect(),
            valid_at: request.filter.valid_at.or(request.as_of).unwrap_or_else(|| self.now()),
        };
        let began = Instant::now();
        let mut answer = self.read(|reader| {
            if needs_past {
                let (index, items) = past(reader, request)?;
                self.rank(reader, &index, &question, &sieve, |row| Ok(items.get(row.0 as usize).cloned()))
            } else {
                // Held over the few rows that are read: what the index says must be what they are ranked by.
                let index = self.index();
                self.rank(reader, &index, &question, &sieve, |row| Ok(reader.get_row(to_item_row(row))?))
            }
        })?;
        answer.embedding = embedding;
        answer.searching = began.elapsed();
        self.note_read(actor, "item.search", answer.results.iter().map(|found| found.item.id).collect())?;
        Ok(answer)
    }

    fn rank(
        &self,
        reader: &Reader<'_>,
        index: &CubeIndex,
        question: &Question<'_>,
        sieve: &Sieve<'_>,
        item_of: impl Fn(Row) -> Result<Option<Item>, MemoriesError>,
    ) -> Result<SearchAnswer, MemoriesError> {
        let request = question.request;
        let list_len = (request.limit * LIST_FACTOR).max(LIST_LEN_MIN);
        let may = |row: Row| index.head(row).is_some_and(|head| sieve.lets_through(head));
        let lexical =
            if request.methods.lexical { index.lexical().search(&question.lexical, list_len, may) } else { Vec::new() };
        let vector = self.vector_hits(reader, index, question, list_len, may)?;
        let paths = if request.methods.graph { graph_paths(reader, index, sieve, request)? } else { GraphPaths::new() };
        let graph = graph_hits(&paths, list_len, may);
        let lists = [
            RankedList { kind: ListKind::Lexical, hits: &lexical },
            RankedList { kind: ListKind::Vector, hits: &vector },
            RankedList { kind: ListKind::Graph, hits: &graph },
        ];
        let fused = request.fusion.fuse(&lists)?;
        let mut answer = select(index, request, &fused, sieve, item_of)?;
        let traces = answer.results.iter_mut().map(|found| &mut found.trace).chain(&mut answer.left_out);
        for trace in traces {
            if let Some(row) = index.row(trace.item) {
                trace.terms = index.lexical().explain(&question.lexical, row);
                trace.graph_path = paths.get(&row).cloned().unwrap_or_default();
            }
        }
        Ok(answer)
    }

    fn vector_hits(
        &self,
        reader: &Reader<'_>,
        index: &CubeIndex,
        question: &Question<'_>,
        list_len: usize,
        may: impl Fn(Row) -> bool,
    ) -> Result<Vec<Hit>, MemoriesError> {
        let (Some(vectors), Some(values), Some(embedder)) =
            (index.vectors(), &question.vector, self.shared().embedder())
        else {
            return Ok(Vec::new());
        };
        let original = |row: Row| {
            let id = index.head(row)?.id;
            reader.vector(id, embedder.id().as_str()).ok().flatten()
        };
        let query = Embedding { embedder: embedder.id(), values };
        // The mirror is exact to four digits, which is enough to order a list for fusion; few results are worth exact scores.
        if question.request.methods.lexical || question.request.methods.graph {
            Ok(vectors.search(query, list_len, may)?)
        } else {
            Ok(vectors.search_exact(query, list_len, may, original)?)
        }
    }
}

/// The actor as a scope that owns private relations.
pub(super) fn viewer(actor: &Actor) -> Scope {
    Scope { user: actor.user().map(str::to_owned), agent: actor.agent().map(str::to_owned), session: None }
}

fn check(request: &SearchRequest) -> Result<(), MemoriesError> {
    let too_many = |what, found, limit| Err(MemoriesError::TooMany { what, found, limit });
    if request.limit > NUM_RESULTS_MAX {
        return too_many("results", request.limit, NUM_RESULTS_MAX);
    }
    if request.query.len() > QUERY_BYTES_MAX {
        return too_many("bytes of the query", request.query.len(), QUERY_BYTES_MAX);
    }
    for (what, found) in [("ids in without", request.without.len()), ("ids in instead", request.instead.len())] {
        if found > NUM_RESULTS_MAX {
            return too_many(what, found, NUM_RESULTS_MAX);
        }
    }
    Ok(())
}

/// The best of the fused ranking without duplicates. A memory that is gone since the index was asked is passed over.
fn select(
    index: &CubeIndex,
    request: &SearchRequest,
    fused: &[Fused],
    sieve: &Sieve<'_>,
    item_of: impl Fn(Row) -> Result<Option<Item>, MemoriesError>,
) -> Result<SearchAnswer, MemoriesError> {
    let mut items: HashMap<Row, (Item, DuplicateProfile)> = HashMap::new();
    let mut candidates = Vec::new();
    for candidate in fused.iter().take(request.limit.saturating_mul(COMPARED_FACTOR)) {
        // The store is what is true; the index only says where to look.
        let Some(item) = item_of(candidate.row)? else { continue };
        if sieve.access.allows(&item.id, &item.scope) {
            let profile = DuplicateProfile::new(&item.text);
            items.insert(candidate.row, (item, profile));
            candidates.push(Hit { row: candidate.row, score: candidate.score });
        }
    }
    let profile = |row: Row| items.get(&row).map(|(_, profile)| profile);
    let similarity = |left: Row, right: Row| match index.vectors().and_then(|vectors| vectors.similarity(left, right)) {
        Some(similarity) => similarity,
        None => profile(left).zip(profile(right)).map_or(0.0, |(left, right)| left.similarity(right)),
    };
    let is_duplicate = |left: Row, right: Row| {
        profile(left).zip(profile(right)).is_some_and(|(left, right)| left.compare(right) != Verdict::Distinct)
    };
    let diversity = Diversity { lambda: request.lambda, limit: request.limit };
    let selection = diversity.select(&candidates, similarity, is_duplicate)?;
    let by_row: HashMap<Row, &Fused> = fused.iter().map(|fused| (fused.row, fused)).collect();
    let trace = |row: Row, outcome: Outcome| {
        let (fused, (item, _)) = (by_row.get(&row)?, items.get(&row)?);
        let (found_by, fused_score) = (fused.found_by.clone(), fused.score);
        Some(ResultTrace { item: item.id, found_by, terms: Vec::new(), graph_path: Vec::new(), fused_score, outcome })
    };
    let left_out = selection.left_out.iter().filter_map(|(row, why)| {
        let outcome = match why {
            LeftOut::BeyondLimit => Outcome::LessDiverse,
            LeftOut::DuplicateOf(kept) => Outcome::DuplicateOf { item: items.get(kept)?.0.id },
        };
        trace(*row, outcome)
    });
    let left_out = left_out.collect();
    let results = selection.selected.iter().enumerate().filter_map(|(place, hit)| {
        let trace = trace(hit.row, Outcome::Kept { rank: place + 1, num_tokens: None })?;
        Some(Found { item: items.get(&hit.row)?.0.clone(), trace })
    });
    Ok(SearchAnswer { results: results.collect(), left_out, ..SearchAnswer::default() })
}

/// An index over the memories as they were, or as they would be. Its rows are their places in the list.
fn past(reader: &Reader<'_>, request: &SearchRequest) -> Result<(CubeIndex, Vec<Item>), MemoriesError> {
    let mut items: Vec<Item> = Vec::new();
    let mut listing = ListRequest::new(ItemFilter::default(), store::NUM_ITEMS_PER_CALL_MAX);
    loop {
        let page = match request.as_of {
            Some(moment) => reader.list_as_of(moment, &listing)?,
            None => reader.list(&listing)?,
        };
        items.extend(page.items);
        if items.len() > NUM_PAST_ITEMS_MAX {
            let what = "memories to look back at";
            return Err(MemoriesError::TooMany { what, found: items.len(), limit: NUM_PAST_ITEMS_MAX });
        }
        match page.next {
            Some(next) => listing.after = Some(next),
            None => break,
        }
    }
    let items = store::overlay(&items, &[], &request.instead);
    let mut index = CubeIndex::new(None)?;
    for (row, item) in items.iter().enumerate() {
        index.put(ItemRow::from_number(row as i64), item)?;
    }
    Ok((index, items))
}
