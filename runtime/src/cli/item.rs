//! `memos item`: memories of a cube, added, listed, found, taken in, given out and erased.

mod arguments;
mod exchange;
mod show;

use std::io::Read;

use anyhow::Context;
use clap::{Args, Subcommand};
use memory::cube::CubeName;
use memory::memories::{AddEvent, AddOptions, Contradictions, Listing, MountedCube, SearchRequest};
use memory::store::Cursor;
use memory::{ItemId, Timestamp};
use serde_json::{Value, json};

use self::arguments::{DuplicatesArg, FilterArgs, NewItemArgs};
use self::exchange::{ExportArgs, ImportArgs};
use super::local_memory::{LocalArgs, LocalMemories};
use crate::embedder::EmbedderChoice;
use crate::environment::Environment;

/// Longest text that is read from standard input; a longer one is refused by the store with its own words.
const STDIN_BYTES_MAX: u64 = 1 << 20;

/// Arguments of `memos item`.
#[derive(Debug, Args)]
pub struct ItemArgs {
    #[command(subcommand)]
    command: ItemCommand,
    #[command(flatten)]
    local: LocalArgs,
    /// What makes vectors: as for `memos serve`. Without it memories get theirs from the next server that has one
    #[arg(long, global = true, default_value = "none", value_name = "FOLDER|ID|URL#MODEL")]
    embedder: EmbedderChoice,
}

#[derive(Debug, Subcommand)]
enum ItemCommand {
    /// Add a memory
    Add(Box<AddArgs>),
    /// List memories
    List(ListArgs),
    /// Show one memory
    Get {
        /// Which cube
        cube: CubeName,
        /// Which memory
        id: ItemId,
        /// As it was recorded at this moment, such as 2026-03-01T12:00:00Z
        #[arg(long, value_name = "TIME")]
        as_of: Option<Timestamp>,
    },
    /// Find memories: by words and graph, and by meaning with an --embedder
    Search(SearchArgs),
    /// Show every version of a memory: what changed, by whom, why
    History {
        /// Which cube
        cube: CubeName,
        /// Which memory
        id: ItemId,
    },
    /// Add the memories of a file
    Import(ImportArgs),
    /// Write all memories to a file, one JSON object a line
    Export(ExportArgs),
    /// Erase memories for good, with everything that was made from them
    Erase {
        /// Which cube
        cube: CubeName,
        /// Which memories
        #[arg(required = true)]
        ids: Vec<ItemId>,
        /// Why; kept in the audit log
        #[arg(long)]
        reason: Option<String>,
    },
}

/// Arguments of `memos item add`.
#[derive(Debug, Args)]
struct AddArgs {
    /// Which cube
    cube: CubeName,
    /// The memory; `-` reads it from standard input
    text: String,
    #[command(flatten)]
    item: NewItemArgs,
    /// What happens when it is there already
    #[arg(long, value_enum, default_value = "skip-exact")]
    duplicates: DuplicatesArg,
    /// Memories that it contradicts cease to be valid
    #[arg(long)]
    supersede: bool,
    /// Why; kept with the version and in the audit log
    #[arg(long)]
    reason: Option<String>,
}

/// Arguments of `memos item list`.
#[derive(Debug, Args)]
struct ListArgs {
    /// Which cube
    cube: CubeName,
    #[command(flatten)]
    filter: FilterArgs,
    /// Most memories, up to 1000
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: usize,
    /// Newest first
    #[arg(long)]
    newest_first: bool,
    /// Where the page before ended, as it said
    #[arg(long, value_name = "CURSOR")]
    after: Option<Cursor>,
    /// As they were recorded at this moment
    #[arg(long, value_name = "TIME")]
    as_of: Option<Timestamp>,
}

/// Arguments of `memos item search`.
#[derive(Debug, Args)]
struct SearchArgs {
    /// Which cube
    cube: CubeName,
    /// The question; nothing in it is syntax
    query: String,
    #[command(flatten)]
    filter: FilterArgs,
    /// Most results
    #[arg(long, default_value_t = 10, value_name = "N")]
    limit: usize,
    /// As they were recorded at this moment; by words and graph alone
    #[arg(long, value_name = "TIME")]
    as_of: Option<Timestamp>,
    /// What if this memory were not there; may be repeated
    #[arg(long, value_name = "ID")]
    without: Vec<ItemId>,
}

