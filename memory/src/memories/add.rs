//! Adding memories: redacted, embedded, compared with what is known, and written with their audit entry in one transaction.

use std::collections::{BTreeSet, HashMap};

use serde_json::json;

use super::judged::{self, Judged};
use super::mounted::{Entry, MountedCube};
use super::{MemoriesError, Purpose};
use crate::governance::{Action, Actor, Allowed, GovernanceError};
use crate::ingest::{Claim, Judge, RuleJudge, Verdict};
use crate::item::{Item, NewItem, Source};
use crate::lifecycle::ItemState;
use crate::search::Row;
use crate::search::duplicates::{self, DuplicateProfile, TextHash};
use crate::search::lexical::LexicalQuery;
use crate::store::{By, NUM_SOURCES_MAX, Reader, WriteTransaction};
use crate::{ItemId, Timestamp};

/// Most memories that are added in one transaction.
pub const NUM_ADDED_MAX: usize = 1_000;
/// How many of the most similar memories a new one is compared with.
pub(super) const NUM_COMPARED: usize = 16;

/// What happens to a memory that says what another one says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Duplicates {
    /// It is added all the same.
    Keep,
    /// It is not added when one has the same text.
    #[default]
    SkipExact,
    /// It is not added either when one says the same in slightly other words, or more.
    SkipNear,
}

/// What happens to memories that a new one contradicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Contradictions {
    /// They stay as they are.
    #[default]
    Keep,
    /// They cease to be valid when the new one begins to be.
    Supersede,
    /// The same, where a language model is asked about those that rules do not understand. It is asked before anything is
    /// changed; where it fails, nothing is added.
    Judge,
    /// The same, but where the model fails the rules alone decide.
    JudgeOrSupersede,
}

impl Contradictions {
    /// Whether contradicted memories cease to be valid.
    pub(super) fn supersedes(self) -> bool {
        self != Self::Keep
    }
}

/// How memories are added.
#[derive(Debug, Clone, Copy, Default)]
pub struct AddOptions<'a> {
    /// What happens to duplicates.
    pub duplicates: Duplicates,
    /// What happens to what is contradicted.
    pub contradictions: Contradictions,
    /// Why, in the actor's words.
    pub reason: Option<&'a str>,
}

/// What became of one memory that was to be added.
#[derive(Debug, Clone, PartialEq)]
pub struct Added {
    /// The memory that says it now.
    pub item: Item,
    /// Whether it is new.
    pub event: AddEvent,
}

/// How a memory came to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddEvent {
    /// It was added.
    Added,
    /// It was added, and these ceased to be valid.
    Superseded(Vec<ItemId>),
    /// It was there already.
    Duplicate,
}

impl MountedCube {
    /// Adds memories, all or none. When this returns they are durable and searchable. The answers come in the order of the
    /// memories.
    ///
    /// # Errors
    /// The actor may not write here or not in that scope, a memory is out of bounds, the quota is full, the embedder or
    /// the store fails.
    pub fn add(
        &self,
        actor: &Actor,
        items: Vec<NewItem>,
        options: AddOptions<'_>,
    ) -> Result<Vec<Added>, MemoriesError> {
        self.add_and("item.add", actor, items, options, |_tx| Ok(()))
    }

    /// Whether the actor may write here at all, before work is done for what is to be written.
    ///
    /// # Errors
    /// The actor may not.
    pub fn check_may_write(&self, actor: &Actor) -> Result<(), MemoriesError> {
        self.permit(actor, Action::WriteItems).map(|_allowed| ())
    }

