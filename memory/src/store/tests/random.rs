//! Random changes against the naive model: what is stored, what was known when, and what is refused have to be the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use super::model::{Expected, Model};
use super::{BY, Bench, Rng, START_MS, moment, variant};
use crate::item::{Change, Item, ItemKind, ItemPatch, NewItem, Scope, Source};
use crate::lifecycle::ItemState;
use crate::store::{ItemFilter, ListRequest, StoreError, WriteTransaction};
use crate::{ItemId, Timestamp};

const WORDS: [&str; 6] = ["tea", "Bern", "'; DROP TABLE items; --", "\"NEAR\" OR *", "ß", "%_\\"];

fn random_new(rng: &mut Rng, known: &[ItemId]) -> NewItem {
    let mut new = NewItem::fact(format!("{} {} {}", rng.pick(&WORDS), rng.pick(&WORDS), rng.below(100)));
    new.kind = *rng.pick(&ItemKind::ALL);
    new.state = *rng.pick(&[ItemState::Generated, ItemState::Activated]);
    new.tags = (0..rng.below(3)).map(|_| (*rng.pick(&WORDS)).to_owned()).collect();
    new.entities = (0..rng.below(3)).map(|_| (*rng.pick(&WORDS)).to_owned()).collect();
    new.scope = Scope { user: rng.one_in(2).then(|| (*rng.pick(&WORDS)).to_owned()), ..Scope::default() };
    new.valid_from = rng.one_in(3).then(|| moment(START_MS + rng.below(1_000) as i64));
    new.salience = rng.below(100) as f32 / 99.0;
    if rng.one_in(4) {
        new.metadata.insert((*rng.pick(&WORDS)).to_owned(), serde_json::json!({"0.1": [0.1, "x", null]}));
    }
    if rng.one_in(4) && !known.is_empty() {
        new.source = Source::Derived { from: vec![*rng.pick(known)] };
    }
    new
}

fn random_patch(rng: &mut Rng) -> ItemPatch {
    let label = |rng: &mut Rng| vec![(*rng.pick(&WORDS)).to_owned()];
    ItemPatch {
        text: rng.one_in(2).then(|| format!("{} {}", rng.pick(&WORDS), rng.below(3))),
        tags: rng.one_in(3).then(|| label(rng)),
        entities: rng.one_in(3).then(|| label(rng)),
        valid_to: rng.one_in(4).then(|| rng.one_in(2).then(|| moment(START_MS + 500 + rng.below(1_000) as i64))),
        salience: rng.one_in(4).then_some(0.25),
        ..ItemPatch::default()
    }
}

/// The patch on the model, with the store's rules written down once more.
fn patched(before: &Item, patch: &ItemPatch) -> Expected<Item> {
    let mut item = before.clone();
    let ItemPatch { text, tags, entities, valid_to, salience, .. } = patch.clone();
    item.text = text.map_or(item.text, |text| text.trim().to_owned());
    item.tags = tags.unwrap_or(item.tags);
    item.entities = entities.unwrap_or(item.entities);
    item.salience = salience.unwrap_or(item.salience);
    if let Some(to) = valid_to {
        item.valid_to = to;
        if matches!((item.valid_from, to), (Some(from), Some(to)) if from >= to) {
            return Err("EmptyValidity");
        }
    }
    Ok(item)
}

/// What the store and the model made of a change. `None` from the model stands for a change whose result is compared
/// by the state afterwards alone.
type Outcome = (Result<(Item, Timestamp), StoreError>, Expected<Option<Item>>);

/// One random change, made in the store and in the model. Returns the moment, where one was recorded.
fn step(bench: &Bench, model: &mut Model, rng: &mut Rng) -> Option<Timestamp> {
    let known: Vec<ItemId> = model.now.keys().copied().chain([ItemId::new()]).collect();
    let id = *rng.pick(&known);
    let other = *rng.pick(&known);
    let (result, expected): Outcome = match rng.below(16) {
        0..=3 => {
            let new = random_new(rng, &known[..known.len() - 1]);
            let result = write(bench, &|tx| tx.insert(new.clone(), BY));
            if let Ok((item, _now)) = &result {
                if let Source::Derived { from } = &item.source {
                    model.made.extend(from.iter().map(|from| (*from, item.id)));
                }
                assert_eq!((&item.text, item.kind, item.version), (&new.text.trim().to_owned(), new.kind, 1));
                model.put(item.clone(), Change::Created);
            }
            (result, Ok(None))
        }
        4..=6 => {
            let patch = random_patch(rng);
            let expected_version = rng.one_in(2).then(|| 1 + rng.below(3) as u64);
            let result = write(bench, &|tx| tx.update(id, expected_version, patch.clone(), BY));
            let now = result.as_ref().map_or(moment(0), |(_item, now)| *now);
            let expected = model.item(id).and_then(|before| {
                if expected_version.is_some_and(|version| version != before.version) {
                    return Err("VersionConflict");
                }
                let before = model.editable(id)?;
                let after = patched(&before, &patch)?;
                let is_same = after == before;
                Ok(Some(if is_same { before } else { model.next(before, now, Change::Edited, |item| *item = after) }))
            });
            (result, expected)
        }
        7..=8 => {
            let to = *rng.pick(&ItemState::ALL);
            let result = write(bench, &|tx| tx.transition(id, None, to, BY));
            let now = result.as_ref().map_or(moment(0), |(_item, now)| *now);
            (result, model.transition(id, to, now).map(Some))
        }
        9..=13 => link_change(bench, model, rng, id, other),
        14 => {
            let hold = rng.one_in(4);
            let result = write(bench, &|tx| if hold { tx.set_legal_hold(id, BY) } else { tx.lift_legal_hold(id, BY) });
            let now = result.as_ref().map_or(moment(0), |(_item, now)| *now);
            let expected = model.item(id).map(|before| {
                let is_same = before.legal_hold == hold;
                let held = |item: &mut Item| item.legal_hold = hold;
                Some(if is_same { before } else { model.next(before, now, Change::Held { hold }, held) })
            });
            (result, expected)
        }
        _ => return erase_or_redact(bench, model, rng, id),
    };
    compare(result, expected)
}

