//! What was erased or redacted is in no byte of the store's folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{BY, Bench, FILE, Rng, open, variant};
use crate::ItemId;
use crate::item::{ItemPatch, NewItem, Source};
use crate::lifecycle::ItemState;
use crate::store::{By, ItemFilter, NewRelation, Rebuild, StoreError, Visibility};

/// Parts of the canary, so that a rest of it is found too when a page boundary cuts it.
const CANARY: &str = "Zebrafink-4711-Quarzuhr";
const PARTS: [&str; 3] = ["zebrafink", "-4711-", "quarzuhr"];

/// The files below `folder` that hold a part of the canary, whatever its case.
fn files_with_canary(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("a file").to_ascii_lowercase();
        for part in PARTS {
            let num = bytes.windows(part.len()).filter(|window| *window == part.as_bytes()).count();
            if num > 0 {
                found.push(format!("{part} {num} times in {}", path.display()));
            }
        }
    }
    found
}

fn canary_item(rng: &mut Rng) -> NewItem {
    // Short ones share a page with others, long ones overflow onto pages of their own.
    let padding = "lorem ".repeat(*rng.pick(&[1, 5, 40, 600, 3_000]));
    let mut new = NewItem::fact(format!("{padding}{CANARY} {padding}"));
    new.tags = vec![format!("tag {CANARY}"), "shared".into()];
    new.entities = vec![format!("{} person", CANARY.to_uppercase()), "Bern".into()];
    new.metadata.insert(format!("key {CANARY}"), format!("value {CANARY}").into());
    new.source = Source::Message { conversation: format!("talk {CANARY}"), role: "user".into() };
    new
}

/// Fills the store with ordinary memories, so that pages split and records move.
fn noise(bench: &Bench, rng: &mut Rng) -> Vec<ItemId> {
    let add = |rng: &mut Rng| {
        let mut new = NewItem::fact("noise ".repeat(1 + rng.below(40)));
        new.tags = vec![format!("tag {}", rng.below(1_000)), "shared".into()];
        new.entities = vec![format!("person {}", rng.below(1_000)), "Bern".into()];
        new
    };
    let news: Vec<NewItem> = (0..200).map(|_| add(rng)).collect();
    bench
        .store
        .write(|tx| news.into_iter().map(|new| tx.insert(new, BY).map(|item| item.id)).collect())
        .expect("good items")
}

#[test]
fn erased_text_is_in_no_byte_of_the_folder() {
    for seed in 0..4 {
        println!("seed {seed}");
        let (bench, mut rng) = (Bench::new(), Rng(seed));
        let mut canaries = Vec::new();
        for _ in 0..15 {
            let noise = noise(&bench, &mut rng);
            let item = bench.insert(canary_item(&mut rng));
            let by = BY.because("about Zebrafink-4711-Quarzuhr");
            bench
                .store
                .write(|tx| {
                    let id = item.id;
                    let patch = ItemPatch { text: Some(format!("edited {CANARY}")), ..ItemPatch::default() };
                    tx.update(id, None, patch, by)?;
                    tx.restore(id, None, 1, by)?;
                    tx.put_vector(id, 3, "test", &[1.0, 2.0])?;
                    let (from, to) = (format!("{CANARY} person"), "Bern".to_owned());
                    let label = format!("knows {CANARY}");
                    tx.relate(NewRelation { from, to, label, source: id, visibility: Visibility::Shared })?;
                    tx.enqueue("embed", &serde_json::json!({"item": id, "text": CANARY}))?;
                    let merged = tx.merge(&[id, noise[0]], NewItem::fact(format!("both {CANARY}")), by)?;
                    tx.unmerge(merged.id, by)?;
                    let derived =
                        NewItem { source: Source::Derived { from: vec![merged.id] }, ..NewItem::fact(CANARY) };
                    tx.insert(derived, by)?;
                    tx.supersede(noise[1], id, BY)
                })
                .expect("good changes");
            canaries.push(item.id);
            // Some of the others go, so that records are moved together.
            let going: Vec<ItemId> = noise.into_iter().skip(2).filter(|_| rng.one_in(3)).collect();
            bench.store.write(|tx| tx.erase(&going, Vec::new(), BY)).expect("an erasure");
        }
        assert!(!files_with_canary(bench.folder.path()).is_empty(), "the scan finds what is there");
        let erased = bench.store.write(|tx| tx.erase(&canaries, Vec::new(), BY)).expect("an erasure");
        assert_eq!((erased.items.len(), erased.derived.len(), erased.num_tasks), (15, 30, 15));
        assert_eq!((erased.num_relations, erased.num_vectors, erased.num_entities), (15, 15, 1));
        let copies = tempfile::tempdir().expect("a folder");
        bench.store.snapshot_to(&copies.path().join("copy")).expect("a copy");
        assert_eq!(files_with_canary(copies.path()), Vec::<String>::new(), "a copy has never seen it");
        let purged = bench.store.purge().expect("a purge");
        assert!(purged.num_erasures > 45);
        assert_eq!(files_with_canary(bench.folder.path()), Vec::<String>::new());
        assert!(bench.store.read(|reader| reader.entity("bern")).expect("a name").is_some(), "others mention it");
        assert_eq!(bench.store.purge().expect("nothing to do").num_erasures, 0);
        bench.assert_sound();
        let bench = bench.reopened();
        bench.assert_sound();
        assert_eq!(files_with_canary(bench.folder.path()), Vec::<String>::new());
    }
}

