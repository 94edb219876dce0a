//! What a memory may hold: checked and put into its one form before it is written.

use serde_json::Value;

use super::StoreError;
use crate::governance::actor::ACTOR_NAME_BYTES_MAX;
use crate::item::{
    Item, ItemPatch, LABEL_BYTES_MAX, METADATA_BYTES_MAX, NUM_LABELS_MAX, NewItem, Scope, Source, TEXT_BYTES_MAX,
};
use crate::lifecycle::ItemState;
use crate::{CubeId, ItemId, Timestamp};

/// Most memories that one is derived from.
pub const NUM_SOURCES_MAX: usize = 1_024;
/// Greatest length of a name in a source (a document, a conversation, an id elsewhere) in bytes.
pub const SOURCE_NAME_BYTES_MAX: usize = 1_024;
/// Greatest length of a reason in bytes.
pub const REASON_BYTES_MAX: usize = 4 << 10;
/// Deepest nesting of metadata; reading JSON back ends at 128.
pub const METADATA_DEPTH_MAX: usize = 64;

/// Who makes a change, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct By<'a> {
    /// The name that versions record.
    pub actor: &'a str,
    /// In the actor's words.
    pub reason: Option<&'a str>,
}

impl<'a> By<'a> {
    /// A change without a stated reason.
    pub fn actor(actor: &'a str) -> Self {
        Self { actor, reason: None }
    }

    /// The same with a reason.
    #[must_use]
    pub fn because(self, reason: &'a str) -> Self {
        Self { reason: Some(reason), ..self }
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        checked_line("actor", self.actor, ACTOR_NAME_BYTES_MAX)?;
        match self.reason {
            Some(reason) => checked_text("reason", reason, REASON_BYTES_MAX).map(|_trimmed| ()),
            None => Ok(()),
        }
    }
}

/// The first version of a memory, checked.
pub(super) fn first_version(new: NewItem, cube: CubeId, actor: &str, now: Timestamp) -> Result<Item, StoreError> {
    if new.state == ItemState::Merged {
        return Err(StoreError::IllegalFirstState { state: new.state });
    }
    check_validity(new.valid_from, new.valid_to)?;
    let item = Item {
        id: ItemId::new(),
        cube,
        kind: new.kind,
        state: new.state,
        version: 1,
        text: new.text,
        tags: new.tags,
        entities: new.entities,
        scope: checked_scope(new.scope)?,
        created_by: actor.to_owned(),
        source: checked_source(new.source)?,
        valid_from: new.valid_from,
        valid_to: new.valid_to,
        created_at: now,
        recorded_at: now,
        expires_at: new.expires_at,
        salience: new.salience,
        legal_hold: false,
        metadata: new.metadata,
    };
    checked_content(item)
}

/// The memory as the patch makes it, checked.
pub(super) fn patched(before: &Item, patch: ItemPatch) -> Result<Item, StoreError> {
    let mut item = before.clone();
    // A supersession may leave a memory that was never valid; only who sets these times has to make sense of them.
    let sets_validity = patch.valid_from.is_some() || patch.valid_to.is_some();
    if let Some(text) = patch.text {
        item.text = text;
    }
    if let Some(kind) = patch.kind {
        item.kind = kind;
    }
    if let Some(tags) = patch.tags {
        item.tags = tags;
    }
    if let Some(entities) = patch.entities {
        item.entities = entities;
    }
    item.valid_from = patch.valid_from.unwrap_or(item.valid_from);
    item.valid_to = patch.valid_to.unwrap_or(item.valid_to);
    item.expires_at = patch.expires_at.unwrap_or(item.expires_at);
    item.salience = patch.salience.unwrap_or(item.salience);
    if let Some(metadata) = patch.metadata {
        item.metadata = metadata;
    }
    if sets_validity {
        check_validity(item.valid_from, item.valid_to)?;
    }
    checked_content(item)
}

