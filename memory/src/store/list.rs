//! Listings of memories, page by page, now or as of an earlier moment.

use std::fmt;
use std::str::FromStr;

use rusqlite::params_from_iter;
use rusqlite::types::Value;

use super::StoreError;
use super::filter::{Conditions, ItemFilter, Moment, Restriction};
use super::items::{Reader, checked_limit, decode, item_columns};
use crate::Timestamp;
use crate::item::Item;

/// Most tags that a listing may ask for all of: each is a condition of its own.
pub const NUM_TAGS_ALL_MAX: usize = 64;

/// Which end of the list comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ListOrder {
    /// In the order in which they were written.
    #[default]
    OldestFirst,
    /// The other way round.
    NewestFirst,
}

/// What is to be listed.
#[derive(Debug, Clone, PartialEq)]
pub struct ListRequest {
    /// Which memories.
    pub filter: ItemFilter,
    /// What the caller may see of them.
    pub restriction: Option<Restriction>,
    /// In which order.
    pub order: ListOrder,
    /// Most on one page, 1 to 1,000.
    pub limit: usize,
    /// Where the page before ended.
    pub after: Option<Cursor>,
}

impl ListRequest {
    /// The first page of what the filter lets through, oldest first.
    pub fn new(filter: ItemFilter, limit: usize) -> Self {
        Self { filter, restriction: None, order: ListOrder::OldestFirst, limit, after: None }
    }
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The memories.
    pub items: Vec<Item>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<Cursor>,
}

/// A place in a listing. It stays good while memories are written and erased around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    row: i64,
    order: ListOrder,
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self.order {
            ListOrder::OldestFirst => 'a',
            ListOrder::NewestFirst => 'd',
        };
        write!(formatter, "{order}{:016x}", self.row)
    }
}

impl FromStr for Cursor {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let order = match text.as_bytes().first() {
            Some(b'a') => Some(ListOrder::OldestFirst),
            Some(b'd') => Some(ListOrder::NewestFirst),
            _ => None,
        };
        let row = text.get(1..).and_then(|digits| i64::from_str_radix(digits, 16).ok());
        match (order, row) {
            // One spelling only, so that a cursor can be compared.
            (Some(order), Some(row)) if (Self { row, order }).to_string() == text => Ok(Self { row, order }),
            _ => Err(StoreError::InvalidCursor { text: text.chars().take(64).collect() }),
        }
    }
}

impl Reader<'_> {
    /// One page of the memories as they are now.
    ///
    /// # Errors
    /// For a limit or list that is out of bounds, a cursor of a listing in the other order, or a file that cannot
    /// be read.
    pub fn list(&self, request: &ListRequest) -> Result<Page, StoreError> {
        self.list_at(Moment::Now, request)
    }

    /// One page of the memories as they were recorded at that moment.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn list_as_of(&self, moment: Timestamp, request: &ListRequest) -> Result<Page, StoreError> {
        self.list_at(Moment::At(moment), request)
    }

    /// How many memories the filter lets through now.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn count(&self, filter: &ItemFilter, restriction: Option<&Restriction>) -> Result<u64, StoreError> {
        check_tags(filter)?;
        let conditions = Conditions::new(filter, restriction, Moment::Now)?;
        let sql = format!("SELECT count(*) FROM items AS item WHERE {}", conditions.sql);
        let mut statement = self.connection().prepare_cached(&sql)?;
        let num: i64 = statement.query_row(params_from_iter(conditions.values), |row| row.get(0))?;
        Ok(num.unsigned_abs())
    }

    fn list_at(&self, moment: Moment, request: &ListRequest) -> Result<Page, StoreError> {
        let ListRequest { filter, restriction, order, limit, after } = request;
        check_tags(filter)?;
        let page_len = checked_limit(*limit)?;
        let mut conditions = Conditions::new(filter, restriction.as_ref(), moment)?;
        if let Some(cursor) = after {
            if cursor.order != *order {
                return Err(StoreError::InvalidCursor { text: cursor.to_string() });
            }
            match order {
                ListOrder::OldestFirst => conditions.add("item.row > ?", [cursor.row]),
                ListOrder::NewestFirst => conditions.add("item.row < ?", [cursor.row]),
            }
        }
        let select = match moment {
            Moment::Now => concat!("SELECT ", item_columns!("item"), " FROM items AS item"),
            Moment::At(_) => {
                concat!("SELECT ", item_columns!("v"), " FROM items AS item JOIN versions AS v ON v.row = item.row")
            }
        };
        let direction = match order {
            ListOrder::OldestFirst => "ASC",
            ListOrder::NewestFirst => "DESC",
        };
        let sql = format!("{select} WHERE {} ORDER BY item.row {direction} LIMIT ?", conditions.sql);
        // One more than the page, to know whether there is another page.
        conditions.values.push(Value::from(page_len + 1));
        let mut statement = self.connection().prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(conditions.values))?;
        let mut page = Page { items: Vec::new(), next: None };
        let mut last_row = 0;
        while let Some(row) = rows.next()? {
            if page.items.len() == *limit {
                page.next = Some(Cursor { row: last_row, order: *order });
                break;
            }
            let (row, item) = decode(row, self.cube())?;
            last_row = row.get();
            page.items.push(item);
        }
        Ok(page)
    }
}

fn check_tags(filter: &ItemFilter) -> Result<(), StoreError> {
    let num = filter.tags_all.len();
    if num > NUM_TAGS_ALL_MAX {
        return Err(StoreError::OutOfLimit { what: "tags_all", num, limit: NUM_TAGS_ALL_MAX });
    }
    Ok(())
}
