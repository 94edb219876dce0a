//! The search itself: MaxScore over windows of slots (Turtle & Flood, 1995, "Query evaluation: strategies and
//! optimizations"; in windows as Lucene's bulk scorer does it).
//!
//! Terms are ordered by the most they can contribute. Once enough good results are known, the terms that even together
//! cannot lift a text among them are not walked any more: they are only looked up for texts that other terms found. So
//! frequent terms, whose contributions are small, cost little beside rarer ones. The sums of one window are kept in an
//! array, so that no merging of lists by slot is needed.

use super::postings::{Posting, Slot};
use super::score::{Weigh, to_score};
use super::{LexicalIndex, LexicalQuery, QUERY_TERMS_MAX, TermScore};
use crate::search::top::{Ranked, Top};
use crate::search::{Hit, NUM_HITS_MAX, Row};

/// Slots that are scored at a time. Their sums take 16 KiB, half of a first-level cache.
const WINDOW: usize = 4096;
/// A list is walked instead of searched when it has at most so many postings for each text to look up: about the steps
/// of a binary search in a window.
const POSTINGS_PER_LOOKUP: usize = 8;

/// One term of the query while it is searched for.
struct Cursor<'a> {
    weigh: Weigh,
    weight_max: u32,
    /// Postings that lie at or after the current window, and maybe some before.
    rest: &'a [Posting],
}

impl<'a> Cursor<'a> {
    /// The postings of slots `start..end`; they and all before them are passed.
    fn take_window(&mut self, start: usize, end: usize) -> &'a [Posting] {
        self.rest = &self.rest[find_slot(self.rest, start)..];
        let (window, rest) = self.rest.split_at(find_slot(self.rest, end));
        self.rest = rest;
        window
    }
}

/// Index of the first posting at or after the slot: doubling steps, then halving ones, as it is mostly near.
fn find_slot(postings: &[Posting], slot: usize) -> usize {
    let is_before = |posting: &Posting| (posting.slot() as usize) < slot;
    let mut end = 1;
    while end < postings.len() && is_before(&postings[end - 1]) {
        end *= 2;
    }
    let (start, end) = (end / 2, end.min(postings.len()));
    start + postings[start..end].partition_point(is_before)
}

/// Sums of one window.
struct Window {
    start: usize,
    /// `[WINDOW]`; 0: no term was found there.
    sums: Vec<u32>,
    /// Offsets whose sum is not 0 come first.
    found: Vec<u16>,
    num_found: usize,
    /// Offsets that may still be among the best.
    candidates: Vec<u16>,
}

impl Window {
    fn new() -> Self {
        // One more than there are offsets: the last write of `add_all` may fall behind the end.
        Self { start: 0, sums: vec![0; WINDOW], found: vec![0; WINDOW + 1], num_found: 0, candidates: Vec::new() }
    }

    /// Adds a term that may find texts by itself.
    fn add_all(&mut self, postings: &[Posting], weigh: Weigh, lens: &[u32]) {
        for posting in postings {
            let offset = posting.slot() as usize - self.start;
            let sum = &mut self.sums[offset];
            // Written always and counted only if new: a branch here would be mispredicted half of the time.
            self.found[self.num_found] = offset as u16;
            self.num_found += usize::from(*sum == 0);
            *sum += weigh.weight(posting.frequency(), lens[posting.slot() as usize]);
        }
    }

    /// Adds a term to the texts that others found.
    fn add_to_candidates(&mut self, postings: &[Posting], weigh: Weigh, lens: &[u32]) {
        if postings.len() <= self.candidates.len() * POSTINGS_PER_LOOKUP {
            for posting in postings {
                let sum = &mut self.sums[posting.slot() as usize - self.start];
                // Texts that were found and dropped are added to as well; nobody looks at their sums again.
                if *sum != 0 {
                    *sum += weigh.weight(posting.frequency(), lens[posting.slot() as usize]);
                }
            }
            return;
        }
        for &offset in &self.candidates {
            let slot = (self.start + usize::from(offset)) as Slot;
            if let Ok(at) = postings.binary_search_by_key(&slot, |posting| posting.slot()) {
                self.sums[usize::from(offset)] += weigh.weight(postings[at].frequency(), lens[slot as usize]);
            }
        }
    }

    fn keep_candidates(&mut self, sum_min: u32) {
        let sums = &self.sums;
        self.candidates.retain(|offset| sums[usize::from(*offset)] >= sum_min);
    }

    fn reset(&mut self) {
        for &offset in &self.found[..self.num_found] {
            self.sums[usize::from(offset)] = 0;
        }
        self.num_found = 0;
        self.candidates.clear();
    }
}

