//! The options that every command with an engine in it shares, and how they become a running engine.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};
use kernels::{CpuOptions, DType, Device, Isa};
use models::hub::{self, HubOptions};
use models::{ChatTemplate, GenerationConfig, LoadFormat, LoadOptions, Model, ModelSource, Tokenizer};
use scheduler::{EvictionPolicy, TenantId};

use super::download_line::DownloadLine;
use crate::bundled;
use crate::engine::{DiskOptions, EngineHandle, EngineOptions, PrefixCache};
use crate::environment::Environment;
use crate::kv_store::{KvStoreOptions, MasterKey};

/// Where weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LoadFormatArg {
    /// The checkpoint's safetensors.
    Auto,
    /// Random weights from config.json alone, for benchmarks.
    Dummy,
}

/// Precision of weights or KV.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DTypeArg {
    /// 32-bit float.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
}

/// Which cached block is given up first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EvictionArg {
    /// By the work that a block is expected to save: uses, weighted by their work, that fade with time.
    CostAware,
    /// The least recently used.
    Lru,
}

impl From<EvictionArg> for EvictionPolicy {
    fn from(policy: EvictionArg) -> Self {
        match policy {
            EvictionArg::CostAware => Self::CostAware,
            EvictionArg::Lru => Self::Lru,
        }
    }
}

impl From<DTypeArg> for DType {
    fn from(dtype: DTypeArg) -> Self {
        match dtype {
            DTypeArg::F32 => Self::F32,
            DTypeArg::Bf16 => Self::BF16,
            DTypeArg::F16 => Self::F16,
        }
    }
}

/// A number of bytes as people write it: `1073741824`, `512MiB`, `2GiB`, `500MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub usize);

/// A size that could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a size: write a whole number of bytes, or with KiB, MiB, GiB, KB, MB or GB")]
pub struct NotASize(String);

impl FromStr for Bytes {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, NotASize> {
        let refuse = || NotASize(text.to_owned());
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let factor: usize = match unit.trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return Err(refuse()),
        };
        let number: usize = number.parse().map_err(|_error| refuse())?;
        number.checked_mul(factor).map(Self).ok_or_else(refuse)
    }
}

/// Model, precision, memory and limits of an engine.
#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    /// Model: a local folder in Hugging Face layout, or a hub id such as `Qwen/Qwen3-0.6B`.
    /// Without it the small bundled model is used
    #[arg(long, value_name = "FOLDER|ID")]
    pub model: Option<String>,
    /// Revision of a hub model: branch, tag or commit
    #[arg(long, default_value = "main", value_name = "REV")]
    pub revision: String,
    /// Where the weights come from
    #[arg(long, value_enum, default_value = "auto")]
    pub load_format: LoadFormatArg,
    /// Convert the weights; by default they keep the checkpoint's precision
    #[arg(long, value_enum)]
    pub dtype: Option<DTypeArg>,
    /// Precision of the KV cache; by default that of the weights
    #[arg(long, value_enum)]
    pub kv_dtype: Option<DTypeArg>,
    /// Memory for the KV cache, for example 512MiB or 4GiB; it is taken from the system only as it fills
    #[arg(long, default_value = "1GiB", value_name = "SIZE")]
    pub kv_cache_memory: Bytes,
    /// Tokens a KV block holds, a multiple of 16
    #[arg(long, default_value_t = 16, value_name = "TOKENS")]
    pub block_size: usize,
    /// Longest sequence, prompt and answer together; by default what the model was made for
    #[arg(long, value_name = "TOKENS")]
    pub max_context: Option<usize>,
    /// Rows computed in one step; long prompts are computed in pieces of at most this many tokens
    #[arg(long, default_value_t = 256, value_name = "TOKENS")]
    pub max_batch_tokens: usize,
    /// Sequences that run at the same time
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub max_running: usize,
    /// Sequences that may wait; beyond it requests are answered with 429
    #[arg(long, default_value_t = 512, value_name = "N")]
    pub max_waiting: usize,
    /// Sequences of one tenant that may wait
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub max_waiting_per_tenant: usize,
    /// Compute threads; by default all processors that the process may use
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Instruction set: avx512bf16, avx512, avx2 or portable; by default the best that the processor has
    #[arg(long, value_name = "ISA")]
    pub cpu_isa: Option<Isa>,
    /// Memory for KV blocks that the KV cache gave up, for example 4GiB; on the CPU it is the same memory as the cache's
    #[arg(long, default_value = "0", value_name = "SIZE")]
    pub host_cache: Bytes,
    /// Disk space for KV blocks, which then survive a restart; 0 switches it off [default: 1GiB for `memos serve`, else 0]
    #[arg(long, value_name = "SIZE")]
    pub disk_cache: Option<Bytes>,
    /// Folder of the disk cache [default: `kv` in the data directory]
    #[arg(long, value_name = "FOLDER")]
    pub disk_cache_folder: Option<PathBuf>,
    /// File with 64 hexadecimal digits: KV blocks on disk are encrypted with a key made of it for each tenant
    #[arg(long, value_name = "FILE")]
    pub disk_cache_key: Option<PathBuf>,
    /// Which cached block is given up first: by the work that it is expected to save, or the least recently used
    #[arg(long, value_enum, default_value = "cost-aware")]
    pub eviction: EvictionArg,
    /// The share of the host cache and of the disk cache that one tenant may have, in percent
    #[arg(long, default_value_t = 100, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub tenant_cache_percent: u8,
    /// Compute every prompt anew instead of reusing cached prefixes (for comparisons)
    #[arg(long)]
    pub no_prefix_cache: bool,
}

