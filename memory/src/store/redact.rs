//! Redaction: the content of a memory is rewritten in every version of it, so that the old one is nowhere.

use serde_json::Value;

use rusqlite::params;

use super::StoreError;
use super::content::{By, checked_content};
use super::items::ItemRow;
use super::write::{Encoded, WriteTransaction, check_not_held};
use crate::ItemId;
use crate::item::{Change, Item, Source};

/// What a redaction did. The old text is out of reach at once, and out of the files after [`super::Store::purge`].
#[derive(Debug, Clone, PartialEq)]
pub struct Redacted {
    /// The memory as it is now.
    pub item: Item,
    /// Memories made from it, directly or through others: they may repeat what was blacked out.
    pub derived: Vec<ItemId>,
    /// Vectors of the old text that were removed.
    pub num_vectors: u64,
    /// Relations drawn from the old text that were removed.
    pub num_relations: u64,
}

/// What a rewriting removed along the way.
pub(super) struct Rewritten {
    pub(super) item: Item,
    pub(super) num_vectors: u64,
    pub(super) num_relations: u64,
    pub(super) num_entities: u64,
}

impl WriteTransaction<'_> {
    /// Gives every version of a memory this text, and records that it was redacted. Labels and metadata stay. Reaches
    /// a frozen memory.
    ///
    /// # Errors
    /// When the memory is unknown or held, or the text out of bounds.
    pub fn redact(&self, id: ItemId, text: &str, by: By<'_>) -> Result<Redacted, StoreError> {
        self.redact_versions(id, by, &|mut version| {
            text.clone_into(&mut version.item.text);
            version
        })
    }

    /// Passes everything that a memory says through `rewrite`, in every version: text, tags, entities, the words of
    /// its metadata and source, and the reasons of its changes. For patterns, such as card numbers, whose place
    /// differs between versions.
    ///
    /// # Errors
    /// When the memory is unknown or held, or what comes out is out of bounds.
    pub fn redact_each(
        &self,
        id: ItemId,
        rewrite: &dyn Fn(&str) -> String,
        by: By<'_>,
    ) -> Result<Redacted, StoreError> {
        self.redact_versions(id, by, &|version| VersionContent {
            reason: version.reason.as_deref().map(rewrite),
            item: rewritten_item(version.item, rewrite),
        })
    }

    fn redact_versions(
        &self,
        id: ItemId,
        by: By<'_>,
        rewrite: &dyn Fn(VersionContent) -> VersionContent,
    ) -> Result<Redacted, StoreError> {
        self.whole(|| {
            by.check()?;
            let (row, before) = self.load(id)?;
            check_not_held(&before)?;
            let derived = self.derived_from(&[row])?;
            let rewritten = self.rewrite_versions(row, &before, by, rewrite)?;
            let derived = derived.into_iter().map(|(_row, item)| item.id).collect();
            let Rewritten { item, num_vectors, num_relations, .. } = rewritten;
            Ok(Redacted { item, derived, num_vectors, num_relations })
        })
    }

    /// Rewrites all versions of a memory and what follows from their content, and records the redaction.
    pub(super) fn rewrite_versions(
        &self,
        row: ItemRow,
        before: &Item,
        by: By<'_>,
        rewrite: &dyn Fn(VersionContent) -> VersionContent,
    ) -> Result<Rewritten, StoreError> {
        let id = before.id;
        let mut versions = Vec::new();
        for version in self.history(id)? {
            let content = rewrite(VersionContent { item: version.item, reason: version.reason });
            versions.push(VersionContent { item: checked_content(content.item)?, reason: content.reason });
        }
        let current = versions.last().map(|version| version.item.clone());
        let current = current.ok_or_else(|| StoreError::Damaged { reason: format!("memory {id} has no version") })?;
        let entities = self.entities_touched_by(row)?;
        let num_relations = self.delete_for(row, "DELETE FROM relations WHERE source_row = ?")?;
        let num_vectors = self.delete_vectors(row)?;
        let bytes_before = self.content_bytes_of(row)?;
        for version in &versions {
            self.overwrite_version(row, version)?;
        }
        self.overwrite_current(row, &current)?;
        let mut usage = self.usage();
        usage.content_bytes = usage.content_bytes + self.content_bytes_of(row)? - bytes_before;
        self.set_usage(usage);
        self.sync_tags(row, &before.tags, &current.tags)?;
        let item = self.record(row, &current, current.clone(), &Change::Redacted, by)?;
        self.rebuild_mentions(row, id)?;
        let num_entities = self.drop_unmentioned(&entities)?;
        self.note_erasure(id, "redacted", by)?;
        Ok(Rewritten { item, num_vectors, num_relations, num_entities })
    }

    /// Runs a deletion that takes the row as its only value; returns how many rows went.
    pub(super) fn delete_for(&self, row: ItemRow, sql: &'static str) -> Result<u64, StoreError> {
        Ok(self.connection().prepare_cached(sql)?.execute([row.get()])? as u64)
    }

    /// Remembers that the old bytes are still to be purged from the file.
    pub(super) fn note_erasure(&self, id: ItemId, what: &'static str, by: By<'_>) -> Result<(), StoreError> {
        let sql = "INSERT INTO erasures (item, what, actor, recorded_at) VALUES (?, ?, ?, ?)";
        let values = params![id.as_bytes(), what, by.actor, self.now().unix_ms()];
        self.connection().prepare_cached(sql)?.execute(values)?;
        Ok(())
    }

    pub(super) fn content_bytes_of(&self, row: ItemRow) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(sum(octet_length(text) + octet_length(tags) + octet_length(entities)
                   + octet_length(metadata)), 0) FROM versions WHERE row = ?";
        let bytes: i64 = self.connection().prepare_cached(sql)?.query_row([row.get()], |row| row.get(0))?;
        Ok(bytes.unsigned_abs())
    }

    fn overwrite_version(&self, row: ItemRow, version: &VersionContent) -> Result<(), StoreError> {
        let VersionContent { item, reason } = version;
        let encoded = Encoded::new(item)?;
        let sql = "UPDATE versions SET text = ?, tags = ?, entities = ?, source = ?, metadata = ?, reason = ?
                   WHERE row = ? AND version = ?";
        self.connection().prepare_cached(sql)?.execute(params![
            item.text,
            encoded.tags,
            encoded.entities,
            encoded.source,
            encoded.metadata,
            reason,
            row.get(),
            item.version.cast_signed(),
        ])?;
        Ok(())
    }
}

