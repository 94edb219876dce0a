//! The field `memory` of a chat request: from which cubes is recalled, what of it, and whether the turn is remembered.

use memory::cube::CubeName;
use memory::item::{LABEL_BYTES_MAX, TEXT_BYTES_MAX};
use memory::{ItemId, Timestamp};
use serde_json::Value;

use super::error::ApiError;
use super::fields::{Fields, describe, quoted, wrong_type};
use super::options::too_many;

/// Most cubes that one request recalls from.
pub const NUM_CUBES_MAX: usize = 8;
/// Most memories in one prompt.
pub const NUM_MEMORIES_MAX: usize = 100;
/// Most memories that one request leaves out or replaces.
pub const NUM_CHANGED_MAX: usize = 100;

/// Whether a request recalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecallMode {
    /// Memories go into the prompt.
    Recall,
    /// They do not.
    Off,
}

/// Whether the turn is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// What the user told is found by rules and kept.
    Fast,
    /// Nothing is kept.
    Off,
}

/// Whether the answer says why each memory was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceReport {
    /// It does.
    Included,
    /// It does not.
    Omitted,
}

/// What a chat request says about memory.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryOptions {
    /// The cubes, in the client's order; the first one is written to. Empty: the server's.
    pub cubes: Vec<CubeName>,
    /// Whether anything is recalled.
    pub mode: RecallMode,
    /// For whom, inside the tenant.
    pub user_id: Option<String>,
    /// For which program.
    pub agent_id: Option<String>,
    /// In which conversation; what is written is marked with it.
    pub session_id: Option<String>,
    /// Most memories; `None`: the server's choice.
    pub limit: Option<usize>,
    /// Most tokens; `None`: the server's choice.
    pub budget_tokens: Option<usize>,
    /// As the cubes were recorded at this moment.
    pub as_of: Option<Timestamp>,
    /// What if these were not there.
    pub without: Vec<ItemId>,
    /// What if these said something else.
    pub instead: Vec<(ItemId, String)>,
    /// Whether the turn is remembered.
    pub write: WriteMode,
    /// Whether the answer explains itself.
    pub trace: TraceReport,
}

impl MemoryOptions {
    /// Reads the field; `None` where it is absent.
    ///
    /// # Errors
    /// A part of it is not what it should be.
    pub fn read(body: &mut Fields) -> Result<Option<Self>, ApiError> {
        let Some(mut fields) = body.object("memory")? else { return Ok(None) };
        let options = Self {
            cubes: read_cubes(&mut fields)?,
            mode: read_mode(&mut fields)?,
            user_id: read_name(&mut fields, "user_id")?,
            agent_id: read_name(&mut fields, "agent_id")?,
            session_id: read_name(&mut fields, "session_id")?,
            limit: fields.count("limit", 1, NUM_MEMORIES_MAX)?,
            budget_tokens: fields.count("budget_tokens", 1, usize::MAX)?,
            as_of: read_moment(&mut fields)?,
            without: read_without(&mut fields)?,
            instead: read_instead(&mut fields)?,
            write: read_write(&mut fields)?,
            trace: match fields.flag("trace")? {
                Some(true) => TraceReport::Included,
                Some(false) | None => TraceReport::Omitted,
            },
        };
        fields.finish(&[])?;
        options.check()?;
        Ok(Some(options))
    }

    fn check(&self) -> Result<(), ApiError> {
        let reason = "what is asked of the past or of what might be changes nothing";
        let is_of_the_present = self.as_of.is_none() && self.without.is_empty() && self.instead.is_empty();
        if self.write != WriteMode::Off && !is_of_the_present {
            let other = if self.as_of.is_some() {
                "memory.as_of"
            } else if self.without.is_empty() {
                "memory.instead"
            } else {
                "memory.without"
            };
            return Err(ApiError::Conflict { param: "memory.write", other, reason });
        }
        Ok(())
    }
}

fn read_cubes(fields: &mut Fields) -> Result<Vec<CubeName>, ApiError> {
    let single = fields.take("cube");
    let list = fields.list("cubes")?;
    match (single, list) {
        (None, None) => Ok(Vec::new()),
        (Some(_), Some(_)) => {
            let reason = "give one name in cube, or all of them in cubes";
            Err(ApiError::Conflict { param: "memory.cube", other: "memory.cubes", reason })
        }
        (Some(name), None) => Ok(vec![cube_name("memory.cube".to_owned(), name)?]),
        (None, Some(list)) => {
            if list.is_empty() || list.len() > NUM_CUBES_MAX {
                return Err(ApiError::OutOfRange {
                    param: "memory.cubes".to_owned(),
                    allowed: format!("a list of 1 to {NUM_CUBES_MAX}"),
                    got: format!("a list of {}", list.len()),
                });
            }
            let mut names: Vec<CubeName> = Vec::with_capacity(list.len());
            for (index, name) in list.into_iter().enumerate() {
                let param = format!("memory.cubes[{index}]");
                let name = cube_name(param.clone(), name)?;
                if names.contains(&name) {
                    let allowed = "a cube that is not in the list yet".to_owned();
                    return Err(ApiError::OutOfRange { param, allowed, got: format!("{:?}", name.as_str()) });
                }
                names.push(name);
            }
            Ok(names)
        }
    }
}

