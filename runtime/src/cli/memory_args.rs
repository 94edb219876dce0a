//! Options about memory that `memos serve` takes.

use std::fs;
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use memory::cube::CubeName;
use memory::governance::quota::Quota;
use memory::governance::redaction::SensitiveKind;
use memory::governance::retention::RetentionRules;
use memory::ingest::LanguageModel;

use super::download_line::DownloadLine;
use super::engine_args::Bytes;
use crate::embedder::EmbedderChoice;
use crate::environment::Environment;
use crate::extractor::{ExtractorChoice, ServedParts, ServiceKind};
use crate::memories::MemoryOptions;
use crate::recall::{BUDGET_TOKENS_DEFAULT, MemoryDefaults, MemoryWriting};

const BUDGET_TOKENS_DEFAULT_ARG: NonZeroUsize =
    NonZeroUsize::new(BUDGET_TOKENS_DEFAULT).expect("the budget is not zero: this is a bug");

/// Whether turns are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MemoryWriteArg {
    /// They are.
    On,
    /// They are not.
    Off,
}

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
    /// Model that finds facts in text and judges contradictions (mode `fine`, contradictions `judge`): `engine`, the one
    /// that is served here; `http(s)://HOST/v1#MODEL`, a service whose key is in MEMOS_EXTRACTOR_API_KEY and which is sent
    /// the text after redaction; `none`: rules alone
    #[arg(long, default_value = "none", value_name = "engine|URL#MODEL")]
    extractor: ExtractorChoice,
    /// Which API the extractor's service speaks
    #[arg(long, value_enum, default_value = "openai", value_name = "API")]
    extractor_kind: ServiceKind,
    /// Longest time for one answer of the extractor
    #[arg(long, default_value = "60", value_name = "SECONDS")]
    extractor_timeout: NonZeroU16,
    /// Cube that chat requests recall from and write to when they do not say; it is made if it is not there
    #[arg(long, value_name = "NAME")]
    memory_cube: Option<CubeName>,
    /// Whether chat requests that say nothing about memory are remembered in that cube
    #[arg(long, value_enum, default_value = "on", requires = "memory_cube")]
    memory_write: MemoryWriteArg,
    /// Most tokens of the memories in one prompt
    #[arg(long, value_name = "TOKENS", default_value_t = BUDGET_TOKENS_DEFAULT_ARG)]
    memory_budget: NonZeroUsize,
    /// File that says how memories stand in the prompt: lines of which one has {memory} in it (and {date}, if wanted) and is
    /// repeated for each memory [default: "# Memories" and "- {memory}"]
    #[arg(long, value_name = "FILE")]
    memory_template: Option<PathBuf>,
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

    /// The model that is asked where rules are not enough. Must be called inside of a tokio runtime.
    ///
    /// # Errors
    /// The served model cannot be asked, or the service's place cannot be one.
    pub fn language_model(
        &self,
        served: impl FnOnce() -> Option<ServedParts>,
        environment: &Environment,
    ) -> anyhow::Result<Option<Arc<dyn LanguageModel>>> {
        let timeout = Duration::from_secs(self.extractor_timeout.get().into());
        self.extractor.open((self.extractor_kind, timeout), served, environment)
    }

    /// How chat requests use memory when they do not say.
    ///
    /// # Errors
    /// The file of the template cannot be read, or is no template.
    pub fn defaults(&self) -> anyhow::Result<MemoryDefaults> {
        let template = match &self.memory_template {
            None => crate::recall::MemoryTemplate::default(),
            Some(path) => {
                let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                text.parse().with_context(|| format!("the template in {}", path.display()))?
            }
        };
        Ok(MemoryDefaults {
            cube: self.memory_cube.clone(),
            writing: match self.memory_write {
                MemoryWriteArg::On => MemoryWriting::On,
                MemoryWriteArg::Off => MemoryWriting::Off,
            },
            budget_tokens: self.memory_budget.get(),
            template,
        })
    }
}