    /// The same under another name in the audit log, with something else done before it in the same transaction.
    pub(super) fn add_and(
        &self,
        action: &'static str,
        actor: &Actor,
        items: Vec<NewItem>,
        options: AddOptions<'_>,
        first: impl FnOnce(&WriteTransaction<'_>) -> Result<(), MemoriesError>,
    ) -> Result<Vec<Added>, MemoriesError> {
        if items.len() > NUM_ADDED_MAX {
            return Err(MemoriesError::TooMany { what: "memories", found: items.len(), limit: NUM_ADDED_MAX });
        }
        let allowed = self.permit(actor, Action::WriteItems)?;
        check_scopes(&allowed, &items)?;
        let items = self.redacted(items);
        let vectors = self.embed_passages(&items)?;
        let judged = judged::ask(self, &allowed, &items, options.contradictions)?;
        let reservation = self.reserve_quota(&items)?;
        let name = actor.to_string();
        let by = By { actor: &name, reason: options.reason };
        let added = self.change(actor, |tx| {
            // Grants may have changed since the policy was asked first.
            check_scopes(&self.permit_in(tx, actor, Action::WriteItems)?, &items)?;
            first(tx)?;
            self.check_sources(tx, actor, &items)?;
            let (allowed, judged) = (&allowed, &judged);
            let mut adding = Adding { cube: self, tx, by, options, allowed, judged, here: HashMap::new() };
            let mut added = Vec::with_capacity(items.len());
            for (index, new) in items.into_iter().enumerate() {
                added.push(adding.one(index, new, vectors.as_ref().map(|vectors| vectors[index].as_slice()))?);
            }
            let entry = entry_of(action, &added, options.reason);
            Ok((added, entry))
        })?;
        // What is stored is counted before the estimate of it is given back.
        self.refresh_usage()?;
        drop(reservation);
        Ok(added)
    }

    /// Black out what must not be stored.
    pub(super) fn redacted(&self, mut items: Vec<NewItem>) -> Vec<NewItem> {
        if let Some(redactor) = &self.shared().redactor {
            for item in &mut items {
                item.text = redactor.redact(&item.text).0;
                for label in item.tags.iter_mut().chain(&mut item.entities) {
                    *label = redactor.redact(label).0;
                }
            }
        }
        items
    }

    /// A vector for each text, before any lock is taken: this may take long.
    fn embed_passages(&self, items: &[NewItem]) -> Result<Option<Vec<Vec<f32>>>, MemoriesError> {
        let texts: Vec<&str> = items.iter().map(|item| item.text.as_str()).collect();
        self.embed(&texts, Purpose::Passage)
    }

    /// A vector for each text, where there is an embedder.
    pub(super) fn embed(&self, texts: &[&str], purpose: Purpose) -> Result<Option<Vec<Vec<f32>>>, MemoriesError> {
        let Some(embedder) = self.shared().embedder() else { return Ok(None) };
        let failed = |reason: String| MemoriesError::Embedder { embedder: embedder.id().to_string(), reason };
        let vectors = embedder.embed(texts, purpose).map_err(|error| failed(error.to_string()))?;
        if vectors.len() != texts.len() {
            return Err(failed(format!("it gave {} vectors for {} texts", vectors.len(), texts.len())));
        }
        if let Some(vector) = vectors.iter().find(|vector| vector.len() != embedder.dim()) {
            return Err(failed(format!("it gave a vector of {} numbers instead of {}", vector.len(), embedder.dim())));
        }
        // Refused before anything is stored: an index cannot take what has no direction.
        if let Some(place) = vectors.iter().position(|vector| !has_direction(vector)) {
            return Err(failed(format!("the vector of text {place} is all zeros, or not all of it is finite numbers")));
        }
        Ok(Some(vectors))
    }

    /// The rows whose words are most like those of a new memory, among those that it is compared with.
    pub(super) fn similar_rows(&self, new: &NewItem) -> Vec<Row> {
        let index = self.index();
        let hits = index.lexical().search(&LexicalQuery::new(&new.text), NUM_COMPARED, |row| {
            index.head(row).is_some_and(|head| head.scope == new.scope && head.state.is_recalled())
        });
        hits.into_iter().map(|hit| hit.row).collect()
    }

    /// Whether a new memory is compared with this one: it is recalled and true now, in the same scope, and known to the
    /// actor.
    pub(super) fn is_comparable(&self, item: &Item, new: &NewItem, allowed: &Allowed) -> bool {
        let is_recalled = item.state.is_recalled() && item.scope == new.scope;
        let is_valid = item.valid_to.is_none_or(|end| end > self.now());
        is_recalled && is_valid && allowed.access().allows(&item.id, &item.scope)
    }

    /// Refuses memories that are said to derive from what the actor may not read; answers as for unknown ids.
    pub(super) fn check_sources<'i>(
        &self,
        reader: &Reader<'_>,
        actor: &Actor,
        items: impl IntoIterator<Item = &'i NewItem>,
    ) -> Result<(), MemoriesError> {
        for item in items {
            if let Source::Derived { from } = &item.source {
                for &id in from.iter().take(NUM_SOURCES_MAX) {
                    self.permit_item(reader, actor, Action::ReadItems, id)?;
                }
            }
        }
        Ok(())
    }
}

fn has_direction(vector: &[f32]) -> bool {
    vector.iter().all(|number| number.is_finite()) && vector.iter().any(|number| *number != 0.0)
}

pub(super) fn check_scopes(allowed: &Allowed, items: &[NewItem]) -> Result<(), MemoriesError> {
    if items.iter().all(|item| allowed.access().allows_new(&item.scope)) {
        return Ok(());
    }
    Err(GovernanceError::Forbidden { action: Action::WriteItems.as_str(), what: "scope" }.into())
}

fn entry_of<'a>(action: &'static str, added: &[Added], reason: Option<&'a str>) -> Entry<'a> {
    let superseded = |added: &Added| match &added.event {
        AddEvent::Superseded(old) => old.clone(),
        AddEvent::Added | AddEvent::Duplicate => Vec::new(),
    };
    // Superseding makes a version too, which the log must tell of.
    let superseded: Vec<ItemId> = added.iter().flat_map(superseded).collect();
    let ids: BTreeSet<ItemId> = added.iter().map(|added| added.item.id).chain(superseded.iter().copied()).collect();
    let num_new = added.iter().filter(|added| added.event != AddEvent::Duplicate).count();
    let superseded: Vec<String> = superseded.iter().take(NUM_COMPARED).map(ToString::to_string).collect();
    let details = json!({ "new": num_new, "duplicates": added.len() - num_new, "superseded": superseded });
    Entry { action, objects: ids.into_iter().collect(), reason, details: Some(details) }
}

