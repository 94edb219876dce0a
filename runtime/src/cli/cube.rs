//! `memos cube`: cubes as a whole, made, listed, looked at, checked, carried and compared.

mod compare;

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use memory::cube::{self, CubeName, CubeReport, ListedCube, SnapshotName};
use memory::governance::PublicKey;
use memory::governance::audit::{AuditReport, Finding};
use memory::lifecycle::ItemState;
use memory::memories::{CarriedGrants, CubeFacts, MountedCube, Unpacking};
use serde_json::{Value, json};

use super::local_memory::{LocalArgs, LocalMemories};
use super::table::Table;
use crate::embedder::EmbedderChoice;
use crate::environment::Environment;

/// Arguments of `memos cube`.
#[derive(Debug, Args)]
pub struct CubeArgs {
    #[command(subcommand)]
    command: CubeCommand,
    #[command(flatten)]
    local: LocalArgs,
}

#[derive(Debug, Subcommand)]
enum CubeCommand {
    /// Make an empty cube
    Create {
        /// Its name: 1 to 64 of a-z, 0-9, '-', '_' and '.'
        name: CubeName,
    },
    /// List the tenant's cubes, and those whose manifest cannot be read
    List,
    /// Show what a cube says about itself and what it holds
    Inspect {
        /// Which cube
        name: CubeName,
    },
    /// Check a cube: every page and row of its store, and its audit log. Exits with 1 when something is wrong
    Verify {
        /// Which cube
        name: CubeName,
        /// Public key of a server that the cube came from and that is trusted; may be repeated
        #[arg(long, value_name = "KEY")]
        trust: Vec<PublicKey>,
    },
    /// Pack a cube into one file to carry to another box
    Pack {
        /// Which cube
        name: CubeName,
        /// The new file; by custom it ends in .memcube
        file: PathBuf,
    },
    /// Unpack a file that `memos cube pack` wrote, as a cube of the tenant
    ///
    /// Every byte is checked before the cube is there. It keeps its id and its audit log, which goes on under this server's key.
    Unpack {
        /// The packed cube
        file: PathBuf,
        /// New name; by default the one it had
        #[arg(long)]
        name: Option<CubeName>,
        /// Keep its grants. By default they are removed: the tenants and users of another box are nobody here
        #[arg(long)]
        keep_grants: bool,
    },
    /// Keep a copy of a cube as it is now inside its folder, to compare with. Erasures reach it
    Snapshot {
        /// Which cube
        name: CubeName,
        /// Name of the snapshot
        snapshot: SnapshotName,
    },
    /// Show which memories differ: since a snapshot of a cube, or between two cubes or packed files
    ///
    /// Packed files are told from cubes by their ending .memcube or a slash in their name.
    Diff {
        /// A cube, or the first of two cubes or packed files
        first: String,
        /// The second cube or packed file
        #[arg(required_unless_present = "snapshot", conflicts_with = "snapshot")]
        second: Option<String>,
        /// A snapshot of the first
        #[arg(long)]
        snapshot: Option<SnapshotName>,
    },
}

/// Runs the command.
///
/// # Errors
/// The data directory or the cube cannot be used; a verification found something.
pub fn run(args: CubeArgs, environment: &Environment) -> anyhow::Result<()> {
    let local = args.local.open(environment, &EmbedderChoice::None)?;
    match args.command {
        CubeCommand::Create { name } => create(&local, name),
        CubeCommand::List => list(&local),
        CubeCommand::Inspect { name } => inspect(&local, &name),
        CubeCommand::Verify { name, trust } => verify(&local, &name, &trust),
        CubeCommand::Pack { name, file } => {
            local.cube(&name)?.pack(&local.actor, &file)?;
            let text = || format!("{name} is packed into {}\n", file.display());
            local.output.print(text, || json!({ "cube": name, "file": file }))
        }
        CubeCommand::Unpack { file, name, keep_grants } => {
            let grants = if keep_grants { CarriedGrants::Keep } else { CarriedGrants::Drop };
            unpack(&local, &file, Unpacking { name, grants, reason: None })
        }
        CubeCommand::Snapshot { name, snapshot } => {
            local.cube(&name)?.snapshot(&local.actor, &snapshot)?;
            let text = || format!("{snapshot} of {name} is kept\n");
            local.output.print(text, || json!({ "cube": name, "snapshot": snapshot }))
        }
        CubeCommand::Diff { first, second, snapshot } => compare::run(&local, &first, second.as_deref(), snapshot),
    }
}

fn create(local: &LocalMemories, name: CubeName) -> anyhow::Result<()> {
    let cube = local.memories.create(&local.actor, name)?;
    let text = || format!("{} is made, with the id {}\n", cube.manifest().name, cube.manifest().id);
    local.output.print(text, || json!(cube.manifest()))
}

fn list(local: &LocalMemories) -> anyhow::Result<()> {
    let cubes = local.memories.list(&local.actor)?;
    let (mut unreadable, mut others) = (Vec::new(), 0);
    for ListedCube { folder, manifest } in cube::list(local.memories.folder())? {
        match manifest {
            Err(error) => unreadable.push((folder, error.to_string())),
            Ok(manifest) if manifest.owner != *local.actor.tenant() => others += 1,
            Ok(_) => {}
        }
    }
    let text = || {
        let mut table = Table::of_text(&["NAME", "CREATED", "ID"]);
        for cube in &cubes {
            let manifest = &cube.manifest;
            table.push(vec![manifest.name.to_string(), manifest.created_at.to_string(), manifest.id.to_string()]);
        }
        let mut text = table.to_string();
        for (folder, problem) in &unreadable {
            let _ = writeln!(text, "unreadable: {}: {problem}", folder.display());
        }
        if others > 0 {
            let _ = writeln!(text, "{others} more belong to other tenants (--tenant)");
        }
        text
    };
    let json = || {
        let cubes: Vec<Value> = cubes.iter().map(|cube| json!(cube.manifest)).collect();
        let unreadable: Vec<Value> =
            unreadable.iter().map(|(folder, problem)| json!({ "folder": folder, "problem": problem })).collect();
        json!({ "cubes": cubes, "unreadable": unreadable, "num_of_other_tenants": others })
    };
    local.output.print(text, json)
}

