//! MemOS's `textual_memory.json` in: a list of memories with metadata, or the nodes of a tree dump.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields::{keep_rest, read_all, records, take_labels, take_moment, take_object, take_text};
use super::{ExchangeError, ImportLimits, Imported, Strictness};
use crate::item::{ItemKind, NewItem, Scope, Source};
use crate::lifecycle::ItemState;

/// Reads a textual memory of MemOS. Its type becomes the kind, its status the state, its confidence the salience; what
/// has no place in an item stays in its metadata. Memories that are deleted there are reported, not read.
///
/// # Errors
/// A file that is no JSON or no list; in strict mode also the first broken record.
pub fn read_memos(bytes: &[u8], strictness: Strictness, limits: &ImportLimits) -> Result<Imported, ExchangeError> {
    let records = records(bytes, "MemOS", &["nodes", "memories", "results", "text_mem"], limits)?;
    read_all(records, strictness, limits, item)
}

fn item(mut fields: Map<String, Value>) -> Result<NewItem, String> {
    let text = take_text(&mut fields, "memory")?.ok_or("it has no \"memory\"")?;
    let external_id = take_text(&mut fields, "id")?;
    let mut own = take_object(&mut fields, "metadata")?;
    let kind = match own.get("type").and_then(Value::as_str) {
        Some("preference") => ItemKind::Preference,
        Some("event") => ItemKind::Event,
        Some("procedure" | "skill") => ItemKind::Skill,
        Some("document") => ItemKind::Document,
        // Opinions, topics and reasoning are facts about somebody; the word stays in the metadata.
        _ => ItemKind::Fact,
    };
    let state = match take_text(&mut own, "status")?.as_deref() {
        None | Some("activated") => ItemState::Activated,
        Some("archived") => ItemState::Archived,
        Some("resolving") => ItemState::Generated,
        Some("deleted") => return Err("it is deleted there".to_owned()),
        Some(other) => return Err(format!("{:?} is no status", other.chars().take(40).collect::<String>())),
    };
    let scope =
        Scope { user: take_text(&mut own, "user_id")?, agent: None, session: take_text(&mut own, "session_id")? };
    let (tags, entities) = (take_labels(&mut own, "tags")?, take_labels(&mut own, "entities")?);
    let mut metadata = BTreeMap::new();
    for name in ["created_at", "updated_at"] {
        if let Some(moment) = take_moment(&mut own, name)? {
            metadata.insert(name.to_owned(), Value::from(moment.to_string()));
        }
    }
    // Confidence is kept as 0 to 100 by MemOS, and as a share by some of its versions.
    let salience = match own.get("confidence").and_then(Value::as_f64) {
        Some(confidence) if (0.0..=1.0).contains(&confidence) => confidence,
        Some(confidence) if (0.0..=100.0).contains(&confidence) => confidence / 100.0,
        _ => 0.5,
    };
    keep_rest(&mut metadata, own);
    keep_rest(&mut metadata, fields);
    Ok(NewItem {
        kind,
        state,
        tags,
        entities,
        scope,
        salience: salience as f32,
        metadata,
        source: Source::Import { format: "memos".to_owned(), external_id },
        ..NewItem::fact(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Imported {
        read_memos(text.as_bytes(), Strictness::Lenient, &ImportLimits::default()).expect("a textual memory")
    }

    #[test]
    fn every_field_of_a_memory_has_a_place() {
        let text = r#"[{"id": "2f3e", "memory": "Anna moved to Oslo.", "metadata": {"user_id": "anna", "session_id": "s1",
            "status": "activated", "type": "event", "memory_time": "2025-01-01", "source": "conversation", "confidence": 90.0,
            "entities": ["Oslo", "Anna"], "tags": ["move"], "visibility": "private", "updated_at": "2025-06-01T10:00:00",
            "created_at": "2025-05-31 09:00:00", "embedding": [0.1, 0.2], "memory_type": "LongTermMemory", "usage": []}}]"#;
        let item = &read(text).items[0];
        assert_eq!((item.kind, item.state, item.salience), (ItemKind::Event, ItemState::Activated, 0.9));
        assert_eq!(
            (item.tags.as_slice(), item.entities.as_slice()),
            (&["move".to_owned()][..], &["Anna".to_owned(), "Oslo".to_owned()][..])
        );
        assert_eq!((item.scope.user.as_deref(), item.scope.session.as_deref()), (Some("anna"), Some("s1")));
        assert_eq!(item.metadata["memory_type"], "LongTermMemory");
        assert_eq!(item.metadata["created_at"], "2025-05-31T09:00:00.000Z");
        assert_eq!(item.metadata["updated_at"], "2025-06-01T10:00:00.000Z");
        assert!(!item.metadata.contains_key("embedding") && !item.metadata.contains_key("usage"));
    }

    #[test]
    fn deleted_and_broken_memories_are_reported_and_the_rest_is_read() {
        let text = r#"{"nodes": [{"memory": "a", "metadata": {"status": "deleted"}}, {"memory": ""}, {"memory": "b"},
            {"memory": "c", "metadata": 7}, {"memory": "d", "metadata": {"status": "archived", "created_at": "soon"}},
            {"memory": "e\u0007"}, null], "edges": []}"#;
        let imported = read(text);
        assert_eq!(imported.items.iter().map(|item| item.text.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!((imported.problems.len(), imported.num_problems), (6, 6));
    }

    #[test]
    fn no_more_problems_are_kept_than_the_limit_says() {
        let limits = ImportLimits { num_problems_max: 2, ..ImportLimits::default() };
        let imported = read_memos(b"[1, 2, 3, 4]", Strictness::Lenient, &limits).expect("a list");
        assert_eq!((imported.problems.len(), imported.num_problems), (2, 4));
        let limits = ImportLimits { num_records_max: 3, ..limits };
        let read = read_memos(b"[1, 2, 3, 4]", Strictness::Lenient, &limits);
        assert!(matches!(read, Err(ExchangeError::TooManyRecords { limit: 3 })));
    }
}
