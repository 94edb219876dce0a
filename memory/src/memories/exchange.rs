//! Memories in from files of several formats, and out as JSON lines, each through the policy and the audit log.

use std::io::{BufRead, Read, Write};

use serde_json::Value;

use super::add::Duplicates;
use super::items::restriction;
use super::mounted::MountedCube;
use super::{AddEvent, AddOptions, MemoriesError};
use crate::exchange::{
    ExchangeError, ExportRecord, ImportLimits, Imported, JsonLinesWriter, Problem, Strictness, read_json_lines,
    read_mem0, read_memos,
};
use crate::governance::{Action, Actor};
use crate::item::{Item, NewItem, Source};
use crate::lifecycle::ItemState;
use crate::store::{ItemFilter, ListRequest, NUM_ITEMS_PER_CALL_MAX};

/// Memories that are added in one transaction: an import that fails keeps whole batches.
const NUM_PER_BATCH: usize = 500;

/// What a file of memories is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportFormat {
    /// Our own: one memory a line.
    JsonLines,
    /// What mem0 exports.
    Mem0,
    /// MemOS's `textual_memory.json`.
    Memos,
}

/// How a file is read.
#[derive(Debug, Clone, Copy)]
pub struct ImportOptions<'a> {
    /// What it is written in.
    pub format: ImportFormat,
    /// Whether one broken record spoils the file.
    pub strictness: Strictness,
    /// What happens to memories that are there already.
    pub duplicates: Duplicates,
    /// How much is read.
    pub limits: ImportLimits,
    /// Why, in the actor's words.
    pub reason: Option<&'a str>,
}

impl ImportOptions<'_> {
    /// A file of this format with the usual options.
    pub fn new(format: ImportFormat) -> Self {
        let (strictness, duplicates) = (Strictness::default(), Duplicates::default());
        Self { format, strictness, duplicates, limits: ImportLimits::default(), reason: None }
    }
}

/// What came of an import.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImportReport {
    /// Memories that are new.
    pub num_added: usize,
    /// Memories that were there already.
    pub num_duplicates: usize,
    /// Memories that are under legal hold where they come from, and are not here.
    pub num_without_hold: usize,
    /// Records that were not read.
    pub problems: Vec<Problem>,
    /// How many records were not read, those beyond the limit of reported problems included.
    pub num_problems: usize,
}

/// Whether an export holds the earlier versions of each memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExportedHistory {
    /// Memories as they are now.
    #[default]
    LeftOut,
    /// With all versions.
    Included,
}

impl MountedCube {
    /// Adds the memories of a file. They become memories of this cube with ids and a history of their own; where they come
    /// from stays in their source. The whole file is read before anything is written.
    ///
    /// # Errors
    /// The actor may not write here, the file cannot be read, or what [`MountedCube::add`] refuses; after a part was added,
    /// [`MemoriesError::ImportStopped`] says how much.
    pub fn import(
        &self,
        actor: &Actor,
        input: &mut dyn BufRead,
        options: ImportOptions<'_>,
    ) -> Result<ImportReport, MemoriesError> {
        // Asked here as well, so that nobody makes the server read a file for nothing.
        self.permit(actor, Action::WriteItems)?;
        let (mut items, mut report) = read(input, &options)?;
        let adding = AddOptions { duplicates: options.duplicates, reason: options.reason, ..AddOptions::default() };
        while !items.is_empty() {
            let rest = items.split_off(items.len().min(NUM_PER_BATCH));
            let batch = std::mem::replace(&mut items, rest);
            let added = self.add_as("item.import", actor, batch, adding).map_err(|error| match report.num_added {
                0 => error,
                num_added => MemoriesError::ImportStopped { num_added, source: Box::new(error) },
            })?;
            let num_duplicates = added.iter().filter(|added| added.event == AddEvent::Duplicate).count();
            report.num_duplicates += num_duplicates;
            report.num_added += added.len() - num_duplicates;
        }
        Ok(report)
    }

    /// Writes all memories that the actor may read as JSON lines, as they are at one moment. Returns how many.
    ///
    /// # Errors
    /// The actor may not export, or the store or the output fails.
    pub fn export(&self, actor: &Actor, out: impl Write, history: ExportedHistory) -> Result<usize, MemoriesError> {
        let allowed = self.permit(actor, Action::ExportCube)?;
        self.note_export(actor, "cube.export")?;
        self.read(|reader| {
            let mut lines = JsonLinesWriter::new(out)?;
            let mut request = ListRequest::new(ItemFilter::default(), NUM_ITEMS_PER_CALL_MAX);
            request.restriction = Some(restriction(&allowed, self.now()));
            loop {
                let page = reader.list(&request)?;
                for item in page.items {
                    let versions = match history {
                        ExportedHistory::LeftOut => Vec::new(),
                        ExportedHistory::Included => reader.history(item.id)?,
                    };
                    lines.write(&ExportRecord { item, versions })?;
                }
                match page.next {
                    Some(next) => request.after = Some(next),
                    None => return Ok(lines.finish()?),
                }
            }
        })
    }
}

fn read(input: &mut dyn BufRead, options: &ImportOptions<'_>) -> Result<(Vec<NewItem>, ImportReport), ExchangeError> {
    let (strictness, limits) = (options.strictness, &options.limits);
    let foreign = match options.format {
        ImportFormat::JsonLines => {
            let import = read_json_lines(input, strictness, limits)?;
            let num_without_hold = import.records.iter().filter(|record| record.item.legal_hold).count();
            let mut items: Vec<NewItem> = import.records.into_iter().map(|record| imported(record.item)).collect();
            items.extend(import.items);
            let (problems, num_problems) = (import.problems, import.num_problems);
            return Ok((items, ImportReport { num_without_hold, problems, num_problems, ..ImportReport::default() }));
        }
        ImportFormat::Mem0 => read_mem0(&whole(input, limits)?, strictness, limits)?,
        ImportFormat::Memos => read_memos(&whole(input, limits)?, strictness, limits)?,
    };
    let Imported { items, problems, num_problems } = foreign;
    Ok((items, ImportReport { problems, num_problems, ..ImportReport::default() }))
}

/// The whole file; one byte more than is taken shows that it is too large.
fn whole(input: &mut dyn BufRead, limits: &ImportLimits) -> Result<Vec<u8>, ExchangeError> {
    let mut bytes = Vec::new();
    let failed = |source| ExchangeError::Io { action: "read", source };
    input.take(limits.file_bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// A memory of another cube as one of this cube.
fn imported(item: Item) -> NewItem {
    let external_id = Some(item.id.to_string());
    let source = match item.source {
        // A document or a conversation is named alike everywhere.
        source @ (Source::Document { .. } | Source::Message { .. } | Source::Import { .. }) => source,
        // What it was derived from has another id here, if it is here at all.
        Source::Direct | Source::Derived { .. } => Source::Import { format: "jsonl".to_owned(), external_id },
    };
    let mut metadata = item.metadata;
    metadata.entry("created_at".to_owned()).or_insert_with(|| Value::from(item.created_at.to_string()));
    let state = match item.state {
        // Its content lives on in a memory that comes along, but the link between the two does not.
        ItemState::Merged => ItemState::Archived,
        state => state,
    };
    NewItem {
        kind: item.kind,
        state,
        text: item.text,
        tags: item.tags,
        entities: item.entities,
        scope: item.scope,
        source,
        valid_from: item.valid_from,
        valid_to: item.valid_to,
        expires_at: item.expires_at,
        salience: item.salience,
        metadata,
    }
}
