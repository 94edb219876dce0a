//! Our own format: a header, then one memory a line with every field and, where wanted, its history.
//!
//! ```json
//! {"format": "memos-memories", "version": 1}
//! {"item": {"id": "…", "text": "…", …}, "versions": [{"item": {…}, "change": {"type": "created"}, …}]}
//! {"text": "a memory that somebody wrote by hand", "kind": "fact", "tags": ["x"]}
//! ```

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fields::{checked, keep_rest, note, take_labels, take_moment, take_object, take_text};
use super::{ExchangeError, ImportLimits, Place, Problem, Strictness};
use crate::item::{Item, NewItem, Scope, Source, Version};
use crate::lifecycle::ItemState;

const FORMAT_NAME: &str = "memos-memories";
/// Latest version of the format, and the one that is written.
const FORMAT_VERSION: u64 = 1;

#[derive(Serialize)]
struct Header {
    format: &'static str,
    version: u64,
}

/// A memory with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportRecord {
    /// As it is now.
    pub item: Item,
    /// Its history, oldest first; empty where it was left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Version>,
}

/// What was read of a JSONL file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JsonLinesImport {
    /// Memories with all their fields, as they were written by `write_json_lines`.
    pub records: Vec<ExportRecord>,
    /// Memories that somebody else wrote, with a text and what else was given.
    pub items: Vec<NewItem>,
    /// Lines that were not read.
    pub problems: Vec<Problem>,
    /// How many lines were not read, those beyond the limit of reported problems included.
    pub num_problems: usize,
}

/// Writes memories one by one, so that a large cube need not be held in memory.
pub struct JsonLinesWriter<W> {
    out: W,
    num_records: usize,
}

impl<W: Write> JsonLinesWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// `Io`.
    pub fn new(out: W) -> Result<Self, ExchangeError> {
        let mut writer = Self { out, num_records: 0 };
        writer.line(&Header { format: FORMAT_NAME, version: FORMAT_VERSION })?;
        Ok(writer)
    }

    /// Writes a memory.
    ///
    /// # Errors
    /// `Io`, and `Unwritable` for a record that is no JSON (a salience that is no number).
    pub fn write(&mut self, record: &ExportRecord) -> Result<(), ExchangeError> {
        // JSON has no such numbers and would hold `null`, which nobody could read back.
        let is_number =
            record.item.salience.is_finite() && record.versions.iter().all(|version| version.item.salience.is_finite());
        if !is_number {
            let reason = "its salience is no number".to_owned();
            return Err(ExchangeError::Unwritable { index: self.num_records, reason });
        }
        self.line(record)?;
        self.num_records += 1;
        Ok(())
    }

    /// Hands everything on; returns how many memories were written.
    ///
    /// # Errors
    /// `Io`.
    pub fn finish(mut self) -> Result<usize, ExchangeError> {
        self.out.flush().map_err(write_failed)?;
        Ok(self.num_records)
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), ExchangeError> {
        let unwritable =
            |error: serde_json::Error| ExchangeError::Unwritable { index: self.num_records, reason: error.to_string() };
        let line = serde_json::to_string(value).map_err(unwritable)?;
        writeln!(self.out, "{line}").map_err(write_failed)
    }
}

fn write_failed(source: std::io::Error) -> ExchangeError {
    ExchangeError::Io { action: "write", source }
}

/// Writes the memories, one a line.
///
/// # Errors
/// As [`JsonLinesWriter`].
pub fn write_json_lines<'a>(
    records: impl IntoIterator<Item = &'a ExportRecord>,
    out: &mut impl Write,
) -> Result<usize, ExchangeError> {
    let mut writer = JsonLinesWriter::new(out)?;
    records.into_iter().try_for_each(|record| writer.write(record))?;
    writer.finish()
}

/// Reads memories, one a line, with or without the header.
///
/// # Errors
/// `Io`, `Newer`, `TooLarge`, `TooManyRecords`; in strict mode also the first broken line.
pub fn read_json_lines(
    input: impl BufRead,
    strictness: Strictness,
    limits: &ImportLimits,
) -> Result<JsonLinesImport, ExchangeError> {
    let mut import = JsonLinesImport::default();
    let mut input = input.take(limits.file_bytes_max as u64 + 1);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if read_line(&mut input, &mut line, limits)? == 0 {
            break;
        }
        if input.limit() == 0 {
            return Err(ExchangeError::TooLarge { limit: limits.file_bytes_max });
        }
        let read = parsed(&line, limits).and_then(|value| add(value, number == 1, &mut import));
        match read {
            Ok(()) => {}
            Err(Refusal::File(error)) => return Err(error),
            Err(Refusal::Line(reason)) => {
                let problem = Problem { place: Place::Line(number), reason };
                note(&mut import.problems, &mut import.num_problems, problem, strictness, limits)?;
            }
        }
        if import.records.len() + import.items.len() > limits.num_records_max {
            return Err(ExchangeError::TooManyRecords { limit: limits.num_records_max });
        }
    }
    Ok(import)
}

enum Refusal {
    File(ExchangeError),
    Line(String),
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Line(reason)
    }
}

