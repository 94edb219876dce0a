//! Options about memory that `memos serve` takes.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use memory::governance::quota::Quota;
use memory::governance::redaction::SensitiveKind;
use memory::governance::retention::RetentionRules;

use super::download_line::DownloadLine;
use super::engine_args::Bytes;
use crate::embedder::EmbedderChoice;
use crate::environment::Environment;
use crate::memories::MemoryOptions;

/// How memories are kept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Memory")]
pub struct MemoryArgs {
    /// What is blacked out before it is stored, separated by commas: key, card, iban, email, phone, ip; or `none`
    #[arg(long, default_value = "key,card,iban", value_name = "KIND,...")]
    redact: String,
    /// Most memories of one tenant
    #[arg(long, value_name = "N")]
    memory_items_max: Option<u64>,
    /// Most text and metadata of one tenant's memories, over all versions
    #[arg(long, value_name = "SIZE")]
    memory_bytes_max: Option<Bytes>,
    /// File with policies in Cedar's language, beside the built-in ones
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// File with retention rules, as JSON
    #[arg(long, value_name = "FILE")]
    retention: Option<PathBuf>,
    /// What makes vectors of memories, so that they are found by meaning too: a folder or hub id of a BERT-family model, or
    /// `http(s)://HOST/v1#MODEL`, a service whose key is in MEMOS_EMBEDDER_API_KEY; `none`: words and graph alone.
    /// After a change all vectors are made anew in the background
    #[arg(long, default_value = "none", value_name = "FOLDER|ID|URL#MODEL")]
    embedder: EmbedderChoice,
}

impl MemoryArgs {
    /// The options, with what files they name, and the embedder loaded. Blocks: not to be called from an async task.
    ///
    /// # Errors
    /// A file cannot be read, a name is none that is known, or the embedder cannot be used.
    pub fn options(&self, environment: &Environment) -> anyhow::Result<MemoryOptions> {
        let read = |path: &PathBuf| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        let kinds =
            |list: &str| list.split(',').map(|kind| kind.trim().parse()).collect::<Result<Vec<SensitiveKind>, _>>();
        let redact = match self.redact.as_str() {
            "none" => Vec::new(),
            list => kinds(list).context("--redact")?,
        };
        let retention = match &self.retention {
            None => RetentionRules::none(),
            Some(path) => {
                serde_json::from_str(&read(path)?).with_context(|| format!("retention rules in {}", path.display()))?
            }
        };
        Ok(MemoryOptions {
            redact,
            quota: Quota {
                num_items_max: self.memory_items_max,
                bytes_max: self.memory_bytes_max.map(|bytes| bytes.0 as u64),
            },
            policy_text: self.policy.as_ref().map(read).transpose()?,
            retention,
            embedder: self.embedder.open(environment, &mut DownloadLine::default())?,
        })
    }
}