#[test]
fn redacted_text_is_in_no_byte_of_the_folder() {
    let (bench, mut rng) = (Bench::new(), Rng(7));
    let black_out = |text: &str| {
        let lower = text.to_lowercase().replace(&CANARY.to_lowercase(), "[redacted]");
        if lower.contains("[redacted]") { lower } else { text.to_owned() }
    };
    let mut ids = Vec::new();
    for _ in 0..20 {
        noise(&bench, &mut rng);
        let item = bench.insert(canary_item(&mut rng));
        let patch = ItemPatch { tags: Some(vec![format!("other {CANARY}")]), ..ItemPatch::default() };
        let by = By::actor("ada").because("it says Zebrafink-4711-Quarzuhr");
        bench.store.write(|tx| tx.update(item.id, Some(1), patch, by)).expect("an edit");
        ids.push(item.id);
    }
    let derived = NewItem { source: Source::Derived { from: vec![ids[0]] }, ..NewItem::fact("a summary") };
    let derived = bench.insert(derived).id;
    bench.store.write(|tx| tx.transition(ids[1], None, ItemState::Frozen, BY)).expect("a frozen memory");
    for (index, &id) in ids.iter().enumerate() {
        let redacted = bench.store.write(|tx| tx.redact_each(id, &black_out, BY)).expect("a redaction");
        assert_eq!(redacted.derived, if index == 0 { vec![derived] } else { vec![] });
        assert!(redacted.item.text.contains("[redacted]"));
    }
    bench.store.purge().expect("a purge");
    assert_eq!(files_with_canary(bench.folder.path()), Vec::<String>::new());
    let history = bench.store.read(|reader| reader.history(ids[2])).expect("a history");
    assert_eq!(history.len(), 3);
    assert_eq!(history[0].item.tags, ["shared", "tag [redacted]"]);
    assert_eq!(history[1].reason.as_deref(), Some("it says [redacted]"));
    bench.assert_sound();
}

