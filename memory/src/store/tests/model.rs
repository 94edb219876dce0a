//! Random changes against a naive model that keeps every moment whole: what is stored, what was known when, and what
//! is refused have to be the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use super::{BY, Bench, Rng, START_MS, moment, variant};
use crate::item::{Change, Item, ItemKind, ItemPatch, NewItem, Scope, Source, Version};
use crate::lifecycle::ItemState;
use crate::store::{ItemFilter, ListRequest, StoreError};
use crate::{ItemId, Timestamp};

/// What the store should hold. Every moment is a copy of everything.
#[derive(Default)]
struct Model {
    now: BTreeMap<ItemId, Item>,
    moments: Vec<(Timestamp, BTreeMap<ItemId, Item>)>,
    history: BTreeMap<ItemId, Vec<Version>>,
    /// What a memory is part of by merging now.
    merged_into: BTreeMap<ItemId, ItemId>,
    /// What was ever made from what: (source, made).
    made: BTreeSet<(ItemId, ItemId)>,
    /// (older, newer).
    superseded: BTreeSet<(ItemId, ItemId)>,
}

type Expected<T> = Result<T, &'static str>;

impl Model {
    fn item(&self, id: ItemId) -> Expected<Item> {
        self.now.get(&id).cloned().ok_or("UnknownItem")
    }

    fn put(&mut self, item: Item, change: Change) {
        let version =
            Version { item: item.clone(), change, actor: BY.actor.to_owned(), reason: BY.reason.map(str::to_owned) };
        self.history.entry(item.id).or_default().push(version);
        self.now.insert(item.id, item);
    }

    fn next(&mut self, before: Item, now: Timestamp, change: Change, edit: impl FnOnce(&mut Item)) -> Item {
        let mut item = before;
        edit(&mut item);
        item.version += 1;
        item.recorded_at = now;
        self.put(item.clone(), change);
        item
    }

    fn editable(&self, id: ItemId) -> Expected<Item> {
        let item = self.item(id)?;
        match item.state {
            _ if item.legal_hold => Err("LegalHold"),
            ItemState::Frozen => Err("Frozen"),
            ItemState::Merged | ItemState::Archived => Err("NotEditable"),
            _ => Ok(item),
        }
    }

    fn transition(&mut self, id: ItemId, to: ItemState, now: Timestamp) -> Expected<Item> {
        let item = self.item(id)?;
        let from = item.state;
        if item.legal_hold {
            return Err("LegalHold");
        }
        if !from.may_become(to) {
            return Err("IllegalTransition");
        }
        if to == ItemState::Merged || (from == ItemState::Merged && to == ItemState::Activated) {
            return Err("OnlyByMerge");
        }
        self.merged_into.remove(&id);
        Ok(self.next(item, now, Change::Transitioned { from, to }, |item| item.state = to))
    }

    fn merge(&mut self, parents: &[ItemId], made: &Item, now: Timestamp) {
        self.put(made.clone(), Change::Created);
        for &id in parents {
            let parent = self.now[&id].clone();
            self.next(parent, now, Change::MergedInto { into: made.id }, |item| item.state = ItemState::Merged);
            self.merged_into.insert(id, made.id);
            self.made.insert((id, made.id));
        }
    }

    fn may_merge(&self, parents: &[ItemId]) -> Expected<()> {
        if parents.len() < 2 || parents.iter().collect::<BTreeSet<_>>().len() != parents.len() {
            return Err("MergeSize");
        }
        let parents = parents.iter().map(|&id| self.item(id)).collect::<Expected<Vec<_>>>()?;
        for parent in parents {
            match parent.state {
                _ if parent.legal_hold => return Err("LegalHold"),
                ItemState::Generated | ItemState::Activated => {}
                _ => return Err("IllegalTransition"),
            }
        }
        Ok(())
    }

