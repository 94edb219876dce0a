//! Latency and size of the search structures over 1,000, 10,000 and 100,000 synthetic memories.
//!
//! `cargo run --release -p memory --example search_figures`. Words follow Zipf's law over a vocabulary of 50,000,
//! twelve words a memory; vectors are random, of 384 dimensions. Seeded: every run has the same data. All on one thread;
//! the least time is what a search takes when nothing else wants the core.

use std::error::Error;
use std::time::{Duration, Instant};

use memory::search::analyzer::Analyzed;
use memory::search::lexical::{LexicalIndex, LexicalQuery};
use memory::search::vectors::{EmbedderId, Embedding, VectorIndex};
use memory::search::{Hit, Row};

const NUM_WORDS: usize = 50_000;
const WORDS_PER_ITEM: usize = 12;
const WORDS_PER_QUERY: usize = 8;
const DIM: usize = 384;
const NUM_QUERIES: usize = 300;
const LIMIT: usize = 100;

/// SplitMix64 (Steele et al., 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn vector(&mut self) -> Vec<f32> {
        (0..DIM).map(|_| ((0..6).map(|_| self.unit()).sum::<f64>() - 3.0) as f32).collect()
    }
}

/// Words by rank, drawn by Zipf's law.
struct Zipf {
    /// Sums of `1 / rank`.
    sums: Vec<f64>,
}

impl Zipf {
    fn new() -> Self {
        let sums = (1..=NUM_WORDS).scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        });
        Self { sums: sums.collect() }
    }

    /// `count` words of ranks from `first` on.
    fn text(&self, random: &mut Random, first: usize, end: usize, count: usize) -> String {
        let before = if first == 0 { 0.0 } else { self.sums[first - 1] };
        let words = (0..count).map(|_| {
            let drawn = before + random.unit() * (self.sums[end - 1] - before);
            // A letter in the middle keeps the stemmer and the digit rules out of it, as for most words.
            spell(self.sums.partition_point(|sum| *sum < drawn))
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

fn spell(mut rank: usize) -> String {
    let mut word = String::new();
    loop {
        word.push(char::from(b"bdfgklmnprtvz"[rank % 13]));
        word.push(char::from(b"aou"[rank / 13 % 3]));
        rank /= 39;
        if rank == 0 {
            return word;
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("| items | list | query | least us | p50 us | p99 us |\n|---|---|---|---|---|---|");
    for num_items in [1_000, 10_000, 100_000] {
        lexical(num_items)?;
        vector(num_items)?;
    }
    Ok(())
}

fn lexical(num_items: u32) -> Result<(), Box<dyn Error>> {
    let (mut random, zipf) = (Random(1), Zipf::new());
    let texts: Vec<String> = (0..num_items).map(|_| zipf.text(&mut random, 0, NUM_WORDS, WORDS_PER_ITEM)).collect();
    let start = Instant::now();
    let mut index = LexicalIndex::default();
    for (row, text) in (0..).map(Row).zip(&texts) {
        index.insert(row, &Analyzed::of_document(text))?;
    }
    index.shrink_to_fit();
    let built = start.elapsed();
    // (name, ranks of the words)
    for (name, first, end) in [("frequent", 0, 20), ("rare", 2_000, NUM_WORDS), ("mixed", 0, NUM_WORDS)] {
        let queries: Vec<String> =
            (0..NUM_QUERIES).map(|_| zipf.text(&mut random, first, end, WORDS_PER_QUERY)).collect();
        let search =
            |filter: fn(Row) -> bool| measure(&queries, |text| index.search(&LexicalQuery::new(text), LIMIT, filter));
        print_row(num_items, "lexical", name, search(|_| true));
        print_row(num_items, "lexical", &format!("{name}, 1% allowed"), search(|row| row.0 % 100 == 7));
    }
    let start = Instant::now();
    for row in (0..num_items).step_by(100).map(Row) {
        index.remove(row);
    }
    let removed = start.elapsed() / num_items.div_ceil(100);
    println!(
        "| {num_items} | lexical | built in {} ms, {} bytes an item, {} terms, removal {} us | | | |",
        built.as_millis(),
        index.heap_bytes() / num_items as usize,
        index.num_terms(),
        removed.as_micros(),
    );
    Ok(())
}

fn vector(num_items: u32) -> Result<(), Box<dyn Error>> {
    let mut random = Random(2);
    let embedder = EmbedderId::new("random")?;
    let originals: Vec<Vec<f32>> = (0..num_items).map(|_| random.vector()).collect();
    let start = Instant::now();
    let mut index = VectorIndex::new(embedder.clone(), DIM)?;
    for (row, values) in (0..).map(Row).zip(&originals) {
        index.insert(row, Embedding { embedder: &embedder, values })?;
    }
    let built = start.elapsed();
    let queries: Vec<Vec<f32>> = (0..NUM_QUERIES).map(|_| random.vector()).collect();
    let search = |limit: usize, filter: fn(Row) -> bool| {
        measure(&queries, |values| {
            index.search(Embedding { embedder: &embedder, values }, limit, filter).unwrap_or_default()
        })
    };
    let exact = |limit: usize| {
        measure(&queries, |values| {
            let original = |row: Row| originals.get(row.0 as usize).cloned();
            index.search_exact(Embedding { embedder: &embedder, values }, limit, |_| true, original).unwrap_or_default()
        })
    };
    print_row(num_items, "vector", "best 10", search(10, |_| true));
    print_row(num_items, "vector", "best 100", search(LIMIT, |_| true));
    print_row(num_items, "vector", "best 100, 1% allowed", search(LIMIT, |row| row.0 % 100 == 7));
    print_row(num_items, "vector", "best 10, exact", exact(10));
    print_row(num_items, "vector", "best 100, exact", exact(LIMIT));
    let bytes = index.heap_bytes() / num_items as usize;
    println!("| {num_items} | vector | built in {} ms, {bytes} bytes an item | | | |", built.as_millis());
    Ok(())
}

/// Times of each query, sorted.
fn measure<Q>(queries: &[Q], search: impl Fn(&Q) -> Vec<Hit>) -> Vec<Duration> {
    let mut times = Vec::new();
    for query in queries {
        let start = Instant::now();
        let hits = std::hint::black_box(search(query));
        times.push(start.elapsed());
        assert!(hits.len() <= LIMIT, "more hits than asked for");
    }
    times.sort();
    times
}

fn print_row(num_items: u32, list: &str, words: &str, times: Vec<Duration>) {
    let percentile = |share: usize| times[times.len() * share / 100].as_micros();
    println!("| {num_items} | {list} | {words} | {} | {} | {} |", percentile(0), percentile(50), percentile(99));
}
