//! The examination of a store: whether SQLite finds its file sound, and whether its tables agree with each other.

use std::collections::BTreeSet;
use std::fmt;

use super::items::{ItemRow, Reader, decode, item_columns};
use super::usage::Usage;
use super::{Store, StoreError};
use crate::ItemId;
use crate::item::{Item, Source};
use crate::lifecycle::ItemState;

/// Findings after which an examination ends; the rest would say no more.
pub const NUM_FINDINGS_MAX: usize = 1_000;

/// Something that cannot be in a sound store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// SQLite finds the file damaged.
    File {
        /// In its words.
        message: String,
    },
    /// A row names another that does not exist.
    Dangling {
        /// The table of the row.
        table: String,
        /// The table that it names a row of.
        parent: String,
    },
    /// A memory cannot be read.
    Unreadable {
        /// Why.
        reason: String,
    },
    /// A memory differs from the last of its versions.
    CurrentDiffers {
        /// Its row.
        row: ItemRow,
    },
    /// A memory's versions are not 1, 2, 3 and so on up to its own.
    VersionsMissing {
        /// Its row.
        row: ItemRow,
    },
    /// A version does not end when the next begins.
    TimesDiffer {
        /// The memory's row.
        row: ItemRow,
        /// The version.
        version: i64,
    },
    /// The tags by which a memory is found are not its tags.
    TagsDiffer {
        /// Which.
        id: ItemId,
    },
    /// The names that a memory is linked to are not its entities.
    MentionsDiffer {
        /// Which.
        id: ItemId,
    },
    /// A memory's source names one that it has no edge to.
    EdgeMissing {
        /// Which.
        id: ItemId,
    },
    /// A memory is merged, but not into exactly one other; or it is not merged, but into another.
    MergeDiffers {
        /// Which.
        id: ItemId,
    },
    /// The kept counts are not what is there.
    UsageDiffers {
        /// As it is kept.
        kept: Usage,
        /// As it is counted.
        counted: Usage,
    },
    /// Something is recorded after the moment that counts as the last.
    MomentDiffers,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { message } => write!(formatter, "the file is damaged: {message}"),
            Self::Dangling { table, parent } => {
                write!(formatter, "a row of {table} names a row of {parent} that is not there")
            }
            Self::Unreadable { reason } => formatter.write_str(reason),
            Self::CurrentDiffers { row } => write!(formatter, "the memory in row {row} differs from its last version"),
            Self::VersionsMissing { row } => write!(formatter, "the memory in row {row} misses versions"),
            Self::TimesDiffer { row, version } => {
                write!(formatter, "version {version} in row {row} does not end when the next begins")
            }
            Self::TagsDiffer { id } => write!(formatter, "memory {id} is found by other tags than it has"),
            Self::MentionsDiffer { id } => write!(formatter, "memory {id} is linked to other names than it has"),
            Self::EdgeMissing { id } => write!(formatter, "memory {id} misses an edge to what it is derived from"),
            Self::MergeDiffers { id } => write!(formatter, "memory {id} and its merges contradict each other"),
            Self::UsageDiffers { kept, counted } => {
                write!(formatter, "the kept counts are {kept:?}, but there are {counted:?}")
            }
            Self::MomentDiffers => formatter.write_str("something is recorded after the last recorded moment"),
        }
    }
}

impl Store {
    /// Examines the whole store. Empty: it is sound.
    ///
    /// # Errors
    /// When the examination could not be made; what is wrong with the store is a finding.
    pub fn check(&self) -> Result<Vec<Finding>, StoreError> {
        let mut findings = Vec::new();
        let result = self.read(|reader| reader.examine(&mut findings));
        match result {
            // The rest cannot be examined.
            Err(StoreError::Damaged { reason }) => findings.push(Finding::File { message: reason }),
            result => result?,
        }
        findings.truncate(NUM_FINDINGS_MAX);
        Ok(findings)
    }
}

