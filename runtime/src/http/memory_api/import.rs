//! Memories from files: our own JSONL, mem0's export, MemOS's `textual_memory.json`.

use axum::response::Response;
use memory::exchange::{
    ExchangeError, ExportRecord, ImportLimits, Place as FilePlace, Problem, Strictness, read_json_lines, read_mem0,
    read_memos,
};
use memory::item::{NewItem, Source};
use memory::lifecycle::ItemState;
use memory::memories::{AddEvent, AddOptions, Hold, NUM_ADDED_MAX};
use serde_json::{Value, json};

use super::call::{Call, ok};
use super::item_fields::read_add_options;
use super::place::Place;
use super::values::choice;
use crate::http::error::ApiError;

/// A format that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    JsonLines,
    Mem0,
    Memos,
}

/// A memory to be added, and what it is to become after that.
struct Incoming {
    item: NewItem,
    state: ItemState,
    hold: bool,
}

/// What a file holds.
struct File {
    incoming: Vec<Incoming>,
    problems: Vec<Problem>,
    num_problems: usize,
}

/// What became of it.
#[derive(Default)]
struct Counts {
    num_added: usize,
    num_duplicates: usize,
    /// Memories that were read but refused, by their place among those that were read.
    refused: Vec<(usize, ApiError)>,
}

/// `POST /v1/cubes/{cube}/import`
///
/// A memory gets a new id; the old one stays in its source. Its state, times and labels are kept, its earlier versions
/// are not: who wrote them did not write them here.
pub fn import(mut call: Call) -> Result<Response, ApiError> {
    let formats = [("jsonl", Format::JsonLines), ("mem0", Format::Mem0), ("memos", Format::Memos)];
    let format = choice(&mut call.fields, "format", &formats)?.unwrap_or(Format::JsonLines);
    let is_strict = call.fields.flag("strict")?.unwrap_or(false);
    let options = read_add_options(&mut call.fields)?;
    let reason = call.reason()?;
    call.finish()?;
    let place = call.place_to_write(call.tenant(), Some(&call.path("cube")))?;
    let strictness = if is_strict { Strictness::Strict } else { Strictness::Lenient };
    let file = std::mem::take(&mut call.file);
    let file = read(&file, format, strictness).map_err(|error| ApiError::Import { reason: error.to_string() })?;
    let num_read = file.incoming.len();
    let options = AddOptions { reason: reason.as_deref(), ..options };
    let (counts, error) = add_all(&place, file.incoming, options);
    match error {
        Some(error) if counts.num_added + counts.num_duplicates == 0 => Err(error),
        error => {
            let refused = counts
                .refused
                .iter()
                .map(|(entry, error)| json!({"line": null, "entry": entry, "reason": error.to_string()}));
            Ok(ok(json!({
                "object": "import",
                "cube": place.cube().manifest().id,
                "num_read": num_read,
                "num_added": counts.num_added,
                "num_duplicates": counts.num_duplicates,
                "num_problems": file.num_problems + counts.refused.len(),
                "problems": file.problems.iter().map(problem).chain(refused).collect::<Vec<Value>>(),
                "error": error.map(|error| error.to_json()["error"].clone()),
            })))
        }
    }
}

fn read(bytes: &[u8], format: Format, strictness: Strictness) -> Result<File, ExchangeError> {
    let limits = ImportLimits::default();
    let plain = |items: Vec<NewItem>| {
        items.into_iter().map(|item| Incoming { state: item.state, hold: false, item }).collect::<Vec<Incoming>>()
    };
    Ok(match format {
        Format::JsonLines => {
            let read = read_json_lines(bytes, strictness, &limits)?;
            let records = read.records.into_iter().map(of_record);
            let incoming = records.chain(plain(read.items)).collect();
            File { incoming, problems: read.problems, num_problems: read.num_problems }
        }
        Format::Mem0 | Format::Memos => {
            let read = match format {
                Format::Mem0 => read_mem0(bytes, strictness, &limits)?,
                Format::Memos | Format::JsonLines => read_memos(bytes, strictness, &limits)?,
            };
            File { incoming: plain(read.items), problems: read.problems, num_problems: read.num_problems }
        }
    })
}

fn of_record(record: ExportRecord) -> Incoming {
    let item = record.item;
    // No memory begins as merged, and what it was merged into comes as a memory of its own.
    let state = if item.state == ItemState::Merged { ItemState::Archived } else { item.state };
    let first = if state == ItemState::Generated { state } else { ItemState::Activated };
    let source = Source::Import { format: "jsonl".to_owned(), external_id: Some(item.id.to_string()) };
    let new = NewItem {
        kind: item.kind,
        state: first,
        text: item.text,
        tags: item.tags,
        entities: item.entities,
        scope: item.scope,
        source,
        valid_from: item.valid_from,
        valid_to: item.valid_to,
        expires_at: item.expires_at,
        salience: item.salience,
        metadata: item.metadata,
    };
    Incoming { item: new, state, hold: item.legal_hold }
}

/// Adds what was read in as many transactions as it takes. Where one is refused because of what a memory says, its
/// memories are tried one by one; anything else ends the import.
fn add_all(place: &Place, incoming: Vec<Incoming>, options: AddOptions<'_>) -> (Counts, Option<ApiError>) {
    let mut counts = Counts::default();
    let mut index = 0;
    for batch in incoming.chunks(NUM_ADDED_MAX) {
        let added = add_batch(place, batch, index, options, &mut counts);
        let failed = match added {
            Ok(()) => None,
            Err(error) if error.status() != axum::http::StatusCode::BAD_REQUEST => Some(error),
            Err(_one_of_them) => batch.chunks(1).enumerate().find_map(|(offset, one)| {
                match add_batch(place, one, index + offset, options, &mut counts) {
                    Ok(()) => None,
                    Err(error) if error.status() == axum::http::StatusCode::BAD_REQUEST => {
                        counts.refused.push((index + offset, error));
                        None
                    }
                    Err(error) => Some(error),
                }
            }),
        };
        if failed.is_some() {
            return (counts, failed);
        }
        index += batch.len();
    }
    (counts, None)
}

fn add_batch(
    place: &Place,
    batch: &[Incoming],
    index: usize,
    options: AddOptions<'_>,
    counts: &mut Counts,
) -> Result<(), ApiError> {
    let items = batch.iter().map(|incoming| incoming.item.clone()).collect();
    let added = place.run(|cube, actor| cube.add(actor, items, options))?;
    for (offset, (incoming, added)) in batch.iter().zip(added).enumerate() {
        if added.event == AddEvent::Duplicate {
            counts.num_duplicates += 1;
            continue;
        }
        counts.num_added += 1;
        let (id, reason) = (added.item.id, options.reason);
        let finish = || {
            if incoming.state != added.item.state {
                place.run(|cube, actor| cube.transition(actor, id, None, incoming.state, reason))?;
            }
            if incoming.hold {
                place.run(|cube, actor| cube.hold(actor, id, Hold::Set, reason))?;
            }
            Ok(())
        };
        // It is there, but not in the state that it had.
        if let Err(error) = finish() {
            counts.refused.push((index + offset, error));
        }
    }
    Ok(())
}

fn problem(problem: &Problem) -> Value {
    let (line, entry) = match problem.place {
        FilePlace::Line(line) => (Some(line), None),
        FilePlace::Entry(entry) => (None, Some(entry)),
    };
    json!({"line": line, "entry": entry, "reason": problem.reason})
}
