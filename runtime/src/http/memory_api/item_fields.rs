//! A memory as clients write it, and what a whole request says for all its memories at once.

use std::collections::BTreeMap;

use memory::Timestamp;
use memory::item::{ItemKind, ItemPatch, NewItem, Scope, Source, TEXT_BYTES_MAX};
use memory::memories::{AddOptions, Contradictions, Duplicates};
use serde_json::Value;

use super::values::{choice, fraction, labels, metadata, moment, moment_or_null, require_text, take};
use crate::http::error::ApiError;
use crate::http::fields::Fields;

/// What a kind may be.
pub const KINDS: &str = "one of fact, preference, event, skill, document";

/// Everything but the text of a new memory; what is `None` is as usual, or as whoever extracts it finds.
#[derive(Debug, Clone, Default)]
pub struct ItemFields {
    /// What sort of knowledge.
    pub kind: Option<ItemKind>,
    /// Labels to filter by.
    pub tags: Option<Vec<String>>,
    /// Names of what it is about.
    pub entities: Option<Vec<String>>,
    /// Whose it is.
    pub scope: Scope,
    /// Since when it is true.
    pub valid_from: Option<Timestamp>,
    /// Until when.
    pub valid_to: Option<Timestamp>,
    /// When retention ends.
    pub expires_at: Option<Timestamp>,
    /// How much it matters.
    pub salience: Option<f32>,
    /// What the client keeps with it.
    pub metadata: Option<BTreeMap<String, Value>>,
}

impl ItemFields {
    /// Reads them. The scope is that of the whole request, whose names are read with who acts.
    ///
    /// # Errors
    /// A field has a wrong value.
    pub fn read(fields: &mut Fields, scope: Scope) -> Result<Self, ApiError> {
        Ok(Self {
            kind: take(fields, "kind", KINDS)?,
            tags: labels(fields, "tags")?,
            entities: labels(fields, "entities")?,
            scope,
            valid_from: moment(fields, "valid_from")?,
            valid_to: moment(fields, "valid_to")?,
            expires_at: moment(fields, "expires_at")?,
            salience: fraction(fields, "salience")?,
            metadata: metadata(fields, "metadata")?,
        })
    }

    /// Reads one entry of a list of memories, for which the request's own fields are the defaults.
    ///
    /// # Errors
    /// It has no text, a wrong value, or a field that no memory has.
    pub fn read_entry(&self, mut entry: Fields) -> Result<NewItem, ApiError> {
        let text = memory_text(&mut entry)?;
        let scope = Scope {
            user: entry.text("user_id")?.or_else(|| self.scope.user.clone()),
            agent: entry.text("agent_id")?.or_else(|| self.scope.agent.clone()),
            session: entry.text("session_id")?.or_else(|| self.scope.session.clone()),
        };
        let own = Self::read(&mut entry, scope)?;
        entry.finish(&[])?;
        let merged = Self {
            kind: own.kind.or(self.kind),
            tags: own.tags.or_else(|| self.tags.clone()),
            entities: own.entities.or_else(|| self.entities.clone()),
            scope: own.scope,
            valid_from: own.valid_from.or(self.valid_from),
            valid_to: own.valid_to.or(self.valid_to),
            expires_at: own.expires_at.or(self.expires_at),
            salience: own.salience.or(self.salience),
            metadata: own.metadata.or_else(|| self.metadata.clone()),
        };
        Ok(merged.item(text, Source::Direct))
    }

    /// A memory with this text.
    pub fn item(&self, text: String, source: Source) -> NewItem {
        self.over(NewItem { source, scope: self.scope.clone(), ..NewItem::fact(text) })
    }

    /// A memory that somebody extracted, with what the client says of it: labels and metadata are added, the rest
    /// replaces what was found.
    pub fn over(&self, mut item: NewItem) -> NewItem {
        item.kind = self.kind.unwrap_or(item.kind);
        item.tags.extend(self.tags.iter().flatten().cloned());
        item.entities.extend(self.entities.iter().flatten().cloned());
        item.valid_from = self.valid_from.or(item.valid_from);
        item.valid_to = self.valid_to.or(item.valid_to);
        item.expires_at = self.expires_at.or(item.expires_at);
        item.salience = self.salience.unwrap_or(item.salience);
        item.metadata.extend(self.metadata.iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
        item
    }
}

/// Takes the text of a memory.
///
/// # Errors
/// It is not there, empty, or longer than a memory may be.
pub fn memory_text(fields: &mut Fields) -> Result<String, ApiError> {
    let param = fields.name("text");
    let text = require_text(fields, "text")?;
    check_text(&param, &text)?;
    Ok(text)
}

/// Checks the length of a memory's text.
///
/// # Errors
/// It is too long.
pub fn check_text(param: &str, text: &str) -> Result<(), ApiError> {
    if text.len() <= TEXT_BYTES_MAX {
        return Ok(());
    }
    Err(ApiError::OutOfRange {
        param: param.to_owned(),
        allowed: format!("at most {TEXT_BYTES_MAX} bytes (longer material goes to /v1/documents)"),
        got: format!("{} bytes", text.len()),
    })
}

/// Reads what happens to duplicates and to what is contradicted.
///
/// # Errors
/// A word that is not known.
pub fn read_add_options(fields: &mut Fields) -> Result<AddOptions<'static>, ApiError> {
    let duplicates = [("off", Duplicates::Keep), ("exact", Duplicates::SkipExact), ("near", Duplicates::SkipNear)];
    let contradictions =
        [("keep", Contradictions::Keep), ("supersede", Contradictions::Supersede), ("judge", Contradictions::Judge)];
    Ok(AddOptions {
        duplicates: choice(fields, "deduplicate", &duplicates)?.unwrap_or_default(),
        contradictions: choice(fields, "contradictions", &contradictions)?.unwrap_or_default(),
        reason: None,
    })
}

/// Reads what an edit changes. `null` clears a time.
///
/// # Errors
/// A field has a wrong value.
pub fn read_patch(fields: &mut Fields) -> Result<ItemPatch, ApiError> {
    let text = fields.text("text")?;
    if let Some(text) = &text {
        check_text("text", text)?;
    }
    Ok(ItemPatch {
        text,
        kind: take(fields, "kind", KINDS)?,
        tags: labels(fields, "tags")?,
        entities: labels(fields, "entities")?,
        valid_from: moment_or_null(fields, "valid_from")?,
        valid_to: moment_or_null(fields, "valid_to")?,
        expires_at: moment_or_null(fields, "expires_at")?,
        salience: fraction(fields, "salience")?,
        metadata: metadata(fields, "metadata")?,
    })
}
