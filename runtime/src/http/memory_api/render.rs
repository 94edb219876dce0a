//! What is stored as the JSON that clients read.

use memory::cube::Manifest;
use memory::governance::TenantName;
use memory::governance::grants::Grant;
use memory::item::{Item, Version};
use memory::lifecycle::ItemState;
use memory::memories::{AddEvent, Added, CubeFacts};
use serde_json::{Map, Value, json};

use super::place::shown_name;

/// A memory.
pub fn memory(item: &Item) -> Value {
    json!({
        "object": "memory",
        "id": item.id,
        "cube": item.cube,
        "kind": item.kind,
        "state": item.state,
        "version": item.version,
        "text": item.text,
        "tags": item.tags,
        "entities": item.entities,
        "user_id": item.scope.user,
        "agent_id": item.scope.agent,
        "session_id": item.scope.session,
        "created_by": item.created_by,
        "source": item.source,
        "valid_from": item.valid_from,
        "valid_to": item.valid_to,
        "created_at": item.created_at,
        "recorded_at": item.recorded_at,
        "expires_at": item.expires_at,
        "salience": short(item.salience),
        "legal_hold": item.legal_hold,
        "metadata": item.metadata,
    })
}

/// An entry of a memory's history.
pub fn version(version: &Version) -> Value {
    json!({
        "version": version.item.version,
        "change": version.change,
        "actor": version.actor,
        "reason": version.reason,
        "at": version.item.recorded_at,
        "memory": memory(&version.item),
    })
}

/// What became of a memory that was to be added.
pub fn added(added: &Added) -> Value {
    let none = Vec::new();
    let (event, superseded) = match &added.event {
        AddEvent::Added => ("added", &none),
        AddEvent::Duplicate => ("duplicate", &none),
        AddEvent::Superseded(ids) => ("superseded", ids),
    };
    json!({"event": event, "memory": memory(&added.item), "superseded": superseded})
}

/// A cube in a list.
pub fn cube(tenant: &TenantName, manifest: &Manifest, is_mounted: bool) -> Value {
    json!({
        "object": "cube",
        "id": manifest.id,
        "name": shown_name(tenant, &manifest.name),
        "owner": manifest.owner,
        "created_at": manifest.created_at,
        "format_version": manifest.format_version,
        "model_fingerprints": manifest.model_fingerprints,
        "mounted": is_mounted,
    })
}

/// What a cube holds. Why it is closed may name files, so only whether it is is told.
pub fn facts(facts: &CubeFacts) -> Value {
    let counts = &facts.counts;
    let states = ItemState::ALL.iter().zip(counts.num_by_state);
    let by_state: Map<String, Value> = states.map(|(state, num)| (state.to_string(), json!(num))).collect();
    json!({
        "memories": counts.usage.num_items,
        "memories_by_state": by_state,
        "versions": counts.usage.num_versions,
        "content_bytes": counts.usage.content_bytes,
        "edges": counts.num_edges,
        "entities": counts.num_entities,
        "relations": counts.num_relations,
        "vectors": facts.num_vectors,
        "vectors_of_all_embedders": counts.num_vectors,
        "terms": facts.num_terms,
        "outbox_tasks": counts.num_tasks,
        "to_purge": counts.num_to_purge,
        "file_bytes": counts.file_bytes,
        "audit_entries": facts.num_audit_entries,
        "snapshots": facts.snapshots,
        "closed_for_writing": facts.closed_for_writing.is_some(),
    })
}

/// A grant.
pub fn grant(grant: &Grant) -> Value {
    json!({
        "object": "grant",
        "id": grant.id,
        "item": grant.item,
        "subject": grant.subject,
        "right": grant.right,
        "granted_by": grant.granted_by,
        "granted_at": grant.granted_at,
        "expires_at": grant.expires_at,
        "revoked_at": grant.revoked_at,
        "revoked_by": grant.revoked_by,
    })
}

/// A list of everything there is.
pub fn list(data: Vec<Value>) -> Value {
    json!({"object": "list", "data": data})
}

/// A fraction with the digits that a client gave it, not with those that its nearest f32 has as an f64.
pub fn short(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_come_back_as_they_were_given() {
        for (number, text) in [(0.7, "0.7"), (0.5, "0.5"), (1.0, "1.0"), (0.0, "0.0")] {
            assert_eq!(json!(short(number)).to_string(), text);
        }
    }
}
