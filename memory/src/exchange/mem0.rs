//! mem0's export in: the list that `get_all` returns, bare or under `results`, or one memory a line.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields::{keep_rest, read_all, records, take_labels, take_moment, take_object, take_text};
use super::{ExchangeError, ImportLimits, Imported, Strictness};
use crate::item::{ItemKind, NewItem, Scope, Source};

/// Reads an export of mem0. `categories` become tags; what has no place in an item stays in its metadata, the moments
/// of mem0 as `created_at` and `updated_at` there.
///
/// # Errors
/// A file that is no JSON or no list; in strict mode also the first broken record.
pub fn read_mem0(bytes: &[u8], strictness: Strictness, limits: &ImportLimits) -> Result<Imported, ExchangeError> {
    let records = records(bytes, "mem0", &["results", "memories"], limits)?;
    read_all(records, strictness, limits, item)
}

fn item(mut fields: Map<String, Value>) -> Result<NewItem, String> {
    let text = match take_text(&mut fields, "memory")? {
        Some(text) => text,
        // Older exports and raw vector stores say "data" or "text".
        None => take_text(&mut fields, "data")?.or(take_text(&mut fields, "text")?).ok_or("it has no \"memory\"")?,
    };
    let external_id = take_text(&mut fields, "id")?;
    let scope = Scope {
        user: take_text(&mut fields, "user_id")?,
        agent: take_text(&mut fields, "agent_id")?,
        session: take_text(&mut fields, "run_id")?,
    };
    let mut own = take_object(&mut fields, "metadata")?;
    let mut tags = take_labels(&mut fields, "categories")?;
    tags.extend(take_labels(&mut own, "categories")?);
    let expires_at = take_moment(&mut fields, "expiration_date")?;
    let mut metadata = BTreeMap::new();
    for name in ["created_at", "updated_at"] {
        if let Some(moment) = take_moment(&mut fields, name)? {
            metadata.insert(name.to_owned(), Value::from(moment.to_string()));
        }
    }
    keep_rest(&mut metadata, own);
    keep_rest(&mut metadata, fields);
    let kind = if tags.iter().any(|tag| tag.contains("preference")) { ItemKind::Preference } else { ItemKind::Fact };
    Ok(NewItem {
        kind,
        tags,
        scope,
        expires_at,
        metadata,
        source: Source::Import { format: "mem0".to_owned(), external_id },
        ..NewItem::fact(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Place;

    fn read(text: &str) -> Imported {
        read_mem0(text.as_bytes(), Strictness::Lenient, &ImportLimits::default()).expect("an export")
    }

    #[test]
    fn every_field_of_an_export_has_a_place() {
        let text = r#"{"results": [{"id": "a1", "memory": "Likes tea", "user_id": "anna", "agent_id": null, "run_id": "r7",
            "hash": "h", "metadata": {"source": "chat", "embedding": [1, 2]}, "categories": ["food", "food", "user_preferences"],
            "created_at": "2024-07-20T01:30:36.275141-07:00", "updated_at": null, "score": 0.3}]}"#;
        let imported = read(text);
        let item = &imported.items[0];
        assert_eq!((item.text.as_str(), item.kind), ("Likes tea", ItemKind::Preference));
        assert_eq!(item.tags, ["food", "user_preferences"]);
        assert_eq!((item.scope.user.as_deref(), item.scope.session.as_deref()), (Some("anna"), Some("r7")));
        assert_eq!(item.source, Source::Import { format: "mem0".to_owned(), external_id: Some("a1".to_owned()) });
        let names: Vec<&str> = item.metadata.keys().map(String::as_str).collect();
        assert_eq!(names, ["created_at", "hash", "source"]);
        assert_eq!(item.metadata["created_at"], "2024-07-20T08:30:36.275Z");
    }

    #[test]
    fn lists_and_lines_are_read_alike_and_broken_ones_are_reported() {
        assert_eq!(read(r#"[{"memory": "a"}, {"memory": "b"}]"#).items.len(), 2);
        let lines = read(
            "{\"memory\": \"a\"}\n{broken\n\n{\"memory\": \"b\"}\n{\"memory\": 7, \"user_id\": []}\n{\"id\": \"x\"}",
        );
        assert_eq!(lines.items.len(), 2);
        let places: Vec<Place> = lines.problems.iter().map(|problem| problem.place).collect();
        assert_eq!(places, [Place::Line(2), Place::Line(5), Place::Line(6)]);
        let strict = read_mem0(b"[{\"memory\": \"a\"}, 7]", Strictness::Strict, &ImportLimits::default());
        assert!(matches!(strict, Err(ExchangeError::Broken(problem)) if problem.place == Place::Entry(1)));
    }

    #[test]
    fn what_is_no_export_is_refused_with_its_place() {
        let read = |text: &str| read_mem0(text.as_bytes(), Strictness::Lenient, &ImportLimits::default());
        assert!(matches!(read("{\"a\": 1}"), Err(ExchangeError::NotThisFormat { .. })));
        assert!(matches!(read("7"), Err(ExchangeError::NotThisFormat { .. })));
        assert!(matches!(read("[\n{]"), Err(ExchangeError::NotJson { line: 2, .. })));
        assert!(matches!(read(&"[".repeat(100_000)), Err(ExchangeError::NotJson { .. })));
        assert!(matches!(read(""), Err(ExchangeError::NotJson { .. })));
    }
}
