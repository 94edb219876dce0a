//! One change of the store: its transaction, its moment, and the one way a version comes to be recorded.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Deref;

use rusqlite::{Connection, params};

use super::StoreError;
use super::content::{By, first_version, patched};
use super::graph::EdgeKind;
use super::history::encode_change;
use super::items::{ItemRow, Reader};
use super::usage::{Meta, Usage};
use crate::item::{Change, Item, ItemPatch, NewItem, Source};
use crate::lifecycle::ItemState;
use crate::{CubeId, ItemId, Timestamp};

/// A change in the making. What it reads includes what it wrote; nobody else sees any of it before it is committed,
/// and all of it is gone when it fails.
pub struct WriteTransaction<'a> {
    reader: Reader<'a>,
    now: Timestamp,
    meta: Cell<Meta>,
    touched: RefCell<BTreeMap<ItemRow, ItemId>>,
    is_half_done: Cell<bool>,
}

impl<'a> Deref for WriteTransaction<'a> {
    type Target = Reader<'a>;

    fn deref(&self) -> &Reader<'a> {
        &self.reader
    }
}

/// The parts of an item that are stored as JSON, written once for both tables.
pub(super) struct Encoded {
    pub(super) tags: String,
    pub(super) entities: String,
    pub(super) source: String,
    pub(super) metadata: String,
}

impl<'a> WriteTransaction<'a> {
    pub(super) fn new(connection: &'a Connection, cube: CubeId, now: Timestamp, meta: Meta) -> Self {
        let reader = Reader::new(connection, cube);
        Self { reader, now, meta: Cell::new(meta), touched: RefCell::default(), is_half_done: Cell::new(false) }
    }

    /// The moment under which this change is recorded. It is later than that of every change before it in this cube,
    /// whatever the clock does.
    pub fn now(&self) -> Timestamp {
        let mut meta = self.meta.get();
        meta.last_recorded_at = Some(self.now);
        self.meta.set(meta);
        self.now
    }

    /// What the store holds with this change so far.
    pub fn usage(&self) -> Usage {
        self.meta.get().usage
    }

    /// The memories that this change has written or erased so far, for the indexes that follow it: one that
    /// [`Reader::get_row`] does not find any more was erased.
    pub fn touched(&self) -> Vec<(ItemRow, ItemId)> {
        self.touched.borrow().iter().map(|(&row, &id)| (row, id)).collect()
    }

    /// Writes a new memory.
    ///
    /// # Errors
    /// When a field is out of bounds, or a memory that it derives from is unknown.
    pub fn insert(&self, new: NewItem, by: By<'_>) -> Result<Item, StoreError> {
        self.whole(|| {
            by.check()?;
            self.insert_checked(first_version(new, self.cube(), by.actor, self.now())?, by)
        })
    }

    fn insert_checked(&self, item: Item, by: By<'_>) -> Result<Item, StoreError> {
        let sources = match &item.source {
            Source::Derived { from } => from.as_slice(),
            _ => &[],
        };
        let row_of = |&id| self.row_of(id)?.ok_or(StoreError::UnknownItem { id });
        let sources = sources.iter().map(row_of).collect::<Result<Vec<_>, StoreError>>()?;
        let encoded = Encoded::new(&item)?;
        self.insert_current(&item, &encoded)?;
        let row = ItemRow::from_number(self.connection().last_insert_rowid());
        self.insert_version(row, &item, &encoded, &Change::Created, by)?;
        self.sync_tags(row, &[], &item.tags)?;
        self.sync_mentions(row, &[], &item.entities)?;
        for source in sources {
            self.insert_edge(row, source, EdgeKind::DerivedFrom)?;
        }
        let mut usage = self.usage();
        usage.num_items += 1;
        self.set_usage(usage);
        self.touch(row, item.id);
        Ok(item)
    }

    /// Edits a memory. A patch that changes nothing makes no version. With `expected_version`, only if the memory is
    /// still at that version.
    ///
    /// # Errors
    /// When the memory is unknown, has moved on, is held or not editable, or a field is out of bounds.
    pub fn update(
        &self,
        id: ItemId,
        expected_version: Option<u64>,
        patch: ItemPatch,
        by: By<'_>,
    ) -> Result<Item, StoreError> {
        self.whole(|| {
            by.check()?;
            let (row, before) = self.load(id)?;
            check_version(&before, expected_version)?;
            check_editable(&before)?;
            let after = patched(&before, patch)?;
            if after == before {
                return Ok(before);
            }
            self.record(row, &before, after, &Change::Edited, by)
        })
    }

