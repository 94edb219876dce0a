//! The engine: one thread that owns scheduler, model and KV pool; everyone else talks to it through `EngineHandle`.

mod inputs;
mod request;
mod stats;
mod thread;

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use kernels::{DType, Device, KvPool};
use models::Model;
use scheduler::{KeyRoot, KvKey, NewSequence, PrefixReuse, Scheduler, SchedulerConfig, block_keys};
use tokio::sync::{mpsc, oneshot};

pub use request::{EngineError, EngineEvent, FinishReason, GenerateRequest, PromptLogprobs, Tenant};
pub use stats::EngineStats;
use thread::{Command, EngineThread};

/// Submissions that may wait for the engine thread to pick them up between two steps.
const COMMAND_QUEUE_LEN: usize = 256;

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
    rope_fingerprint: [u8; 32],
}

impl ModelInfo {
    /// Root of all KV keys of one tenant on this model.
    fn key_root(&self, tenant: &Tenant) -> KvKey {
        KeyRoot {
            model_fingerprint: self.fingerprint,
            kv_dtype: &self.kv_dtype.to_string(),
            kv_layout: KV_LAYOUT,
            block_size: self.block_size as u32,
            rope_fingerprint: self.rope_fingerprint,
            numerics_id: self.numerics_id,
            adapter: None,
            tenant_salt: tenant.salt,
        }
        .key()
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
        let scheduler = Scheduler::new(SchedulerConfig {
            num_blocks,
            block_size: options.block_size,
            max_batch_tokens: options.max_batch_tokens,
            max_running: options.max_running,
            max_waiting: options.max_waiting,
            max_waiting_per_tenant: options.max_waiting_per_tenant,
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
            rope_fingerprint: model.rope_fingerprint(),
        });
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE_LEN);
        let stats = Arc::new(Mutex::new(EngineStats::default()));
        let engine = EngineThread::new(device, model, pool, scheduler, receiver, Arc::clone(&stats));
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