/// One random change of how two memories stand to each other, or of one to its past.
fn link_change(bench: &Bench, model: &mut Model, rng: &mut Rng, id: ItemId, other: ItemId) -> Outcome {
    match rng.below(5) {
        0..=1 => {
            let parents = [id, other];
            let result = write(bench, &|tx| tx.merge(&parents, NewItem::fact("both"), BY));
            let expected = model.may_merge(&parents);
            if let (Ok((made, now)), Ok(())) = (&result, &expected) {
                model.merge(&parents, made, *now);
            }
            (result, expected.map(|()| None))
        }
        2 => {
            let result = write(bench, &|tx| tx.unmerge(id, BY).map(|unmerged| unmerged.merged));
            let now = result.as_ref().map_or(moment(0), |(_item, now)| *now);
            (result, model.unmerge(id, now).map(|()| None))
        }
        3 => {
            let result = write(bench, &|tx| tx.supersede(id, other, BY));
            let now = result.as_ref().map_or(moment(0), |(_item, now)| *now);
            (result, model.supersede(id, other, now).map(Some))
        }
        _ => {
            let version = 1 + rng.below(4) as u64;
            let result = write(bench, &|tx| tx.restore(id, None, version, BY));
            let now = result.as_ref().map_or(moment(0), |(_item, now)| *now);
            (result, model.restore(id, version, now).map(Some))
        }
    }
}

fn write(
    bench: &Bench,
    change: &dyn Fn(&WriteTransaction<'_>) -> Result<Item, StoreError>,
) -> Result<(Item, Timestamp), StoreError> {
    bench.store.write(|tx| change(tx).map(|item| (item, tx.now())))
}

fn erase_or_redact(bench: &Bench, model: &mut Model, rng: &mut Rng, id: ItemId) -> Option<Timestamp> {
    if rng.one_in(2) {
        let result = bench.store.write(|tx| tx.redact(id, "[redacted]", BY).map(|done| (done.item, tx.now())));
        let now = result.as_ref().map_or(moment(0), |(_item, now)| *now);
        let expected = model.redact(id, "[redacted]", now).map(Some);
        return compare(result, expected);
    }
    let result = bench.store.write(|tx| tx.erase(&[id], Vec::new(), BY).map(|done| (done, tx.now())));
    let now = result.as_ref().map_or(moment(0), |(_done, now)| *now);
    match (result, model.erase(id, now)) {
        (Ok((erased, now)), Ok(gone)) => {
            let erased: BTreeSet<ItemId> = erased.items.iter().chain(&erased.derived).map(|(_row, id)| *id).collect();
            assert_eq!(erased, gone);
            Some(now)
        }
        (Err(error), Err(expected)) => {
            assert_eq!(variant(&error), expected);
            None
        }
        (result, expected) => panic!("erase: {result:?}, expected {expected:?}"),
    }
}

fn compare(result: Result<(Item, Timestamp), StoreError>, expected: Expected<Option<Item>>) -> Option<Timestamp> {
    match (result, expected) {
        (Ok((item, now)), Ok(expected)) => {
            if let Some(expected) = expected {
                assert_eq!(item, expected);
            }
            Some(now)
        }
        (Err(error), Err(expected)) => {
            assert_eq!(variant(&error), expected);
            None
        }
        (result, expected) => panic!("{result:?}, expected {expected:?}"),
    }
}

fn assert_same(bench: &Bench, model: &Model) {
    bench
        .store
        .read(|reader| {
            let request = ListRequest::new(ItemFilter::default(), 1_000);
            let now: BTreeMap<ItemId, Item> =
                reader.list(&request)?.items.into_iter().map(|item| (item.id, item)).collect();
            assert_eq!(now, model.now);
            for (id, versions) in &model.history {
                assert_eq!(reader.history(*id)?, *versions);
            }
            for (moment, items) in &model.moments {
                let then = reader.list_as_of(*moment, &request)?.items;
                let then: BTreeMap<ItemId, Item> = then.into_iter().map(|item| (item.id, item)).collect();
                assert_eq!(then, *items, "as of {moment}");
                for id in model.now.keys() {
                    assert_eq!(reader.as_of(*id, *moment)?.as_ref(), items.get(id));
                }
            }
            Ok(())
        })
        .expect("a readable store");
    bench.assert_sound();
}

#[test]
fn random_changes_agree_with_a_naive_model() {
    for seed in 0..8 {
        println!("seed {seed}");
        let (mut bench, mut model, mut rng) = (Bench::new(), Model::default(), Rng(seed));
        for number in 0..250 {
            // The clock runs, stands, and goes backwards.
            bench.clock.fetch_add([1, 0, 700, -5_000][rng.below(4)], Ordering::Relaxed);
            if let Some(now) = step(&bench, &mut model, &mut rng) {
                assert!(model.moments.last().is_none_or(|(last, _)| *last < now), "moments are distinct and in order");
                model.moments.push((now, model.now.clone()));
            }
            if number % 50 == 49 {
                if rng.one_in(2) {
                    bench.store.purge().expect("a purge");
                }
                bench = bench.reopened();
                assert_same(&bench, &model);
            }
        }
        assert!(model.moments.len() > 50, "most changes are made");
    }
}
