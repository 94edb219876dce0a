//! Merging memories into one that says what they said, and undoing it.

use axum::response::Response;
use memory::item::Source;
use memory::store::{NUM_PARENTS_MAX, NUM_PARENTS_MIN};
use serde_json::{Value, json};

use super::call::{Call, created, ok, with_version};
use super::item_fields::{ItemFields, memory_text};
use super::items::one;
use super::render;
use super::values::item_ids;
use crate::http::error::ApiError;

/// `POST /v1/memories/merge`
pub fn merge(mut call: Call) -> Result<Response, ApiError> {
    let scope = call.scope()?;
    let asked = call.cube_field()?;
    let ids = item_ids(&mut call.fields, "ids", NUM_PARENTS_MAX)?;
    let ids = ids.ok_or_else(|| ApiError::Missing { param: "ids".to_owned() })?;
    if ids.len() < NUM_PARENTS_MIN {
        let allowed = format!("a list of {NUM_PARENTS_MIN} to {NUM_PARENTS_MAX}");
        return Err(ApiError::OutOfRange { param: "ids".to_owned(), allowed, got: format!("a list of {}", ids.len()) });
    }
    let text = memory_text(&mut call.fields)?;
    let defaults = ItemFields::read(&mut call.fields, scope)?;
    let reason = call.reason()?;
    call.finish()?;
    let place = call.place(call.actor(&defaults.scope)?, asked.as_deref())?;
    let into = defaults.item(text, Source::Derived { from: ids.clone() });
    let item = place.run(|cube, actor| cube.merge(actor, &ids, into, reason.as_deref()))?;
    Ok(with_version(created(render::memory(&item)), item.version))
}

/// `POST /v1/memories/{id}/unmerge`
pub fn unmerge(mut call: Call) -> Result<Response, ApiError> {
    let reason = call.reason()?;
    let (place, id) = one(&mut call)?;
    let unmerged = place.run(|cube, actor| cube.unmerge(actor, id, reason.as_deref()))?;
    let parents: Vec<Value> = unmerged.parents.iter().map(render::memory).collect();
    Ok(ok(json!({"merged": render::memory(&unmerged.merged), "memories": parents})))
}
