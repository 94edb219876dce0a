//! Documents in pieces: text-splitter on semantic boundaries inside of each section, with spans into the document's text.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;
use text_splitter::{ChunkConfig, ChunkSizer, MarkdownSplitter, TextSplitter};

use super::{Document, DocumentFormat, IngestError, Section};
use crate::item::{ItemKind, NewItem, Scope, Source, TEXT_BYTES_MAX};
use crate::lifecycle::ItemState;

/// Most pieces of one document.
const NUM_CHUNKS_MAX: usize = 200_000;
/// Greatest size of a chunk in characters: four bytes each still fit into a memory.
const CHUNK_CHARACTERS_MAX: usize = TEXT_BYTES_MAX / 4;
/// Most headings that a piece names, and the most characters of each.
const NUM_HEADINGS_MAX: usize = 8;
const HEADING_CHARACTERS_MAX: usize = 200;

/// What a chunk is measured in.
#[derive(Clone, Copy)]
pub enum ChunkSize<'a> {
    /// Unicode characters.
    Characters,
    /// Whatever this counts, usually tokens. Longer text must not count less.
    Counted(&'a dyn Fn(&str) -> usize),
}

/// How a document is cut.
#[derive(Clone, Copy)]
pub struct Chunking<'a> {
    /// What sizes are measured in.
    pub unit: ChunkSize<'a>,
    /// Greatest size of a chunk.
    pub size: usize,
    /// How much of a chunk the next one repeats, at most.
    pub overlap: usize,
}

impl ChunkSizer for ChunkSize<'_> {
    fn size(&self, chunk: &str) -> usize {
        let counted = match self {
            Self::Characters => chunk.chars().count(),
            Self::Counted(count) => count(chunk),
        };
        // A counter that calls a long text small would make a memory that cannot be stored.
        if chunk.len() > TEXT_BYTES_MAX { usize::MAX } else { counted }
    }
}

/// The pieces of a document as memories of kind document, in the order of the text. `name` becomes their source;
/// headings, title and format stay in their metadata.
///
/// # Errors
/// `InvalidChunking` for a size of nothing or an overlap that leaves no progress; `TooMany` chunks.
pub fn chunk_document(
    document: &Document,
    name: &str,
    scope: &Scope,
    chunking: &Chunking<'_>,
) -> Result<Vec<NewItem>, IngestError> {
    let Chunking { unit, size, overlap } = *chunking;
    let invalid = || IngestError::InvalidChunking { size, overlap, size_max: CHUNK_CHARACTERS_MAX };
    if size == 0 || size > CHUNK_CHARACTERS_MAX {
        return Err(invalid());
    }
    let config = || {
        let config = ChunkConfig::new(size).with_trim(true).with_sizer(unit);
        config.with_overlap(overlap).map_err(|_larger| invalid())
    };
    let markdown = MarkdownSplitter::new(config()?);
    let plain = TextSplitter::new(config()?);
    let mut items = Vec::new();
    for section in joined_sections(document) {
        let part = &document.text[section.span.clone()];
        let mut push = |(start, text): (usize, &str)| {
            let start = section.span.start + start;
            items.push(chunk(document, name, scope, &section.heading_path, start..start + text.len()));
            items.len() <= NUM_CHUNKS_MAX
        };
        let fits = match document.format {
            DocumentFormat::Markdown => markdown.chunk_indices(part).all(&mut push),
            _ => plain.chunk_indices(part).all(&mut push),
        };
        if !fits {
            return Err(IngestError::TooMany { what: "chunks", limit: NUM_CHUNKS_MAX });
        }
    }
    Ok(items)
}

/// The sections, where one that is only its heading goes in front of the next.
fn joined_sections(document: &Document) -> Vec<Section> {
    let mut joined: Vec<Section> = Vec::with_capacity(document.sections.len());
    let mut start = None;
    for section in &document.sections {
        let text = document.text[section.span.clone()].trim();
        let is_outline = matches!(document.format, DocumentFormat::Markdown | DocumentFormat::Html);
        let only_heading = is_outline
            && !text.contains('\n')
            && section
                .heading_path
                .last()
                .is_some_and(|heading| text.trim_start_matches('#').trim() == heading.as_str());
        let first = start.unwrap_or(section.span.start);
        if only_heading {
            start = Some(first);
            continue;
        }
        joined.push(Section { heading_path: section.heading_path.clone(), span: first..section.span.end });
        start = None;
    }
    if let (Some(first), Some(last)) = (start, document.sections.last()) {
        joined.push(Section { heading_path: last.heading_path.clone(), span: first..last.span.end });
    }
    joined
}

fn chunk(document: &Document, name: &str, scope: &Scope, headings: &[String], span: Range<usize>) -> NewItem {
    let cut = |text: &String| Value::from(text.chars().take(HEADING_CHARACTERS_MAX).collect::<String>());
    let mut metadata = BTreeMap::new();
    metadata.insert("format".to_owned(), Value::from(document.format.as_str()));
    if !headings.is_empty() {
        let path = headings.iter().take(NUM_HEADINGS_MAX).map(cut).collect();
        metadata.insert("heading_path".to_owned(), Value::Array(path));
    }
    if let Some(title) = &document.title {
        metadata.insert("title".to_owned(), cut(title));
    }
    NewItem {
        kind: ItemKind::Document,
        state: ItemState::Generated,
        scope: scope.clone(),
        source: Source::Document { name: name.to_owned(), start: span.start as u64, end: span.end as u64 },
        metadata,
        ..NewItem::fact(&document.text[span])
    }
}
