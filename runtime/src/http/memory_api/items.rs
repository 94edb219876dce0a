//! Single memories: listed, read, edited, moved through their life.

use axum::response::Response;
use memory::ItemId;
use memory::item::{Item, ItemPatch};
use memory::lifecycle::ItemState;
use memory::memories::{Hold, Listing, MemoriesError};
use memory::store::{Cursor, ItemFilter, NUM_ITEMS_PER_CALL_MAX, NUM_TAGS_ALL_MAX, StoreError};
use serde_json::{Value, json};

use super::call::{Call, ok, with_version};
use super::item_fields::{KINDS, read_patch};
use super::place::Place;
use super::render;
use super::values::{item_id, item_ids, list_of, moment, take};
use crate::http::error::ApiError;

/// What a state may be.
pub const STATES: &str = "one of generated, activated, merged, archived, frozen";
/// Memories on a page where the client does not say how many.
const LIMIT_DEFAULT: usize = 50;
/// Most kinds, states or names in a filter.
const FILTER_LEN_MAX: usize = 64;

/// `GET /v1/memories`
pub fn list(mut call: Call) -> Result<Response, ApiError> {
    let scope = call.scope()?;
    let asked = call.cube_field()?;
    let fields = &mut call.fields;
    let include_shared = fields.flag("include_shared")?.unwrap_or(false);
    let mut filter = ItemFilter {
        kinds: list_of(fields, "kind", (FILTER_LEN_MAX, KINDS))?.unwrap_or_default(),
        states: list_of(fields, "state", (FILTER_LEN_MAX, STATES))?.unwrap_or_default(),
        tags_all: list_of(fields, "tag", (NUM_TAGS_ALL_MAX, "a text"))?.unwrap_or_default(),
        tags_any: Vec::new(),
        entities_any: list_of(fields, "entity", (FILTER_LEN_MAX, "a text"))?.unwrap_or_default(),
        scope: Default::default(),
        created_by: fields.text("created_by")?,
        text_contains: fields.text("text_contains")?,
        valid_at: moment(fields, "valid_at")?,
        recorded_before: moment(fields, "recorded_before")?,
        ids: item_ids(fields, "id", NUM_ITEMS_PER_CALL_MAX)?,
    };
    let after = take::<Cursor>(fields, "cursor", "the next_cursor of the page before")?;
    let limit = fields.count("limit", 1, NUM_ITEMS_PER_CALL_MAX)?.unwrap_or(LIMIT_DEFAULT);
    let orders = [("oldest", false), ("newest", true)];
    let newest_first = super::values::choice(fields, "order", &orders)?.unwrap_or(false);
    let as_of = moment(fields, "as_of")?;
    call.finish()?;
    let place = call.place(call.actor(&scope)?, asked.as_deref())?;
    filter.scope = exact_scope(&place, scope, include_shared);
    let listing = Listing { filter, newest_first, limit, after, as_of };
    let page = place.run(|cube, actor| cube.list(actor, listing))?;
    Ok(ok(json!({
        "object": "list",
        "cube": place.cube().manifest().id,
        "data": page.items.iter().map(render::memory).collect::<Vec<Value>>(),
        "next_cursor": page.next.map(|cursor| cursor.to_string()),
    })))
}

/// The scope that results must have. Names of the caller's tenant mean nothing in the cube of another: there they only
/// say for whom the caller asks, whose grants count.
pub fn exact_scope(place: &Place, scope: memory::item::Scope, include_shared: bool) -> memory::item::Scope {
    let session = scope.session.clone();
    if place.is_own() && !include_shared { scope } else { memory::item::Scope { session, ..Default::default() } }
}

/// `GET /v1/memories/{id}`
pub fn get(mut call: Call) -> Result<Response, ApiError> {
    let as_of = moment(&mut call.fields, "as_of")?;
    let (place, id) = one(&mut call)?;
    let item = place.run(|cube, actor| cube.get(actor, id, as_of))?;
    Ok(shown(&item))
}

