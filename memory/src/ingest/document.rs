//! Documents as text with sections: what type the bytes are, and the checks that come before and after reading them.

use std::ops::Range;

use super::error::{cut, line_of};
use super::{IngestError, html, json_lines, markdown, pdf};

/// What can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DocumentFormat {
    /// Text without marks.
    PlainText,
    /// CommonMark.
    Markdown,
    /// A web page.
    Html,
    /// A PDF with text in it; scans hold none.
    Pdf,
    /// One JSON value in each line.
    JsonLines,
}

impl DocumentFormat {
    /// All formats.
    pub const ALL: [Self; 5] = [Self::PlainText, Self::Markdown, Self::Html, Self::Pdf, Self::JsonLines];

    /// The name in messages and metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PlainText => "text",
            Self::Markdown => "markdown",
            Self::Html => "html",
            Self::Pdf => "pdf",
            Self::JsonLines => "jsonl",
        }
    }

    /// The format of a media type (`text/html; charset=utf-8`), an extension (`.md`) or a name (`notes.md`).
    fn named(name: &str) -> Option<Self> {
        let name = name.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let last = name.rsplit(['.', '/']).next().unwrap_or_default();
        Some(match last {
            "txt" | "text" | "plain" | "log" => Self::PlainText,
            "md" | "markdown" | "x-markdown" => Self::Markdown,
            "html" | "htm" | "xhtml" | "xhtml+xml" => Self::Html,
            "pdf" => Self::Pdf,
            "jsonl" | "ndjson" | "x-ndjson" | "jsonlines" | "json-lines" => Self::JsonLines,
            _ => return None,
        })
    }
}

/// How much of a document is taken. Every figure is a limit that answers with an error, not a cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentLimits {
    /// Bytes as they come in.
    pub input_bytes_max: usize,
    /// Bytes that compressed parts may unfold into, each and all together.
    pub expanded_bytes_max: usize,
    /// Bytes of the text that is read out of it.
    pub text_bytes_max: usize,
    /// Bytes of a line of JSONL.
    pub line_bytes_max: usize,
    /// Sections, which are headings, pages or lines.
    pub num_sections_max: usize,
    /// Levels of nesting.
    pub depth_max: usize,
}

impl Default for DocumentLimits {
    fn default() -> Self {
        Self {
            input_bytes_max: 32 << 20,
            expanded_bytes_max: 64 << 20,
            text_bytes_max: 32 << 20,
            line_bytes_max: 1 << 20,
            num_sections_max: 100_000,
            depth_max: 128,
        }
    }
}

/// A part of a document under one heading, page or line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The headings above it, outermost first.
    pub heading_path: Vec<String>,
    /// Its bytes in the document's text.
    pub span: Range<usize>,
}

/// A document as text. Sections follow each other and do not overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What it was read from.
    pub format: DocumentFormat,
    /// Its title, where it says one.
    pub title: Option<String>,
    /// The text that all spans address.
    pub text: String,
    /// Its parts.
    pub sections: Vec<Section>,
}

/// The format of a document, from what was declared (a media type or an extension), else from its name, else from its
/// bytes.
///
/// # Errors
/// `UnknownFormat` for a declared type that is not known, `UnsupportedCharset` for one that is not UTF-8, and
/// `FormatMismatch` where the first bytes are visibly something else.
pub fn detect_format(declared: Option<&str>, name: Option<&str>, bytes: &[u8]) -> Result<DocumentFormat, IngestError> {
    let format = match declared.filter(|declared| !declared.trim().is_empty()) {
        Some(declared) => {
            check_charset(declared)?;
            DocumentFormat::named(declared).ok_or_else(|| IngestError::UnknownFormat { name: cut(declared) })?
        }
        None => name.and_then(DocumentFormat::named).unwrap_or_else(|| sniffed(bytes)),
    };
    check_signature(format, bytes)?;
    Ok(format)
}

/// Reads a document.
///
/// # Errors
/// Everything in `IngestError` that is about documents; bytes and lines count from where the input starts.
pub fn read_document(bytes: &[u8], format: DocumentFormat, limits: &DocumentLimits) -> Result<Document, IngestError> {
    check_bytes("the document", bytes.len(), limits.input_bytes_max)?;
    check_signature(format, bytes)?;
    let document = match format {
        DocumentFormat::Pdf => pdf::read(bytes, limits)?,
        DocumentFormat::PlainText => plain(checked_text(bytes)?),
        DocumentFormat::Markdown => markdown::read(checked_text(bytes)?, limits)?,
        DocumentFormat::Html => html::read(&checked_text(bytes)?, limits)?,
        DocumentFormat::JsonLines => json_lines::read(&checked_text(bytes)?, limits)?,
    };
    check_bytes("the text of the document", document.text.len(), limits.text_bytes_max)?;
    if document.sections.len() > limits.num_sections_max {
        return Err(IngestError::TooMany { what: "sections", limit: limits.num_sections_max });
    }
    if document.text.trim().is_empty() {
        return Err(IngestError::NoText);
    }
    Ok(document)
}