/// Runs the command.
///
/// # Errors
/// The data directory or the cube cannot be used, or what was asked for cannot be done.
pub fn run(args: ItemArgs, environment: &Environment) -> anyhow::Result<()> {
    let local = args.local.open(environment, &args.embedder)?;
    match args.command {
        ItemCommand::Add(args) => add(&local, *args),
        ItemCommand::List(args) => list(&local, args),
        ItemCommand::Get { cube, id, as_of } => {
            let item = local.cube(&cube)?.get(&local.actor, id, as_of)?;
            local.output.print(|| show::item(&item), || json!(item))
        }
        ItemCommand::Search(args) => search(&local, args),
        ItemCommand::History { cube, id } => {
            let versions = local.cube(&cube)?.history(&local.actor, id)?;
            local.output.print(|| show::history(&versions), || json!(versions))
        }
        ItemCommand::Import(args) => exchange::import(&local, args),
        ItemCommand::Export(args) => exchange::export(&local, args),
        ItemCommand::Erase { cube, ids, reason } => erase(&local, &*local.cube(&cube)?, &ids, reason.as_deref()),
    }
}

fn add(local: &LocalMemories, args: AddArgs) -> anyhow::Result<()> {
    let text = match args.text.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin().take(STDIN_BYTES_MAX).read_to_string(&mut text).context("cannot read standard input")?;
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
        text => text.to_owned(),
    };
    let contradictions = if args.supersede { Contradictions::Supersede } else { Contradictions::Keep };
    let duplicates = args.duplicates.into();
    let options = AddOptions { duplicates, contradictions, reason: args.reason.as_deref() };
    let added = local.cube(&args.cube)?.add(&local.actor, vec![args.item.with_text(text)], options)?;
    let [added] = added.as_slice() else { anyhow::bail!("one memory was added, but {} answers came", added.len()) };
    let id = added.item.id;
    let (event, superseded): (&str, &[ItemId]) = match &added.event {
        AddEvent::Added => ("added", &[]),
        AddEvent::Superseded(old) => ("added", old),
        AddEvent::Duplicate => ("duplicate", &[]),
    };
    let text = || match &added.event {
        AddEvent::Added => format!("{id} is added\n"),
        AddEvent::Superseded(old) => format!("{id} is added and supersedes {}\n", joined(old)),
        AddEvent::Duplicate => format!("{id} says it already\n"),
    };
    local.output.print(text, || json!({ "event": event, "superseded": superseded, "item": added.item }))
}

fn list(local: &LocalMemories, args: ListArgs) -> anyhow::Result<()> {
    let listing = Listing {
        filter: args.filter.listed(),
        newest_first: args.newest_first,
        limit: args.limit,
        after: args.after,
        as_of: args.as_of,
    };
    let page = local.cube(&args.cube)?.list(&local.actor, listing)?;
    let next = page.next.map(|next| next.to_string());
    let text = || {
        let more = next.as_ref().map_or_else(String::new, |next| format!("more with --after {next}\n"));
        show::items(&page.items) + &more
    };
    local.output.print(text, || json!({ "items": page.items, "next": next }))
}

fn search(local: &LocalMemories, args: SearchArgs) -> anyhow::Result<()> {
    let request = SearchRequest {
        filter: args.filter.searched(),
        as_of: args.as_of,
        without: args.without,
        ..SearchRequest::new(args.query, args.limit)
    };
    let answer = local.cube(&args.cube)?.search(&local.actor, &request)?;
    let json = || -> Value {
        answer.results.iter().map(|found| json!({ "item": found.item, "trace": found.trace })).collect()
    };
    local.output.print(|| show::results(&answer.results), json)
}

fn erase(local: &LocalMemories, cube: &MountedCube, ids: &[ItemId], reason: Option<&str>) -> anyhow::Result<()> {
    let erasure = cube.erase(&local.actor, ids, reason)?;
    // Nothing was computed over memories by this process: the receipt is complete.
    let receipt = cube.receipt(&erasure, &[])?;
    let gone: Vec<ItemId> = erasure.gone().collect();
    let rest =
        if erasure.is_final { "no byte of it is left" } else { "the file is purged by the next start of the server" };
    let text = || {
        format!(
            "{} memories are erased, {} of them derived: {rest}\n",
            gone.len(),
            gone.len() - ids.len().min(gone.len())
        )
    };
    local.output.print(text, || {
        json!({
            "erased": gone,
            "num_in_snapshots": erasure.num_in_snapshots,
            "num_grants": erasure.num_grants,
            "num_audit_entries": erasure.num_audit_entries,
            "is_final": erasure.is_final,
            "receipt": receipt,
        })
    })
}

fn joined(ids: &[ItemId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
