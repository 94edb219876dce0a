//! Reading memories as they are now: the reader of one snapshot, and how a row becomes an item.

use std::collections::BTreeMap;
use std::fmt;

use rusqlite::{Connection, OptionalExtension, Row};
use serde::de::DeserializeOwned;

use super::StoreError;
use crate::item::{Item, Scope};
use crate::lifecycle::ItemState;
use crate::{CubeId, ItemId, Timestamp};

/// Most ids that one call takes, and most items on one page.
pub const NUM_ITEMS_PER_CALL_MAX: usize = 1_000;

/// The small number of a memory in this store, for indexes in memory; it never changes and is never given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemRow(i64);

impl ItemRow {
    /// The number as stored in the column `items.row`, for the tables of other modules.
    pub fn get(self) -> i64 {
        self.0
    }

    /// The row with this number; whether there is one shows when it is read.
    pub fn from_number(number: i64) -> Self {
        Self(number)
    }
}

impl fmt::Display for ItemRow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// One consistent view of the store: everything read through it belongs to the same moment.
pub struct Reader<'a> {
    connection: &'a Connection,
    cube: CubeId,
}

/// The columns of an item in the order that [`decode`] takes them. `$content` is the table with the content:
/// `item` for what is now, `v` for a version.
macro_rules! item_columns {
    ($content:literal) => {
        concat!(
            "item.row, item.id, item.created_by, item.created_at, ",
            $content,
            ".version, ",
            $content,
            ".kind, ",
            $content,
            ".state, ",
            $content,
            ".scope_user, ",
            $content,
            ".scope_agent, ",
            $content,
            ".scope_session, ",
            $content,
            ".valid_from, ",
            $content,
            ".valid_to, ",
            $content,
            ".recorded_at, ",
            $content,
            ".expires_at, ",
            $content,
            ".salience, ",
            $content,
            ".legal_hold, ",
            $content,
            ".tags, ",
            $content,
            ".entities, ",
            $content,
            ".source, ",
            $content,
            ".metadata, ",
            $content,
            ".text"
        )
    };
}
pub(super) use item_columns;

/// How many columns [`item_columns`] has: what else is selected comes behind them.
pub(super) const NUM_ITEM_COLUMNS: usize = 21;

impl<'a> Reader<'a> {
    pub(super) fn new(connection: &'a Connection, cube: CubeId) -> Self {
        Self { connection, cube }
    }

    /// The connection, for the tables of other modules.
    pub fn connection(&self) -> &'a Connection {
        self.connection
    }

    /// The cube that this is.
    pub fn cube(&self) -> CubeId {
        self.cube
    }

    /// The row of a memory.
    ///
    /// # Errors
    /// When the file cannot be read; so for every read here.
    pub fn row_of(&self, id: ItemId) -> Result<Option<ItemRow>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT row FROM items WHERE id = ?")?;
        Ok(statement.query_row([id.as_bytes()], |row| row.get(0).map(ItemRow)).optional()?)
    }

    /// The memory as it is now.
    pub fn get(&self, id: ItemId) -> Result<Option<Item>, StoreError> {
        Ok(self.find(id)?.map(|(_row, item)| item))
    }

    /// The memory in this row.
    pub fn get_row(&self, row: ItemRow) -> Result<Option<Item>, StoreError> {
        let sql = concat!("SELECT ", item_columns!("item"), " FROM items AS item WHERE item.row = ?");
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([row.0])?;
        rows.next()?.map(|row| decode(row, self.cube).map(|(_row, item)| item)).transpose()
    }

    /// The memories as they are now, in the order of the ids; `None` where there is none.
    ///
    /// # Errors
    /// Also for more than [`NUM_ITEMS_PER_CALL_MAX`] ids.
    pub fn get_many(&self, ids: &[ItemId]) -> Result<Vec<Option<Item>>, StoreError> {
        if ids.len() > NUM_ITEMS_PER_CALL_MAX {
            return Err(StoreError::OutOfLimit { what: "ids", num: ids.len(), limit: NUM_ITEMS_PER_CALL_MAX });
        }
        ids.iter().map(|&id| self.get(id)).collect()
    }

    /// Memories after a row, in order of rows: for work that looks at all of them, a few at a time.
    ///
    /// # Errors
    /// Also for a limit that is out of bounds.
    pub fn rows_after(&self, after: Option<ItemRow>, limit: usize) -> Result<Vec<(ItemRow, Item)>, StoreError> {
        let sql = concat!(
            "SELECT ",
            item_columns!("item"),
            " FROM items AS item WHERE item.row > ? ORDER BY item.row LIMIT ?"
        );
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([after.map_or(0, ItemRow::get), checked_limit(limit)?])?;
        let mut items = Vec::new();
        while let Some(row) = rows.next()? {
            items.push(decode(row, self.cube)?);
        }
        Ok(items)
    }

    /// Calls with every memory as it is now, in order of rows: for building an index in memory.
    pub fn for_each_current(
        &self,
        mut visit: impl FnMut(ItemRow, &Item) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let sql = concat!("SELECT ", item_columns!("item"), " FROM items AS item ORDER BY item.row");
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (row, item) = decode(row, self.cube)?;
            visit(row, &item)?;
        }
        Ok(())
    }

    /// Memories whose retention has ended by then, the longest overdue first. Those under legal hold are not among
    /// them: their retention waits. Nor are those in the states `passed_over`.
    pub fn expired(&self, now: Timestamp, passed_over: &[ItemState], limit: usize) -> Result<Vec<Item>, StoreError> {
        let limit = checked_limit(limit)?;
        let sql = concat!(
            "SELECT ",
            item_columns!("item"),
            " FROM items AS item WHERE item.expires_at <= ? AND item.legal_hold = 0 AND NOT EXISTS (SELECT 1 FROM json_each(?) AS over WHERE over.value = item.state) \
             ORDER BY item.expires_at, item.row LIMIT ?"
        );
        let names: Vec<&str> = passed_over.iter().map(|state| state.as_str()).collect();
        let names = serde_json::to_string(&names).map_err(StoreError::step)?;
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(rusqlite::params![now.unix_ms(), names, limit])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(decode(row, self.cube)?.1);
        }
        Ok(found)
    }

    /// The memory and its row.
    pub(super) fn find(&self, id: ItemId) -> Result<Option<(ItemRow, Item)>, StoreError> {
        let sql = concat!("SELECT ", item_columns!("item"), " FROM items AS item WHERE item.id = ?");
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([id.as_bytes()])?;
        rows.next()?.map(|row| decode(row, self.cube)).transpose()
    }

    /// The memory and its row, which must be there.
    pub(super) fn load(&self, id: ItemId) -> Result<(ItemRow, Item), StoreError> {
        self.find(id)?.ok_or(StoreError::UnknownItem { id })
    }
}