/// A running engine and where its model came from.
pub struct LoadedEngine {
    /// The engine.
    pub engine: EngineHandle,
    /// For the tokenizer and the template.
    pub source: ModelSource,
}

/// What turns text into tokens and back.
#[derive(Clone)]
pub struct TextParts {
    /// The tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// How a conversation becomes a prompt; base models have none.
    pub chat_template: Option<Arc<ChatTemplate>>,
    /// Defaults of the checkpoint.
    pub generation_config: GenerationConfig,
}

impl EngineArgs {
    /// Loads the model and starts the engine, under another name than the model's own if one is given.
    ///
    /// # Errors
    /// Whatever keeps the model from being loaded, with the file or value that is wrong.
    pub fn start(&self, environment: &Environment, served_name: Option<&str>) -> anyhow::Result<LoadedEngine> {
        self.start_with_disk(environment, served_name, None)
    }

    /// [`EngineArgs::start`] with a disk tier.
    ///
    /// # Errors
    /// As for [`EngineArgs::start`], and when the cache directory cannot be used.
    pub fn start_with_disk(
        &self,
        environment: &Environment,
        served_name: Option<&str>,
        disk: Option<DiskOptions>,
    ) -> anyhow::Result<LoadedEngine> {
        let (device, model, source, name) = self.load(environment)?;
        let served_name = served_name.unwrap_or(&name);
        let engine =
            EngineHandle::start(device, model, served_name, &self.options(disk)).context("cannot start the engine")?;
        Ok(LoadedEngine { engine, source })
    }

    /// Loads the model without an engine: device, model, where it came from and its name.
    ///
    /// # Errors
    /// Whatever keeps the model from being loaded, with the file or value that is wrong.
    pub fn load(&self, environment: &Environment) -> anyhow::Result<(Device, Model, ModelSource, String)> {
        let (source, name) = self.resolve(environment)?;
        let device = Device::cpu(CpuOptions { num_threads: self.threads, isa: self.cpu_isa })?;
        let format = match self.load_format {
            LoadFormatArg::Auto => LoadFormat::Safetensors,
            LoadFormatArg::Dummy => LoadFormat::Dummy { seed: 0 },
        };
        let options = LoadOptions { format, dtype: self.dtype.map(DType::from), max_positions: self.max_context };
        let model = Model::load(&device, &source, options).with_context(|| format!("cannot load the model {name}"))?;
        Ok((device, model, source, name))
    }