fn inspect(local: &LocalMemories, name: &CubeName) -> anyhow::Result<()> {
    let cube = local.cube(name)?;
    let facts = cube.inspect(&local.actor)?;
    local.output.print(|| facts_text(&cube, &facts), || facts_json(&cube, &facts))
}

fn facts_text(cube: &MountedCube, facts: &CubeFacts) -> String {
    let (manifest, counts) = (cube.manifest(), &facts.counts);
    let states = ItemState::ALL.iter().zip(counts.num_by_state).filter(|(_, num)| *num > 0);
    let states: Vec<String> = states.map(|(state, num)| format!("{num} {state}")).collect();
    let mut table = Table::of_text(&["CUBE", manifest.name.as_str()]);
    let rows = [
        ("id", manifest.id.to_string()),
        ("owner", manifest.owner.to_string()),
        ("created", manifest.created_at.to_string()),
        ("format version", manifest.format_version.to_string()),
        ("models", manifest.model_fingerprints.len().to_string()),
        ("folder", cube.folder().display().to_string()),
        ("store", format!("{} bytes", counts.file_bytes)),
        ("memories", format!("{} ({})", counts.usage.num_items, states.join(", "))),
        ("versions", counts.usage.num_versions.to_string()),
        ("text and metadata", format!("{} bytes", counts.usage.content_bytes)),
        ("names, relations, edges", format!("{}, {}, {}", counts.num_entities, counts.num_relations, counts.num_edges)),
        ("vectors", counts.num_vectors.to_string()),
        ("terms", facts.num_terms.to_string()),
        ("audit entries", facts.num_audit_entries.to_string()),
        ("snapshots", if facts.snapshots.is_empty() { "-".to_owned() } else { facts.snapshots.join(", ") }),
    ];
    rows.into_iter().for_each(|(name, value)| table.push(vec![name.to_owned(), value]));
    table.to_string()
}

fn facts_json(cube: &MountedCube, facts: &CubeFacts) -> Value {
    let counts = &facts.counts;
    let states: serde_json::Map<String, Value> =
        ItemState::ALL.iter().zip(counts.num_by_state).map(|(state, num)| (state.to_string(), json!(num))).collect();
    json!({
        "manifest": cube.manifest(),
        "folder": cube.folder(),
        "store_bytes": counts.file_bytes,
        "num_memories": counts.usage.num_items,
        "num_by_state": states,
        "num_versions": counts.usage.num_versions,
        "content_bytes": counts.usage.content_bytes,
        "num_edges": counts.num_edges,
        "num_entities": counts.num_entities,
        "num_relations": counts.num_relations,
        "num_vectors": counts.num_vectors,
        "num_terms": facts.num_terms,
        "num_audit_entries": facts.num_audit_entries,
        "snapshots": facts.snapshots,
    })
}

fn verify(local: &LocalMemories, name: &CubeName, trusted: &[PublicKey]) -> anyhow::Result<()> {
    let cube = local.cube(name)?;
    let CubeReport { findings, .. } = cube.verify(&local.actor)?;
    let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let audit = cube.verify_audit_trusting(&local.actor, trusted)?;
    // That the log was begun elsewhere is said, but is no damage.
    let is_sound = findings.is_empty() && is_only_foreign(&audit);
    let text = || {
        let mut text = String::new();
        for finding in &findings {
            let _ = writeln!(text, "store: {finding}");
        }
        let _ = writeln!(text, "store: {}", if findings.is_empty() { "sound" } else { "damaged" });
        text + &super::audit::report_text(&audit)
    };
    local.output.print(text, || json!({ "cube": name, "is_sound": is_sound, "store": findings, "audit": audit }))?;
    if is_sound { Ok(()) } else { bail!("the cube {name} is damaged or was tampered with") }
}

/// Whether nothing was found but heads by keys that are not known here. Where there are more findings than are listed, it
/// cannot be told, so it is not.
fn is_only_foreign(report: &AuditReport) -> bool {
    let is_foreign = |finding: &Finding| matches!(finding, Finding::HeadByUnknownKey { .. });
    report.findings.len() as u64 == report.num_findings && report.findings.iter().all(is_foreign)
}

fn unpack(local: &LocalMemories, file: &std::path::Path, how: Unpacking<'_>) -> anyhow::Result<()> {
    let unpacked =
        local.memories.unpack(&local.actor, file, how).with_context(|| format!("cannot unpack {}", file.display()))?;
    let (manifest, num_dropped) = (unpacked.cube.manifest(), unpacked.num_grants_dropped);
    let text = || {
        let (name, id, packed_by) = (&manifest.name, manifest.id, &unpacked.packed_by);
        format!(
            "{name} is unpacked, with the id {id}; it was packed by tenant {packed_by}, and {num_dropped} grants were removed\n"
        )
    };
    local.output.print(
        text,
        || json!({ "manifest": manifest, "packed_by": unpacked.packed_by, "num_grants_dropped": num_dropped }),
    )
}