/// One transaction's additions.
struct Adding<'a> {
    cube: &'a MountedCube,
    tx: &'a WriteTransaction<'a>,
    by: By<'a>,
    options: AddOptions<'a>,
    allowed: &'a Allowed,
    /// What a model said before the transaction began.
    judged: &'a Judged,
    /// What was added in this transaction, which the index does not know yet, by the hash of its text.
    here: HashMap<TextHash, Item>,
}

impl Adding<'_> {
    fn one(&mut self, index: usize, new: NewItem, vector: Option<&[f32]>) -> Result<Added, MemoriesError> {
        let needs_similar = self.options.duplicates == Duplicates::SkipNear || self.options.contradictions.supersedes();
        let hash = TextHash::of(&new.text);
        if let Some(item) = self.same_text(hash, &new)? {
            return Ok(Added { item, event: AddEvent::Duplicate });
        }
        let similar = if needs_similar { self.similar(&new)? } else { Vec::new() };
        if self.options.duplicates == Duplicates::SkipNear
            && let Some(item) = fuller_duplicate(&DuplicateProfile::new(&new.text), &similar)
        {
            return Ok(Added { item: item.clone(), event: AddEvent::Duplicate });
        }
        let item = self.tx.insert(new, self.by)?;
        if let (Some(vector), Some(embedder)) = (vector, self.cube.shared().embedder()) {
            self.tx.put_vector(item.id, item.version, embedder.id().as_str(), vector)?;
        }
        let mut superseded = Vec::new();
        if self.options.contradictions.supersedes() {
            for old in contradicted(&item, &similar, |old| self.judged.verdict(index, old))? {
                self.tx.supersede(old, item.id, self.by)?;
                superseded.push(old);
            }
        }
        self.here.insert(hash, item.clone());
        let event = if superseded.is_empty() { AddEvent::Added } else { AddEvent::Superseded(superseded) };
        Ok(Added { item, event })
    }

    /// A memory with the same text that is recalled now, in the same scope, and that the actor may see. One that is
    /// no longer valid is no duplicate: what was true once may be true again.
    fn same_text(&self, hash: TextHash, new: &NewItem) -> Result<Option<Item>, MemoriesError> {
        if self.options.duplicates == Duplicates::Keep {
            return Ok(None);
        }
        if let Some(item) = self.here.get(&hash).filter(|item| item.scope == new.scope) {
            return Ok(Some(item.clone()));
        }
        let index = self.cube.index();
        let rows: Vec<Row> = index.same_text(hash).to_vec();
        drop(index);
        Ok(self.comparable(rows, new)?.into_iter().next())
    }

    /// The most similar memories, oldest first, those of this transaction included.
    fn similar(&self, new: &NewItem) -> Result<Vec<Item>, MemoriesError> {
        let mut items = self.comparable(self.cube.similar_rows(new), new)?;
        let here = self.here.values().filter(|item| item.scope == new.scope);
        items.extend(here.take(NUM_COMPARED).cloned());
        items.sort_by_key(|item| (item.recorded_at, item.id));
        Ok(items)
    }

    /// The memories in these rows as this transaction sees them, without those that a new one is not compared with.
    fn comparable(&self, rows: Vec<Row>, new: &NewItem) -> Result<Vec<Item>, MemoriesError> {
        let mut items = Vec::new();
        for row in rows {
            let Some(item) = self.tx.get_row(super::index::to_item_row(row))? else { continue };
            if self.cube.is_comparable(&item, new, self.allowed) {
                items.push(item);
            }
        }
        Ok(items)
    }
}

/// The memory that already says all that the new one says.
fn fuller_duplicate<'a>(profile: &DuplicateProfile, similar: &'a [Item]) -> Option<&'a Item> {
    use duplicates::{Fuller, Verdict};
    similar.iter().find(|item| {
        let verdict = profile.compare(&DuplicateProfile::new(&item.text));
        matches!(verdict, Verdict::Exact | Verdict::Near { fuller: Fuller::Other | Fuller::Neither, .. })
    })
}

/// The memories that cannot be true beside the new one. Where the rules cannot tell, `judged` says what a model said.
fn contradicted(
    new: &Item,
    similar: &[Item],
    judged: impl Fn(&Item) -> Option<Verdict>,
) -> Result<Vec<ItemId>, MemoriesError> {
    let newer = claim(new);
    let mut contradicted = Vec::new();
    for old in similar {
        let may_end = old.state != ItemState::Frozen && !old.legal_hold && old.id != new.id;
        if !may_end {
            continue;
        }
        let verdict = match RuleJudge.judge(&claim(old), &newer)? {
            Verdict::Unknown => judged(old).unwrap_or(Verdict::Unknown),
            verdict => verdict,
        };
        if verdict == Verdict::Contradicts {
            contradicted.push(old.id);
        }
    }
    Ok(contradicted)
}

pub(super) fn claim(item: &Item) -> Claim {
    let recorded_at: Timestamp = item.created_at;
    Claim { text: item.text.clone(), valid_from: item.valid_from, valid_to: item.valid_to, recorded_at }
}