/// What a version says.
pub(super) struct VersionContent {
    pub(super) item: Item,
    pub(super) reason: Option<String>,
}

fn rewritten_item(item: Item, rewrite: &dyn Fn(&str) -> String) -> Item {
    let source = match item.source {
        Source::Message { conversation, role } => {
            Source::Message { conversation: rewrite(&conversation), role: rewrite(&role) }
        }
        Source::Document { name, start, end } => Source::Document { name: rewrite(&name), start, end },
        Source::Import { format, external_id } => {
            Source::Import { format: rewrite(&format), external_id: external_id.as_deref().map(rewrite) }
        }
        source @ (Source::Direct | Source::Derived { .. }) => source,
    };
    Item {
        text: rewrite(&item.text),
        tags: item.tags.iter().map(|tag| rewrite(tag)).collect(),
        entities: item.entities.iter().map(|name| rewrite(name)).collect(),
        source,
        metadata: item.metadata.iter().map(|(key, value)| (rewrite(key), rewritten_value(value, rewrite))).collect(),
        ..item
    }
}

/// Recursion ends, because metadata is no deeper than [`super::content::METADATA_DEPTH_MAX`].
fn rewritten_value(value: &Value, rewrite: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(rewrite(text)),
        // A number may be what a pattern looks for, such as a card's.
        Value::Number(number) => match rewrite(&number.to_string()) {
            text if text == number.to_string() => value.clone(),
            text => Value::String(text),
        },
        Value::Array(values) => values.iter().map(|value| rewritten_value(value, rewrite)).collect(),
        Value::Object(values) => {
            values.iter().map(|(key, value)| (rewrite(key), rewritten_value(value, rewrite))).collect()
        }
        Value::Null | Value::Bool(_) => value.clone(),
    }
}
