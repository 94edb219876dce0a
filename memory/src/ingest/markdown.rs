//! Markdown as it is written, with its sections: the marks stay in the text, for they carry meaning and split well.

use std::ops::Range;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::{Document, DocumentFormat, DocumentLimits, IngestError, Section};

/// Sections by heading; the title is the first heading of level one.
pub(super) fn read(text: String, limits: &DocumentLimits) -> Result<Document, IngestError> {
    let headings = headings(&text, limits)?;
    let title = headings.iter().find(|heading| heading.level == 1).map(|heading| heading.text.clone());
    let sections = sections(text.len(), &headings);
    Ok(Document { format: DocumentFormat::Markdown, title, text, sections })
}

/// A heading and where it begins.
pub(super) struct Heading {
    pub(super) level: u8,
    pub(super) text: String,
    pub(super) start: usize,
}

/// The sections between the headings of a text of this length. A heading starts its own section.
pub(super) fn sections(text_len: usize, headings: &[Heading]) -> Vec<Section> {
    let mut sections = Vec::with_capacity(headings.len() + 1);
    let mut path: Vec<(u8, String)> = Vec::new();
    let mut push = |path: &[(u8, String)], span: Range<usize>| {
        if !span.is_empty() {
            sections.push(Section { heading_path: path.iter().map(|(_, text)| text.clone()).collect(), span });
        }
    };
    let mut start = 0;
    for heading in headings {
        push(&path, start..heading.start);
        path.retain(|(level, _)| *level < heading.level);
        path.push((heading.level, heading.text.clone()));
        start = heading.start;
    }
    push(&path, start..text_len);
    sections
}

fn headings(text: &str, limits: &DocumentLimits) -> Result<Vec<Heading>, IngestError> {
    let mut headings: Vec<Heading> = Vec::new();
    let mut open = false;
    let mut depth = 0usize;
    for (event, span) in Parser::new_ext(text, Options::ENABLE_YAML_STYLE_METADATA_BLOCKS).into_offset_iter() {
        match event {
            Event::Start(tag) => {
                depth += 1;
                if depth > limits.depth_max {
                    return Err(IngestError::TooDeep { limit: limits.depth_max, offset: span.start });
                }
                // A heading inside of a quotation or a list belongs to what is quoted, not to the document's outline.
                if let Tag::Heading { level, .. } = tag
                    && depth == 1
                {
                    headings.push(Heading { level: level as u8, text: String::new(), start: span.start });
                    open = true;
                }
            }
            Event::End(tag) => {
                depth -= 1;
                open &= !matches!(tag, TagEnd::Heading(_));
            }
            Event::Text(part) | Event::Code(part) if open => {
                if let Some(heading) = headings.last_mut() {
                    heading.text.push_str(&part);
                }
            }
            Event::SoftBreak | Event::HardBreak if open => {
                if let Some(heading) = headings.last_mut() {
                    heading.text.push(' ');
                }
            }
            _ => {}
        }
        if headings.len() > limits.num_sections_max {
            return Err(IngestError::TooMany { what: "sections", limit: limits.num_sections_max });
        }
    }
    Ok(headings)
}
