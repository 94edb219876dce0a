//! Options about memory that `memos serve` takes.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use memory::governance::quota::Quota;
use memory::governance::redaction::SensitiveKind;
use memory::governance::retention::RetentionRules;

use super::engine_args::Bytes;
use crate::memories::MemoryOptions;

/// How memories are kept.
#[derive(Debug, Args)]
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
}

impl MemoryArgs {
    /// The options, with what files they name.
    ///
    /// # Errors
    /// A file cannot be read, or a name is none that is known.
    pub fn options(&self) -> anyhow::Result<MemoryOptions> {
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
            embedder: None,
        })
    }
}