fn cube_name(param: String, value: Value) -> Result<CubeName, ApiError> {
    let Value::String(name) = value else { return Err(wrong_type(param, "the name of a cube", &value)) };
    name.parse().map_err(|_invalid| ApiError::OutOfRange {
        param,
        allowed: "the name of a cube: 1 to 64 of a-z, 0-9, '-', '_' and '.', with a letter or digit at both ends"
            .to_owned(),
        got: format!("{:?}", quoted(&name)),
    })
}

fn read_mode(fields: &mut Fields) -> Result<RecallMode, ApiError> {
    match fields.text("mode")?.as_deref() {
        None | Some("recall") => Ok(RecallMode::Recall),
        Some("off") => Ok(RecallMode::Off),
        Some(other) => Err(ApiError::OutOfRange {
            param: "memory.mode".to_owned(),
            allowed: "\"recall\" or \"off\"".to_owned(),
            got: format!("{:?}", quoted(other)),
        }),
    }
}

/// The names inside a tenant are checked by the same rules wherever they are used.
fn read_name(fields: &mut Fields, field: &str) -> Result<Option<String>, ApiError> {
    let Some(name) = fields.text(field)? else { return Ok(None) };
    let fits = !name.is_empty() && name.len() <= LABEL_BYTES_MAX && name.trim() == name;
    if !fits || name.chars().any(char::is_control) {
        return Err(ApiError::OutOfRange {
            param: fields.name(field),
            allowed: format!("1 to {LABEL_BYTES_MAX} bytes without control characters and without space at the ends"),
            got: format!("{:?}", quoted(&name)),
        });
    }
    Ok(Some(name))
}

fn read_moment(fields: &mut Fields) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = fields.text("as_of")? else { return Ok(None) };
    text.parse().map(Some).map_err(|_invalid| ApiError::OutOfRange {
        param: "memory.as_of".to_owned(),
        allowed: "a moment in RFC 3339 with an offset, such as \"2026-03-01T12:00:00Z\"".to_owned(),
        got: format!("{:?}", quoted(&text)),
    })
}

fn read_without(fields: &mut Fields) -> Result<Vec<ItemId>, ApiError> {
    let list = fields.list("without")?.unwrap_or_default();
    if list.len() > NUM_CHANGED_MAX {
        return Err(too_many("memory.without", NUM_CHANGED_MAX, list.len()));
    }
    list.into_iter().enumerate().map(|(index, id)| item_id(format!("memory.without[{index}]"), &id)).collect()
}

fn read_instead(fields: &mut Fields) -> Result<Vec<(ItemId, String)>, ApiError> {
    let list = fields.list("instead")?.unwrap_or_default();
    if list.len() > NUM_CHANGED_MAX {
        return Err(too_many("memory.instead", NUM_CHANGED_MAX, list.len()));
    }
    let read = |(index, value)| {
        let path = format!("memory.instead[{index}]");
        let mut fields = Fields::of_value(path, value)?;
        let id = item_id(fields.name("id"), &fields.require("id")?)?;
        let text = fields.text("text")?.ok_or_else(|| ApiError::Missing { param: fields.name("text") })?;
        if text.trim().is_empty() || text.len() > TEXT_BYTES_MAX {
            return Err(ApiError::OutOfRange {
                param: fields.name("text"),
                allowed: format!("a text of 1 to {TEXT_BYTES_MAX} bytes"),
                got: format!("one of {}", text.len()),
            });
        }
        fields.finish(&[])?;
        Ok((id, text))
    };
    list.into_iter().enumerate().map(read).collect()
}

fn item_id(param: String, value: &Value) -> Result<ItemId, ApiError> {
    let Value::String(text) = value else { return Err(wrong_type(param, "the id of a memory", value)) };
    let allowed = "the id of a memory, as the API returned it".to_owned();
    text.parse().map_err(|_invalid| ApiError::OutOfRange { param, allowed, got: describe(value) })
}

