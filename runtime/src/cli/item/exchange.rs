//! `memos item import` and `export`: memories from files and into files.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use memory::cube::CubeName;
use memory::exchange::Strictness;
use memory::memories::{ExportedHistory, ImportFormat, ImportOptions, ImportReport};
use serde_json::{Value, json};

use super::arguments::DuplicatesArg;
use crate::cli::local_memory::LocalMemories;

/// What a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// What `memos item export` writes, or one object with a "text" a line
    Jsonl,
    /// What mem0 exports: the list of get_all, bare or under "results"
    Mem0,
    /// MemOS's textual_memory.json
    Memos,
}

impl From<FormatArg> for ImportFormat {
    fn from(argument: FormatArg) -> Self {
        match argument {
            FormatArg::Jsonl => Self::JsonLines,
            FormatArg::Mem0 => Self::Mem0,
            FormatArg::Memos => Self::Memos,
        }
    }
}

/// Arguments of `memos item import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Which cube
    cube: CubeName,
    /// The file; `-` reads standard input
    file: PathBuf,
    /// What it is written in
    #[arg(long, value_enum, default_value = "jsonl")]
    format: FormatArg,
    /// Add nothing when one record is broken
    #[arg(long)]
    strict: bool,
    /// What happens to memories that are there already
    #[arg(long, value_enum, default_value = "skip-exact")]
    duplicates: DuplicatesArg,
    /// Why; kept with the versions and in the audit log
    #[arg(long)]
    reason: Option<String>,
}

/// Arguments of `memos item export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Which cube
    cube: CubeName,
    /// The new file; `-` writes to standard output
    file: PathBuf,
    /// With every version of each memory
    #[arg(long)]
    history: bool,
}

pub(super) fn import(local: &LocalMemories, args: ImportArgs) -> anyhow::Result<()> {
    let mut input: Box<dyn BufRead> = match args.file.as_path() {
        path if path == Path::new("-") => Box::new(BufReader::new(io::stdin())),
        path => {
            let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            Box::new(BufReader::new(file))
        }
    };
    let options = ImportOptions {
        strictness: if args.strict { Strictness::Strict } else { Strictness::Lenient },
        duplicates: args.duplicates.into(),
        reason: args.reason.as_deref(),
        ..ImportOptions::new(args.format.into())
    };
    let report = local
        .cube(&args.cube)?
        .import(&local.actor, &mut input, options)
        .with_context(|| format!("cannot import {}", args.file.display()))?;
    local.output.print(|| report_text(&report), || report_json(&report))
}

fn report_text(report: &ImportReport) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        let _ = writeln!(text, "not read: {problem}");
    }
    if report.num_without_hold > 0 {
        let _ = writeln!(
            text,
            "{} memories are under legal hold where they come from, and not here",
            report.num_without_hold
        );
    }
    let ImportReport { num_added, num_duplicates, num_problems, .. } = report;
    let _ =
        writeln!(text, "{num_added} memories added, {num_duplicates} were there already, {num_problems} were not read");
    text
}

fn report_json(report: &ImportReport) -> Value {
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    json!({
        "num_added": report.num_added,
        "num_duplicates": report.num_duplicates,
        "num_without_hold": report.num_without_hold,
        "num_problems": report.num_problems,
        "problems": problems,
    })
}

pub(super) fn export(local: &LocalMemories, args: ExportArgs) -> anyhow::Result<()> {
    let cube = local.cube(&args.cube)?;
    let history = if args.history { ExportedHistory::Included } else { ExportedHistory::LeftOut };
    if args.file == Path::new("-") {
        cube.export(&local.actor, BufWriter::new(io::stdout().lock()), history)?;
        return Ok(());
    }
    let cannot = || format!("cannot write {}", args.file.display());
    // Memories are private: so is the file. One that is there already is never replaced.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.file).with_context(cannot)?;
    let written = cube.export(&local.actor, BufWriter::new(&file), history).map_err(anyhow::Error::from);
    let written = written.and_then(|num| file.sync_all().map(|()| num).map_err(anyhow::Error::from));
    if written.is_err() {
        // Half an export would pass for a whole one.
        fs::remove_file(&args.file).with_context(cannot)?;
    }
    let num = written.with_context(cannot)?;
    let text = || format!("{num} memories are written to {}\n", args.file.display());
    local.output.print(text, || json!({ "num_exported": num, "file": args.file }))
}
