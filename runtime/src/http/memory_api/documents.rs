//! Documents: read, cut into pieces, each a memory of kind document.

use axum::response::Response;
use memory::ingest::{ChunkSize, Chunking, DocumentLimits, chunk_document, detect_format, read_document};
use memory::item::{NewItem, Scope};
use memory::memories::{AddEvent, AddOptions, MemoriesError, NUM_ADDED_MAX};
use models::SpecialTokens;
use serde_json::{Value, json};

use super::base64;
use super::call::{Call, created};
use super::item_fields::{ItemFields, read_add_options};
use super::values::{choice, require_text};
use crate::http::error::ApiError;
use crate::http::state::Shared;

/// Size of a piece where the client does not say, and how much of it the next one repeats.
const CHUNK_SIZE_DEFAULT: usize = 1_000;
const CHUNK_OVERLAP_DEFAULT: usize = 100;
/// Largest piece that can be asked for; the splitter has a limit of its own as well.
const CHUNK_SIZE_MAX: usize = 16_384;

/// How the content stands in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Text,
    Base64,
}

/// What pieces are measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Characters,
    Tokens,
}

/// How a document is cut.
#[derive(Debug, Clone, Copy)]
struct Cut {
    size: usize,
    overlap: usize,
    unit: Unit,
}

/// `POST /v1/documents`
///
/// A document of more pieces than one transaction holds is added in several. When a later one fails, adding the
/// document again goes on where it ended: pieces that are there already are not added twice.
pub fn add(mut call: Call) -> Result<Response, ApiError> {
    let scope = call.scope()?;
    let asked = call.cube_field()?;
    let name = require_text(&mut call.fields, "name")?;
    let content = require_text(&mut call.fields, "content")?;
    let encodings = [("text", Encoding::Text), ("base64", Encoding::Base64)];
    let encoding = choice(&mut call.fields, "encoding", &encodings)?.unwrap_or(Encoding::Text);
    let format = call.fields.text("format")?;
    let cut = read_cut(&mut call)?;
    let options = read_add_options(&mut call.fields)?;
    let defaults = ItemFields::read(&mut call.fields, scope)?;
    let reason = call.reason()?;
    call.finish()?;
    let bytes = match encoding {
        Encoding::Text => content.into_bytes(),
        Encoding::Base64 => base64::decode(&content).ok_or_else(|| ApiError::OutOfRange {
            param: "content".to_owned(),
            allowed: "base64 with padding (RFC 4648, section 4)".to_owned(),
            got: "something else".to_owned(),
        })?,
    };
    let format = detect_format(format.as_deref(), Some(&name), &bytes).map_err(MemoriesError::from)?;
    let document = read_document(&bytes, format, &DocumentLimits::default()).map_err(MemoriesError::from)?;
    drop(bytes);
    let pieces = pieces(&call.app, &document, &name, (&defaults.scope, cut))?;
    let items: Vec<NewItem> = pieces.into_iter().map(|item| defaults.over(item)).collect();
    let place = call.place_to_write(call.actor(&defaults.scope)?, asked.as_deref())?;
    let options = AddOptions { reason: reason.as_deref(), ..options };
    let mut ids: Vec<Value> = Vec::with_capacity(items.len());
    let mut num_duplicates = 0;
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let batch: Vec<NewItem> = items.by_ref().take(NUM_ADDED_MAX).collect();
        let added = place.run(|cube, actor| cube.add(actor, batch, options))?;
        num_duplicates += added.iter().filter(|added| added.event == AddEvent::Duplicate).count();
        ids.extend(added.iter().map(|added| json!(added.item.id)));
    }
    Ok(created(json!({
        "object": "document",
        "cube": place.cube().manifest().id,
        "name": name,
        "format": document.format.as_str(),
        "title": document.title,
        "num_chunks": ids.len(),
        "num_added": ids.len() - num_duplicates,
        "num_duplicates": num_duplicates,
        "memories": ids,
    })))
}

fn read_cut(call: &mut Call) -> Result<Cut, ApiError> {
    let default = Cut { size: CHUNK_SIZE_DEFAULT, overlap: CHUNK_OVERLAP_DEFAULT, unit: Unit::Characters };
    let Some(mut chunk) = call.fields.object("chunk")? else { return Ok(default) };
    let units = [("characters", Unit::Characters), ("tokens", Unit::Tokens)];
    let unit = choice(&mut chunk, "unit", &units)?.unwrap_or(default.unit);
    let size = chunk.count("size", 1, CHUNK_SIZE_MAX)?.unwrap_or(default.size);
    // An overlap of a whole piece would never come to the end of the text.
    let overlap = chunk.count("overlap", 0, size - 1)?.unwrap_or(default.overlap.min(size / 10));
    chunk.finish(&[])?;
    Ok(Cut { size, overlap, unit })
}

fn pieces(
    app: &Shared,
    document: &memory::ingest::Document,
    name: &str,
    (scope, cut): (&Scope, Cut),
) -> Result<Vec<NewItem>, ApiError> {
    // What the tokenizer refuses is no smaller for that.
    let count =
        |text: &str| app.parts.tokenizer.encode(text, SpecialTokens::Skip).map_or(usize::MAX, |tokens| tokens.len());
    let unit = match cut.unit {
        Unit::Characters => ChunkSize::Characters,
        Unit::Tokens => ChunkSize::Counted(&count),
    };
    let chunking = Chunking { unit, size: cut.size, overlap: cut.overlap };
    Ok(chunk_document(document, name, scope, &chunking).map_err(MemoriesError::from)?)
}