/// Text, labels, salience and metadata, checked and in their one form.
pub(super) fn checked_content(mut item: Item) -> Result<Item, StoreError> {
    item.text = checked_text("text", &item.text, TEXT_BYTES_MAX)?;
    item.tags = checked_labels("tags", &item.tags)?;
    item.entities = checked_labels("entities", &item.entities)?;
    if !(0.0..=1.0).contains(&item.salience) {
        return Err(StoreError::Salience { value: item.salience });
    }
    // Minus zero equals zero, but is stored as another number.
    item.salience = item.salience.abs();
    let bytes = serde_json::to_vec(&item.metadata).map_err(StoreError::step)?.len();
    if bytes > METADATA_BYTES_MAX {
        return Err(StoreError::TooLong { field: "metadata", bytes, limit: METADATA_BYTES_MAX });
    }
    if item.metadata.values().any(|value| is_deeper(value, METADATA_DEPTH_MAX)) {
        return Err(StoreError::TooDeep { limit: METADATA_DEPTH_MAX });
    }
    Ok(item)
}

/// A text that may have several lines: without white space around it, not empty, not too long, no control characters.
pub(super) fn checked_text(field: &'static str, text: &str, limit: usize) -> Result<String, StoreError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(StoreError::Empty { field });
    }
    if text.len() > limit {
        return Err(StoreError::TooLong { field, bytes: text.len(), limit });
    }
    match text.chars().find(|&character| character.is_control() && character != '\n' && character != '\t') {
        Some(character) => Err(StoreError::ControlCharacter { field, code_point: character.into() }),
        None => Ok(text.to_owned()),
    }
}

/// A text of one line.
pub(super) fn checked_line(field: &'static str, text: &str, limit: usize) -> Result<String, StoreError> {
    let text = checked_text(field, text, limit)?;
    match text.chars().find(|character| character.is_control()) {
        Some(character) => Err(StoreError::ControlCharacter { field, code_point: character.into() }),
        None => Ok(text),
    }
}

/// A scope whose parts can be compared: white space around them does not make another name.
pub(super) fn checked_scope(scope: Scope) -> Result<Scope, StoreError> {
    let part = |field, part: Option<String>| part.map(|part| checked_line(field, &part, LABEL_BYTES_MAX)).transpose();
    Ok(Scope {
        user: part("scope.user", scope.user)?,
        agent: part("scope.agent", scope.agent)?,
        session: part("scope.session", scope.session)?,
    })
}

fn checked_labels(field: &'static str, labels: &[String]) -> Result<Vec<String>, StoreError> {
    // The bound of what is looked at comes first; duplicates do not make a list acceptable.
    if labels.len() > NUM_LABELS_MAX {
        return Err(StoreError::OutOfLimit { what: field, num: labels.len(), limit: NUM_LABELS_MAX });
    }
    let checked = labels.iter().map(|label| checked_line(field, label, LABEL_BYTES_MAX));
    let mut labels = checked.collect::<Result<Vec<String>, StoreError>>()?;
    labels.sort_unstable();
    labels.dedup();
    Ok(labels)
}

fn checked_source(source: Source) -> Result<Source, StoreError> {
    let line = |field, text: &str| checked_line(field, text, SOURCE_NAME_BYTES_MAX);
    Ok(match source {
        Source::Direct => Source::Direct,
        Source::Message { conversation, role } => Source::Message {
            conversation: line("source.conversation", &conversation)?,
            role: line("source.role", &role)?,
        },
        Source::Document { name, start, end } => {
            if start > end {
                return Err(StoreError::InvalidSpan { start, end });
            }
            Source::Document { name: line("source.name", &name)?, start, end }
        }
        Source::Derived { from } => {
            if from.is_empty() || from.len() > NUM_SOURCES_MAX {
                return Err(StoreError::OutOfLimit { what: "source.from", num: from.len(), limit: NUM_SOURCES_MAX });
            }
            let mut distinct: Vec<ItemId> = Vec::with_capacity(from.len());
            for id in from {
                if !distinct.contains(&id) {
                    distinct.push(id);
                }
            }
            Source::Derived { from: distinct }
        }
        Source::Import { format, external_id } => Source::Import {
            format: line("source.format", &format)?,
            external_id: external_id.map(|id| line("source.external_id", &id)).transpose()?,
        },
    })
}

