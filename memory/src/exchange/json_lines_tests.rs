//! JSONL both ways: nothing is lost, and a broken line costs that line alone.

use super::*;
use crate::item::{Change, ItemKind};
use crate::{CubeId, ItemId, Timestamp};

fn moment(text: &str) -> Timestamp {
    text.parse().expect("a moment")
}

fn record() -> ExportRecord {
    let item = Item {
        id: ItemId::new(),
        cube: CubeId::new(),
        kind: ItemKind::Event,
        state: ItemState::Frozen,
        version: 2,
        text: "Anna met Bob.\n\"Twice\" \u{1f375} שלום".to_owned(),
        tags: vec!["a".to_owned(), "b".to_owned()],
        entities: vec!["Anna".to_owned()],
        scope: Scope { user: Some("anna".to_owned()), agent: None, session: Some("s".to_owned()) },
        created_by: "tester".to_owned(),
        source: Source::Document { name: "notes".to_owned(), start: 3, end: 9 },
        valid_from: Some(moment("2026-01-01T00:00:00Z")),
        valid_to: Some(moment("2026-02-01T00:00:00Z")),
        created_at: moment("2026-01-02T00:00:00Z"),
        recorded_at: moment("2026-01-03T00:00:00Z"),
        expires_at: Some(moment("2030-01-01T00:00:00Z")),
        salience: 0.3,
        legal_hold: true,
        metadata: [("k".to_owned(), serde_json::json!({"deep": [1, 2.5, null]}))].into(),
    };
    let first = Item { version: 1, state: ItemState::Activated, ..item.clone() };
    let version = |item: &Item, change: Change| Version {
        item: item.clone(),
        change,
        actor: "tester".to_owned(),
        reason: Some("why".to_owned()),
    };
    let frozen = Change::Transitioned { from: ItemState::Activated, to: ItemState::Frozen };
    let versions = vec![version(&first, Change::Created), version(&item, frozen)];
    ExportRecord { item, versions }
}

fn read(text: &[u8]) -> JsonLinesImport {
    read_json_lines(text, Strictness::Lenient, &ImportLimits::default()).expect("lines")
}

fn written(records: &[ExportRecord]) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert_eq!(write_json_lines(records, &mut bytes).expect("written"), records.len());
    bytes
}

#[test]
fn every_field_comes_back_as_it_went() {
    let records = [record(), ExportRecord { versions: Vec::new(), ..record() }];
    let import = read(&written(&records));
    assert_eq!(import.records, records);
    assert_eq!((import.items.len(), import.num_problems), (0, 0));
}

#[test]
fn a_broken_line_is_named_and_the_rest_is_read() {
    let mut bytes = written(&[record()]);
    bytes.extend_from_slice(
        b"{broken\n\n7\n\"just a text\"\n\xff\n{\"text\": \"by hand\", \"tags\": [\"b\", \"a\"], \"x\": 1}\n",
    );
    bytes.extend_from_slice(
        b"{\"item\": {\"id\": \"x\"}}\n{\"text\": \"a\", \"kind\": \"thought\"}\n{\"text\": \"a\", \"salience\": 2}\n",
    );
    let import = read(&bytes);
    assert_eq!((import.records.len(), import.items.len()), (1, 2));
    let lines: Vec<Place> = import.problems.iter().map(|problem| problem.place).collect();
    assert_eq!(lines, [3, 5, 7, 9, 10, 11].map(Place::Line));
    assert_eq!(import.items[1].tags, ["a", "b"]);
    assert_eq!(import.items[1].metadata["x"], 1);
    let strict = read_json_lines(bytes.as_slice(), Strictness::Strict, &ImportLimits::default());
    assert!(matches!(strict, Err(ExchangeError::Broken(problem)) if problem.place == Place::Line(3)));
}

#[test]
fn a_history_that_is_not_its_memorys_is_refused() {
    let (one, two) = (record(), record());
    let foreign = ExportRecord { item: one.item.clone(), versions: two.versions };
    let mut reversed = one.clone();
    reversed.versions.reverse();
    let mut salience = one;
    salience.item.salience = 1.5;
    assert_eq!(read(&written(&[foreign, reversed, salience])).num_problems, 3);
}

#[test]
fn limits_and_later_versions_are_errors() {
    let newer = read_json_lines(
        &b"{\"format\": \"memos-memories\", \"version\": 2}"[..],
        Strictness::Lenient,
        &ImportLimits::default(),
    );
    assert!(matches!(newer, Err(ExchangeError::Newer { version: 2, supported: 1 })));
    let limits =
        ImportLimits { line_bytes_max: 20, num_records_max: 2, file_bytes_max: 100, ..ImportLimits::default() };
    let read = |text: &str| read_json_lines(text.as_bytes(), Strictness::Lenient, &limits);
    let long = read(&format!("\"a\"\n\"{}\"\n\"b\"\n", "x".repeat(30))).expect("lines");
    assert_eq!((long.items.len(), long.problems[0].place), (2, Place::Line(2)));
    assert!(matches!(read("\"a\"\n\"b\"\n\"c\"\n"), Err(ExchangeError::TooManyRecords { limit: 2 })));
    assert!(matches!(read(&"\n".repeat(101)), Err(ExchangeError::TooLarge { limit: 100 })));
    let mut record = record();
    record.item.salience = f32::NAN;
    assert!(matches!(write_json_lines([&record], &mut Vec::new()), Err(ExchangeError::Unwritable { index: 0, .. })));
    let deep = format!("{{\"text\": {}", "[".repeat(10_000));
    let import = read_json_lines(deep.as_bytes(), Strictness::Lenient, &ImportLimits::default()).expect("lines");
    assert_eq!(import.num_problems, 1);
}