fn read_write(fields: &mut Fields) -> Result<WriteMode, ApiError> {
    match fields.take("write") {
        None | Some(Value::Bool(false)) => Ok(WriteMode::Off),
        Some(Value::Bool(true)) => Ok(WriteMode::Fast),
        Some(Value::String(mode)) if mode == "fast" => Ok(WriteMode::Fast),
        Some(Value::String(mode)) if mode == "fine" => Err(ApiError::Unsupported {
            param: "memory.write".to_owned(),
            reason: "turns are read by rules; use true or \"fast\"",
        }),
        Some(other) => Err(ApiError::OutOfRange {
            param: "memory.write".to_owned(),
            allowed: "true, false or \"fast\"".to_owned(),
            got: describe(&other),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(memory: Value) -> Result<Option<MemoryOptions>, ApiError> {
        let mut body = Fields::of_value(String::new(), json!({"memory": memory}))?;
        let options = MemoryOptions::read(&mut body)?;
        body.finish(&[])?;
        Ok(options)
    }

    fn message(memory: Value) -> String {
        read(memory).expect_err("refused").to_string()
    }

    #[test]
    fn an_empty_object_recalls_and_writes_nothing() {
        assert_eq!(read(Value::Null).expect("absent"), None);
        let options = read(json!({})).expect("valid").expect("there");
        assert_eq!(
            (options.mode, options.write, options.trace),
            (RecallMode::Recall, WriteMode::Off, TraceReport::Omitted)
        );
        assert!(options.cubes.is_empty());
    }

    #[test]
    fn one_cube_or_several_are_named() {
        let cubes = |memory| read(memory).expect("valid").expect("there").cubes;
        assert_eq!(cubes(json!({"cube": "notes"})), cubes(json!({"cubes": ["notes"]})));
        assert_eq!(cubes(json!({"cubes": ["b", "a"]})).len(), 2);
        assert!(message(json!({"cube": "a", "cubes": ["b"]})).contains("memory.cubes"));
        assert!(message(json!({"cubes": []})).starts_with("memory.cubes must be a list of 1 to 8, got a list of 0"));
        assert!(message(json!({"cubes": ["a", "../b"]})).starts_with("memory.cubes[1] must be the name of a cube"));
        assert!(message(json!({"cubes": ["a", "a"]})).starts_with("memory.cubes[1]"));
        assert!(message(json!({"cube": 3})).contains("got 3"));
    }

    #[test]
    fn every_wrong_value_is_named() {
        let id = ItemId::new().to_string();
        for (memory, begins) in [
            (json!({"mode": "always"}), "memory.mode must be \"recall\" or \"off\", got \"always\""),
            (json!({"user_id": " a"}), "memory.user_id must be 1 to"),
            (json!({"session_id": "a\nb"}), "memory.session_id must be 1 to"),
            (json!({"agent_id": 3}), "memory.agent_id must be a string, got 3"),
            (json!({"limit": 0}), "memory.limit must be a whole number between 1 and 100, got 0"),
            (json!({"budget_tokens": 0}), "memory.budget_tokens must be"),
            (json!({"as_of": "yesterday"}), "memory.as_of must be a moment"),
            (json!({"without": ["x"]}), "memory.without[0] must be the id of a memory"),
            (json!({"without": "x"}), "memory.without must be a list"),
            (json!({"instead": [{"id": id}]}), "memory.instead[0].text is required"),
            (json!({"instead": [{"id": id, "text": " "}]}), "memory.instead[0].text must be a text"),
            (json!({"instead": [{"id": id, "text": "a", "tag": 1}]}), "unknown field memory.instead[0].tag"),
            (json!({"write": "slow"}), "memory.write must be true, false or \"fast\", got \"slow\""),
            (json!({"write": "fine"}), "memory.write is not supported here"),
            (json!({"trace": 1}), "memory.trace must be true or false"),
            (json!({"splice": true}), "unknown field memory.splice"),
            (json!([]), "memory must be an object"),
        ] {
            let message = message(memory);
            assert!(message.starts_with(begins), "{message}");
        }
    }

    #[test]
    fn what_if_changes_nothing() {
        let id = ItemId::new().to_string();
        for (field, value) in [
            ("as_of", json!("2026-03-01T12:00:00Z")),
            ("without", json!([id])),
            ("instead", json!([{"id": id, "text": "x"}])),
        ] {
            assert!(read(json!({field: value})).is_ok(), "{field}");
            let message = message(json!({field: value, "write": true}));
            assert!(message.starts_with(&format!("memory.write contradicts memory.{field}")), "{message}");
        }
    }
}
