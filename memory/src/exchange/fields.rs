//! What all readers of foreign memories share: places, limits, and fields that may be spelled in several ways.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::ExchangeError;
use crate::Timestamp;
use crate::item::{LABEL_BYTES_MAX, METADATA_BYTES_MAX, NUM_LABELS_MAX, NewItem, TEXT_BYTES_MAX};

/// What happens when one record is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strictness {
    /// It is reported, and the others are read.
    #[default]
    Lenient,
    /// Nothing is read.
    Strict,
}

/// How much is read. Every figure answers with an error, not a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportLimits {
    /// Bytes of the file.
    pub file_bytes_max: usize,
    /// Bytes of one line of JSONL.
    pub line_bytes_max: usize,
    /// Memories in the file.
    pub num_records_max: usize,
    /// Problems that are reported; further ones are counted.
    pub num_problems_max: usize,
}

impl Default for ImportLimits {
    fn default() -> Self {
        Self { file_bytes_max: 1 << 30, line_bytes_max: 4 << 20, num_records_max: 1_000_000, num_problems_max: 1000 }
    }
}

/// Where in a file a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A line, from 1.
    Line(usize),
    /// An entry of a list, from 0.
    Entry(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(formatter, "line {line}"),
            Self::Entry(index) => write!(formatter, "entry {index}"),
        }
    }
}

/// A record that was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which.
    pub place: Place,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.reason)
    }
}

/// What was read of a foreign file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Imported {
    /// The memories, in the order of the file.
    pub items: Vec<NewItem>,
    /// Records that were not read.
    pub problems: Vec<Problem>,
    /// How many records were not read, those beyond the limit of reported problems included.
    pub num_problems: usize,
}

/// Notes a problem, or refuses the file because of it.
pub(super) fn note(
    problems: &mut Vec<Problem>,
    num_problems: &mut usize,
    problem: Problem,
    strictness: Strictness,
    limits: &ImportLimits,
) -> Result<(), ExchangeError> {
    if strictness == Strictness::Strict {
        return Err(ExchangeError::Broken(problem));
    }
    *num_problems += 1;
    if problems.len() < limits.num_problems_max {
        problems.push(problem);
    }
    Ok(())
}

/// Reads a list of records, each through `read`, and checks what comes out of it.
pub(super) fn read_all(
    records: Vec<(Place, Value)>,
    strictness: Strictness,
    limits: &ImportLimits,
    read: impl Fn(Map<String, Value>) -> Result<NewItem, String>,
) -> Result<Imported, ExchangeError> {
    if records.len() > limits.num_records_max {
        return Err(ExchangeError::TooManyRecords { limit: limits.num_records_max });
    }
    let mut imported = Imported::default();
    for (place, record) in records {
        let read = match record {
            Value::Object(fields) => read(fields),
            _ => Err("it is no object".to_owned()),
        };
        match read.and_then(checked) {
            Ok(item) => imported.items.push(item),
            Err(reason) => {
                note(
                    &mut imported.problems,
                    &mut imported.num_problems,
                    Problem { place, reason },
                    strictness,
                    limits,
                )?;
            }
        }
    }
    Ok(imported)
}

/// The records of a file: a list, a list under one of these names, or one object a line.
pub(super) fn records(
    bytes: &[u8],
    format: &'static str,
    list_names: &[&str],
    limits: &ImportLimits,
) -> Result<Vec<(Place, Value)>, ExchangeError> {
    if bytes.len() > limits.file_bytes_max {
        return Err(ExchangeError::TooLarge { limit: limits.file_bytes_max });
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let entries =
        |list: Vec<Value>| list.into_iter().enumerate().map(|(index, value)| (Place::Entry(index), value)).collect();
    match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Array(list)) => Ok(entries(list)),
        Ok(Value::Object(mut fields)) => {
            let name = list_names.iter().find(|name| fields.get(**name).is_some_and(Value::is_array));
            match name.and_then(|name| fields.remove(*name)) {
                Some(Value::Array(list)) => Ok(entries(list)),
                _ if fields.contains_key("memory") => Ok(vec![(Place::Line(1), Value::Object(fields))]),
                _ => Err(ExchangeError::NotThisFormat { format, reason: "it is an object without a list of memories" }),
            }
        }
        Ok(_) => Err(ExchangeError::NotThisFormat { format, reason: "it is neither a list nor an object" }),
        Err(error) => lines(bytes).ok_or_else(|| not_json(&error)),
    }
}

/// One object a line, if the first line is one; broken lines become values that no reader takes.
fn lines(bytes: &[u8]) -> Option<Vec<(Place, Value)>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).peekable();
    let (_, first) = lines.peek()?;
    serde_json::from_str::<Map<String, Value>>(first).ok()?;
    Some(
        lines
            .map(|(index, line)| (Place::Line(index + 1), serde_json::from_str(line).unwrap_or(Value::Null)))
            .collect(),
    )
}

