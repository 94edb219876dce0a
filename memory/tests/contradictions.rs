//! The judge by rules against the committed adversarial set: precision and recall may not fall below what was measured.

use std::collections::BTreeMap;

use memory::Timestamp;
use memory::ingest::{Claim, Judge, RuleJudge, Verdict};
use serde_json::Value;

const SET: &str = include_str!("data/contradictions.jsonl");

/// Measured on this set, and rounded down: contradictions that were named as such and are, and those that were found.
const PRECISION_MIN: f64 = 0.99;
const RECALL_MIN: f64 = 0.88;
/// The same for pairs that say one thing twice.
const SAME_PRECISION_MIN: f64 = 0.99;
const SAME_RECALL_MIN: f64 = 0.99;
const NUM_PAIRS_MIN: usize = 150;

struct Pair {
    older: String,
    newer: String,
    label: Verdict,
    category: String,
}

fn pairs() -> Vec<Pair> {
    let pair = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |name: &str| value[name].as_str().expect("a text").to_owned();
        let label = Verdict::ALL.into_iter().find(|verdict| verdict.as_str() == text("label")).expect("a verdict");
        Pair { older: text("a"), newer: text("b"), label, category: text("category") }
    };
    SET.lines().map(pair).collect()
}

fn claim(text: &str, recorded_at: &str) -> Claim {
    let recorded_at: Timestamp = recorded_at.parse().expect("a moment");
    Claim { text: text.to_owned(), valid_from: None, valid_to: None, recorded_at }
}

fn verdict(older: &str, newer: &str) -> Verdict {
    let (older, newer) = (claim(older, "2026-01-01T00:00:00Z"), claim(newer, "2026-03-01T00:00:00Z"));
    RuleJudge.judge(&older, &newer).expect("rules always answer")
}

/// Precision and recall of one verdict.
fn rates(judged: &[(Pair, Verdict)], wanted: Verdict) -> (f64, f64) {
    let count =
        |predicate: &dyn Fn(&(Pair, Verdict)) -> bool| judged.iter().filter(|pair| predicate(pair)).count() as f64;
    let right = count(&|(pair, verdict)| *verdict == wanted && pair.label == wanted);
    let named = count(&|(_, verdict)| *verdict == wanted);
    let there = count(&|(pair, _)| pair.label == wanted);
    (right / named.max(1.0), right / there.max(1.0))
}

#[test]
fn precision_and_recall_hold_on_the_adversarial_set() {
    let judged: Vec<(Pair, Verdict)> = pairs()
        .into_iter()
        .map(|pair| {
            let verdict = verdict(&pair.older, &pair.newer);
            (pair, verdict)
        })
        .collect();
    assert!(judged.len() >= NUM_PAIRS_MIN, "{} pairs", judged.len());
    let mut categories: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    for (pair, verdict) in &judged {
        let counts = categories.entry((pair.label.as_str(), pair.category.as_str())).or_default();
        counts.0 += usize::from(*verdict == pair.label);
        counts.1 += 1;
        if *verdict != pair.label {
            println!(
                "{} ({}), judged {}: {:?} / {:?}",
                pair.label.as_str(),
                pair.category,
                verdict.as_str(),
                pair.older,
                pair.newer
            );
        }
    }
    for ((label, category), (right, all)) in categories {
        println!("{label:12} {category:24} {right:3} of {all:3}");
    }
    let (precision, recall) = rates(&judged, Verdict::Contradicts);
    let (same_precision, same_recall) = rates(&judged, Verdict::Same);
    println!("{} pairs; contradicts: precision {precision:.3} recall {recall:.3}", judged.len());
    println!("same: precision {same_precision:.3} recall {same_recall:.3}");
    assert!(precision >= PRECISION_MIN && recall >= RECALL_MIN, "contradicts: {precision:.3} {recall:.3}");
    assert!(
        same_precision >= SAME_PRECISION_MIN && same_recall >= SAME_RECALL_MIN,
        "same: {same_precision:.3} {same_recall:.3}"
    );
}

#[test]
fn the_set_is_hard_in_every_direction() {
    let pairs = pairs();
    for label in [Verdict::Contradicts, Verdict::Compatible, Verdict::Same] {
        let num_pairs = pairs.iter().filter(|pair| pair.label == label).count();
        assert!(num_pairs >= 20, "{num_pairs} pairs are {}", label.as_str());
    }
}

#[test]
fn a_contradiction_holds_whichever_came_first() {
    for pair in pairs().iter().filter(|pair| pair.label == Verdict::Contradicts) {
        assert_eq!(
            verdict(&pair.older, &pair.newer),
            verdict(&pair.newer, &pair.older),
            "{:?} / {:?}",
            pair.older,
            pair.newer
        );
    }
}
