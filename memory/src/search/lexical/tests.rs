//! The index against a naive one that scores every text, and the traces that a removed text must not leave.

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::search::Hit;
use crate::search::random::Random;

/// Scores every text with the same weights, in whatever order a map has.
struct Naive {
    bm25: Bm25,
    texts: HashMap<Row, Analyzed>,
}

impl Naive {
    fn search(&self, query: &LexicalQuery, limit: usize, filter: impl Fn(Row) -> bool) -> Vec<Hit> {
        let num_words = self.texts.values().map(|text| u64::from(text.len())).sum();
        let has = |text: &Analyzed, term: &str| text.terms().any(|(have, _)| have == term);
        let weigh = |term: &String| {
            let num_with = self.texts.values().filter(|text| has(text, term)).count();
            (term.clone(), Weigh::new(self.bm25, num_with, self.texts.len(), num_words))
        };
        let weighs: HashMap<String, Weigh> = query.terms.iter().map(weigh).collect();
        let mut found: Vec<(u32, Row)> = Vec::new();
        for (&row, text) in self.texts.iter().filter(|(row, _)| filter(**row)) {
            let weights = text.terms().filter_map(|(term, frequency)| Some((weighs.get(term)?, frequency)));
            let score: u32 = weights.map(|(weigh, frequency)| weigh.weight(frequency, text.len())).sum();
            if score > 0 {
                found.push((score, row));
            }
        }
        found.sort_by(|left, right| right.0.cmp(&left.0).then(left.1.cmp(&right.1)));
        found.truncate(limit);
        found.into_iter().map(|(score, row)| Hit { row, score: super::score::to_score(score) }).collect()
    }
}

impl LexicalIndex {
    /// Every list is ordered and complete, and nothing is kept for rows that are gone.
    fn check_invariants(&self) {
        let mut num_postings = 0;
        for (text, id) in &self.dictionary {
            let term = self.term(*id);
            assert_eq!(term.text, *text);
            let postings = term.postings.as_slice();
            assert!(!postings.is_empty(), "{text:?} has no postings");
            assert!(postings.windows(2).all(|pair| pair[0].slot() < pair[1].slot()));
            for posting in postings {
                assert!(self.row_terms[posting.slot() as usize].contains(id));
            }
            let weigh = self.weigh(term);
            let lens = |posting: &Posting| self.lens[posting.slot() as usize];
            let most = postings.iter().map(|posting| weigh.weight(posting.frequency(), lens(posting))).max();
            assert!(most <= Some(term.postings.weight_max(weigh)));
            num_postings += postings.len();
        }
        assert_eq!(num_postings, self.row_terms.iter().map(|ids| ids.len()).sum::<usize>());
        assert_eq!(self.terms.iter().flatten().count(), self.dictionary.len());
        assert_eq!(self.dictionary.len() + self.free_terms.len(), self.terms.len());
        assert_eq!(self.slots.len() + self.free_slots.len(), self.rows.len());
        for slot in &self.free_slots {
            assert!(self.row_terms[*slot as usize].is_empty() && self.lens[*slot as usize] == 0);
        }
        for (row, slot) in &self.slots {
            assert_eq!(self.rows[*slot as usize], *row);
        }
        assert_eq!(self.num_words, self.lens.iter().map(|len| u64::from(*len)).sum::<u64>());
    }
}

/// Words of a small vocabulary, the first ones far more often.
fn random_text(random: &mut Random, num_words_max: usize) -> String {
    let num_words = random.below(num_words_max + 1);
    let mut words = Vec::new();
    for _ in 0..num_words {
        let frequent = random.below(3) > 0;
        words.push(format!("w{}", random.below(if frequent { 4 } else { 60 })));
    }
    words.join(" ")
}

#[test]
fn search_equals_scoring_every_text_through_random_changes() {
    for seed in 0..6 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let bm25 = Bm25::new(random.unit() * 2.0, random.unit()).expect("in range");
        let (mut index, mut naive) = (LexicalIndex::new(bm25), Naive { bm25, texts: HashMap::new() });
        for step in 0..400 {
            // Rows are far apart now and then: slots must not follow them.
            let row =
                Row(if random.below(10) == 0 { u32::MAX - random.below(5) as u32 } else { random.below(150) as u32 });
            if random.below(4) == 0 {
                assert_eq!(index.remove(row), naive.texts.remove(&row).is_some());
            } else {
                let text = Analyzed::of_document(&random_text(&mut random, 12));
                index.insert(row, &text).expect("room");
                naive.texts.insert(row, text);
            }
            if step % 20 == 0 {
                index.check_invariants();
                for limit in [0, 1, 3, 10, 1000] {
                    let query = LexicalQuery::new(&random_text(&mut random, 8));
                    let share = 1 + random.below(3) as u32;
                    let filter = |row: Row| row.0.is_multiple_of(share);
                    assert_eq!(index.search(&query, limit, filter), naive.search(&query, limit, filter));
                }
            }
        }
    }
}