fn check_validity(from: Option<Timestamp>, to: Option<Timestamp>) -> Result<(), StoreError> {
    match (from, to) {
        (Some(from), Some(to)) if from >= to => Err(StoreError::EmptyValidity { from, to }),
        _ => Ok(()),
    }
}

/// Whether a value has more levels than this. Goes no deeper itself, so that hostile nesting cannot exhaust the stack.
fn is_deeper(value: &Value, num_levels: usize) -> bool {
    match value {
        Value::Array(_) | Value::Object(_) if num_levels == 0 => true,
        Value::Array(values) => values.iter().any(|value| is_deeper(value, num_levels - 1)),
        Value::Object(values) => values.values().any(|value| is_deeper(value, num_levels - 1)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(change: impl FnOnce(&mut NewItem)) -> Result<Item, StoreError> {
        let mut new = NewItem::fact("Ada likes tea.");
        change(&mut new);
        first_version(new, CubeId::new(), "ada", Timestamp::from_unix_ms(1).expect("1970"))
    }

    #[test]
    fn labels_are_sorted_and_distinct_and_texts_trimmed() {
        let item = checked(|new| {
            new.text = "  two\nlines\t \n".to_owned();
            new.tags = vec!["b".into(), " a ".into(), "b".into()];
            new.salience = -0.0;
        });
        let item = item.expect("a good item");
        assert_eq!(item.text, "two\nlines");
        assert_eq!(item.tags, ["a", "b"]);
        assert!(item.salience.is_sign_positive());
    }

    #[test]
    fn every_control_character_is_named() {
        for character in (0..0xA0).filter_map(char::from_u32).filter(|character| character.is_control()) {
            let text = format!("a{character}b");
            let in_text = checked(|new| new.text = text.clone());
            if character == '\n' || character == '\t' {
                assert_eq!(in_text.expect("allowed in a text").text, text);
            } else {
                let expected = u32::from(character);
                assert!(
                    matches!(in_text, Err(StoreError::ControlCharacter { field: "text", code_point }) if code_point == expected)
                );
            }
            let in_tag = checked(|new| new.tags = vec![text.clone()]);
            assert!(matches!(in_tag, Err(StoreError::ControlCharacter { field: "tags", .. })), "{character:?}");
            let in_scope = checked(|new| new.scope.user = Some(text.clone()));
            assert!(matches!(in_scope, Err(StoreError::ControlCharacter { field: "scope.user", .. })));
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_with_its_value() {
        let refused = |change: &dyn Fn(&mut NewItem), part: &str| {
            let error = checked(change).expect_err(part).to_string();
            assert!(error.contains(part), "{error:?} does not tell {part:?}");
        };
        refused(&|new| new.text = " \n ".into(), "text is empty");
        refused(&|new| new.text = "x".repeat(TEXT_BYTES_MAX + 1), "65537");
        refused(&|new| new.text = "x".repeat(10 << 20), "10485760");
        refused(&|new| new.tags = vec!["x".into(); NUM_LABELS_MAX + 1], "65");
        refused(&|new| new.entities = vec!["x".repeat(LABEL_BYTES_MAX + 1)], "257");
        refused(&|new| new.tags = vec![String::new()], "tags is empty");
        refused(&|new| new.salience = f32::NAN, "NaN");
        refused(&|new| new.salience = 1.5, "1.5");
        refused(&|new| new.salience = -0.1, "-0.1");
        refused(&|new| new.state = ItemState::Merged, "merged");
        refused(&|new| new.source = Source::Derived { from: vec![] }, "source.from");
        refused(&|new| new.source = Source::Document { name: "a".into(), start: 2, end: 1 }, "2..1");
        refused(&|new| drop(new.metadata.insert("k".into(), "v".repeat(METADATA_BYTES_MAX).into())), "metadata");
        let moment = Timestamp::from_unix_ms(5);
        refused(&|new| (new.valid_from, new.valid_to) = (moment, moment), "never");
        let mut nested = Value::Null;
        for _ in 0..=METADATA_DEPTH_MAX {
            nested = Value::Array(vec![nested]);
        }
        refused(&|new| drop(new.metadata.insert("k".into(), nested.clone())), "64 levels");
    }
}
