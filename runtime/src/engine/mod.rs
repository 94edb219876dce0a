//! The engine: one thread that owns scheduler, model and KV pool; everyone else talks to it through `EngineHandle`.

mod disk;
mod inputs;
mod request;
mod stats;
mod thread;
mod tiers;

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use kernels::{DType, Device, KvPool};
use models::Model;
use scheduler::{
    Decision, EvictionPolicy, KvKey, NewSequence, PrefillCost, PrefixReuse, Scheduler, SchedulerConfig, TierConfig,
    block_keys,
};
use tokio::sync::{mpsc, oneshot};

use crate::kv_store::{KvIdentity, KvStoreError};
use disk::DiskTier;
use tiers::TierBytes;

pub use disk::DiskOptions;
pub use request::{Cached, EngineError, EngineEvent, FinishReason, GenerateRequest, PromptLogprobs, Reset, Tenant};
pub use stats::EngineStats;
use thread::{Command, EngineThread};

/// Submissions that may wait for the engine thread to pick them up between two steps.
const COMMAND_QUEUE_LEN: usize = 256;

/// Bytes that may be on their way to disk at a time.
const DISK_WRITE_QUEUE_BYTES: usize = 256 << 20;
/// At least one file's worth, however large the blocks are.
const DISK_WRITE_QUEUE_BLOCKS_MIN: usize = 32;
/// Share of the disk budget that is counted as blocks: headers, tokens and checksums take some of it.
const DISK_BLOCK_SHARE: f64 = 0.95;

/// Name of the one KV layout of the CPU pool, part of every KV key.
const KV_LAYOUT: &str = "layer-kv-head-kt16";

/// What the engine may use.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Tokens a KV block; a multiple of 16.
    pub block_size: usize,
    /// Bytes of the device KV pool; rounded down to whole blocks.
    pub kv_cache_bytes: usize,
    /// How K and V are stored; `None`: as the model's weights.
    pub kv_dtype: Option<DType>,
    /// Rows a step computes at most: decodes plus prefill.
    pub max_batch_tokens: usize,
    /// Sequences that may run at once.
    pub max_running: usize,
    /// Sequences that may wait, over all tenants.
    pub max_waiting: usize,
    /// Sequences that one tenant may have waiting.
    pub max_waiting_per_tenant: usize,
    /// What the prefix cache may be used for.
    pub prefix_cache: PrefixCache,
    /// Which cached block is given up first.
    pub eviction: EvictionPolicy,
    /// Bytes of the host tier; 0: none.
    pub host_cache_bytes: usize,
    /// The share of each lower tier that one tenant may have, percent.
    pub tenant_cache_percent: u8,
    /// The disk tier; `None`: none.
    pub disk: Option<DiskOptions>,
}

impl Default for EngineOptions {
    /// Everything in the device pool, with the limits that the command line has.
    fn default() -> Self {
        Self {
            block_size: 16,
            kv_cache_bytes: 1 << 30,
            kv_dtype: None,
            max_batch_tokens: 256,
            max_running: 64,
            max_waiting: 512,
            max_waiting_per_tenant: 256,
            prefix_cache: PrefixCache::On,
            eviction: EvictionPolicy::CostAware,
            host_cache_bytes: 0,
            tenant_cache_percent: 100,
            disk: None,
        }
    }
}

/// Whether computed prefixes are reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixCache {
    /// Exact reuse, the default.
    On,
    /// Every prompt is computed; for comparisons.
    Off,
}

/// What is served, fixed while the engine runs.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// Name under which clients ask for it.
    pub name: String,
    /// Tokens of prompt and answer together that fit one sequence: context length or pool, whichever is smaller.
    pub max_context: usize,
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Tokens a KV block.
    pub block_size: usize,
    /// Blocks in the device pool.
    pub num_blocks: usize,
    /// Bytes of one block.
    pub block_bytes: usize,
    /// How K and V are stored.
    pub kv_dtype: DType,
    /// Device, threads and instruction set in words.
    pub backend: String,
    /// Names the arithmetic: equal ids give equal bits.
    pub numerics_id: &'static str,
    /// BLAKE3 of configuration and weights.
    pub fingerprint: [u8; 32],
    kv_identity: KvIdentity,
}

impl ModelInfo {
    /// Root of all KV keys of one tenant on this model.
    fn key_root(&self, tenant: &Tenant) -> KvKey {
        self.kv_identity.root_key(tenant.salt)
    }
}

/// Blocks that a disk budget holds, with room for what files have beside the blocks.
fn disk_blocks(disk: &DiskOptions, block_bytes: usize) -> usize {
    let budget = disk.store.max_bytes as f64 * DISK_BLOCK_SHARE;
    (budget / block_bytes as f64) as usize
}

/// At which context attention costs as much as everything else: scores and outputs are two products over the context for
/// each head, everything else two operations a parameter.
fn prefill_cost(model: &Model) -> PrefillCost {
    let config = model.config();
    let attention = (4 * config.num_layers * config.num_heads * config.head_dim) as f64;
    PrefillCost {
        attention_half_tokens: (2.0 * (model.weight_bytes() / config.dtype.size_bytes()) as f64 / attention).max(1.0),
    }
}