    fn unmerge(&mut self, id: ItemId, now: Timestamp) -> Expected<()> {
        let merged = self.item(id)?;
        let parents: Vec<ItemId> = self.merged_into.iter().filter(|(_, into)| **into == id).map(|(p, _)| *p).collect();
        if parents.is_empty() {
            return Err("NotAMerge");
        }
        match merged.state {
            _ if merged.legal_hold => return Err("LegalHold"),
            ItemState::Frozen => return Err("Frozen"),
            ItemState::Merged => return Err("OnlyByMerge"),
            _ => {}
        }
        if parents.iter().any(|parent| self.now[parent].legal_hold) {
            return Err("LegalHold");
        }
        self.come_back(&parents, id, now);
        if merged.state != ItemState::Archived {
            let (from, to) = (merged.state, ItemState::Archived);
            self.next(merged, now, Change::Transitioned { from, to }, |item| item.state = to);
        }
        Ok(())
    }

    fn come_back(&mut self, parents: &[ItemId], from: ItemId, now: Timestamp) {
        for parent in parents {
            self.merged_into.remove(parent);
            let before = self.now[parent].clone();
            self.next(before, now, Change::Unmerged { from }, |item| item.state = ItemState::Activated);
        }
    }

    fn supersede(&mut self, old: ItemId, new: ItemId, now: Timestamp) -> Expected<Item> {
        self.item(old)?;
        let newer = self.item(new)?;
        let item = self.editable(old)?;
        let mut above = BTreeSet::from([new]);
        while let Some(&(_, more)) =
            self.superseded.iter().find(|(older, newer)| above.contains(older) && !above.contains(newer))
        {
            above.insert(more);
        }
        if above.contains(&old) {
            return Err("SupersedeCycle");
        }
        if !self.superseded.insert((old, new)) {
            return Ok(item);
        }
        let mut ends_at = newer.valid_from.unwrap_or(now);
        ends_at = item.valid_to.map_or(ends_at, |to| to.min(ends_at));
        ends_at = item.valid_from.map_or(ends_at, |from| from.max(ends_at));
        Ok(self.next(item, now, Change::Superseded { by: new }, |item| item.valid_to = Some(ends_at)))
    }

    fn restore(&mut self, id: ItemId, version: u64, now: Timestamp) -> Expected<Item> {
        let before = self.editable(id)?;
        let history = &self.history[&id];
        let earlier = history.iter().find(|found| found.item.version == version).ok_or("UnknownVersion")?.item.clone();
        let later = history.iter().filter(|found| found.item.version > version);
        let undone: Vec<ItemId> = later
            .filter_map(|found| match found.change {
                Change::Superseded { by } => Some(by),
                _ => None,
            })
            .collect();
        let restored = Item {
            id,
            state: before.state,
            version: before.version,
            recorded_at: before.recorded_at,
            legal_hold: before.legal_hold,
            source: before.source.clone(),
            ..earlier
        };
        if restored == before {
            return Ok(before);
        }
        for newer in undone {
            self.superseded.remove(&(id, newer));
        }
        Ok(self.next(before, now, Change::Restored { version }, |item| *item = restored))
    }

    fn redact(&mut self, id: ItemId, text: &str, now: Timestamp) -> Expected<Item> {
        let before = self.item(id)?;
        if before.legal_hold {
            return Err("LegalHold");
        }
        for (_moment, items) in &mut self.moments {
            if let Some(item) = items.get_mut(&id) {
                text.clone_into(&mut item.text);
            }
        }
        for version in self.history.get_mut(&id).into_iter().flatten() {
            text.clone_into(&mut version.item.text);
        }
        Ok(self.next(before, now, Change::Redacted, |item| text.clone_into(&mut item.text)))
    }