impl Reader<'_> {
    fn examine(&self, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
        let sql = format!("PRAGMA integrity_check({NUM_FINDINGS_MAX})");
        let mut statement = self.connection().prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let message: String = row.get(0)?;
            if message != "ok" {
                findings.push(Finding::File { message });
            }
        }
        let mut statement = self.connection().prepare("PRAGMA foreign_key_check")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            findings.push(Finding::Dangling { table: row.get(0)?, parent: row.get(2)? });
        }
        self.examine_versions(findings)?;
        self.examine_items(findings)?;
        self.examine_totals(findings)
    }

    fn examine_versions(&self, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
        let mut find = |sql: &str, finding: fn(ItemRow, i64) -> Finding| -> Result<(), StoreError> {
            let mut statement = self.connection().prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                findings.push(finding(ItemRow::from_number(row.get(0)?), row.get(1)?));
                if findings.len() >= NUM_FINDINGS_MAX {
                    break;
                }
            }
            Ok(())
        };
        let differs = "SELECT item.row, item.version FROM items AS item LEFT JOIN versions AS v
            ON v.row = item.row AND v.version = item.version WHERE v.row IS NULL OR v.superseded_at IS NOT NULL OR
            (v.kind, v.state, v.recorded_at, v.salience, v.legal_hold, v.tags, v.entities, v.source, v.metadata, v.text)
            IS NOT (item.kind, item.state, item.recorded_at, item.salience, item.legal_hold, item.tags, item.entities,
            item.source, item.metadata, item.text) OR (v.scope_user, v.scope_agent, v.scope_session, v.valid_from,
            v.valid_to, v.expires_at) IS NOT (item.scope_user, item.scope_agent, item.scope_session, item.valid_from,
            item.valid_to, item.expires_at)";
        find(differs, |row, _version| Finding::CurrentDiffers { row })?;
        let missing = "SELECT item.row, item.version FROM items AS item JOIN versions AS v ON v.row = item.row
            GROUP BY item.row HAVING min(v.version) <> 1 OR count(*) <> item.version OR max(v.version) <> item.version";
        find(missing, |row, _version| Finding::VersionsMissing { row })?;
        let times = "SELECT v.row, v.version FROM versions AS v JOIN versions AS next
            ON next.row = v.row AND next.version = v.version + 1
            WHERE v.superseded_at IS NOT next.recorded_at OR next.recorded_at < v.recorded_at";
        find(times, |row, version| Finding::TimesDiffer { row, version })
    }

    fn examine_items(&self, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
        let sql = concat!("SELECT ", item_columns!("item"), " FROM items AS item ORDER BY item.row");
        let mut statement = self.connection().prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if findings.len() >= NUM_FINDINGS_MAX {
                break;
            }
            match decode(row, self.cube()) {
                Ok((row, item)) => self.examine_item(row, &item, findings)?,
                Err(StoreError::Damaged { reason }) => findings.push(Finding::Unreadable { reason }),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn examine_item(&self, row: ItemRow, item: &Item, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
        let texts = |sql: &str| -> Result<Vec<String>, StoreError> {
            let mut statement = self.connection().prepare_cached(sql)?;
            let texts = statement.query_map([row.get()], |row| row.get(0))?;
            Ok(texts.collect::<Result<_, _>>()?)
        };
        let id = item.id;
        if texts("SELECT tag FROM item_tags WHERE row = ? ORDER BY tag")? != item.tags {
            findings.push(Finding::TagsDiffer { id });
        }
        let mentions = "SELECT spelling FROM mentions WHERE row = ? AND ended_at IS NULL ORDER BY spelling";
        if texts(mentions)? != item.entities {
            findings.push(Finding::MentionsDiffer { id });
        }
        let ids = |sql: &str| -> Result<BTreeSet<ItemId>, StoreError> {
            let mut statement = self.connection().prepare_cached(sql)?;
            let ids = statement.query_map([row.get()], |row| row.get(0).map(ItemId::from_bytes))?;
            Ok(ids.collect::<Result<_, _>>()?)
        };
        if let Source::Derived { from } = &item.source {
            let sources = ids("SELECT item.id FROM edges AS e JOIN items AS item ON item.row = e.to_row
                WHERE e.from_row = ? AND e.kind = 'derived_from'")?;
            if !from.iter().all(|id| sources.contains(id)) {
                findings.push(Finding::EdgeMissing { id });
            }
        }
        let merged_into = ids("SELECT item.id FROM edges AS e JOIN items AS item ON item.row = e.to_row
            WHERE e.from_row = ? AND e.kind = 'merged_into' AND e.ended_at IS NULL")?;
        if merged_into.len() != usize::from(item.state == ItemState::Merged) {
            findings.push(Finding::MergeDiffers { id });
        }
        Ok(())
    }

    fn examine_totals(&self, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
        let number = |sql: &str| -> Result<i64, StoreError> {
            Ok(self.connection().prepare(sql)?.query_row([], |row| row.get(0))?)
        };
        let counted = Usage {
            num_items: number("SELECT count(*) FROM items")?.unsigned_abs(),
            num_versions: number("SELECT count(*) FROM versions")?.unsigned_abs(),
            content_bytes: number(
                "SELECT coalesce(sum(octet_length(text) + octet_length(tags) + octet_length(entities)
                 + octet_length(metadata)), 0) FROM versions",
            )?
            .unsigned_abs(),
        };
        let kept = self.stored_usage()?;
        if kept != counted {
            findings.push(Finding::UsageDiffers { kept, counted });
        }
        let is_late = "SELECT coalesce(max(recorded_at), -9223372036854775808) > (SELECT last_recorded_at FROM meta)
                       FROM versions";
        if number(is_late)? != 0 {
            findings.push(Finding::MomentDiffers);
        }
        Ok(())
    }
}
