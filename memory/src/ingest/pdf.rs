//! The text of a PDF, page by page, through lopdf with bounds on what it may unfold, and fenced against its panics.

use std::panic::{AssertUnwindSafe, catch_unwind};

use lopdf::{DecompressError, Error, LoadOptions, Object};

use super::error::cut;
use super::{Document, DocumentFormat, DocumentLimits, IngestError, Section};

/// Reads a PDF: one section for each page that holds text.
pub(super) fn read(bytes: &[u8], limits: &DocumentLimits) -> Result<Document, IngestError> {
    // lopdf checks what it reads, but a parser of a format of this size is trusted with nothing.
    catch_unwind(AssertUnwindSafe(|| read_unfenced(bytes, limits))).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(IngestError::BrokenPdf { reason: format!("its reader panicked: {}", cut(said.unwrap_or("no message"))) })
    })
}

fn read_unfenced(bytes: &[u8], limits: &DocumentLimits) -> Result<Document, IngestError> {
    let broken = |error: Error| refusal(error, limits);
    let pdf = lopdf::Document::load_mem_with_options(
        bytes,
        LoadOptions::with_max_decompressed_size(limits.expanded_bytes_max),
    )
    .map_err(broken)?;
    if pdf.is_encrypted() {
        return Err(IngestError::EncryptedPdf);
    }
    let pages: Vec<u32> = pdf.get_pages().into_keys().collect();
    if pages.is_empty() {
        return Err(IngestError::BrokenPdf { reason: "it has no pages".to_owned() });
    }
    if pages.len() > limits.num_sections_max {
        return Err(IngestError::TooMany { what: "pages", limit: limits.num_sections_max });
    }
    let mut text = String::new();
    let mut sections = Vec::new();
    let mut num_bytes_left = limits.expanded_bytes_max;
    for page in pages {
        let page_text = pdf.extract_text_with_limit(&[page], num_bytes_left).map_err(broken)?;
        num_bytes_left = num_bytes_left.saturating_sub(page_text.len());
        let start = text.len();
        push_clean(&mut text, &page_text);
        if text.len() > limits.text_bytes_max {
            return Err(IngestError::ExpandsTooFar { format: "PDF", limit: limits.text_bytes_max });
        }
        if text.len() > start {
            sections.push(Section { heading_path: vec![format!("page {page}")], span: start..text.len() });
        }
    }
    Ok(Document { format: DocumentFormat::Pdf, title: title(&pdf), text, sections })
}

/// Adds a page without the control characters that fonts without a map leave, each page ending in an empty line.
fn push_clean(text: &mut String, page: &str) {
    let start = text.len();
    for line in page.lines() {
        let line: String = line.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
        let line = line.trim();
        if !line.is_empty() {
            text.push_str(line);
            text.push('\n');
        }
    }
    if text.len() > start {
        text.push('\n');
    }
}

fn title(pdf: &lopdf::Document) -> Option<String> {
    let info = pdf.trailer.get(b"Info").ok()?;
    let info = match info {
        Object::Reference(id) => pdf.get_dictionary(*id).ok()?,
        other => other.as_dict().ok()?,
    };
    let title = lopdf::decode_text_string(info.get(b"Title").ok()?).ok()?;
    let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
    let title: String = title.chars().filter(|character| !character.is_control()).take(256).collect();
    Some(title).filter(|title| !title.is_empty())
}

fn refusal(error: Error, limits: &DocumentLimits) -> IngestError {
    match error {
        Error::Decompress(DecompressError::MemoryLimitExceeded { .. }) => {
            IngestError::ExpandsTooFar { format: "PDF", limit: limits.expanded_bytes_max }
        }
        Error::Decryption(_) | Error::InvalidPassword => IngestError::EncryptedPdf,
        // The reader's words can quote bytes of the file, so they are cut.
        other => IngestError::BrokenPdf { reason: other.to_string().chars().take(200).collect() },
    }
}
