//! Erasure and redaction: in the cube first, then of everything that was computed over it.

use std::collections::HashSet;

use axum::response::Response;
use memory::ItemId;
use memory::governance::receipt::{ErasurePlace, PlaceCount};
use memory::governance::receipt_rows::{LIST_LEN_MAX, Wanted};
use memory::item::Scope;
use memory::memories::{Erasure, Listing, MemoriesError, NUM_ERASED_MAX};
use memory::store::{ItemFilter, NUM_ITEMS_PER_CALL_MAX, NUM_TAGS_ALL_MAX};
use serde_json::{Value, json};

use super::call::{Call, ok, read_scope};
use super::item_fields::KINDS;
use super::items::{STATES, one};
use super::place::Place;
use super::render;
use super::values::{choice, item_ids, list_of, moment, parsed};
use crate::http::error::ApiError;
use crate::http::fields::Fields;
use crate::http::state::Shared;

/// Most memories that one request erases.
const NUM_ERASED_PER_REQUEST_MAX: usize = 100_000;
/// Receipts in an answer where the client does not say how many.
const RECEIPTS_DEFAULT: usize = 100;
/// Most kinds or states in a filter.
const FILTER_LEN_MAX: usize = 64;

/// What a request erased, and what kept it from erasing more.
#[derive(Default)]
struct Done {
    erasures: Vec<Erasure>,
    error: Option<ApiError>,
}

/// `DELETE /v1/memories/{id}`
pub fn delete(mut call: Call) -> Result<Response, ApiError> {
    let reason = call.reason()?;
    let (place, id) = one(&mut call)?;
    let erasure = place.run(|cube, actor| cube.erase(actor, &[id], reason.as_deref()))?;
    let mut receipts = receipts(&call.app, &place, &[erasure])?;
    Ok(ok(json!({"object": "erasure", "id": id, "deleted": true, "receipt": receipts.pop()})))
}

/// `POST /v1/erase`
pub fn erase(mut call: Call) -> Result<Response, ApiError> {
    let actor = call.read_actor()?;
    let asked = call.cube_field()?;
    let ids = item_ids(&mut call.fields, "ids", NUM_ERASED_PER_REQUEST_MAX)?;
    let filter = call.fields.object("filter")?.map(read_filter).transpose()?;
    let reason = call.reason()?;
    call.finish()?;
    let (ids, filter) = match (ids, filter) {
        (Some(_), Some(_)) => {
            return Err(ApiError::Conflict { param: "filter", other: "ids", reason: "give one of them" });
        }
        (None, None) => return Err(ApiError::Missing { param: "ids".to_owned() }),
        (Some(ids), None) if ids.is_empty() => {
            let (param, allowed) = ("ids".to_owned(), "a list of at least one".to_owned());
            return Err(ApiError::OutOfRange { param, allowed, got: "a list of 0".to_owned() });
        }
        (ids, filter) => (ids, filter),
    };
    let place = call.place(actor, asked.as_deref())?;
    let (ids, held) = match (ids, filter) {
        (Some(ids), _) => (ids, Vec::new()),
        (None, filter) => found(&place, filter.unwrap_or_default())?,
    };
    let done = erase_all(&place, &ids, reason.as_deref());
    let receipts = receipts(&call.app, &place, &done.erasures)?;
    match done.error {
        // Nothing was erased, so that the error is all there is to tell.
        Some(error) if done.erasures.is_empty() => Err(error),
        error => Ok(ok(json!({
            "object": "erasure",
            "num_erased": done.erasures.iter().map(|erasure| erasure.gone().count()).sum::<usize>(),
            "held": held,
            "receipts": receipts,
            "error": error.map(|error| error.to_json()["error"].clone()),
        }))),
    }
}

/// `POST /v1/memories/{id}/redact`
pub fn redact(mut call: Call) -> Result<Response, ApiError> {
    let reason = call.reason()?;
    let (place, id) = one(&mut call)?;
    let redacted = place.run(|cube, actor| cube.redact(actor, id, reason.as_deref()))?;
    let num_blocks = forget_cached(&call.app);
    Ok(ok(json!({
        "memory": render::memory(&redacted.item),
        "derived": redacted.derived,
        "num_vectors": redacted.num_vectors,
        "num_relations": redacted.num_relations,
        "num_kv_blocks": num_blocks,
    })))
}

/// `GET /v1/erasures`
pub fn list_receipts(mut call: Call) -> Result<Response, ApiError> {
    let asked = call.cube_field()?;
    let from = call.fields.count("from", 0, i64::MAX as usize)?.unwrap_or(0) as u64;
    let limit = call.fields.count("limit", 1, LIST_LEN_MAX)?.unwrap_or(RECEIPTS_DEFAULT);
    let states = [("all", Wanted::All), ("pending", Wanted::Pending)];
    let wanted = choice(&mut call.fields, "status", &states)?.unwrap_or(Wanted::All);
    call.finish()?;
    let place = call.place(call.tenant(), asked.as_deref())?;
    let receipts = place.run(|cube, actor| cube.kept_receipts(actor, wanted, from, limit))?;
    let next = (receipts.len() == limit).then(|| receipts.last().map(|last| last.receipt.audit_seq + 1)).flatten();
    Ok(ok(json!({"object": "list", "data": receipts, "next_from": next})))
}