/// Refuses control characters other than tab, line breaks and form feed.
///
/// # Errors
/// `ControlCharacter` with its place.
pub(super) fn check_control_characters(text: &str) -> Result<(), IngestError> {
    let refused =
        |character: char| character.is_control() && !matches!(character, '\t' | '\n' | '\r' | '\u{c}' | '\u{85}');
    match text.char_indices().find(|&(_, character)| refused(character)) {
        None => Ok(()),
        Some((offset, character)) => Err(IngestError::ControlCharacter {
            offset,
            line: line_of(text.as_bytes(), offset),
            code: u32::from(character),
        }),
    }
}

/// Refuses what is larger than its limit.
pub(super) fn check_bytes(what: &'static str, num_bytes: usize, limit: usize) -> Result<(), IngestError> {
    if num_bytes > limit { Err(IngestError::TooLarge { what, num_bytes, limit }) } else { Ok(()) }
}

/// The bytes as text without byte order mark, lines ending in `\n` alone.
fn checked_text(bytes: &[u8]) -> Result<String, IngestError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let offset = error.valid_up_to();
        IngestError::NotUtf8 { offset, line: line_of(bytes, offset) }
    })?;
    check_control_characters(text)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Ok(text.replace("\r\n", "\n").replace(['\r', '\u{c}', '\u{85}'], "\n"))
}

fn plain(text: String) -> Document {
    let sections = vec![Section { heading_path: Vec::new(), span: 0..text.len() }];
    Document { format: DocumentFormat::PlainText, title: None, text, sections }
}

fn check_charset(declared: &str) -> Result<(), IngestError> {
    for parameter in declared.split(';').skip(1) {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        let is_utf8 = ["utf-8", "utf8", "us-ascii"].iter().any(|known| value.eq_ignore_ascii_case(known));
        if name.trim().eq_ignore_ascii_case("charset") && !is_utf8 {
            return Err(IngestError::UnsupportedCharset { charset: cut(value) });
        }
    }
    Ok(())
}

/// What the first bytes give away, where they do.
fn signature(bytes: &[u8]) -> Option<&'static str> {
    // A PDF may carry a few bytes ahead of its header, and readers look for it in the first 1024.
    let head = &bytes[..bytes.len().min(1024)];
    if head.windows(5).any(|window| window == b"%PDF-") {
        return Some("a PDF");
    }
    let known: [(&[u8], &str); 7] = [
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "gzip"),
        (b"\x89PNG", "a PNG image"),
        (b"\xff\xd8\xff", "a JPEG image"),
        (b"\xd0\xcf\x11\xe0", "an old Office file"),
        (b"\xff\xfe", "UTF-16"),
        (b"\xfe\xff", "UTF-16"),
    ];
    known.iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, name)| *name)
}

fn check_signature(format: DocumentFormat, bytes: &[u8]) -> Result<(), IngestError> {
    let declared = format.as_str();
    match (format, signature(bytes)) {
        (DocumentFormat::Pdf, Some("a PDF")) => Ok(()),
        (DocumentFormat::Pdf, None) => {
            Err(IngestError::FormatMismatch { declared, found: "something without a PDF header" })
        }
        // Text that speaks about PDF files may hold their header's characters, so only the very start counts for text.
        (_, Some("a PDF")) if !bytes.starts_with(b"%PDF-") => Ok(()),
        (_, Some(found)) => Err(IngestError::FormatMismatch { declared, found }),
        (_, None) => Ok(()),
    }
}

fn sniffed(bytes: &[u8]) -> DocumentFormat {
    if signature(bytes) == Some("a PDF") && bytes.starts_with(b"%PDF-") {
        return DocumentFormat::Pdf;
    }
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]);
    let head = head.trim_start_matches('\u{feff}').trim_start();
    let lower = head.chars().take(64).collect::<String>().to_ascii_lowercase();
    if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
        return DocumentFormat::Html;
    }
    let first_line = head.lines().next().unwrap_or_default();
    if serde_json::from_str::<serde_json::Value>(first_line).is_ok_and(|value| value.is_object()) {
        return DocumentFormat::JsonLines;
    }
    DocumentFormat::PlainText
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
