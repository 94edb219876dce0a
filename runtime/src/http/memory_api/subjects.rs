//! The access export: everything that is held about a user, an agent or a session.

use axum::response::Response;
use memory::exchange::ExportRecord;
use memory::item::Scope;
use serde_json::{Value, json};

use super::call::{Call, ok};
use super::render;
use crate::http::error::ApiError;

/// `GET /v1/subjects/export`
pub fn export(mut call: Call) -> Result<Response, ApiError> {
    let scope = call.scope()?;
    let asked = call.cube_field()?;
    let reason = call.reason()?;
    call.finish()?;
    if scope == Scope::default() {
        return Err(ApiError::Missing { param: "user_id".to_owned() });
    }
    // The tenant asks about the subject, not the subject itself; the names are checked all the same.
    call.actor(&scope)?;
    let place = call.place(call.tenant(), asked.as_deref())?;
    let export = place.run(|cube, actor| cube.export_subject(actor, &scope, reason.as_deref()))?;
    let record = |record: &ExportRecord| {
        let versions: Vec<Value> = record.versions.iter().map(render::version).collect();
        json!({"memory": render::memory(&record.item), "versions": versions})
    };
    Ok(ok(json!({
        "object": "subject_export",
        "cube": place.cube().manifest().id,
        "user_id": scope.user,
        "agent_id": scope.agent,
        "session_id": scope.session,
        "memories": export.records.iter().map(record).collect::<Vec<Value>>(),
        "grants": export.grants.iter().map(render::grant).collect::<Vec<Value>>(),
        "audit": export.audit,
    })))
}
