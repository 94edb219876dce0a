//! `memos cube diff`: the memories that differ, with their text where it can still be read.

use std::path::Path;
use std::sync::Arc;

use memory::ItemId;
use memory::cube::{ARCHIVE_EXTENSION, CubeName, SnapshotName};
use memory::governance::Actor;
use memory::memories::{CarriedGrants, Memories, MountedCube, Unpacking};
use memory::store::{DiffEntry, Difference};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::local_memory::LocalMemories;
use crate::cli::table::{Table, one_line};
use crate::data_dir::DataDir;
use crate::memories::{self, MemoryOptions};

/// Characters of a memory that are shown in the table.
const TEXT_CHARS_MAX: usize = 80;

/// One side of a comparison.
struct Side {
    cube: Arc<MountedCube>,
    /// A packed file is unpacked here, apart from the cubes of the data directory.
    _scratch: Option<(Memories, DataDir, TempDir)>,
}

impl Side {
    fn open(local: &LocalMemories, what: &str) -> anyhow::Result<Self> {
        let path = Path::new(what);
        if !what.contains('/') && path.extension().is_none_or(|extension| extension != ARCHIVE_EXTENSION) {
            return Ok(Self { cube: local.cube(&what.parse::<CubeName>()?)?, _scratch: None });
        }
        let folder = TempDir::new()?;
        let data_dir = DataDir::open(folder.path())?;
        let memories = memories::open(&data_dir, MemoryOptions::default())?;
        let how = Unpacking { grants: CarriedGrants::Keep, ..Unpacking::default() };
        let cube = memories.unpack(&local.actor, path, how)?.cube;
        Ok(Self { cube, _scratch: Some((memories, data_dir, folder)) })
    }

    fn text(&self, actor: &Actor, id: ItemId) -> Option<String> {
        self.cube.get(actor, id, None).ok().map(|item| item.text)
    }
}

pub(super) fn run(
    local: &LocalMemories,
    first: &str,
    second: Option<&str>,
    snapshot: Option<SnapshotName>,
) -> anyhow::Result<()> {
    let actor = &local.actor;
    let one = Side::open(local, first)?;
    let (entries, texts) = match (second, snapshot) {
        (_, Some(snapshot)) => {
            let entries = one.cube.diff(actor, &snapshot)?;
            let texts = entries.iter().map(|entry| one.text(actor, entry.id)).collect();
            (entries, texts)
        }
        (Some(second), None) if second == first => (Vec::new(), Vec::new()),
        (Some(second), None) => {
            let two = Side::open(local, second)?;
            let entries = one.cube.diff_with(actor, &two.cube)?;
            let text = |entry: &DiffEntry| two.text(actor, entry.id).or_else(|| one.text(actor, entry.id));
            let texts: Vec<Option<String>> = entries.iter().map(text).collect();
            (entries, texts)
        }
        (None, None) => anyhow::bail!("name a second cube or packed file, or a --snapshot"),
    };
    let rows = || entries.iter().zip(&texts);
    let text = || {
        let mut table = Table::of_text(&["CHANGE", "VERSIONS", "ID", "TEXT"]);
        for (entry, text) in rows() {
            let (change, versions) = described(entry.difference);
            let text = text.as_deref().map_or_else(|| "-".to_owned(), |text| one_line(text, TEXT_CHARS_MAX));
            table.push(vec![change.to_owned(), versions, entry.id.to_string(), text]);
        }
        format!("{table}{} memories differ\n", entries.len())
    };
    local.output.print(text, || rows().map(|(entry, text)| to_json(entry, text.as_deref())).collect())
}

fn described(difference: Difference) -> (&'static str, String) {
    match difference {
        Difference::Added { version } => ("added", version.to_string()),
        Difference::Removed { version } => ("removed", version.to_string()),
        Difference::Changed { from_version, to_version } => ("changed", format!("{from_version} -> {to_version}")),
    }
}

fn to_json(entry: &DiffEntry, text: Option<&str>) -> Value {
    let (change, _versions) = described(entry.difference);
    let (from, to) = match entry.difference {
        Difference::Added { version } => (None, Some(version)),
        Difference::Removed { version } => (Some(version), None),
        Difference::Changed { from_version, to_version } => (Some(from_version), Some(to_version)),
    };
    json!({ "id": entry.id, "change": change, "from_version": from, "to_version": to, "text": text })
}
