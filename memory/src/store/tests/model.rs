//! A naive model of the store that keeps every moment whole, with the rules of every change written down once more.
//! `random` holds the store against it.

use std::collections::{BTreeMap, BTreeSet};

use super::BY;
use crate::item::{Change, Item, Version};
use crate::lifecycle::ItemState;
use crate::{ItemId, Timestamp};

/// What the store should hold. Every moment is a copy of everything.
#[derive(Default)]
pub(super) struct Model {
    pub(super) now: BTreeMap<ItemId, Item>,
    pub(super) moments: Vec<(Timestamp, BTreeMap<ItemId, Item>)>,
    pub(super) history: BTreeMap<ItemId, Vec<Version>>,
    /// What a memory is part of by merging now.
    pub(super) merged_into: BTreeMap<ItemId, ItemId>,
    /// What was ever made from what: (source, made).
    pub(super) made: BTreeSet<(ItemId, ItemId)>,
    /// (older, newer).
    pub(super) superseded: BTreeSet<(ItemId, ItemId)>,
}

/// What a change gives, or the variant of its refusal.
pub(super) type Expected<T> = Result<T, &'static str>;

impl Model {
    pub(super) fn item(&self, id: ItemId) -> Expected<Item> {
        self.now.get(&id).cloned().ok_or("UnknownItem")
    }

    pub(super) fn put(&mut self, item: Item, change: Change) {
        let version =
            Version { item: item.clone(), change, actor: BY.actor.to_owned(), reason: BY.reason.map(str::to_owned) };
        self.history.entry(item.id).or_default().push(version);
        self.now.insert(item.id, item);
    }

    pub(super) fn next(&mut self, before: Item, now: Timestamp, change: Change, edit: impl FnOnce(&mut Item)) -> Item {
        let mut item = before;
        edit(&mut item);
        item.version += 1;
        item.recorded_at = now;
        self.put(item.clone(), change);
        item
    }

    pub(super) fn editable(&self, id: ItemId) -> Expected<Item> {
        let item = self.item(id)?;
        match item.state {
            _ if item.legal_hold => Err("LegalHold"),
            ItemState::Frozen => Err("Frozen"),
            ItemState::Merged | ItemState::Archived => Err("NotEditable"),
            _ => Ok(item),
        }
    }

    pub(super) fn transition(&mut self, id: ItemId, to: ItemState, now: Timestamp) -> Expected<Item> {
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

    pub(super) fn merge(&mut self, parents: &[ItemId], made: &Item, now: Timestamp) {
        self.put(made.clone(), Change::Created);
        for &id in parents {
            let parent = self.now[&id].clone();
            self.next(parent, now, Change::MergedInto { into: made.id }, |item| item.state = ItemState::Merged);
            self.merged_into.insert(id, made.id);
            self.made.insert((id, made.id));
        }
    }

    pub(super) fn may_merge(&self, parents: &[ItemId]) -> Expected<()> {
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

    pub(super) fn unmerge(&mut self, id: ItemId, now: Timestamp) -> Expected<()> {
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

    pub(super) fn come_back(&mut self, parents: &[ItemId], from: ItemId, now: Timestamp) {
        for parent in parents {
            self.merged_into.remove(parent);
            let before = self.now[parent].clone();
            self.next(before, now, Change::Unmerged { from }, |item| item.state = ItemState::Activated);
        }
    }

    pub(super) fn supersede(&mut self, old: ItemId, new: ItemId, now: Timestamp) -> Expected<Item> {
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

    pub(super) fn restore(&mut self, id: ItemId, version: u64, now: Timestamp) -> Expected<Item> {
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

    pub(super) fn redact(&mut self, id: ItemId, text: &str, now: Timestamp) -> Expected<Item> {
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

    pub(super) fn erase(&mut self, id: ItemId, now: Timestamp) -> Expected<BTreeSet<ItemId>> {
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
