//! What every handler shares: the engine, the text side of the model, the keys, the limits, the counters.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memory::governance::KeyStore;
use memory::memories::Memories;
use models::{ChatTemplate, GenerationConfig, Tokenizer};
use scheduler::TenantId;
use tokio::sync::Semaphore;

use super::body::BodyLimits;
use super::drain::Drain;
use super::error::ApiError;
use super::metrics::Metrics;
use crate::data_dir::CacheEpoch;
use crate::engine::{EngineError, EngineHandle, Tenant};
use crate::recall::{MemoryDefaults, PlainText};

/// BLAKE3 context of the salts, so that the server secret serves no two purposes with equal results.
const SALT_CONTEXT: &str = "memos 2026-01 tenant salt v1";

/// BLAKE3 context of the tenants' numbers.
const ID_CONTEXT: &str = "memos 2026-11 tenant number v1";

/// The limits of the HTTP side, each with the reason for its default.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    /// Size and time of a request body.
    pub body: BodyLimits,
    /// Time for a request header to arrive; also how long a connection may idle between requests.
    pub header_timeout: Duration,
    /// Time that a client may leave what was sent to it unread before the connection is given up.
    pub write_timeout: Duration,
    /// Open connections; further ones are turned away with 503.
    pub num_connections_max: usize,
    /// Requests that are parsed, rendered and tokenised at once: this work takes processor time and memory from the
    /// engine.
    pub num_preparing_max: usize,
    /// Requests that work on memories at once: each holds a thread, and the store of a cube has few readers.
    pub num_remembering_max: usize,
    /// Longest time for a request; a shorter one may come with the request. `None`: as long as it takes.
    pub request_timeout: Option<Duration>,
    /// How long a silent stream stays silent before a comment tells the client and proxies that it lives.
    pub keep_alive: Duration,
    /// How long requests may go on when the server is told to stop.
    pub drain_timeout: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            // A million token ids take about 6 MB.
            body: BodyLimits { bytes_max: 8 << 20, timeout: Duration::from_secs(30) },
            header_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            num_connections_max: 4096,
            num_preparing_max: 4,
            num_remembering_max: 8,
            request_timeout: None,
            keep_alive: Duration::from_secs(15),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// What the server is put together from.
pub struct AppParts {
    /// The way to the engine thread.
    pub engine: EngineHandle,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Conversation to text; base models have none.
    pub chat_template: Option<Arc<ChatTemplate>>,
    /// Defaults of the checkpoint.
    pub generation_config: GenerationConfig,
    /// Who may come in.
    pub keys: Arc<KeyStore>,
    /// Plaintext memory.
    pub memories: Arc<Memories>,
    /// How chat requests use it when they do not say.
    pub memory_defaults: MemoryDefaults,
    /// Secret that lasts as long as the data directory; tenants' salts are derived from it.
    pub server_secret: [u8; 32],
    /// How often cached KV was forgotten since the data directory was made.
    pub cache_epoch: CacheEpoch,
    /// The limits.
    pub limits: HttpLimits,
}

/// The server's state, made once and handed to [`super::router`] or [`super::serve`]; clones are the same state.
#[derive(Clone)]
pub struct AppState {
    pub(super) shared: Arc<Shared>,
}

impl AppState {
    /// Puts the state together.
    pub fn new(parts: AppParts) -> Self {
        Self { shared: Arc::new(Shared::new(parts)) }
    }
}

impl AppState {
    /// Drops all cached KV, after memories were erased, and says how many blocks that were.
    pub async fn forget_cached(&self) -> usize {
        // An engine that is gone has no cache any more.
        self.shared.forget_cached().await.unwrap_or(0)
    }
}

/// What handlers see of the state.
pub struct Shared {
    /// What the server was put together from.
    pub parts: AppParts,
    /// What is counted.
    pub metrics: Metrics,
    /// How far the shutdown has come.
    pub drain: Drain,
    /// Places for requests that are parsed and tokenised.
    pub preparing: Arc<Semaphore>,
    /// Makes memories harmless for the model's prompts.
    pub plain_text: PlainText,
    /// Places for requests that work on memories.
    pub remembering: Arc<Semaphore>,
    /// When the server started, which is told as the model's creation time.
    pub created_unix_s: u64,
    tenants: Mutex<Tenants>,
    id_key: [u8; 32],
    num_ids: AtomicU64,
}

