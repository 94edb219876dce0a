//! Documents: read, cut into pieces, each a memory of kind document; and, where that is wanted, what a model finds in them.

use axum::response::Response;
use memory::ingest::{ChunkSize, Chunking, DocumentLimits, chunk_document, detect_format, read_document};
use memory::ingest::{ExtractionInput, Material, Reference, new_items};
use memory::item::{NewItem, Scope, Source};
use memory::memories::{AddEvent, AddOptions, Added, MemoriesError, NUM_ADDED_MAX};
use memory::{Clock, ItemId};
use models::SpecialTokens;
use serde_json::json;

use super::add::note_model;
use super::base64;
use super::call::{Call, created};
use super::fine::{Extracted, Fine, apply_fallback, read_fallback};
use super::item_fields::{ItemFields, read_add_options};
use super::place::Place;
use super::render;
use super::values::{choice, require_text};
use crate::http::error::ApiError;
use crate::http::state::Shared;

/// Size of a piece where the client does not say, and how much of it the next one repeats.
const CHUNK_SIZE_DEFAULT: usize = 1_000;
const CHUNK_OVERLAP_DEFAULT: usize = 100;
/// Largest piece that can be asked for; the splitter has a limit of its own as well.
const CHUNK_SIZE_MAX: usize = 16_384;

/// Most pieces that a model is asked about for one request.
const NUM_FINE_PIECES_MAX: usize = 64;

/// How the content stands in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Text,
    Base64,
}

/// What becomes of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Its pieces.
    Pieces,
    /// And what a model finds in each.
    Fine,
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
    let modes = [("pieces", Mode::Pieces), ("fine", Mode::Fine)];
    let mode = choice(&mut call.fields, "mode", &modes)?.unwrap_or(Mode::Pieces);
    let options = read_add_options(&mut call.fields)?;
    let fallback = read_fallback(&mut call)?;
    let options = apply_fallback(fallback, mode == Mode::Fine, options)?;
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
    // Asked before anything is added: a model that fails leaves nothing behind.
    let mut fine = match mode {
        Mode::Pieces => None,
        Mode::Fine => {
            place.run(|cube, actor| cube.check_may_write(actor))?;
            let mut fine = Fine::new(&call, fallback, Material::Document)?;
            let found = facts(&call, &mut fine, &items, &defaults)?;
            Some((fine, found))
        }
    };
    let mut ids: Vec<ItemId> = Vec::with_capacity(items.len());
    let mut num_duplicates = 0;
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let batch: Vec<NewItem> = items.by_ref().take(NUM_ADDED_MAX).collect();
        let added = place.run(|cube, actor| cube.add(actor, batch, options))?;
        num_duplicates += added.iter().filter(|added| added.event == AddEvent::Duplicate).count();
        ids.extend(added.iter().map(|added| added.item.id));
    }
    let added = match &mut fine {
        None => Vec::new(),
        Some((_fine, found)) => add_facts(&place, std::mem::take(found), &ids, options)?,
    };
    let mut answer = json!({
        "object": "document",
        "cube": place.cube().manifest().id,
        "name": name,
        "format": document.format.as_str(),
        "title": document.title,
        "num_chunks": ids.len(),
        "num_added": ids.len() - num_duplicates,
        "num_duplicates": num_duplicates,
        "memories": ids,
    });
    if let Some((fine, _found)) = fine {
        answer["facts"] = added.iter().map(render::added).collect();
        answer["extraction"] = fine.report();
    }
    Ok(created(answer))
}

/// What a model finds in each piece, with the place of the piece.
fn facts(
    call: &Call,
    fine: &mut Fine,
    pieces: &[NewItem],
    defaults: &ItemFields,
) -> Result<Vec<(usize, NewItem)>, ApiError> {
    if pieces.len() > NUM_FINE_PIECES_MAX {
        let (what, found) = ("pieces of a document for a model to read", pieces.len());
        return Err(MemoriesError::TooMany { what, found, limit: NUM_FINE_PIECES_MAX }.into());
    }
    let mut facts = Vec::new();
    for (place, piece) in pieces.iter().enumerate() {
        let input = ExtractionInput::text(piece.text.as_str(), Reference::utc(Clock::system().now()));
        // The piece itself is kept as it is in any case.
        let Extracted::Candidates(found) = fine.find(call, &input)? else { continue };
        for mut item in new_items(found, &input, &defaults.scope, None) {
            item.tags.extend(defaults.tags.iter().flatten().cloned());
            if !fine.fell_back() {
                note_model(&mut item, fine.model());
            }
            facts.push((place, item));
        }
    }
    Ok(facts)
}

/// Adds the facts as derived from their pieces, so that they go when those are erased.
fn add_facts(
    place: &Place,
    facts: Vec<(usize, NewItem)>,
    pieces: &[ItemId],
    options: AddOptions<'_>,
) -> Result<Vec<Added>, ApiError> {
    let mut items: Vec<NewItem> = facts
        .into_iter()
        .map(|(piece, item)| NewItem { source: Source::Derived { from: vec![pieces[piece]] }, ..item })
        .collect();
    let mut added = Vec::with_capacity(items.len());
    while !items.is_empty() {
        let rest = items.split_off(items.len().min(NUM_ADDED_MAX));
        let batch = std::mem::replace(&mut items, rest);
        added.extend(place.run(|cube, actor| cube.add(actor, batch, options))?);
    }
    Ok(added)
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