    /// Moves a memory to another state.
    ///
    /// # Errors
    /// When the memory is unknown, has moved on or is held, when the lifecycle has no such transition, or when it
    /// has it for merges only.
    pub fn transition(
        &self,
        id: ItemId,
        expected_version: Option<u64>,
        to: ItemState,
        by: By<'_>,
    ) -> Result<Item, StoreError> {
        self.whole(|| {
            by.check()?;
            let (row, before) = self.load(id)?;
            check_version(&before, expected_version)?;
            check_not_held(&before)?;
            let from = before.state;
            if !from.may_become(to) {
                return Err(StoreError::IllegalTransition { id, from, to });
            }
            if to == ItemState::Merged || (from == ItemState::Merged && to == ItemState::Activated) {
                return Err(StoreError::OnlyByMerge { id, from, to });
            }
            if from == ItemState::Merged {
                // It leaves the merge, so that undoing the merge later does not touch it.
                self.end_merge_of(row)?;
            }
            let after = Item { state: to, ..before.clone() };
            self.record(row, &before, after, &Change::Transitioned { from, to }, by)
        })
    }

    /// Runs one operation. Operations check before they write; one that fails after it has written leaves the
    /// transaction unfit for a commit, even if whoever called it goes on.
    pub(super) fn whole<T>(&self, operation: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let num_changes = self.connection().total_changes();
        let result = operation();
        if result.is_err() && self.connection().total_changes() != num_changes {
            self.is_half_done.set(true);
        }
        result
    }

    /// Makes the next version of a memory: `after` with the next number and this moment. Everything that follows a
    /// memory's content follows here.
    pub(super) fn record(
        &self,
        row: ItemRow,
        before: &Item,
        after: Item,
        change: &Change,
        by: By<'_>,
    ) -> Result<Item, StoreError> {
        let after = Item { version: before.version + 1, recorded_at: self.now(), ..after };
        let encoded = Encoded::new(&after)?;
        self.connection()
            .prepare_cached("UPDATE versions SET superseded_at = ? WHERE row = ? AND version = ?")?
            .execute([self.now.unix_ms(), row.get(), before.version.cast_signed()])?;
        self.update_current(row, &after, &encoded)?;
        self.insert_version(row, &after, &encoded, change, by)?;
        self.sync_tags(row, &before.tags, &after.tags)?;
        self.sync_mentions(row, &before.entities, &after.entities)?;
        if after.text != before.text {
            // A vector stands for a text; one of another text would be found in its place.
            self.delete_vectors(row)?;
        }
        self.touch(row, after.id);
        Ok(after)
    }

    /// Notes that indexes have to look at this memory.
    pub(super) fn touch(&self, row: ItemRow, id: ItemId) {
        self.touched.borrow_mut().insert(row, id);
    }

    pub(super) fn set_usage(&self, usage: Usage) {
        self.meta.set(Meta { usage, ..self.meta.get() });
    }

    /// Completes what is to be committed; returns what is to be remembered of it afterwards.
    pub(super) fn finish(&self, before: Meta) -> Result<Meta, StoreError> {
        if self.is_half_done.get() {
            return Err(StoreError::HalfDone);
        }
        let meta = self.meta.get();
        if meta != before {
            meta.write(self.connection())?;
        }
        Ok(meta)
    }

    /// Writes the current form over the one before.
    pub(super) fn overwrite_current(&self, row: ItemRow, item: &Item) -> Result<(), StoreError> {
        self.update_current(row, item, &Encoded::new(item)?)
    }

    fn insert_current(&self, item: &Item, encoded: &Encoded) -> Result<(), StoreError> {
        let sql = "INSERT INTO items (id, created_by, created_at, version, kind, state, scope_user, scope_agent,
                   scope_session, valid_from, valid_to, recorded_at, expires_at, salience, legal_hold, tags, entities,
                   source, metadata, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        self.connection().prepare_cached(sql)?.execute(params![
            item.id.as_bytes(),
            item.created_by,
            item.created_at.unix_ms(),
            item.version.cast_signed(),
            item.kind.as_str(),
            item.state.as_str(),
            item.scope.user,
            item.scope.agent,
            item.scope.session,
            item.valid_from.map(Timestamp::unix_ms),
            item.valid_to.map(Timestamp::unix_ms),
            item.recorded_at.unix_ms(),
            item.expires_at.map(Timestamp::unix_ms),
            f64::from(item.salience),
            item.legal_hold,
            encoded.tags,
            encoded.entities,
            encoded.source,
            encoded.metadata,
            item.text,
        ])?;
        Ok(())
    }

