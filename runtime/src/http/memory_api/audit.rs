//! The audit log: read, verified, proven.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use memory::governance::Subject;
use memory::governance::audit::{AuditFilter, LIST_LEN_MAX};
use memory::memories::MemoriesError;
use serde_json::{Value, json};

use super::call::{Call, ok};
use super::place::Place;
use super::values::{moment, take_item_id};
use crate::http::error::ApiError;

/// Entries in an answer where the client does not say how many.
const LIMIT_DEFAULT: usize = 100;

/// `GET /v1/audit`
pub fn list(mut call: Call) -> Result<Response, ApiError> {
    let asked = call.cube_field()?;
    let fields = &mut call.fields;
    let by = fields.text("actor")?.map(|actor| actor.parse::<Subject>()).transpose().map_err(MemoriesError::from)?;
    let filter = AuditFilter {
        from_seq: fields.count("from", 0, i64::MAX as usize)?.unwrap_or(0) as u64,
        item: take_item_id(fields, "item")?,
        by,
        action: fields.text("action")?,
        since: moment(fields, "since")?,
        until: moment(fields, "until")?,
    };
    let limit = fields.count("limit", 1, LIST_LEN_MAX)?.unwrap_or(LIMIT_DEFAULT);
    call.finish()?;
    let place = call.place(call.tenant(), asked.as_deref())?;
    let entries = place.run(|cube, actor| cube.audit(actor, &filter, limit))?;
    let next = (entries.len() == limit).then(|| entries.last().map(|entry| entry.seq + 1)).flatten();
    Ok(ok(json!({"object": "list", "data": entries, "next_from": next})))
}

/// `GET /v1/audit/head`
pub fn head(mut call: Call) -> Result<Response, ApiError> {
    let place = place(&mut call)?;
    let head = place.run(|cube, actor| cube.audit_head(actor))?;
    told("head", json!(head))
}

/// `POST /v1/audit/verify`
pub fn verify(mut call: Call) -> Result<Response, ApiError> {
    let place = place(&mut call)?;
    let report = place.run(|cube, actor| cube.verify_audit(actor))?;
    let mut answer = json!(report);
    answer["intact"] = json!(report.is_intact());
    Ok(ok(answer))
}

/// `GET /v1/audit/proof`
pub fn proof(mut call: Call) -> Result<Response, ApiError> {
    let seq = required_number(&mut call, "seq")?;
    let place = place(&mut call)?;
    let proof = place.run(|cube, actor| cube.audit_inclusion(actor, seq))?;
    told("proof", json!(proof))
}

/// `GET /v1/audit/consistency`
pub fn consistency(mut call: Call) -> Result<Response, ApiError> {
    let size = required_number(&mut call, "size")?;
    let place = place(&mut call)?;
    let proof = place.run(|cube, actor| cube.audit_consistency_from(actor, size))?;
    told("head over this many entries", json!(proof))
}

fn required_number(call: &mut Call, field: &str) -> Result<u64, ApiError> {
    let number = call.fields.count(field, 0, i64::MAX as usize)?;
    number.map(|number| number as u64).ok_or_else(|| ApiError::Missing { param: field.to_owned() })
}

fn place(call: &mut Call) -> Result<Place, ApiError> {
    let asked = call.cube_field()?;
    call.finish()?;
    call.place(call.tenant(), asked.as_deref())
}

/// What was signed or proven, if there was anything to.
fn told(what: &'static str, value: Value) -> Result<Response, ApiError> {
    if value.is_null() {
        return Err(MemoriesError::NotFound { what, id: String::new() }.into());
    }
    Ok((StatusCode::OK, axum::Json(value)).into_response())
}