#[test]
fn search_equals_scoring_every_text_over_many_windows() {
    let mut random = Random(11);
    let bm25 = Bm25::default();
    let (mut index, mut naive) = (LexicalIndex::new(bm25), Naive { bm25, texts: HashMap::new() });
    for row in 0..9000 {
        let mut text = random_text(&mut random, 10);
        if random.below(2000) == 0 {
            text += " rare";
        }
        let text = Analyzed::of_document(&text);
        index.insert(Row(9000 - row), &text).expect("room");
        naive.texts.insert(Row(9000 - row), text);
    }
    for row in 3000..7500 {
        index.remove(Row(row));
        naive.texts.remove(&Row(row));
    }
    index.check_invariants();
    for text in ["rare w0 w1 w2", "w0 w1 w2 w3 w17", "rare", "w59 w58 w0"] {
        let query = LexicalQuery::new(text);
        for limit in [1, 10, 500] {
            assert_eq!(index.search(&query, limit, |_| true), naive.search(&query, limit, |_| true), "{text} {limit}");
        }
    }
}

#[test]
fn a_removed_text_leaves_no_term_behind() {
    let mut index = LexicalIndex::default();
    index.insert(Row(1), &Analyzed::of_document("the secret CANARY-77 of Ærøskøbing 東京")).expect("room");
    let before = [index.num_terms(), index.len()];
    index.insert(Row(2), &Analyzed::of_document("the other xyzzy-99")).expect("room");
    assert_eq!(index.num_rows_with("xyzzy-99"), 1);
    assert_eq!(index.num_rows_with("the"), 2);
    assert!(index.remove(Row(2)));
    assert_eq!([index.num_terms(), index.len()], before);
    assert_eq!(index.num_rows_with("xyzzy-99"), 0);
    // Replacing is removing too.
    index.insert(Row(1), &Analyzed::of_document("nothing of it")).expect("room");
    index.check_invariants();
    let mut terms: Vec<&str> = index.terms.iter().flatten().map(|term| &*term.text).collect();
    terms.sort_unstable();
    assert_eq!(terms, ["it", "noth", "of"]);
    assert!(index.remove(Row(1)) && !index.remove(Row(1)));
    assert!(index.dictionary.is_empty() && index.terms.iter().all(Option::is_none));
}

#[test]
fn explanations_add_up_to_the_score() {
    let mut random = Random(3);
    let mut index = LexicalIndex::default();
    for row in 0..200 {
        index.insert(Row(row), &Analyzed::of_document(&random_text(&mut random, 20))).expect("room");
    }
    let query = LexicalQuery::new("w0 w1 w2 w3 w5 w8 w13 w21 unknown");
    for hit in index.search(&query, 50, |_| true) {
        let terms = index.explain(&query, hit.row);
        assert!(!terms.is_empty() && terms.is_sorted_by(|left, right| left.score >= right.score));
        let sum: f64 = terms.iter().map(|term| f64::from(term.score)).sum();
        assert!((sum - f64::from(hit.score)).abs() < 1e-6, "{sum} {hit:?}");
    }
    assert!(index.explain(&query, Row(1_000_000)).is_empty());
}

#[test]
fn queries_of_any_size_are_cut_to_their_rarest_terms() {
    let mut index = LexicalIndex::default();
    let all: Vec<String> = (0..300).map(|word| format!("word{word}")).collect();
    for row in 0..50 {
        index.insert(Row(row), &Analyzed::of_document(&all.join(" "))).expect("room");
    }
    index.insert(Row(99), &Analyzed::of_document("needle")).expect("room");
    let query = LexicalQuery::new(&format!("{} needle", all.join(" ")));
    assert_eq!(index.searched_terms(&query).len(), QUERY_TERMS_MAX);
    assert!(index.search(&query, 100, |_| true).iter().any(|hit| hit.row == Row(99)));
    let huge = "x".repeat(QUERY_BYTES_MAX - 1) + "é needle";
    assert!(index.search(&LexicalQuery::new(&huge), 10, |_| true).is_empty(), "what comes after the limit is not read");
    assert!(LexicalQuery::new("?!").is_empty());
    assert!(index.search(&LexicalQuery::new(""), 10, |_| true).is_empty());
}

#[test]
fn the_filter_is_asked_about_what_would_be_returned_only() {
    let mut index = LexicalIndex::default();
    for row in 0..10_000 {
        let text = if row < 10 { "apple apple apple" } else { "apple and a longer text about other things" };
        index.insert(Row(row), &Analyzed::of_document(text)).expect("room");
    }
    let asked = std::cell::Cell::new(0);
    let hits = index.search(&LexicalQuery::new("apple"), 10, |_| {
        asked.set(asked.get() + 1);
        true
    });
    assert_eq!(hits.iter().map(|hit| hit.row.0).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    assert_eq!(asked.get(), 10);
    let scores: BTreeMap<u32, usize> = hits.iter().fold(BTreeMap::new(), |mut scores, hit| {
        *scores.entry(hit.score.to_bits()).or_default() += 1;
        scores
    });
    assert_eq!(scores.len(), 1, "equal texts have equal scores");
}