impl Shared {
    fn new(parts: AppParts) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Ids must differ between runs, not be secret.
        let id_key = *blake3::keyed_hash(&parts.server_secret, &now.as_nanos().to_le_bytes()).as_bytes();
        Self {
            metrics: Metrics::default(),
            drain: Drain::default(),
            preparing: Arc::new(Semaphore::new(parts.limits.num_preparing_max.max(1))),
            plain_text: PlainText::new(Arc::clone(&parts.tokenizer)),
            remembering: Arc::new(Semaphore::new(parts.limits.num_remembering_max.max(1))),
            created_unix_s: now.as_secs(),
            tenants: Mutex::new(Tenants { by_name: HashMap::new(), epoch: parts.cache_epoch.value() }),
            id_key,
            num_ids: AtomicU64::new(0),
            parts,
        }
    }

    /// The tenant with this name: its number for fair queueing and its secret salt.
    pub fn tenant(&self, name: &str) -> Tenant {
        // Names come from the key file, which bounds their number.
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tenant) = tenants.by_name.get(name) {
            return tenant.clone();
        }
        let tenant = Tenant {
            name: name.into(),
            id: tenant_id(&self.parts.server_secret, name),
            salt: tenant_salt(&self.parts.server_secret, name, tenants.epoch),
        };
        tenants.by_name.insert(name.to_owned(), tenant.clone());
        tenant
    }

    /// Sees to it that no KV which was computed before this can be hit after it, whoever computed it: which blocks
    /// were computed over a memory is not recorded, and a memory may have been read by every tenant that it was
    /// shared with. Blocks that running sequences need stay until those end, under keys that nobody asks for any
    /// more. Says how many blocks were dropped.
    ///
    /// The epoch outlives the process, as KV on disk does.
    ///
    /// # Errors
    /// The engine is gone, and its cache with it.
    pub async fn forget_cached(&self) -> Result<usize, EngineError> {
        {
            let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
            // Durable before anything else: what is still on disk after a crash belongs to nobody then.
            let epoch = self.parts.cache_epoch.advance(tenants.epoch);
            tenants.epoch = epoch;
            for (name, tenant) in &mut tenants.by_name {
                tenant.salt = tenant_salt(&self.parts.server_secret, name, epoch);
            }
        }
        self.parts.engine.clear_cache().await
    }

    /// A new id with this prefix, unique over restarts.
    pub fn new_id(&self, prefix: &str) -> String {
        let number = self.num_ids.fetch_add(1, Ordering::Relaxed);
        let hex = blake3::keyed_hash(&self.id_key, &number.to_le_bytes()).to_hex();
        format!("{prefix}-{}", &hex[..24])
    }

    /// Checks that the model a request names is the one that is served.
    pub fn check_model(&self, asked: Option<&str>) -> Result<(), ApiError> {
        let served = &self.parts.engine.info().name;
        match asked {
            Some(model) if model != served => {
                Err(ApiError::UnknownModel { model: super::fields::quoted(model), served: served.clone() })
            }
            _ => Ok(()),
        }
    }
}

/// The tenants that have been seen since the start.
struct Tenants {
    by_name: HashMap<String, Tenant>,
    /// How often cached memory was forgotten; part of every salt.
    epoch: u64,
}

/// The salt of a tenant: only this server can compute it, and it outlives the tenant's API keys.
pub fn tenant_salt(server_secret: &[u8; 32], tenant: &str, epoch: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(SALT_CONTEXT);
    // Secret and epoch have a fixed length, so that no other three of secret, epoch and name give the same bytes.
    hasher.update(server_secret);
    hasher.update(&epoch.to_le_bytes());
    hasher.update(tenant.as_bytes());
    *hasher.finalize().as_bytes()
}

/// The number of a tenant: the same for the same name as long as the data directory lasts, as KV on disk is filed by it.
pub fn tenant_id(server_secret: &[u8; 32], tenant: &str) -> TenantId {
    let mut hasher = blake3::Hasher::new_derive_key(ID_CONTEXT);
    hasher.update(server_secret);
    hasher.update(tenant.as_bytes());
    let mut number = [0; 8];
    hasher.finalize_xof().fill(&mut number);
    TenantId(u64::from_le_bytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salts_differ_by_tenant_secret_and_epoch_and_last() {
        let salt = tenant_salt(&[1; 32], "a", 0);
        assert_eq!(salt, tenant_salt(&[1; 32], "a", 0));
        assert_ne!(salt, tenant_salt(&[1; 32], "b", 0));
        assert_ne!(salt, tenant_salt(&[2; 32], "a", 0));
        assert_ne!(salt, tenant_salt(&[1; 32], "a", 1));
    }
}
