//! Which memories a listing shows: the filter, and the SQL condition it becomes. Values are always bound, never
//! written into the statement.

use rusqlite::types::Value;

use super::StoreError;
use super::graph::fold_name;
use super::items::NUM_ITEMS_PER_CALL_MAX;
use crate::item::{ItemKind, Scope};
use crate::lifecycle::ItemState;
use crate::{ItemId, Timestamp};

/// Which memories are wanted. Empty lists and `None` do not narrow; the parts narrow together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ItemFilter {
    /// Of one of these kinds.
    pub kinds: Vec<ItemKind>,
    /// In one of these states.
    pub states: Vec<ItemState>,
    /// With all of these tags.
    pub tags_all: Vec<String>,
    /// With at least one of these tags.
    pub tags_any: Vec<String>,
    /// Mentioning at least one of these names, whatever their case.
    pub entities_any: Vec<String>,
    /// Inside this scope.
    pub scope: Scope,
    /// Written by this actor.
    pub created_by: Option<String>,
    /// With this in its text, whatever the case.
    pub text_contains: Option<String>,
    /// True in the world at this moment.
    pub valid_at: Option<Timestamp>,
    /// Last changed before this moment.
    pub recorded_before: Option<Timestamp>,
    /// One of these; an empty list wants none.
    pub ids: Option<Vec<ItemId>>,
}

/// A condition of another module, such as the grants of a caller, joined into the query. It is SQL over the alias
/// `item` (the table `items`) whose values stand as `?1`, `?2` and so on; nothing of a request is ever a part of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Restriction {
    /// The condition.
    pub condition: String,
    /// What `?1` and the following stand for.
    pub values: Vec<Value>,
}

/// The moment that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Now,
    At(Timestamp),
}

/// Conditions joined by AND, with their values in order.
pub(super) struct Conditions {
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

impl Conditions {
    /// What `filter` and `restriction` ask of a row: of `item` now, or of its version `v` at a moment.
    pub(super) fn new(
        filter: &ItemFilter,
        restriction: Option<&Restriction>,
        moment: Moment,
    ) -> Result<Self, StoreError> {
        let mut conditions = Self { sql: "1".to_owned(), values: Vec::new() };
        let content = match moment {
            Moment::Now => "item",
            Moment::At(moment) => {
                let moment = moment.unix_ms();
                conditions.add("v.recorded_at <= ?", [moment]);
                conditions.add("(v.superseded_at IS NULL OR v.superseded_at > ?)", [moment]);
                "v"
            }
        };
        conditions.add_labels(filter, moment)?;
        conditions.add_fields(filter, content)?;
        if let Some(Restriction { condition, values }) = restriction {
            let condition = renumbered(condition, conditions.values.len());
            conditions.add(&format!("({condition})"), values.iter().cloned());
        }
        Ok(conditions)
    }

    /// One more condition.
    pub(super) fn add<V: Into<Value>>(&mut self, condition: &str, values: impl IntoIterator<Item = V>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
        self.values.extend(values.into_iter().map(Into::into));
    }

    fn add_labels(&mut self, filter: &ItemFilter, moment: Moment) -> Result<(), StoreError> {
        let with_tag = match moment {
            Moment::Now => "item.row IN (SELECT row FROM item_tags WHERE tag IN (SELECT value FROM json_each(?)))",
            Moment::At(_) => {
                "EXISTS (SELECT 1 FROM json_each(v.tags) AS tag WHERE tag.value IN (SELECT value FROM json_each(?)))"
            }
        };
        check_len("tags_all", filter.tags_all.len())?;
        for tag in &filter.tags_all {
            self.add(with_tag, [json_list("tags_all", [tag])?]);
        }
        if !filter.tags_any.is_empty() {
            self.add(with_tag, [json_list("tags_any", &filter.tags_any)?]);
        }
        if !filter.entities_any.is_empty() {
            let folded: Vec<String> = filter.entities_any.iter().map(|name| fold_name(name)).collect();
            let names = Value::from(json_list("entities_any", &folded)?);
            let mention = "item.row IN (SELECT m.row FROM mentions AS m JOIN entities AS e ON e.entity = m.entity
                 WHERE e.folded IN (SELECT value FROM json_each(?)) AND ";
            match moment {
                Moment::Now => self.add(&format!("{mention} m.ended_at IS NULL)"), [names]),
                Moment::At(moment) => self.add(
                    &format!("{mention} m.recorded_at <= ? AND (m.ended_at IS NULL OR m.ended_at > ?))"),
                    [names, moment.unix_ms().into(), moment.unix_ms().into()],
                ),
            }
        }
        Ok(())
    }

    fn add_fields(&mut self, filter: &ItemFilter, content: &str) -> Result<(), StoreError> {
        if !filter.kinds.is_empty() {
            let names = json_list("kinds", filter.kinds.iter().map(|kind| kind.as_str()))?;
            self.add(&format!("{content}.kind IN (SELECT value FROM json_each(?))"), [names]);
        }
        if !filter.states.is_empty() {
            let names = json_list("states", filter.states.iter().map(|state| state.as_str()))?;
            self.add(&format!("{content}.state IN (SELECT value FROM json_each(?))"), [names]);
        }
        let Scope { user, agent, session } = &filter.scope;
        for (column, part) in [("scope_user", user), ("scope_agent", agent), ("scope_session", session)] {
            if let Some(part) = part {
                self.add(&format!("{content}.{column} = ?"), [part.clone()]);
            }
        }
        if let Some(actor) = &filter.created_by {
            self.add("item.created_by = ?", [actor.clone()]);
        }
        if let Some(moment) = filter.valid_at {
            let moment = moment.unix_ms();
            self.add(&format!("({content}.valid_from IS NULL OR {content}.valid_from <= ?)"), [moment]);
            self.add(&format!("({content}.valid_to IS NULL OR {content}.valid_to > ?)"), [moment]);
        }
        if let Some(moment) = filter.recorded_before {
            self.add(&format!("{content}.recorded_at < ?"), [moment.unix_ms()]);
        }
        if let Some(ids) = &filter.ids {
            let ids = json_list("ids", ids.iter().map(|id| id.to_string().replace('-', "")))?;
            self.add("item.id IN (SELECT unhex(value) FROM json_each(?))", [ids]);
        }
        if let Some(part) = &filter.text_contains {
            self.add(&format!("contains_folded({content}.text, ?)"), [part.to_lowercase()]);
        }
        Ok(())
    }
}

/// The condition with `offset` added to the number of each value, since others stand before it.
fn renumbered(condition: &str, offset: usize) -> String {
    let mut parts = condition.split('?');
    let mut sql = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let len = part.bytes().take_while(u8::is_ascii_digit).count();
        let number: usize = part[..len].parse().expect("values of a condition are numbered: this is a bug");
        sql.push_str(&format!("?{}{}", number + offset, &part[len..]));
    }
    sql
}

/// A list as one bound value, so that the statement's text does not depend on its length.
fn json_list<T: serde::Serialize>(
    what: &'static str,
    values: impl IntoIterator<Item = T>,
) -> Result<String, StoreError> {
    let values: Vec<T> = values.into_iter().collect();
    check_len(what, values.len())?;
    serde_json::to_string(&values).map_err(StoreError::step)
}

fn check_len(what: &'static str, num: usize) -> Result<(), StoreError> {
    if num > NUM_ITEMS_PER_CALL_MAX {
        return Err(StoreError::OutOfLimit { what, num, limit: NUM_ITEMS_PER_CALL_MAX });
    }
    Ok(())
}