/// Reads a line of which no more is kept than one byte beyond the limit; gives the bytes that it had.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>, limits: &ImportLimits) -> Result<usize, ExchangeError> {
    let io = |source| ExchangeError::Io { action: "read", source };
    let mut num_bytes = 0;
    loop {
        let buffer = input.fill_buf().map_err(io)?;
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let taken = end.map_or(buffer.len(), |end| end + 1);
        let room = (limits.line_bytes_max + 1).saturating_sub(line.len());
        line.extend_from_slice(&buffer[..taken.min(room)]);
        input.consume(taken);
        num_bytes += taken;
        if end.is_some() || taken == 0 {
            return Ok(num_bytes);
        }
    }
}

fn parsed(line: &[u8], limits: &ImportLimits) -> Result<Option<Map<String, Value>>, Refusal> {
    if line.len() > limits.line_bytes_max {
        return Err(Refusal::Line(format!("it has more than {} bytes", limits.line_bytes_max)));
    }
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let text = std::str::from_utf8(line).map_err(|error| format!("byte {} of it is not UTF-8", error.valid_up_to()))?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("it is not JSON (column {})", error.column()))?;
    match value {
        Value::Object(fields) => Ok(Some(fields)),
        Value::String(text) => Ok(Some(Map::from_iter([("text".to_owned(), Value::String(text))]))),
        _ => Err(Refusal::Line("it is neither an object nor a text".to_owned())),
    }
}

fn add(fields: Option<Map<String, Value>>, is_first: bool, import: &mut JsonLinesImport) -> Result<(), Refusal> {
    let Some(fields) = fields else { return Ok(()) };
    if is_first && fields.get("format").and_then(Value::as_str) == Some(FORMAT_NAME) {
        return match fields.get("version").and_then(Value::as_u64) {
            Some(FORMAT_VERSION) => Ok(()),
            Some(version) if version > FORMAT_VERSION => {
                Err(Refusal::File(ExchangeError::Newer { version, supported: FORMAT_VERSION }))
            }
            _ => Err(Refusal::Line("its \"version\" is not a version".to_owned())),
        };
    }
    if fields.contains_key("item") {
        let record: ExportRecord =
            serde_json::from_value(Value::Object(fields)).map_err(|error| format!("its fields are wrong: {error}"))?;
        check_record(&record)?;
        import.records.push(record);
        return Ok(());
    }
    import.items.push(checked(foreign(fields)?)?);
    Ok(())
}

fn check_record(record: &ExportRecord) -> Result<(), String> {
    let item = &record.item;
    if !(0.0..=1.0).contains(&item.salience) {
        return Err(format!("its salience {} is not between 0 and 1", item.salience));
    }
    if record.versions.iter().any(|version| version.item.id != item.id) {
        return Err("its history is that of another memory".to_owned());
    }
    if record.versions.windows(2).any(|pair| pair[0].item.version >= pair[1].item.version) {
        return Err("the versions of its history are out of order".to_owned());
    }
    checked(NewItem {
        kind: item.kind,
        tags: item.tags.clone(),
        entities: item.entities.clone(),
        metadata: item.metadata.clone(),
        valid_from: item.valid_from,
        valid_to: item.valid_to,
        ..NewItem::fact(item.text.as_str())
    })
    .map(|_valid| ())
}

fn foreign(mut fields: Map<String, Value>) -> Result<NewItem, String> {
    let mut text = None;
    for name in ["text", "memory", "content"] {
        if text.is_none() {
            text = take_text(&mut fields, name)?;
        }
    }
    let text = text.ok_or("it has no \"text\"")?;
    let kind =
        take_text(&mut fields, "kind")?.map(|kind| kind.parse().map_err(|error| format!("{error}"))).transpose()?;
    let external_id = take_text(&mut fields, "id")?;
    let scope = match fields.remove("scope") {
        None => Scope { user: take_text(&mut fields, "user_id")?, ..Scope::default() },
        Some(scope) => serde_json::from_value(scope).map_err(|error| format!("its scope is wrong: {error}"))?,
    };
    let salience = match fields.remove("salience") {
        None | Some(Value::Null) => 0.5,
        Some(value) => value
            .as_f64()
            .filter(|salience| (0.0..=1.0).contains(salience))
            .ok_or("its salience is no number from 0 to 1")?,
    };
    let mut item = NewItem {
        state: ItemState::Generated,
        tags: take_labels(&mut fields, "tags")?,
        entities: take_labels(&mut fields, "entities")?,
        valid_from: take_moment(&mut fields, "valid_from")?,
        valid_to: take_moment(&mut fields, "valid_to")?,
        expires_at: take_moment(&mut fields, "expires_at")?,
        scope,
        salience: salience as f32,
        source: Source::Import { format: "jsonl".to_owned(), external_id },
        ..NewItem::fact(text)
    };
    item.kind = kind.unwrap_or(item.kind);
    keep_rest(&mut item.metadata, take_object(&mut fields, "metadata")?);
    keep_rest(&mut item.metadata, fields);
    Ok(item)
}

#[cfg(test)]
#[path = "json_lines_tests.rs"]
mod tests;
