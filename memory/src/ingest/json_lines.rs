//! JSONL as a document: the text of each line's value, one section a line.

use serde_json::{Map, Value};

use super::document::check_control_characters;
use super::{Document, DocumentFormat, DocumentLimits, IngestError, Section};

/// Fields that may hold the text of a line, in the order in which they are looked for.
const TEXT_FIELDS: &[&str] = &["text", "content", "memory", "body", "message", "page_content", "abstract", "value"];
const TITLE_FIELDS: &[&str] = &["title", "heading", "name", "subject"];

/// Reads the lines. A line that does not parse, or says nothing, refuses the document with its number.
pub(super) fn read(source: &str, limits: &DocumentLimits) -> Result<Document, IngestError> {
    let mut text = String::new();
    let mut sections = Vec::new();
    for (index, line) in source.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let refused = |reason: String| IngestError::BrokenLine { line: index + 1, reason };
        if line.len() > limits.line_bytes_max {
            let reason = format!("it has {} bytes, more than the {} that are taken", line.len(), limits.line_bytes_max);
            return Err(refused(reason));
        }
        let value: Value = serde_json::from_str(line)
            .map_err(|error| refused(format!("it is not JSON: {} (column {})", category(&error), error.column())))?;
        let (title, body) = content(&value).ok_or_else(|| {
            refused(format!("it holds no text: a string, or an object with one of {}", TEXT_FIELDS.join(", ")))
        })?;
        // Escapes such as \u0000 make characters that were not in the bytes.
        check_control_characters(&body).map_err(|_refused| refused("its text holds a control character".to_owned()))?;
        let start = text.len();
        text.push_str(body.trim());
        text.push_str("\n\n");
        let heading = title.map_or_else(|| format!("line {}", index + 1), str::to_owned);
        sections.push(Section { heading_path: vec![heading], span: start..text.len() });
        if sections.len() > limits.num_sections_max {
            return Err(IngestError::TooMany { what: "lines", limit: limits.num_sections_max });
        }
    }
    Ok(Document { format: DocumentFormat::JsonLines, title: None, text, sections })
}

fn content(value: &Value) -> Option<(Option<&str>, String)> {
    match value {
        Value::String(text) => Some((None, text.clone())),
        Value::Object(fields) => {
            let body = first_text(fields, TEXT_FIELDS)?;
            Some((first_text(fields, TITLE_FIELDS), body.to_owned()))
        }
        _ => None,
    }
    .filter(|(_, body)| !body.trim().is_empty())
}

fn first_text<'a>(fields: &'a Map<String, Value>, names: &[&str]) -> Option<&'a str> {
    names.iter().filter_map(|name| fields.get(*name)?.as_str()).find(|text| !text.trim().is_empty())
}

fn category(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        _ => "its syntax is wrong",
    }
}