/// A page's limit as SQLite takes it.
pub(super) fn checked_limit(limit: usize) -> Result<i64, StoreError> {
    match i64::try_from(limit) {
        Ok(number) if (1..=NUM_ITEMS_PER_CALL_MAX).contains(&limit) => Ok(number),
        _ => Err(StoreError::OutOfLimit { what: "limit", num: limit, limit: NUM_ITEMS_PER_CALL_MAX }),
    }
}

/// An item from a row that begins with [`item_columns`].
pub(super) fn decode(row: &Row<'_>, cube: CubeId) -> Result<(ItemRow, Item), StoreError> {
    let number: i64 = row.get(0)?;
    decode_checked(row, cube)
        .map(|item| (ItemRow(number), item))
        .map_err(|reason| StoreError::Damaged { reason: format!("the memory in row {number} is unreadable: {reason}") })
}

fn decode_checked(row: &Row<'_>, cube: CubeId) -> Result<Item, String> {
    let version: i64 = column(row, 4)?;
    Ok(Item {
        id: ItemId::from_bytes(column(row, 1)?),
        cube,
        kind: name(row, 5)?,
        state: name(row, 6)?,
        version: u64::try_from(version).map_err(|error| error.to_string())?,
        text: column(row, 20)?,
        tags: json(row, 16)?,
        entities: json(row, 17)?,
        scope: Scope { user: column(row, 7)?, agent: column(row, 8)?, session: column(row, 9)? },
        created_by: column(row, 2)?,
        source: json(row, 18)?,
        valid_from: optional_moment(row, 10)?,
        valid_to: optional_moment(row, 11)?,
        created_at: moment(row, 3)?,
        recorded_at: moment(row, 12)?,
        expires_at: optional_moment(row, 13)?,
        salience: salience(row)?,
        legal_hold: column(row, 15)?,
        metadata: metadata(row)?,
    })
}

fn column<T: rusqlite::types::FromSql>(row: &Row<'_>, index: usize) -> Result<T, String> {
    row.get(index).map_err(|error| error.to_string())
}

fn name<T: std::str::FromStr<Err = crate::MemoryError>>(row: &Row<'_>, index: usize) -> Result<T, String> {
    let text = row.get_ref(index).map_err(|error| error.to_string())?.as_str().map_err(|error| error.to_string())?;
    text.parse().map_err(|error: crate::MemoryError| error.to_string())
}

fn json<T: DeserializeOwned>(row: &Row<'_>, index: usize) -> Result<T, String> {
    let text = row.get_ref(index).map_err(|error| error.to_string())?.as_str().map_err(|error| error.to_string())?;
    // The message of the parser may quote what is stored, so only the place is told.
    serde_json::from_str(text).map_err(|error| format!("column {index} does not parse at {}", error.column()))
}

fn metadata(row: &Row<'_>) -> Result<BTreeMap<String, serde_json::Value>, String> {
    let text = row.get_ref(19).map_err(|error| error.to_string())?.as_str().map_err(|error| error.to_string())?;
    if text == "{}" { Ok(BTreeMap::new()) } else { json(row, 19) }
}

fn salience(row: &Row<'_>) -> Result<f32, String> {
    // Written from an f32, so this loses nothing.
    let value: f64 = column(row, 14)?;
    Ok(value as f32)
}

fn moment(row: &Row<'_>, index: usize) -> Result<Timestamp, String> {
    let unix_ms: i64 = column(row, index)?;
    Timestamp::from_unix_ms(unix_ms).ok_or_else(|| format!("{unix_ms} is no moment"))
}

fn optional_moment(row: &Row<'_>, index: usize) -> Result<Option<Timestamp>, String> {
    let unix_ms: Option<i64> = column(row, index)?;
    unix_ms.map(|unix_ms| Timestamp::from_unix_ms(unix_ms).ok_or_else(|| format!("{unix_ms} is no moment"))).transpose()
}
