//! Grants: who else may do what with a cube or with one memory.

use axum::response::Response;
use memory::governance::grants::{GrantId, LIST_LEN_MAX};
use memory::governance::{Right, Subject};
use memory::memories::{MemoriesError, Share};
use serde_json::json;

use super::call::{Call, created, ok};
use super::render;
use super::values::{moment, parsed, require_text, take, take_item_id};
use crate::http::error::ApiError;

/// Grants in an answer where the client does not say how many.
const LIMIT_DEFAULT: usize = 100;
/// What a right may be.
const RIGHTS: &str = "one of read, write, share, admin";

/// `GET /v1/cubes/{cube}/grants`
pub fn list(mut call: Call) -> Result<Response, ApiError> {
    let actor = call.read_actor()?;
    let item = take_item_id(&mut call.fields, "item")?;
    let after = call.fields.integer("from", 0, i64::MAX)?.map(GrantId);
    let limit = call.fields.count("limit", 1, LIST_LEN_MAX)?.unwrap_or(LIMIT_DEFAULT);
    call.finish()?;
    let place = call.place(actor, Some(&call.path("cube")))?;
    let grants = place.run(|cube, actor| cube.grants(actor, item, after, limit))?;
    let next = (grants.len() == limit).then(|| grants.last().map(|grant| grant.id)).flatten();
    let data: Vec<_> = grants.iter().map(render::grant).collect();
    Ok(ok(json!({"object": "list", "data": data, "next_from": next})))
}

/// `POST /v1/cubes/{cube}/grants`
pub fn create(mut call: Call) -> Result<Response, ApiError> {
    let actor = call.read_actor()?;
    let subject = require_text(&mut call.fields, "subject")?;
    let subject = subject.parse::<Subject>().map_err(MemoriesError::from)?;
    let right = take::<Right>(&mut call.fields, "right", RIGHTS)?;
    let right = right.ok_or_else(|| ApiError::Missing { param: "right".to_owned() })?;
    let item = take_item_id(&mut call.fields, "item")?;
    let expires_at = moment(&mut call.fields, "expires_at")?;
    let reason = call.reason()?;
    call.finish()?;
    let place = call.place(actor, Some(&call.path("cube")))?;
    let share = Share { item, subject, right, expires_at };
    let grant = place.run(|cube, actor| cube.share(actor, share, reason.as_deref()))?;
    Ok(created(render::grant(&grant)))
}

/// `DELETE /v1/cubes/{cube}/grants/{grant}`
pub fn delete(mut call: Call) -> Result<Response, ApiError> {
    let actor = call.read_actor()?;
    let reason = call.reason()?;
    call.finish()?;
    let id = GrantId(parsed("grant", &call.path("grant"), "the number of a grant")?);
    let place = call.place(actor, Some(&call.path("cube")))?;
    let revoked = place.run(|cube, actor| cube.unshare(actor, id, reason.as_deref()))?;
    Ok(ok(json!({"object": "list", "revoked": revoked})))
}
