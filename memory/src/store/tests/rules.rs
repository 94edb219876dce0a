//! The rules of single changes: versions, states, holds, and what a failed change leaves.

use super::{BY, Bench, moment, variant};
use crate::ItemId;
use crate::item::{Change, Item, ItemPatch, NewItem, Source};
use crate::lifecycle::ItemState;
use crate::store::{StoreError, VectorWrite, overlay};

/// A memory in each state, made the lawful way.
fn in_state(bench: &Bench, state: ItemState) -> ItemId {
    let item = bench.insert(NewItem { state: ItemState::Generated, ..NewItem::fact("a memory") });
    match state {
        ItemState::Generated => {}
        ItemState::Merged => {
            let other = bench.add("another").id;
            bench.store.write(|tx| tx.merge(&[item.id, other], NewItem::fact("both"), BY)).expect("a merge");
        }
        state => drop(bench.store.write(|tx| tx.transition(item.id, None, state, BY)).expect("a transition")),
    }
    item.id
}

#[test]
fn every_transition_is_made_or_refused_as_the_table_says() {
    let bench = Bench::new();
    for from in ItemState::ALL {
        for to in ItemState::ALL {
            let id = in_state(&bench, from);
            let before = bench.get(id).expect("an item");
            let result = bench.store.write(|tx| tx.transition(id, None, to, BY));
            let needs_merge = to == ItemState::Merged || (from == ItemState::Merged && to == ItemState::Activated);
            match result {
                Ok(after) => {
                    assert!(from.may_become(to) && !needs_merge, "{from} became {to}");
                    assert_eq!((after.state, after.version), (to, before.version + 1));
                }
                Err(StoreError::IllegalTransition { .. }) => assert!(!from.may_become(to)),
                Err(StoreError::OnlyByMerge { .. }) => assert!(from.may_become(to) && needs_merge),
                Err(error) => panic!("{error}"),
            }
        }
    }
    bench.assert_sound();
}

#[test]
fn a_frozen_memory_takes_redaction_and_erasure_alone() {
    let bench = Bench::new();
    let (id, other) = (in_state(&bench, ItemState::Frozen), bench.add("other").id);
    let patch = || ItemPatch { salience: Some(0.1), ..ItemPatch::default() };
    let refused: Vec<String> = [
        bench.store.write(|tx| tx.update(id, None, patch(), BY)),
        bench.store.write(|tx| tx.restore(id, None, 1, BY)),
        bench.store.write(|tx| tx.supersede(id, other, BY)),
        bench.store.write(|tx| tx.transition(id, None, ItemState::Activated, BY)),
        bench.store.write(|tx| tx.merge(&[id, other], NewItem::fact("both"), BY)),
    ]
    .map(|result| variant(&result.expect_err("frozen")))
    .into();
    assert_eq!(refused, ["Frozen", "Frozen", "Frozen", "IllegalTransition", "IllegalTransition"]);
    assert_eq!(bench.store.write(|tx| tx.redact(id, "gone", BY)).expect("a redaction").item.text, "gone");
    assert_eq!(bench.store.write(|tx| tx.erase(&[id], vec![], BY)).expect("an erasure").items.len(), 1);
}

#[test]
fn an_edit_needs_the_version_that_its_author_saw() {
    let bench = Bench::new();
    let item = bench.add("Ada likes tea.");
    let patch = |text: &str| ItemPatch { text: Some(text.to_owned()), ..ItemPatch::default() };
    let update = |version, text: &str| bench.store.write(|tx| tx.update(item.id, version, patch(text), BY));
    assert_eq!(update(Some(1), "Ada likes coffee.").expect("the first").version, 2);
    let error = update(Some(1), "Ada likes water.").expect_err("the second");
    assert!(matches!(error, StoreError::VersionConflict { expected: 1, found: 2, .. }), "{error}");
    assert_eq!(update(None, " Ada likes coffee.\n").expect("no change").version, 2);
    let empty = bench.store.write(|tx| tx.update(item.id, Some(2), ItemPatch::default(), BY));
    assert_eq!(empty.expect("no change").version, 2);
    assert_eq!(bench.store.read(|reader| reader.history(item.id)).expect("a history").len(), 2);
}