    fn update_current(&self, row: ItemRow, item: &Item, encoded: &Encoded) -> Result<(), StoreError> {
        let sql = "UPDATE items SET version = ?, kind = ?, state = ?, valid_from = ?, valid_to = ?, recorded_at = ?,
                   expires_at = ?, salience = ?, legal_hold = ?, tags = ?, entities = ?, source = ?, metadata = ?,
                   text = ? WHERE row = ?";
        self.connection().prepare_cached(sql)?.execute(params![
            item.version.cast_signed(),
            item.kind.as_str(),
            item.state.as_str(),
            item.valid_from.map(Timestamp::unix_ms),
            item.valid_to.map(Timestamp::unix_ms),
            item.recorded_at.unix_ms(),
            item.expires_at.map(Timestamp::unix_ms),
            f64::from(item.salience),
            item.legal_hold,
            encoded.tags,
            encoded.entities,
            encoded.source,
            encoded.metadata,
            item.text,
            row.get(),
        ])?;
        Ok(())
    }

    fn insert_version(
        &self,
        row: ItemRow,
        item: &Item,
        encoded: &Encoded,
        change: &Change,
        by: By<'_>,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO versions (row, version, change, actor, reason, kind, state, scope_user, scope_agent,
                   scope_session, valid_from, valid_to, recorded_at, expires_at, salience, legal_hold, tags, entities,
                   source, metadata, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        self.connection().prepare_cached(sql)?.execute(params![
            row.get(),
            item.version.cast_signed(),
            encode_change(change)?,
            by.actor,
            by.reason,
            item.kind.as_str(),
            item.state.as_str(),
            item.scope.user,
            item.scope.agent,
            item.scope.session,
            item.valid_from.map(Timestamp::unix_ms),
            item.valid_to.map(Timestamp::unix_ms),
            item.recorded_at.unix_ms(),
            item.expires_at.map(Timestamp::unix_ms),
            f64::from(item.salience),
            item.legal_hold,
            encoded.tags,
            encoded.entities,
            encoded.source,
            encoded.metadata,
            item.text,
        ])?;
        let mut usage = self.usage();
        usage.num_versions += 1;
        usage.content_bytes += encoded.content_bytes(item);
        self.set_usage(usage);
        Ok(())
    }

    /// Tags are looked up by name, so the current ones have a table of their own.
    pub(super) fn sync_tags(&self, row: ItemRow, before: &[String], after: &[String]) -> Result<(), StoreError> {
        for tag in before.iter().filter(|tag| !after.contains(tag)) {
            let mut statement = self.connection().prepare_cached("DELETE FROM item_tags WHERE tag = ? AND row = ?")?;
            statement.execute(params![tag, row.get()])?;
        }
        for tag in after.iter().filter(|tag| !before.contains(tag)) {
            let mut statement = self.connection().prepare_cached("INSERT INTO item_tags (tag, row) VALUES (?, ?)")?;
            statement.execute(params![tag, row.get()])?;
        }
        Ok(())
    }
}

impl Encoded {
    pub(super) fn new(item: &Item) -> Result<Self, StoreError> {
        let list = |labels: &[String]| match labels {
            [] => Ok("[]".to_owned()),
            labels => serde_json::to_string(labels).map_err(StoreError::step),
        };
        Ok(Self {
            tags: list(&item.tags)?,
            entities: list(&item.entities)?,
            source: serde_json::to_string(&item.source).map_err(StoreError::step)?,
            metadata: if item.metadata.is_empty() {
                "{}".to_owned()
            } else {
                serde_json::to_string(&item.metadata).map_err(StoreError::step)?
            },
        })
    }

    /// What a version counts for in [`Usage::content_bytes`]; the check of the store says the same in SQL.
    fn content_bytes(&self, item: &Item) -> u64 {
        (item.text.len() + self.tags.len() + self.entities.len() + self.metadata.len()) as u64
    }
}

/// Refuses when the caller knew another version.
pub(super) fn check_version(item: &Item, expected: Option<u64>) -> Result<(), StoreError> {
    match expected {
        Some(expected) if expected != item.version => {
            Err(StoreError::VersionConflict { id: item.id, expected, found: item.version })
        }
        _ => Ok(()),
    }
}

/// Refuses a memory under legal hold.
pub(super) fn check_not_held(item: &Item) -> Result<(), StoreError> {
    if item.legal_hold { Err(StoreError::LegalHold { id: item.id }) } else { Ok(()) }
}

/// Refuses a memory whose content may not be edited now.
pub(super) fn check_editable(item: &Item) -> Result<(), StoreError> {
    check_not_held(item)?;
    match item.state {
        ItemState::Frozen => Err(StoreError::Frozen { id: item.id }),
        state if !state.is_editable() => Err(StoreError::NotEditable { id: item.id, state }),
        _ => Ok(()),
    }
}