impl LexicalIndex {
    /// The best `limit` rows that the filter lets through, best first, the lower row first among equals: exactly those
    /// that scoring every row would give. A row without any term of the query is no result. The filter is asked only
    /// about rows that would be returned otherwise.
    pub fn search(&self, query: &LexicalQuery, limit: usize, filter: impl Fn(Row) -> bool) -> Vec<Hit> {
        let mut cursors = self.cursors(query);
        let limit = limit.min(NUM_HITS_MAX).min(self.len());
        if limit == 0 || cursors.is_empty() {
            return Vec::new();
        }
        cursors.sort_by_key(|cursor| cursor.weight_max);
        let mut top = Top::new(limit);
        let mut window = Window::new();
        // What the first i terms can contribute together.
        let sums_max: Vec<u32> = cursors
            .iter()
            .scan(0, |sum, cursor| {
                let before = *sum;
                *sum += cursor.weight_max;
                Some(before)
            })
            .chain([cursors.iter().map(|cursor| cursor.weight_max).sum()])
            .collect();
        loop {
            let threshold = top.worst().map_or(0, |worst: Ranked<u32>| worst.score);
            // Terms that cannot reach the worst of the best even together. An equal score can win by its row.
            let num_optional = sums_max[1..].partition_point(|sum| *sum < threshold);
            let (optional, required) = cursors.split_at_mut(num_optional);
            let next = required.iter().filter_map(|cursor| cursor.rest.first()).map(|posting| posting.slot()).min();
            let Some(next) = next else { break };
            window.start = next as usize / WINDOW * WINDOW;
            let end = window.start + WINDOW;
            for cursor in required {
                let postings = cursor.take_window(window.start, end);
                window.add_all(postings, cursor.weigh, &self.lens);
            }
            window.candidates.extend_from_slice(&window.found[..window.num_found]);
            for (index, cursor) in optional.iter_mut().enumerate().rev() {
                window.keep_candidates(threshold.saturating_sub(sums_max[index + 1]));
                if window.candidates.is_empty() {
                    break;
                }
                let postings = cursor.take_window(window.start, end);
                window.add_to_candidates(postings, cursor.weigh, &self.lens);
            }
            self.offer_candidates(&window, &mut top, &filter);
            window.reset();
        }
        top.into_sorted().into_iter().map(|ranked| Hit { row: ranked.row, score: to_score(ranked.score) }).collect()
    }

    /// What each term of the query gives to the row's score, the most first. The parts add up to the score that a
    /// search of this moment gives, and there are none for a row that is not found.
    pub fn explain(&self, query: &LexicalQuery, row: Row) -> Vec<TermScore> {
        let Some(&slot) = self.slots.get(&row) else { return Vec::new() };
        let weight_of = |text: &str| {
            let term = self.term(*self.dictionary.get(text)?);
            let postings = term.postings.as_slice();
            let at = postings.binary_search_by_key(&slot, |posting| posting.slot()).ok()?;
            Some(self.weigh(term).weight(postings[at].frequency(), self.lens[slot as usize]))
        };
        let found = self.searched_terms(query).into_iter();
        let mut weights: Vec<(&str, u32)> = found.filter_map(|text| Some((text, weight_of(text)?))).collect();
        weights.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(right.0)));
        let explained = weights.into_iter().map(|(term, weight)| (term.to_owned(), to_score(weight)));
        explained.map(|(term, score)| TermScore { term, score }).collect()
    }

    fn offer_candidates(&self, window: &Window, top: &mut Top<u32>, filter: &impl Fn(Row) -> bool) {
        for &offset in &window.candidates {
            let score = window.sums[usize::from(offset)];
            let ranked = Ranked { score, row: self.rows[window.start + usize::from(offset)] };
            if top.would_take(ranked) && filter(ranked.row) {
                top.offer(ranked);
            }
        }
    }

    /// Terms of the query that the index has; of too many the rarest, the first in alphabetical order among equals.
    pub(super) fn searched_terms<'q>(&self, query: &'q LexicalQuery) -> Vec<&'q str> {
        let mut terms: Vec<(usize, &str)> =
            query.terms.iter().map(|term| (self.num_rows_with(term), &**term)).collect();
        terms.retain(|(num_rows, _)| *num_rows > 0);
        terms.sort_unstable();
        terms.truncate(QUERY_TERMS_MAX);
        terms.into_iter().map(|(_, term)| term).collect()
    }

    fn cursors(&self, query: &LexicalQuery) -> Vec<Cursor<'_>> {
        let terms = self.searched_terms(query).into_iter().filter_map(|text| self.dictionary.get(text));
        let terms = terms.map(|id| self.term(*id)).map(|term| {
            let weigh = self.weigh(term);
            Cursor { weigh, weight_max: term.postings.weight_max(weigh), rest: term.postings.as_slice() }
        });
        terms.collect()
    }
}