    fn erase(&mut self, id: ItemId, now: Timestamp) -> Expected<BTreeSet<ItemId>> {
        self.item(id)?;
        let mut gone = BTreeSet::from([id]);
        while let Some(&(_, more)) = self.made.iter().find(|(from, made)| gone.contains(from) && !gone.contains(made)) {
            gone.insert(more);
        }
        let back: Vec<(ItemId, ItemId)> = self
            .merged_into
            .iter()
            .filter(|(parent, into)| gone.contains(into) && !gone.contains(parent))
            .map(|(parent, into)| (*parent, *into))
            .collect();
        if gone.iter().chain(back.iter().map(|(parent, _)| parent)).any(|id| self.now[id].legal_hold) {
            return Err("LegalHold");
        }
        for version in self.history.values_mut().flatten() {
            let other = match version.change {
                Change::MergedInto { into: other } | Change::Unmerged { from: other } => other,
                Change::Superseded { by: other } => other,
                _ => continue,
            };
            if gone.contains(&other) {
                version.reason = None;
            }
        }
        for (parent, from) in back {
            self.come_back(&[parent], from, now);
        }
        for id in &gone {
            self.now.remove(id);
            self.history.remove(id);
            self.merged_into.remove(id);
            for (_moment, items) in &mut self.moments {
                items.remove(id);
            }
        }
        self.made.retain(|(from, made)| !gone.contains(from) && !gone.contains(made));
        self.superseded.retain(|(old, new)| !gone.contains(old) && !gone.contains(new));
        Ok(gone)
    }
}

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

/// One random change, made in the store and in the model. Returns the moment, where one was recorded.
fn step(bench: &Bench, model: &mut Model, rng: &mut Rng) -> Option<Timestamp> {
    let known: Vec<ItemId> = model.now.keys().copied().chain([ItemId::new()]).collect();
    let id = *rng.pick(&known);
    let other = *rng.pick(&known);
    let write = |change: &dyn Fn(&super::super::WriteTransaction<'_>) -> Result<Item, StoreError>| {
        bench.store.write(|tx| change(tx).map(|item| (item, tx.now())))
    };
    // `None` stands for a change whose result is compared by the state afterwards alone.
    let (result, expected): (_, Expected<Option<Item>>) = match rng.below(16) {
        0..=3 => {
            let new = random_new(rng, &known[..known.len() - 1]);
            let result = write(&|tx| tx.insert(new.clone(), BY));
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
            let result = write(&|tx| tx.update(id, expected_version, patch.clone(), BY));
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
            let result = write(&|tx| tx.transition(id, None, to, BY));
            let now = result.as_ref().map_or(moment(0), |(_item, now)| *now);
            (result, model.transition(id, to, now).map(Some))
        }
        9..=10 => {
            let parents = [id, other];
            let result = write(&|tx| tx.merge(&parents, NewItem::fact("both"), BY));
            let expected = model.may_merge(&parents);
            if let (Ok((made, now)), Ok(())) = (&result, &expected) {
                model.merge(&parents, made, *now);
            }
            (result, expected.map(|()| None))
        }
        11 => {
            let result = write(&|tx| tx.unmerge(id, BY).map(|unmerged| unmerged.merged));
            let now = result.as_ref().map_or(moment(0), |(_item, now)| *now);
            (result, model.unmerge(id, now).map(|()| None))
        }
        12 => {
            let result = write(&|tx| tx.supersede(id, other, BY));
            let now = result.as_ref().map_or(moment(0), |(_item, now)| *now);
            (result, model.supersede(id, other, now).map(Some))
        }
        13 => {
            let version = 1 + rng.below(4) as u64;
            let result = write(&|tx| tx.restore(id, None, version, BY));
            let now = result.as_ref().map_or(moment(0), |(_item, now)| *now);
            (result, model.restore(id, version, now).map(Some))
        }
        14 => {
            let hold = rng.one_in(4);
            let result = write(&|tx| if hold { tx.set_legal_hold(id, BY) } else { tx.lift_legal_hold(id, BY) });
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
    for seed in 0..12 {
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