/// `GET /v1/erasures/{seq}`
pub fn get_receipt(mut call: Call) -> Result<Response, ApiError> {
    let asked = call.cube_field()?;
    let seq = parsed("seq", &call.path("seq"), "the number of an erasure's audit entry")?;
    call.finish()?;
    let place = call.place(call.tenant(), asked.as_deref())?;
    let receipt = place.run(|cube, actor| cube.kept_receipt(actor, seq))?;
    Ok(ok(json!(receipt)))
}

/// Which memories a filter means. It must name something: what a filter leaves out is not meant to be everything.
fn read_filter(mut fields: Fields) -> Result<ItemFilter, ApiError> {
    let filter = ItemFilter {
        kinds: list_of(&mut fields, "kinds", (FILTER_LEN_MAX, KINDS))?.unwrap_or_default(),
        states: list_of(&mut fields, "states", (FILTER_LEN_MAX, STATES))?.unwrap_or_default(),
        tags_all: list_of(&mut fields, "tags_all", (NUM_TAGS_ALL_MAX, "a text"))?.unwrap_or_default(),
        tags_any: list_of(&mut fields, "tags_any", (FILTER_LEN_MAX, "a text"))?.unwrap_or_default(),
        entities_any: list_of(&mut fields, "entities_any", (FILTER_LEN_MAX, "a text"))?.unwrap_or_default(),
        text_contains: fields.text("text_contains")?,
        recorded_before: moment(&mut fields, "recorded_before")?,
        scope: read_scope(&mut fields)?,
        ..ItemFilter::default()
    };
    fields.finish(&[])?;
    if filter == ItemFilter::default() {
        let (param, allowed) = ("filter".to_owned(), "an object with at least one condition".to_owned());
        return Err(ApiError::OutOfRange { param, allowed, got: "none".to_owned() });
    }
    Ok(filter)
}

/// The memories that a filter lets through, and those of them that a legal hold keeps.
fn found(place: &Place, mut filter: ItemFilter) -> Result<(Vec<ItemId>, Vec<ItemId>), ApiError> {
    if !place.is_own() {
        // Names of the caller's tenant mean nobody in another tenant's cube.
        let named = filter.scope != Scope::default();
        filter.scope = Scope::default();
        if named {
            return Ok((Vec::new(), Vec::new()));
        }
    }
    let (mut ids, mut held, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let listing = Listing { filter: filter.clone(), limit: NUM_ITEMS_PER_CALL_MAX, after, ..Listing::default() };
        let page = place.run(|cube, actor| cube.list(actor, listing))?;
        for item in page.items {
            if item.legal_hold { held.push(item.id) } else { ids.push(item.id) }
        }
        if ids.len() > NUM_ERASED_PER_REQUEST_MAX {
            let (what, found) = ("memories to erase", ids.len());
            return Err(MemoriesError::TooMany { what, found, limit: NUM_ERASED_PER_REQUEST_MAX }.into());
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok((ids, held)),
        }
    }
}

/// Erases in as many steps as it takes, until one fails. What went with an earlier step is not named again.
fn erase_all(place: &Place, ids: &[ItemId], reason: Option<&str>) -> Done {
    let mut done = Done::default();
    let mut gone: HashSet<ItemId> = HashSet::new();
    for step in ids.chunks(NUM_ERASED_MAX) {
        let left: Vec<ItemId> = step.iter().copied().filter(|id| !gone.contains(id)).collect();
        if left.is_empty() {
            continue;
        }
        match place.run(|cube, actor| cube.erase(actor, &left, reason)) {
            Ok(erasure) => {
                gone.extend(erasure.gone());
                done.erasures.push(erasure);
            }
            Err(error) => {
                done.error = Some(error);
                break;
            }
        }
    }
    done
}

/// Drops what was computed over erased memories, and signs what was done. The blocks are counted in the first receipt:
/// they were dropped for all of them together.
fn receipts(app: &Shared, place: &Place, erasures: &[Erasure]) -> Result<Vec<Value>, ApiError> {
    if erasures.is_empty() {
        return Ok(Vec::new());
    }
    let num_blocks = forget_cached(app) as u64;
    let mut signed = Vec::with_capacity(erasures.len());
    for (index, erasure) in erasures.iter().enumerate() {
        let erased = if index == 0 { num_blocks } else { 0 };
        let blocks = PlaceCount { erased, ..PlaceCount::default() };
        let receipt = place.cube().receipt(erasure, &[(ErasurePlace::KvDevice, blocks)])?;
        signed.push(json!(receipt));
    }
    Ok(signed)
}

/// Forgets all cached KV, and says how many blocks that were. It waits for the engine's present step; this is a thread
/// that may wait.
fn forget_cached(app: &Shared) -> usize {
    // An engine that is gone has no cache any more.
    tokio::runtime::Handle::current().block_on(app.forget_cached()).unwrap_or(0)
}