/// `PATCH /v1/memories/{id}`
pub fn update(mut call: Call) -> Result<Response, ApiError> {
    let expected = expected_version(&mut call)?;
    let patch = read_patch(&mut call.fields)?;
    let reason = call.reason()?;
    let (place, id) = one(&mut call)?;
    if patch == ItemPatch::default() {
        return Err(ApiError::Missing { param: "a field to change".to_owned() });
    }
    let edited = place.run(|cube, actor| cube.update(actor, id, expected.version(), patch, reason.as_deref()));
    edited.map(|item| shown(&item)).map_err(|error| expected.refusal(error))
}

/// `GET /v1/memories/{id}/history`
pub fn history(mut call: Call) -> Result<Response, ApiError> {
    let (place, id) = one(&mut call)?;
    let versions = place.run(|cube, actor| cube.history(actor, id))?;
    Ok(ok(render::list(versions.iter().map(render::version).collect())))
}

/// `POST /v1/memories/{id}/restore`
pub fn restore(mut call: Call) -> Result<Response, ApiError> {
    let version = call.fields.count("version", 1, i64::MAX as usize)?;
    let version = version.ok_or_else(|| ApiError::Missing { param: "version".to_owned() })? as u64;
    let expected = Expected { if_match: call.if_match()?, in_body: None };
    let reason = call.reason()?;
    let (place, id) = one(&mut call)?;
    let restored = place.run(|cube, actor| cube.restore(actor, id, version, expected.version(), reason.as_deref()));
    restored.map(|item| shown(&item)).map_err(|error| expected.refusal(error))
}

/// `POST /v1/memories/{id}/transition`
pub fn transition(mut call: Call) -> Result<Response, ApiError> {
    let state = take::<ItemState>(&mut call.fields, "state", STATES)?;
    let state = state.ok_or_else(|| ApiError::Missing { param: "state".to_owned() })?;
    let expected = expected_version(&mut call)?;
    let reason = call.reason()?;
    let (place, id) = one(&mut call)?;
    let moved = place.run(|cube, actor| cube.transition(actor, id, expected.version(), state, reason.as_deref()));
    moved.map(|item| shown(&item)).map_err(|error| expected.refusal(error))
}

/// `POST /v1/memories/{id}/hold`
pub fn hold(mut call: Call) -> Result<Response, ApiError> {
    let hold = call.fields.flag("hold")?.ok_or_else(|| ApiError::Missing { param: "hold".to_owned() })?;
    let hold = if hold { Hold::Set } else { Hold::Lift };
    let reason = call.reason()?;
    let (place, id) = one(&mut call)?;
    let item = place.run(|cube, actor| cube.hold(actor, id, hold, reason.as_deref()))?;
    Ok(shown(&item))
}

/// Reads what is left, who acts and where, and ends the reading.
///
/// # Errors
/// A field is wrong or unknown, the id in the path is none, or there is no such cube.
pub fn one(call: &mut Call) -> Result<(Place, ItemId), ApiError> {
    let actor = call.read_actor()?;
    let asked = call.cube_field()?;
    call.finish()?;
    let id = item_id("id", &call.path("id"))?;
    Ok((call.place(actor, asked.as_deref())?, id))
}

/// A memory with its version as entity tag.
pub fn shown(item: &Item) -> Response {
    with_version(ok(render::memory(item)), item.version)
}

/// The version that the client knows, and how it said so.
struct Expected {
    if_match: Option<u64>,
    in_body: Option<u64>,
}

fn expected_version(call: &mut Call) -> Result<Expected, ApiError> {
    let in_body = call.fields.count("expected_version", 1, i64::MAX as usize)?.map(|version| version as u64);
    let if_match = call.if_match()?;
    if in_body.is_some() && if_match.is_some() {
        let (param, other) = ("expected_version", "if-match");
        return Err(ApiError::Conflict { param, other, reason: "give one of them" });
    }
    Ok(Expected { if_match, in_body })
}

impl Expected {
    fn version(&self) -> Option<u64> {
        self.if_match.or(self.in_body)
    }

    /// A conflict with `If-Match` has a status of its own in HTTP.
    fn refusal(&self, error: ApiError) -> ApiError {
        match error {
            ApiError::Memory(memory) if self.if_match.is_some() => match *memory {
                MemoriesError::Store(StoreError::VersionConflict { expected, found, .. }) => {
                    ApiError::Precondition { expected, found }
                }
                other => other.into(),
            },
            other => other,
        }
    }
}
