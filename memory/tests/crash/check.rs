//! What must hold of the folder that a crash left: all that was acknowledged is there and found, nothing is half-done, every
//! version has its audit entry, and the log verifies against the heads outside the cube.

use std::collections::BTreeMap;
use std::path::Path;

use memory::governance::audit::{AuditFilter, LIST_LEN_MAX, Outcome};
use memory::item::Item;
use memory::lifecycle::ItemState;
use memory::memories::{Listing, Methods, MountedCube, SearchFilter, SearchRequest};
use memory::{Clock, ItemId};

use crate::journal::{Known, Model, Operation};
use crate::support::open;
use crate::writer::{CUBE, owner, text};

/// Opens the folder and compares it with the model, which afterwards knows what became of the operations in flight.
///
/// # Errors
/// What is wrong, in words.
pub fn check(folder: &Path, model: &mut Model) -> Result<(), String> {
    let memories = open(folder, Clock::system());
    let failed = memories.mount_all().map_err(|error| format!("the cubes cannot be listed: {error}"))?;
    if let Some((folder, error)) = failed.first() {
        return Err(format!("{} cannot be mounted: {error}", folder.display()));
    }
    let cube = match memories.cube(&CUBE.parse().expect("a name")) {
        Ok(cube) => cube,
        // Nothing was acknowledged yet: making the cube again must work.
        Err(_) if !model.is_created => {
            memories.create(&owner(), CUBE.parse().expect("a name")).map_err(|error| format!("made again: {error}"))?
        }
        Err(error) => return Err(format!("the acknowledged cube is lost: {error}")),
    };
    let found = all_items(&cube)?;
    for (_thread, operation) in std::mem::take(&mut model.in_flight) {
        settle(model, &operation, &found)?;
    }
    compare(model, &found)?;
    check_search(&cube, model)?;
    check_records(&cube, model)
}

fn all_items(cube: &MountedCube) -> Result<BTreeMap<ItemId, Item>, String> {
    let mut found = BTreeMap::new();
    let mut after = None;
    loop {
        let listing = Listing { limit: 1_000, after, ..Listing::default() };
        let page = cube.list(&owner(), listing).map_err(|error| format!("listing failed: {error}"))?;
        found.extend(page.items.into_iter().map(|item| (item.id, item)));
        after = match page.next {
            Some(next) => Some(next),
            None => return Ok(found),
        };
    }
}

/// An operation that was not answered was done as a whole or not at all.
fn settle(model: &mut Model, operation: &Operation, found: &BTreeMap<ItemId, Item>) -> Result<(), String> {
    let with_word = |word: &String| found.values().find(|item| item.text == text(word)).map(|item| item.id);
    let made: Vec<ItemId> = operation.words.iter().filter_map(with_word).collect();
    let was_done = match operation.verb.as_str() {
        "erase" => !found.contains_key(&operation.ids[0]),
        "archive" => found.get(&operation.ids[0]).is_some_and(|item| item.state == ItemState::Archived),
        _ => !made.is_empty(),
    };
    if operation.verb == "add" && was_done && made.len() != operation.words.len() {
        return Err(format!("of a batch of {} memories {} are there", operation.words.len(), made.len()));
    }
    if was_done {
        model.apply(operation, &made);
    }
    Ok(())
}

fn compare(model: &Model, found: &BTreeMap<ItemId, Item>) -> Result<(), String> {
    for (id, known) in &model.items {
        let Some(item) = found.get(id) else { return Err(format!("the acknowledged memory {id} is lost: {known:?}")) };
        let is = Known { word: known.word.clone(), version: item.version, state: item.state };
        if is != *known || item.text != text(&known.word) {
            return Err(format!("memory {id} is {is:?} with the text {:?} instead of {known:?}", item.text));
        }
    }
    match found.keys().find(|id| !model.items.contains_key(id)) {
        Some(id) => Err(format!("memory {id} was never written, or was erased: {:?}", found[id].text)),
        None => Ok(()),
    }
}

fn check_search(cube: &MountedCube, model: &Model) -> Result<(), String> {
    let search = |word: &str| {
        let filter = SearchFilter { states: ItemState::ALL.to_vec(), ..SearchFilter::default() };
        let methods = Methods { lexical: true, vector: false, graph: false };
        let request = SearchRequest { filter, methods, ..SearchRequest::new(word, 10) };
        let answer =
            cube.search(&owner(), &request).map_err(|error| format!("the search for {word} failed: {error}"))?;
        Ok::<Vec<ItemId>, String>(answer.results.iter().map(|found| found.item.id).collect())
    };
    for (id, known) in &model.items {
        let found = search(&known.word)?;
        if found != [*id] {
            return Err(format!("the search for {} finds {found:?} instead of {id}", known.word));
        }
    }
    for word in &model.gone {
        let found = search(word)?;
        if !found.is_empty() {
            return Err(format!("the search for {word}, which is gone, finds {found:?}"));
        }
    }
    Ok(())
}

/// The store's own examination and the audit log.
fn check_records(cube: &MountedCube, model: &Model) -> Result<(), String> {
    let report = cube.verify(&owner()).map_err(|error| format!("the examination failed: {error}"))?;
    if let Some(finding) = report.findings.first() {
        return Err(format!("{} findings, the first one: {finding}", report.findings.len()));
    }
    for (id, known) in &model.items {
        let filter = AuditFilter { item: Some(*id), ..AuditFilter::default() };
        let entries = cube.audit(&owner(), &filter, LIST_LEN_MAX).map_err(|error| format!("no audit: {error}"))?;
        let num_changes = entries.iter().filter(|entry| entry.outcome == Outcome::Allowed).count();
        if num_changes as u64 != known.version {
            return Err(format!("memory {id} has {} versions and {num_changes} audit entries", known.version));
        }
    }
    let report = cube.verify_audit(&owner()).map_err(|error| format!("the audit cannot be verified: {error}"))?;
    if report.is_intact() { Ok(()) } else { Err(format!("the audit does not verify: {report:?}")) }
}