    fn resolve(&self, environment: &Environment) -> anyhow::Result<(ModelSource, String)> {
        let Some(model) = &self.model else {
            return Ok((bundled::source(), bundled::NAME.to_owned()));
        };
        let options = HubOptions { revision: Some(self.revision.clone()), ..environment.hub_options() };
        let folder = hub::resolve(model, &options, &mut DownloadLine::default())
            .with_context(|| format!("cannot find the model {model}"))?;
        let name = model.trim_end_matches('/').rsplit('/').next().unwrap_or(model);
        let name = if std::path::Path::new(model).is_dir() { name } else { model.as_str() };
        Ok((ModelSource::Folder(folder), name.to_owned()))
    }

    /// The disk tier in a folder, for these tenants; `None` when the budget is 0.
    ///
    /// # Errors
    /// The key file cannot be read, or is not 64 hexadecimal digits.
    pub fn disk_options(
        &self,
        default_budget: Bytes,
        default_folder: &Path,
        tenants: Vec<([u8; 32], TenantId)>,
    ) -> anyhow::Result<Option<DiskOptions>> {
        let Bytes(budget) = self.disk_cache.unwrap_or(default_budget);
        if budget == 0 || self.no_prefix_cache {
            return Ok(None);
        }
        let master_key = self.disk_cache_key.as_deref().map(read_master_key).transpose()?;
        let folder = self.disk_cache_folder.clone().unwrap_or_else(|| default_folder.to_owned());
        let store = KvStoreOptions { max_bytes: budget as u64, master_key };
        Ok(Some(DiskOptions { folder, store, tenants }))
    }

    fn options(&self, disk: Option<DiskOptions>) -> EngineOptions {
        EngineOptions {
            block_size: self.block_size,
            kv_cache_bytes: self.kv_cache_memory.0,
            kv_dtype: self.kv_dtype.map(DType::from),
            max_batch_tokens: self.max_batch_tokens,
            max_running: self.max_running,
            max_waiting: self.max_waiting,
            max_waiting_per_tenant: self.max_waiting_per_tenant,
            prefix_cache: if self.no_prefix_cache { PrefixCache::Off } else { PrefixCache::On },
            eviction: self.eviction.into(),
            host_cache_bytes: if self.no_prefix_cache { 0 } else { self.host_cache.0 },
            tenant_cache_percent: self.tenant_cache_percent,
            disk,
        }
    }
}

/// The key that a file holds, as 64 hexadecimal digits.
fn read_master_key(path: &Path) -> anyhow::Result<MasterKey> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the key file {}", path.display()))?;
    MasterKey::from_hex(text.trim()).with_context(|| format!("{} does not hold 64 hexadecimal digits", path.display()))
}

impl LoadedEngine {
    /// Loads tokenizer, chat template and generation defaults.
    ///
    /// # Errors
    /// A missing or broken file, named.
    pub fn text_parts(&self) -> anyhow::Result<TextParts> {
        let tokenizer = Tokenizer::load(&self.source).context("cannot load the tokenizer")?;
        let chat_template = ChatTemplate::load(&self.source).context("cannot load the chat template")?;
        let generation_config =
            GenerationConfig::load(&self.source, &tokenizer).context("cannot load the generation config")?;
        Ok(TextParts { tokenizer: Arc::new(tokenizer), chat_template: chat_template.map(Arc::new), generation_config })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        assert_eq!("1024".parse(), Ok(Bytes(1024)));
        assert_eq!("2GiB".parse(), Ok(Bytes(2 << 30)));
        assert_eq!("500MB".parse(), Ok(Bytes(500_000_000)));
        for wrong in ["", "GiB", "-1", "1.5GiB", "1TiB", "99999999999GiB"] {
            assert!(wrong.parse::<Bytes>().is_err(), "{wrong}");
        }
    }
}