#[test]
fn a_superseded_memory_ends_when_the_newer_begins() {
    let bench = Bench::new();
    let old = bench.add("Ada lives in Bern.").id;
    let (may, june) = (moment(1_000), moment(2_000));
    let new = bench.insert(NewItem { valid_from: Some(june), ..NewItem::fact("Ada lives in Basel.") }).id;
    let supersede = |old, new| bench.store.write(|tx| tx.supersede(old, new, BY));
    assert_eq!(supersede(old, new).expect("a supersession").valid_to, Some(june));
    assert_eq!(supersede(old, new).expect("it is so already").version, 2);
    assert_eq!(variant(&supersede(new, old).expect_err("a cycle")), "SupersedeCycle");
    assert_eq!(variant(&supersede(old, old).expect_err("a cycle")), "SupersedeCycle");
    let restored = bench.store.write(|tx| tx.restore(old, Some(2), 1, BY)).expect("an undoing");
    assert_eq!(restored.valid_to, None);
    assert_eq!(supersede(new, old).expect("the other way round").version, 2);
    // One that was never valid by what the newer one says: it keeps an empty time and can still be edited.
    let future = bench.insert(NewItem { valid_from: Some(june), ..NewItem::fact("The fair is in June.") }).id;
    let newer = bench.insert(NewItem { valid_from: Some(may), ..NewItem::fact("The fair is in May.") }).id;
    assert_eq!(supersede(future, newer).expect("a supersession").valid_to, Some(june));
    let patch = ItemPatch { salience: Some(0.0), ..ItemPatch::default() };
    bench.store.write(|tx| tx.update(future, None, patch, BY)).expect("an edit");
    bench.assert_sound();
}

#[test]
fn an_ignored_failure_inside_a_change_undoes_all_of_it() {
    let bench = Bench::new();
    let derived = NewItem { source: Source::Derived { from: vec![ItemId::new()] }, ..NewItem::fact("derived") };
    let ignored = bench.store.write(|tx| {
        // Refused before anything was written: the rest of the change may go on.
        let error = tx.insert(derived.clone(), BY).expect_err("an unknown source");
        assert_eq!(variant(&error), "UnknownItem");
        tx.insert(NewItem::fact("kept"), BY)
    });
    let kept = ignored.expect("a change");
    let ignored = bench.store.write(|tx| {
        // Makes the next version's number taken, so that recording it fails half-way.
        tx.connection().execute(
            "INSERT INTO versions SELECT row, 2, NULL, change, actor, reason, kind, state, scope_user, scope_agent,
             scope_session, valid_from, valid_to, recorded_at, expires_at, salience, legal_hold, tags, entities, source,
             metadata, text FROM versions",
            [],
        )?;
        let failed = tx.transition(kept.id, None, ItemState::Archived, BY);
        assert_eq!(variant(&failed.expect_err("a taken number")), "Sql");
        Ok(())
    });
    assert_eq!(variant(&ignored.expect_err("half done")), "HalfDone");
    assert_eq!(bench.get(kept.id), Some(kept));
    bench.assert_sound();
}

#[test]
fn a_change_tells_the_indexes_what_it_touched() {
    let bench = Bench::new();
    let (a, b) = (bench.add("a").id, bench.add("b").id);
    let touched = |change: &dyn Fn(&super::super::WriteTransaction<'_>) -> Result<Item, StoreError>| {
        bench
            .store
            .write(|tx| {
                let made = change(tx)?;
                Ok((made, tx.touched().into_iter().map(|(_row, id)| id).collect::<Vec<_>>()))
            })
            .expect("a change")
    };
    let (merged, ids) = touched(&|tx| tx.merge(&[a, b], NewItem::fact("ab"), BY));
    assert_eq!(ids, [a, b, merged.id]);
    let (_item, ids) = touched(&|tx| {
        tx.erase(&[merged.id], vec![], BY)?;
        Ok(merged.clone())
    });
    assert_eq!(ids, [a, b, merged.id]);
    assert_eq!(bench.get(merged.id), None);
}

#[test]
fn a_vector_goes_with_the_text_it_stands_for() {
    let bench = Bench::new();
    let item = bench.add("Ada likes tea.");
    let put = |version, vector: &[f32]| bench.store.write(|tx| tx.put_vector(item.id, version, "mini", vector));
    let vector = || bench.store.read(|reader| reader.vector(item.id, "mini")).expect("a read");
    assert_eq!(put(1, &[1.0, -0.5]).expect("a vector"), VectorWrite::Stored);
    assert_eq!(vector(), Some(vec![1.0, -0.5]));
    assert_eq!(variant(&put(1, &[1.0]).expect_err("another length")), "VectorLength");
    assert_eq!(variant(&put(1, &[1.0, f32::NAN]).expect_err("no number")), "VectorNotFinite");
    let update = |patch| bench.store.write(|tx| tx.update(item.id, None, patch, BY)).expect("an edit");
    update(ItemPatch { salience: Some(0.9), ..ItemPatch::default() });
    assert!(vector().is_some(), "the text is the same");
    update(ItemPatch { text: Some("Ada likes coffee.".into()), ..ItemPatch::default() });
    assert_eq!(vector(), None);
    assert_eq!(put(2, &[1.0, 2.0]).expect("too late"), VectorWrite::Outdated);
    let waiting = bench.store.read(|reader| reader.without_vector("mini", None, 10)).expect("a list");
    assert_eq!(waiting.len(), 1);
    assert_eq!(put(3, &[1.0, 2.0]).expect("a vector"), VectorWrite::Stored);
    assert_eq!(bench.store.write(|tx| tx.drop_embedder("mini")).expect("a removal"), 1);
    assert_eq!(put(3, &[1.0]).expect("another length"), VectorWrite::Stored);
}

