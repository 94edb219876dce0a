//! Cubes as a whole: listed, made, looked at, mounted, checked, kept as snapshots, compared.

use axum::response::Response;
use memory::cube::SnapshotName;
use memory::memories::{CubeEntry, MemoriesError};
use memory::store::{DiffEntry, Difference};
use serde_json::{Value, json};

use super::call::{Call, created, ok};
use super::place::{cube_name, new_cube_name, no_cube};
use super::render;
use super::values::require_text;
use crate::http::error::ApiError;

/// Most differences in one answer.
const DIFF_LEN_MAX: usize = 10_000;

/// `GET /v1/cubes`
pub fn list(mut call: Call) -> Result<Response, ApiError> {
    let actor = call.read_actor()?;
    call.finish()?;
    let entries = call.memories().list(&actor)?;
    let shown = |entry: &CubeEntry| render::cube(actor.tenant(), &entry.manifest, entry.is_mounted);
    Ok(ok(render::list(entries.iter().map(shown).collect())))
}

/// `POST /v1/cubes`
pub fn create(mut call: Call) -> Result<Response, ApiError> {
    let name = require_text(&mut call.fields, "name")?;
    call.finish()?;
    let actor = call.tenant();
    let name = new_cube_name(actor.tenant(), &name)?;
    let cube = call.memories().create(&actor, name)?;
    Ok(created(render::cube(actor.tenant(), cube.manifest(), true)))
}

/// `GET /v1/cubes/{cube}`
pub fn inspect(mut call: Call) -> Result<Response, ApiError> {
    let actor = call.read_actor()?;
    call.finish()?;
    let place = call.place(actor, Some(&call.path("cube")))?;
    let facts = place.run(|cube, actor| cube.inspect(actor))?;
    let mut answer = render::cube(place.actor().tenant(), place.cube().manifest(), true);
    answer["facts"] = render::facts(&facts);
    Ok(ok(answer))
}

/// `POST /v1/cubes/{cube}/mount`
pub fn mount(mut call: Call) -> Result<Response, ApiError> {
    call.finish()?;
    let (actor, memories, asked) = (call.tenant(), call.memories(), call.path("cube"));
    // An id is known to the cube's own manifest only, which is read where cubes are listed.
    let name = match asked.parse::<memory::CubeId>() {
        Ok(id) => {
            let entries = memories.list(&actor)?;
            entries
                .into_iter()
                .find(|entry| entry.manifest.id == id)
                .map(|entry| entry.manifest.name)
                .ok_or_else(no_cube)?
        }
        Err(_a_name) => cube_name(actor.tenant(), &asked)?,
    };
    let cube = memories.mount(&actor, &name)?;
    Ok(ok(render::cube(actor.tenant(), cube.manifest(), true)))
}

/// `POST /v1/cubes/{cube}/unmount`
pub fn unmount(mut call: Call) -> Result<Response, ApiError> {
    call.finish()?;
    let place = call.place(call.tenant(), Some(&call.path("cube")))?;
    let memories = call.memories();
    place.run(|cube, actor| memories.unmount(actor, &cube.manifest().name))?;
    Ok(ok(render::cube(place.actor().tenant(), place.cube().manifest(), false)))
}

/// `POST /v1/cubes/{cube}/verify`
pub fn verify(mut call: Call) -> Result<Response, ApiError> {
    call.finish()?;
    let place = call.place(call.tenant(), Some(&call.path("cube")))?;
    let report = place.run(|cube, actor| cube.verify(actor))?;
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    Ok(ok(json!({"cube": report.manifest.id, "intact": findings.is_empty(), "findings": findings})))
}

/// `GET /v1/cubes/{cube}/snapshots`
pub fn list_snapshots(mut call: Call) -> Result<Response, ApiError> {
    call.finish()?;
    let place = call.place(call.tenant(), Some(&call.path("cube")))?;
    let facts = place.run(|cube, actor| cube.inspect(actor))?;
    let snapshot = |name: &String| json!({"object": "snapshot", "name": name});
    Ok(ok(render::list(facts.snapshots.iter().map(snapshot).collect())))
}

/// `POST /v1/cubes/{cube}/snapshots`
pub fn create_snapshot(mut call: Call) -> Result<Response, ApiError> {
    let name = snapshot_name("name", &require_text(&mut call.fields, "name")?)?;
    call.finish()?;
    let place = call.place(call.tenant(), Some(&call.path("cube")))?;
    place.run(|cube, actor| cube.snapshot(actor, &name))?;
    Ok(created(json!({"object": "snapshot", "name": name})))
}

/// `GET /v1/cubes/{cube}/diff`
pub fn diff(mut call: Call) -> Result<Response, ApiError> {
    let name = snapshot_name("snapshot", &require_text(&mut call.fields, "snapshot")?)?;
    call.finish()?;
    let place = call.place(call.tenant(), Some(&call.path("cube")))?;
    let entries = place.run(|cube, actor| cube.diff(actor, &name))?;
    let shown: Vec<Value> = entries.iter().take(DIFF_LEN_MAX).map(difference).collect();
    Ok(ok(json!({
        "object": "list",
        "snapshot": name,
        "num_changes": entries.len(),
        "is_cut": entries.len() > DIFF_LEN_MAX,
        "data": shown,
    })))
}

fn snapshot_name(param: &str, text: &str) -> Result<SnapshotName, ApiError> {
    text.parse().map_err(|error| match MemoriesError::from(error) {
        MemoriesError::Cube(_) => ApiError::OutOfRange {
            param: param.to_owned(),
            allowed: "1 to 64 of a-z, 0-9, '-', '_' and '.', with a letter or digit at both ends".to_owned(),
            got: format!("{:?}", crate::http::fields::quoted(text)),
        },
        other => other.into(),
    })
}

fn difference(entry: &DiffEntry) -> Value {
    let (change, from, to) = match entry.difference {
        Difference::Added { version } => ("added", None, Some(version)),
        Difference::Removed { version } => ("removed", Some(version), None),
        Difference::Changed { from_version, to_version } => ("changed", Some(from_version), Some(to_version)),
    };
    json!({"id": entry.id, "change": change, "from_version": from, "to_version": to})
}
