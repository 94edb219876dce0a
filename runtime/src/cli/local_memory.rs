//! The memories of a data directory for the commands that work on it without a server.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use memory::cube::CubeName;
use memory::governance::{Actor, Identity, Role, TenantName};
use memory::memories::{Memories, MountedCube};
use serde_json::Value;

use super::download_line::DownloadLine;
use crate::data_dir::{DataDir, DataDirError};
use crate::embedder::EmbedderChoice;
use crate::environment::Environment;
use crate::memories::{self, MemoryOptions};

/// What these commands have in common.
#[derive(Debug, Clone, Args)]
pub struct LocalArgs {
    /// Data directory of the server; by default $MEMOS_DATA_DIR, else the user's data directory
    #[arg(long, global = true, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Whose cubes: the tenant as whom the command acts, with the role admin. A server without keys uses `local`
    #[arg(long, global = true, default_value = "local")]
    tenant: TenantName,
    /// Print JSON instead of tables and sentences
    #[arg(long, global = true)]
    json: bool,
}

/// What a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Tables and sentences.
    Text,
    /// JSON.
    Json,
}

impl Output {
    /// Prints the result in the form that was asked for; the other one is not made.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print(self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> anyhow::Result<()> {
        let printed = match self {
            Self::Text => text(),
            Self::Json => format!("{:#}\n", json()),
        };
        Ok(std::io::stdout().write_all(printed.as_bytes())?)
    }
}

/// Open memories; the data directory is locked until this is dropped.
pub struct LocalMemories {
    /// The memories, with no cube mounted yet.
    pub memories: Memories,
    /// As whom the command acts.
    pub actor: Actor,
    /// What it prints.
    pub output: Output,
    _data_dir: DataDir,
}

impl LocalArgs {
    /// Opens the data directory.
    ///
    /// # Errors
    /// A server uses it, it cannot be used at all, or the embedder cannot be loaded.
    pub fn open(&self, environment: &Environment, embedder: &EmbedderChoice) -> anyhow::Result<LocalMemories> {
        let path = self.data_dir.clone().or_else(|| environment.data_dir.clone()).ok_or(DataDirError::NoPlace)?;
        let data_dir = DataDir::open(&path).map_err(|error| match error {
            DataDirError::Locked { .. } => anyhow::Error::new(error).context(
                "this command works on the files themselves, so no server may use them: ask the server over HTTP instead \
                 (/v1/cubes, /v1/memories, /v1/audit; see /openapi.json), or stop it",
            ),
            error => error.into(),
        })?;
        let embedder = embedder.open(environment, &mut DownloadLine::default())?;
        let memories = memories::open(&data_dir, MemoryOptions { embedder, ..MemoryOptions::default() })?;
        let identity = Identity { tenant: self.tenant.clone(), role: Role::Admin };
        let output = if self.json { Output::Json } else { Output::Text };
        Ok(LocalMemories { memories, actor: Actor::of_tenant(identity), output, _data_dir: data_dir })
    }
}

impl LocalMemories {
    /// Mounts a cube.
    ///
    /// # Errors
    /// The tenant has none of this name, or it is damaged.
    pub fn cube(&self, name: &CubeName) -> anyhow::Result<Arc<MountedCube>> {
        self.memories.mount(&self.actor, name).with_context(|| format!("cannot open the cube {name}"))
    }
}