#[test]
fn being_recalled_counts_and_makes_no_version() {
    let bench = Bench::new();
    let item = bench.add("Ada likes tea.");
    let count = |moment_ms| bench.store.write(|tx| tx.count_accesses(&[item.id, ItemId::new()], moment(moment_ms)));
    count(5).and_then(|()| count(3)).expect("two recalls");
    let access = bench.store.read(|reader| reader.access(item.id)).expect("a read").expect("a count");
    assert_eq!((access.num_accesses, access.last_accessed_at), (2, moment(5)));
    assert_eq!(bench.get(item.id), Some(item));
}

#[test]
fn a_task_comes_back_until_it_is_done_or_given_up() {
    let bench = Bench::new();
    let payload = serde_json::json!({"text": "'; DROP TABLE outbox; --"});
    let id = bench.store.write(|tx| tx.enqueue("ingest", &payload)).expect("a task");
    let take = |now_ms: i64| {
        let now = moment(super::START_MS + now_ms);
        let retry_at = moment(super::START_MS + now_ms + 100);
        bench.store.write(|tx| tx.take_tasks("ingest", now, retry_at, 10)).expect("a read")
    };
    let other = bench.store.write(|tx| tx.enqueue("other", &payload)).expect("a task of another kind");
    assert_eq!(take(0)[0].payload, payload);
    bench.store.write(|tx| tx.complete_task(other)).expect("an end");
    assert_eq!(take(50), []);
    let mut now_ms = 100;
    while !bench.store.read(|reader| reader.task(id)).expect("a read").expect("a task").is_given_up() {
        assert_eq!(take(now_ms).len(), 1);
        let retry_at = moment(super::START_MS + now_ms + 10);
        bench.store.write(|tx| tx.fail_task(id, "no\nway", retry_at)).expect("a failure");
        now_ms += 10;
    }
    assert_eq!(take(now_ms), []);
    assert_eq!(bench.store.read(|reader| reader.tasks(0, 10)).expect("a list")[0].last_error.as_deref(), Some("noway"));
    bench.store.write(|tx| tx.complete_task(id)).expect("an end");
    assert_eq!(bench.store.read(|reader| reader.task(id)).expect("a read"), None);
}

#[test]
fn a_what_if_reading_changes_nothing() {
    let bench = Bench::new();
    let items = ["a", "b", "c"].map(|text| bench.add(text));
    let read = overlay(&items, &[items[0].id], &[(items[2].id, "other".to_owned()), (ItemId::new(), "x".to_owned())]);
    assert_eq!(read.iter().map(|item| item.text.as_str()).collect::<Vec<_>>(), ["b", "other"]);
    assert_eq!(bench.get(items[2].id).expect("an item").text, "c");
}

#[test]
fn a_parent_that_left_a_merge_is_not_part_of_its_undoing() {
    let bench = Bench::new();
    let (a, b) = (bench.add("a").id, bench.add("b").id);
    let merged = bench.store.write(|tx| tx.merge(&[a, b], NewItem::fact("ab"), BY)).expect("a merge").id;
    for to in [ItemState::Archived, ItemState::Activated] {
        bench.store.write(|tx| tx.transition(a, None, to, BY)).expect("a transition");
    }
    let other = bench.add("c").id;
    bench.store.write(|tx| tx.merge(&[a, other], NewItem::fact("ac"), BY)).expect("another merge");
    let undone = bench.store.write(|tx| tx.unmerge(merged, BY)).expect("an undoing");
    assert_eq!(undone.parents.iter().map(|item| item.id).collect::<Vec<_>>(), [b]);
    assert_eq!(undone.merged.state, ItemState::Archived);
    assert_eq!(bench.get(a).expect("an item").state, ItemState::Merged);
    assert_eq!(variant(&bench.store.write(|tx| tx.unmerge(merged, BY)).expect_err("undone")), "NotAMerge");
    let last = bench.store.read(|reader| reader.history(b)).expect("a history").pop().expect("a version");
    assert_eq!(last.change, Change::Unmerged { from: merged });
    bench.assert_sound();
}
