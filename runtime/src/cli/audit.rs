//! `memos audit`: the audit log of a cube, listed, verified, and its signed head.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::bail;
use clap::{Args, Subcommand};
use memory::cube::CubeName;
use memory::governance::PublicKey;
use memory::governance::audit::{AuditEntry, AuditFilter, AuditReport, Finding, LIST_LEN_MAX};
use memory::governance::receipt::{ErasureStatus, SignedReceipt};
use memory::governance::receipt_rows::Wanted;
use memory::{ItemId, Timestamp};
use serde_json::json;

use super::local_memory::{LocalArgs, LocalMemories};
use super::table::{Table, one_line};
use crate::embedder::EmbedderChoice;
use crate::environment::Environment;

/// Characters of a reason that are shown in the table.
const REASON_CHARS_MAX: usize = 40;

/// Arguments of `memos audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
    #[command(flatten)]
    local: LocalArgs,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// List entries, oldest first: without a filter the latest ones
    List {
        /// Which cube
        cube: CubeName,
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// List the receipts of erasures: what was erased when, and whether no byte of it is left
    Receipts {
        /// Which cube
        cube: CubeName,
        /// From the audit entry with this number on
        #[arg(long, default_value_t = 0, value_name = "N")]
        from: u64,
        /// Most receipts, up to 1000
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
    },
    /// Check the log against itself and against the signed heads outside the cube. Exits with 1 when something is wrong
    Verify {
        /// Which cube
        cube: CubeName,
        /// Public key of a server that the cube came from and that is trusted; may be repeated
        #[arg(long, value_name = "KEY")]
        trust: Vec<PublicKey>,
    },
    /// Sign the log as it is now and print the signed head, to be kept elsewhere as a witness
    Head {
        /// Which cube
        cube: CubeName,
    },
}

/// Which entries are listed.
#[derive(Debug, Args)]
struct FilterArgs {
    /// About this memory
    #[arg(long, value_name = "ID")]
    item: Option<ItemId>,
    /// Of this action, such as item.add or cube.pack
    #[arg(long)]
    action: Option<String>,
    /// Not before this moment, such as 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Before this moment
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// From this number on
    #[arg(long, value_name = "N")]
    from: Option<u64>,
    /// Most entries, up to 1000
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: usize,
}

/// Runs the command.
///
/// # Errors
/// The data directory or the cube cannot be used; a verification found something.
pub fn run(args: AuditArgs, environment: &Environment) -> anyhow::Result<()> {
    let local = args.local.open(environment, &EmbedderChoice::None)?;
    match args.command {
        AuditCommand::List { cube, filter } => list(&local, &cube, filter),
        AuditCommand::Verify { cube, trust } => {
            let report = local.cube(&cube)?.verify_audit_trusting(&local.actor, &trust)?;
            local.output.print(|| report_text(&report), || json!(report))?;
            if report.is_intact() { Ok(()) } else { bail!("the audit log of {cube} is not what was signed here") }
        }
        AuditCommand::Receipts { cube, from, limit } => {
            let receipts = local.cube(&cube)?.kept_receipts(&local.actor, Wanted::All, from, limit)?;
            local.output.print(|| receipts_text(&receipts), || json!(receipts))
        }
        AuditCommand::Head { cube } => {
            let head = local.cube(&cube)?.audit_head(&local.actor)?;
            // The head is for programs: there is no other form of it.
            local.output.print(|| format!("{}\n", json!(head)), || json!(head))
        }
    }
}

fn list(local: &LocalMemories, cube: &CubeName, args: FilterArgs) -> anyhow::Result<()> {
    if args.limit > LIST_LEN_MAX {
        bail!("--limit {} is more than {LIST_LEN_MAX}", args.limit);
    }
    let cube = local.cube(cube)?;
    let is_filtered = args.item.is_some() || args.action.is_some() || args.since.is_some() || args.until.is_some();
    let from_seq = match args.from {
        Some(from) => from,
        None if is_filtered => 0,
        None => cube.inspect(&local.actor)?.num_audit_entries.saturating_sub(args.limit as u64),
    };
    let FilterArgs { item, action, since, until, limit, .. } = args;
    let filter = AuditFilter { from_seq, item, by: None, action, since, until };
    let entries = cube.audit(&local.actor, &filter, limit)?;
    local.output.print(|| entries_text(&entries), || json!(entries))
}

fn receipts_text(receipts: &[SignedReceipt]) -> String {
    let mut table = Table::of_text(&["SEQ", "ASKED FOR AT", "MEMORIES", "STATUS"]);
    for SignedReceipt { receipt, .. } in receipts {
        let status = match receipt.status {
            ErasureStatus::Pending => "not final".to_owned(),
            ErasureStatus::Final { at } => format!("final since {at}"),
        };
        let (seq, at, num) =
            (receipt.audit_seq.to_string(), receipt.requested_at.to_string(), receipt.items.len().to_string());
        table.push(vec![seq, at, num, status]);
    }
    table.to_string()
}

fn entries_text(entries: &[AuditEntry]) -> String {
    let mut table = Table::of_text(&["SEQ", "AT", "ACTOR", "ACTION", "OUTCOME", "MEMORIES", "REASON"]);
    for entry in entries {
        let objects = match entry.objects.as_slice() {
            [] => "-".to_owned(),
            [one] => one.to_string(),
            many => format!("{} memories", many.len()),
        };
        let actor = entry.actor.clone().unwrap_or_else(|| "(erased)".to_owned());
        let reason =
            entry.reason.as_deref().map_or_else(|| "-".to_owned(), |reason| one_line(reason, REASON_CHARS_MAX));
        let (seq, at, outcome) = (entry.seq.to_string(), entry.at.to_string(), entry.outcome.to_string());
        table.push(vec![seq, at, actor, entry.action.clone(), outcome, objects, reason]);
    }
    table.to_string()
}

/// A report in sentences. Keys that are not known here are named once each, with what they signed.
pub(super) fn report_text(report: &AuditReport) -> String {
    let mut text = String::new();
    let mut foreign: BTreeMap<String, u64> = BTreeMap::new();
    for finding in &report.findings {
        match finding {
            Finding::HeadByUnknownKey { size, key } => {
                let signed = foreign.entry(key.to_string()).or_default();
                *signed = (*signed).max(*size);
            }
            other => {
                let _ = writeln!(text, "audit: {}", json!(other));
            }
        }
    }
    for (key, size) in &foreign {
        let _ = writeln!(
            text,
            "audit: the first {size} entries are signed by the key {key}, which is not this server's; if it is that of the \
             server the cube comes from, verify with --trust {key}"
        );
    }
    let AuditReport { size, num_erased, num_heads, witnessed_size, num_findings, .. } = report;
    let verdict = if report.is_intact() { "intact".to_owned() } else { format!("{num_findings} findings") };
    let _ = writeln!(
        text,
        "audit: {verdict}; {size} entries, {num_erased} of them erased, {num_heads} signed heads, {witnessed_size} entries \
         witnessed outside the cube"
    );
    text
}
