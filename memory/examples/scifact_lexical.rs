//! Retrieval quality of the lexical index on SciFact: recall@10, recall@100, nDCG@10 and latency on its validation
//! claims, and with `grid` what k1 and b do on its training claims, so that they are not chosen on what is reported.
//!
//! `cargo run --release -p memory --example scifact_lexical -- FOLDER [grid]`, where FOLDER holds `corpus.jsonl` (lines
//! of id, title, text) and `queries.jsonl` (id, split, text, relevant).

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use memory::search::Row;
use memory::search::analyzer::Analyzed;
use memory::search::lexical::{Bm25, LexicalIndex, LexicalQuery};
use serde::Deserialize;

#[derive(Deserialize)]
struct Abstract {
    id: String,
    title: String,
    text: String,
}

#[derive(Deserialize)]
struct Claim {
    split: String,
    text: String,
    relevant: Vec<String>,
}

/// The split that BEIR calls the test set; the other one is for choosing parameters.
const TEST_SPLIT: &str = "validation";
const GRID_K1: [f32; 5] = [0.6, 0.9, 1.2, 1.5, 2.0];
const GRID_B: [f32; 6] = [0.2, 0.3, 0.4, 0.5, 0.6, 0.75];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, grid) = match &arguments[..] {
        [folder] => (folder, false),
        [folder, word] if word == "grid" => (folder, true),
        _ => return Err("usage: scifact_lexical FOLDER [grid]".into()),
    };
    let abstracts: Vec<Abstract> = read_lines(&Path::new(folder).join("corpus.jsonl"))?;
    let claims: Vec<Claim> = read_lines(&Path::new(folder).join("queries.jsonl"))?;
    let (test, train): (Vec<Claim>, Vec<Claim>) = claims.into_iter().partition(|claim| claim.split == TEST_SPLIT);

    let start = Instant::now();
    let texts: Vec<Analyzed> =
        abstracts.iter().map(|text| Analyzed::of_document(&format!("{} {}", text.title, text.text))).collect();
    let analysis = start.elapsed();
    println!("{} abstracts analysed in {} ms", abstracts.len(), analysis.as_millis());
    let rows = (0..).map(Row).zip(&abstracts);
    let rows: HashMap<&str, Row> = rows.map(|(row, text)| (text.id.as_str(), row)).collect();

    println!("| claims | BM25 | recall@10 | recall@100 | nDCG@10 | p50 us | p99 us |\n|---|---|---|---|---|---|---|");
    report(&texts, Bm25::default(), &test, &rows)?;
    if grid {
        for k1 in GRID_K1 {
            for b in GRID_B {
                report(&texts, Bm25::new(k1, b)?, &train, &rows)?;
            }
        }
    }
    Ok(())
}

fn report(texts: &[Analyzed], bm25: Bm25, claims: &[Claim], rows: &HashMap<&str, Row>) -> Result<(), Box<dyn Error>> {
    let mut index = LexicalIndex::new(bm25);
    for (row, text) in (0..).map(Row).zip(texts) {
        index.insert(row, text)?;
    }
    let (mut recall_10, mut recall_100, mut ndcg_10) = (0.0, 0.0, 0.0);
    let mut times: Vec<Duration> = Vec::new();
    for claim in claims {
        let relevant: Vec<Row> = claim.relevant.iter().filter_map(|id| rows.get(id.as_str()).copied()).collect();
        let start = Instant::now();
        let hits = index.search(&LexicalQuery::new(&claim.text), 100, |_| true);
        times.push(start.elapsed());
        let found: Vec<bool> = hits.iter().map(|hit| relevant.contains(&hit.row)).collect();
        let num_found = |depth: usize| found.iter().take(depth).filter(|found| **found).count() as f64;
        let num_relevant = claim.relevant.len().max(1);
        recall_10 += num_found(10) / num_relevant as f64;
        recall_100 += num_found(100) / num_relevant as f64;
        let gain = |index: usize| 1.0 / (index as f64 + 2.0).log2();
        let best: f64 = (0..num_relevant.min(10)).map(gain).sum();
        let gains = found.iter().take(10).enumerate().filter(|(_, found)| **found);
        ndcg_10 += gains.map(|(index, _)| gain(index)).sum::<f64>() / best;
    }
    times.sort();
    let count = claims.len() as f64;
    let percentile = |share: usize| times.get(times.len() * share / 100).map_or(0, Duration::as_micros);
    println!(
        "| {} | {bm25:?} | {:.4} | {:.4} | {:.4} | {} | {} |",
        claims.len(),
        recall_10 / count,
        recall_100 / count,
        ndcg_10 / count,
        percentile(50),
        percentile(99),
    );
    Ok(())
}

fn read_lines<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Vec<T>, Box<dyn Error>> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let parsed = lines.enumerate().map(|(index, line)| {
        serde_json::from_str(line).map_err(|error| format!("{} line {}: {error}", path.display(), index + 1).into())
    });
    parsed.collect()
}