/// Why the engine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The budget does not hold a single block.
    #[error("a KV cache of {kv_cache_bytes} bytes holds no block: one takes {block_bytes}")]
    KvCacheTooSmall {
        /// The budget.
        kv_cache_bytes: usize,
        /// One block.
        block_bytes: usize,
    },
    /// Options that contradict each other.
    #[error(transparent)]
    Scheduler(#[from] scheduler::ConfigError),
    /// The pool could not be allocated.
    #[error(transparent)]
    Kernel(#[from] kernels::KernelError),
    /// The cache directory cannot be used.
    #[error("cannot use the KV cache directory: {0}")]
    Disk(#[from] KvStoreError),
    /// The operating system refused a thread.
    #[error("cannot start the engine thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The way to the engine thread; cheap to clone.
#[derive(Clone)]
pub struct EngineHandle {
    commands: mpsc::Sender<Command>,
    stats: Arc<Mutex<EngineStats>>,
    info: Arc<ModelInfo>,
    prefix_cache: PrefixCache,
    join: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl EngineHandle {
    /// Starts the engine thread with a loaded model.
    ///
    /// # Errors
    /// A KV budget that holds no block, options that contradict each other, no memory, no thread.
    pub fn start(device: Device, model: Model, name: &str, options: &EngineOptions) -> Result<Self, StartError> {
        let kv_dtype = options.kv_dtype.unwrap_or(model.config().dtype);
        let shape = model.kv_shape(options.block_size, kv_dtype);
        let block_bytes = shape.block_bytes();
        let num_blocks = options.kv_cache_bytes / block_bytes;
        if num_blocks == 0 {
            return Err(StartError::KvCacheTooSmall { kv_cache_bytes: options.kv_cache_bytes, block_bytes });
        }
        let tiers = TierConfig {
            host_blocks: options.host_cache_bytes / block_bytes,
            disk_blocks: options.disk.as_ref().map_or(0, |disk| disk_blocks(disk, block_bytes)),
            tenant_percent: options.tenant_cache_percent,
            block_bytes: block_bytes as u64,
            max_disk_writes: (DISK_WRITE_QUEUE_BYTES / block_bytes).max(DISK_WRITE_QUEUE_BLOCKS_MIN),
            prefill_cost: prefill_cost(&model),
        };
        let mut scheduler = Scheduler::new(SchedulerConfig {
            num_blocks,
            block_size: options.block_size,
            max_batch_tokens: options.max_batch_tokens,
            max_running: options.max_running,
            max_waiting: options.max_waiting,
            max_waiting_per_tenant: options.max_waiting_per_tenant,
            eviction: options.eviction,
            tiers,
        })?;
        let pool = KvPool::new(&device, shape, num_blocks)?;
        let info = Arc::new(ModelInfo {
            name: name.to_owned(),
            max_context: model.max_positions().min(num_blocks * options.block_size),
            vocab_size: model.config().vocab_size,
            block_size: options.block_size,
            num_blocks,
            block_bytes,
            kv_dtype,
            backend: device.describe(),
            numerics_id: device.numerics_id(),
            fingerprint: model.fingerprint(),
            kv_identity: KvIdentity {
                model_fingerprint: model.fingerprint(),
                kv_dtype: kv_dtype.to_string(),
                kv_layout: KV_LAYOUT.to_owned(),
                block_size: options.block_size as u32,
                rope_fingerprint: model.rope_fingerprint(),
                numerics_id: device.numerics_id().to_owned(),
                adapter: None,
                block_bytes,
            },
        });
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE_LEN);
        let stats = Arc::new(Mutex::new(EngineStats::default()));
        let disk = match &options.disk {
            Some(disk) if tiers.disk_blocks > 0 => {
                Some(DiskTier::start(disk.clone(), info.kv_identity.clone(), &mut scheduler, commands.downgrade())?)
            }
            _ => None,
        };
        let tiers = TierBytes::new(block_bytes, disk);
        let engine = EngineThread::new(device, model, pool, scheduler, tiers, receiver, Arc::clone(&stats));
        let join = std::thread::Builder::new().name("memos-engine".into()).spawn(move || engine.run())?;
        let join = Arc::new(Mutex::new(Some(join)));
        Ok(Self { commands, stats, info, prefix_cache: options.prefix_cache, join })
    }

    /// Hands over sequences that belong together (the `n` choices of one request): all are queued, or none.
    ///
    /// # Errors
    /// What is wrong with them, or that there is no room: see [`EngineError`].
    pub async fn submit(&self, requests: Vec<GenerateRequest>) -> Result<Vec<Generation>, EngineError> {
        let mut submissions = Vec::with_capacity(requests.len());
        let mut generations = Vec::with_capacity(requests.len());
        for request in requests {
            self.check(&request)?;
            let (events, receiver) = mpsc::unbounded_channel();
            let sequence = self.sequence_of(&request);
            submissions.push(thread::Submission { request, sequence, events });
            generations.push(Generation { events: receiver, ended: false });
        }
        let (reply, answer) = oneshot::channel();
        let command = Command::Submit { submissions, reply };
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => EngineError::QueueFull { limit: COMMAND_QUEUE_LEN, retry_after_s: 1 },
            mpsc::error::TrySendError::Closed(_) => EngineError::Stopped,
        })?;
        answer.await.map_err(|_closed| EngineError::Stopped)??;
        Ok(generations)
    }

    /// What is served.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// A snapshot taken after the last step.
    pub fn stats(&self) -> EngineStats {
        self.stats.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Whether the engine thread is there to take work.
    pub fn is_running(&self) -> bool {
        !self.commands.is_closed()
    }

    /// Forgets every cached block that no running sequence uses, and says how many that were: after an erasure, and
    /// for benchmarks.
    ///
    /// # Errors
    /// The engine is gone.
    pub async fn clear_cache(&self) -> Result<usize, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::ClearCache { reply }).await.map_err(|_closed| EngineError::Stopped)?;
        answer.await.map_err(|_closed| EngineError::Stopped)
    }

    /// Forgets or moves cached blocks, for benchmarks, and says how many.
    ///
    /// # Errors
    /// The engine is gone.
    pub async fn reset(&self, what: Reset) -> Result<usize, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Reset { what, reply }).await.map_err(|_closed| EngineError::Stopped)?;
        answer.await.map_err(|_closed| EngineError::Stopped)
    }

    /// Waits until every computed block that is still in memory is on disk, as far as it has room.
    ///
    /// # Errors
    /// The engine is gone.
    pub async fn flush(&self) -> Result<(), EngineError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Flush { reply }).await.map_err(|_closed| EngineError::Stopped)?;
        answer.await.map_err(|_closed| EngineError::Stopped)
    }

    /// The scheduler's latest decisions, oldest first.
    ///
    /// # Errors
    /// The engine is gone.
    pub async fn decisions(&self) -> Result<Vec<Decision>, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Decisions { reply }).await.map_err(|_closed| EngineError::Stopped)?;
        answer.await.map_err(|_closed| EngineError::Stopped)
    }

    /// Fails what is left with `ShuttingDown`, ends the thread and waits for it.
    pub async fn shutdown(&self) {
        // A closed channel means the thread is already on its way out: joining is all that is left.
        let _ = self.commands.send(Command::Shutdown).await;
        let join = self.join.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(join) = join {
            let waited = tokio::task::spawn_blocking(move || join.join()).await;
            if !matches!(waited, Ok(Ok(()))) {
                eprintln!("memos: the engine thread ended with a panic");
            }
        }
    }

    fn check(&self, request: &GenerateRequest) -> Result<(), EngineError> {
        if request.prompt.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        let vocab_size = self.info.vocab_size;
        let biased = request.sampling.logit_bias.iter().map(|(token, _bias)| token);
        if let Some(&token) = request.prompt.iter().chain(biased).find(|&&token| token as usize >= vocab_size) {
            return Err(EngineError::TokenOutOfRange { token, vocab_size });
        }
        let limit = self.info.max_context;
        if request.prompt.len().saturating_add(request.max_tokens) > limit {
            let (prompt_tokens, max_tokens) = (request.prompt.len(), request.max_tokens);
            return Err(EngineError::TooLong { prompt_tokens, max_tokens, limit });
        }
        Ok(())
    }

    /// Hashing happens here, on the caller's thread, so that it never delays a decode step.
    fn sequence_of(&self, request: &GenerateRequest) -> NewSequence {
        let root = self.info.key_root(&request.tenant);
        let reuse = match (self.prefix_cache, request.prompt_logprobs) {
            (PrefixCache::On, PromptLogprobs::Skip) => PrefixReuse::Exact,
            (PrefixCache::Off, _) | (PrefixCache::On, PromptLogprobs::Return { .. }) => PrefixReuse::Bypass,
        };
        NewSequence {
            tenant: request.tenant.id,
            tokens: request.prompt.clone(),
            root,
            block_keys: block_keys(root, &request.prompt, self.info.block_size),
            max_new_tokens: request.max_tokens,
            reuse,
        }
    }
}

/// The events of one sequence. Dropping it cancels the sequence before the next step.
pub struct Generation {
    events: mpsc::UnboundedReceiver<EngineEvent>,
    ended: bool,
}

impl Generation {
    /// The next event; `None` after the last one. An engine that died is reported once as `Failed(Stopped)`.
    pub async fn next(&mut self) -> Option<EngineEvent> {
        if self.ended {
            return None;
        }
        let event = self.events.recv().await.unwrap_or(EngineEvent::Failed(EngineError::Stopped));
        self.ended = matches!(event, EngineEvent::Finished { .. } | EngineEvent::Failed(_));
        Some(event)
    }
}