pub(super) fn not_json(error: &serde_json::Error) -> ExchangeError {
    let reason = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        _ => "its syntax is wrong",
    };
    ExchangeError::NotJson { line: error.line(), column: error.column(), reason }
}

/// An item within the limits of the store, its labels sorted and without duplicates.
pub(super) fn checked(mut item: NewItem) -> Result<NewItem, String> {
    if item.text.trim().is_empty() {
        return Err("its text is empty".to_owned());
    }
    if item.text.len() > TEXT_BYTES_MAX {
        return Err(format!("its text has {} bytes, more than {TEXT_BYTES_MAX}", item.text.len()));
    }
    if let Some(character) =
        item.text.chars().find(|character| character.is_control() && !matches!(character, '\t' | '\n' | '\r'))
    {
        return Err(format!("its text holds the control character U+{:04X}", u32::from(character)));
    }
    for labels in [&mut item.tags, &mut item.entities] {
        labels.iter_mut().for_each(|label| *label = label.trim().to_owned());
        labels.retain(|label| !label.is_empty());
        labels.sort();
        labels.dedup();
        if labels.len() > NUM_LABELS_MAX {
            return Err(format!("it has {} labels, more than {NUM_LABELS_MAX}", labels.len()));
        }
        if let Some(label) = labels.iter().find(|label| label.len() > LABEL_BYTES_MAX) {
            return Err(format!("one of its labels has {} bytes, more than {LABEL_BYTES_MAX}", label.len()));
        }
    }
    let metadata_bytes = serde_json::to_string(&item.metadata).map_err(|error| error.to_string())?.len();
    if metadata_bytes > METADATA_BYTES_MAX {
        return Err(format!("its metadata has {metadata_bytes} bytes, more than {METADATA_BYTES_MAX}"));
    }
    if item.valid_from.zip(item.valid_to).is_some_and(|(from, to)| to <= from) {
        return Err("it ends to be valid before it begins".to_owned());
    }
    Ok(item)
}

/// Takes a text out of the fields; `null` and an empty one count as missing.
pub(super) fn take_text(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(format!("{name:?} is no text")),
    }
}

/// Takes a list of texts, or a text with commas.
pub(super) fn take_labels(fields: &mut Map<String, Value>, name: &str) -> Result<Vec<String>, String> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(text.split(',').map(str::to_owned).collect()),
        Some(Value::Array(list)) => list
            .into_iter()
            .map(|label| {
                label.as_str().map(str::to_owned).ok_or_else(|| format!("{name:?} holds something that is no text"))
            })
            .collect(),
        Some(_) => Err(format!("{name:?} is no list")),
    }
}

/// Takes a moment: RFC 3339, the same without an offset (then UTC), a day, or seconds since 1970.
pub(super) fn take_moment(fields: &mut Map<String, Value>, name: &str) -> Result<Option<Timestamp>, String> {
    let refused = |value: &dyn fmt::Display| {
        format!("{name:?} is no moment: {}", value.to_string().chars().take(40).collect::<String>())
    };
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => {
            let text = text.trim();
            let spellings = [
                text.to_owned(),
                format!("{}Z", text.replacen(' ', "T", 1)),
                format!("{text}T00:00:00Z"),
                text.replacen(' ', "T", 1),
            ];
            let moment = spellings.iter().find_map(|spelling| spelling.parse().ok());
            moment.map(Some).ok_or_else(|| refused(&text))
        }
        Some(Value::Number(number)) => {
            let moment = number
                .as_f64()
                .filter(|seconds| seconds.abs() < 1e12)
                .and_then(|seconds| Timestamp::from_unix_ms((seconds * 1000.0) as i64));
            moment.map(Some).ok_or_else(|| refused(&number))
        }
        Some(_) => Err(format!("{name:?} is no moment")),
    }
}

/// Takes an object that may be missing.
pub(super) fn take_object(fields: &mut Map<String, Value>, name: &str) -> Result<Map<String, Value>, String> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object),
        Some(_) => Err(format!("{name:?} is no object")),
    }
}

/// What is left, as metadata, without embeddings and empty values. Later fields do not replace earlier ones.
pub(super) fn keep_rest(metadata: &mut BTreeMap<String, Value>, rest: Map<String, Value>) {
    const DROPPED: &[&str] = &["embedding", "embeddings", "vector", "score"];
    for (name, value) in rest {
        let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty) || value.as_str() == Some("");
        if !is_empty && !DROPPED.contains(&name.as_str()) {
            metadata.entry(name).or_insert(value);
        }
    }
}