#[test]
fn a_purge_that_a_crash_prevented_is_made_at_the_next_opening() {
    let bench = Bench::new();
    let item = bench.add(&format!("{CANARY} likes tea"));
    bench.store.write(|tx| tx.erase(&[item.id], Vec::new(), BY)).expect("an erasure");
    assert!(!files_with_canary(bench.folder.path()).is_empty());
    // The files as a crash leaves them: the store is still open.
    let crashed = tempfile::tempdir().expect("a folder");
    for name in [FILE.to_owned(), format!("{FILE}-wal")] {
        fs::copy(bench.folder.path().join(&name), crashed.path().join(&name)).expect("a copy");
    }
    let store = open(&crashed.path().join(FILE), bench.store.cube(), &bench.clock).expect("an opening");
    assert_eq!(files_with_canary(crashed.path()), Vec::<String>::new());
    assert_eq!(store.read(|reader| reader.counts()).expect("counts").num_to_purge, 0);
}

#[test]
fn a_derived_memory_is_kept_when_it_is_rebuilt() {
    let bench = Bench::new();
    let (first, second) = (bench.add(CANARY), bench.add("Ada likes tea."));
    let merged = bench.store.write(|tx| tx.merge(&[first.id, second.id], NewItem::fact(CANARY), BY)).expect("a merge");
    let rebuild = |id| Rebuild {
        id,
        text: "Ada likes tea.".to_owned(),
        tags: vec![],
        entities: vec!["Ada".to_owned()],
        metadata: BTreeMap::new(),
    };
    let erase = |ids: &[ItemId], rebuilt| bench.store.write(|tx| tx.erase(ids, vec![rebuild(rebuilt)], BY));
    let error = erase(&[first.id], second.id).expect_err("the second does not derive from the first");
    assert_eq!(variant(&error), "NotDerived");
    let erased = erase(&[first.id], merged.id).expect("an erasure");
    assert_eq!((erased.items.len(), erased.derived.len(), erased.came_back.len()), (1, 0, 0));
    assert_eq!(erased.rebuilt[0].source, Source::Derived { from: vec![second.id] });
    let history = bench.store.read(|reader| reader.history(merged.id)).expect("a history");
    assert!(history.iter().all(|version| version.item.text == "Ada likes tea."));
    bench.store.purge().expect("a purge");
    assert_eq!(files_with_canary(bench.folder.path()), Vec::<String>::new());
    bench.assert_sound();
}

#[test]
fn what_was_merged_into_an_erased_memory_comes_back() {
    let bench = Bench::new();
    let parents = ["a", "b", "c"].map(|text| bench.add(text).id);
    bench.store.write(|tx| tx.merge(&parents, NewItem::fact("abc"), BY)).expect("a merge");
    let erased = bench.store.write(|tx| tx.erase(&parents[..1], Vec::new(), BY)).expect("an erasure");
    assert_eq!((erased.derived.len(), erased.came_back.len()), (1, 2));
    let list = bench.store.read(|reader| reader.count(&ItemFilter::default(), None)).expect("a count");
    assert_eq!(list, 2);
    assert!(erased.came_back.iter().all(|item| item.state == ItemState::Activated));
    bench.assert_sound();
}

#[test]
fn a_legal_hold_refuses_erasure_and_redaction_of_what_hangs_on_it() {
    let bench = Bench::new();
    let (source, other) = (bench.add("a source"), bench.add("another"));
    let merged = bench.store.write(|tx| tx.merge(&[source.id, other.id], NewItem::fact("both"), BY)).expect("a merge");
    for held in [source.id, other.id, merged.id] {
        bench.store.write(|tx| tx.set_legal_hold(held, BY)).expect("a hold");
        let error = bench.store.write(|tx| tx.erase(&[source.id], Vec::new(), BY)).expect_err("a hold");
        assert!(matches!(error, StoreError::LegalHold { id } if id == held), "{error}");
        let error = bench.store.write(|tx| tx.redact(held, "x", BY)).expect_err("a hold");
        assert!(matches!(error, StoreError::LegalHold { id } if id == held), "{error}");
        bench.store.write(|tx| tx.lift_legal_hold(held, BY)).expect("a lifted hold");
    }
    assert_eq!(bench.store.write(|tx| tx.erase(&[source.id], Vec::new(), BY)).expect("an erasure").derived.len(), 1);
}
