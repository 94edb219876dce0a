//! `memos serve`: opens the data directory, starts the engine, listens, and shuts down in order.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use memory::governance::{Identity, KeyStore, Role, TenantName};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::engine_args::{Bytes, EngineArgs};
use super::memory_args::MemoryArgs;
use crate::data_dir::{DataDir, DataDirError};
use crate::environment::Environment;
use crate::extractor::ServedParts;
use crate::http::{self, AppParts, AppState, HttpLimits, KeyPolicy, LogLevel};
use crate::memories;

/// Tenant of the key that `--api-key` gives.
const SINGLE_KEY_TENANT: &str = "default";

/// Disk space for KV blocks.
const DISK_CACHE_DEFAULT: Bytes = Bytes(1 << 30);

/// How much is logged to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogLevelArg {
    /// Only what needs an operator.
    Error,
    /// And what may become a problem.
    Warn,
    /// And one line for each request, without its text.
    Info,
    /// And connections that broke.
    Debug,
}

impl From<LogLevelArg> for LogLevel {
    fn from(level: LogLevelArg) -> Self {
        match level {
            LogLevelArg::Error => Self::Error,
            LogLevelArg::Warn => Self::Warn,
            LogLevelArg::Info => Self::Info,
            LogLevelArg::Debug => Self::Debug,
        }
    }
}

/// Options of `memos serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// Address to listen on. Without API keys only loopback addresses are accepted
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one and prints it
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Name under which clients ask for the model; by default the folder's name or the hub id
    #[arg(long, value_name = "NAME")]
    served_model_name: Option<String>,
    /// One API key, for tenant `default`, beside those of `memos key`. The variable MEMOS_API_KEY does the same
    /// without showing the key in the process list
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// Directory for the lock, the server secret and the API keys [default: ~/.local/share/memos]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Longest request body
    #[arg(long, default_value = "8MiB", value_name = "SIZE")]
    max_body: Bytes,
    /// Open connections; further ones are turned away
    #[arg(long, default_value_t = 4096, value_name = "N")]
    max_connections: usize,
    /// Longest time for one request, in seconds; by default as long as it takes
    #[arg(long, value_name = "SECONDS")]
    request_timeout: Option<u64>,
    /// How long running requests may go on after SIGINT or SIGTERM, in seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    shutdown_timeout: u64,
    #[command(flatten)]
    memory: MemoryArgs,
    /// How much is logged; prompts and answers never are
    #[arg(long, value_enum, default_value = "info")]
    log_level: LogLevelArg,
}

/// Runs the server until it is told to stop.
///
/// # Errors
/// Whatever keeps it from starting: data directory, keys, address, model.
pub async fn run(mut args: ServeArgs, environment: &Environment) -> anyhow::Result<()> {
    http::log_to_stderr(args.log_level.into());
    let data_dir = args.data_dir.take().or_else(|| environment.data_dir.clone()).ok_or(DataDirError::NoPlace)?;
    let data_dir = DataDir::open(&data_dir)?;
    let keys = args.keys(&data_dir, environment)?;
    let address = SocketAddr::new(args.host, args.port);
    let policy = if keys.is_configured() { KeyPolicy::Required } else { KeyPolicy::Open };
    http::listen_policy(address, policy)?;
    // Taken before the model is loaded, so that a port in use is told at once.
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr()?;

    let cache_epoch = data_dir.cache_epoch()?;
    let secret = data_dir.server_secret();
    let tenants = args
        .tenant_names(&keys, environment)
        .into_iter()
        .map(|name| (http::tenant_salt(&secret, &name, cache_epoch.value()), http::tenant_id(&secret, &name)));
    let disk = args.engine.disk_options(DISK_CACHE_DEFAULT, &data_dir.kv_folder(), tenants.collect())?;
    let loaded = args.engine.start_with_disk(environment, args.served_model_name.as_deref(), disk)?;
    let text = loaded.text_parts()?;
    let engine = loaded.engine.clone();
    let info = engine.info();
    eprintln!("memos {}: model {}, {}", env!("CARGO_PKG_VERSION"), info.name, info.backend);
    eprintln!(
        "KV cache: {} blocks of {} tokens in {}; context {} tokens",
        info.num_blocks, info.block_size, info.kv_dtype, info.max_context
    );
    if policy == KeyPolicy::Open {
        eprintln!("No API keys are configured: listening on loopback only, and everyone on this machine may use it.");
    }
    let (memory_args, own_environment) = (args.memory.clone(), environment.clone());
    let options = tokio::task::spawn_blocking(move || memory_args.options(&own_environment)).await??;
    let memories = Arc::new(memories::open(&data_dir, options)?);
    if let Some(embedder) = memories.embedder() {
        eprintln!("Memories are embedded by {}, {} numbers a vector", embedder.id(), embedder.dim());
    }
    let served = || {
        let (engine, tokenizer) = (engine.clone(), Arc::clone(&text.tokenizer));
        let stop_tokens = text.generation_config.eos_token_ids.clone();
        let parts = |chat_template| ServedParts { engine, tokenizer, chat_template, stop_tokens };
        text.chat_template.clone().map(parts)
    };
    if let Some(model) = args.memory.language_model(served, environment)? {
        eprintln!("Facts are extracted by {}", model.name());
        memories.set_language_model(model);
    }
    for (folder, error) in memories.mount_all()? {
        eprintln!("The cube {} is not mounted: {error}", folder.display());
    }
    let memory_defaults = args.memory.defaults()?;
    if let Some(cube) = &memory_defaults.cube
        && memories::mounted_or_made(&memories, cube, args.only_tenant(&keys, environment))?
            == memories::Provision::Made
    {
        eprintln!("The cube {cube} was made.");
    }
    println!("Listening on http://{address}");

    let state = AppState::new(AppParts {
        engine: loaded.engine,
        tokenizer: text.tokenizer,
        chat_template: text.chat_template,
        generation_config: text.generation_config,
        keys: Arc::new(keys),
        memories: Arc::clone(&memories),
        memory_defaults,
        server_secret: secret,
        cache_epoch,
        limits: args.limits(),
    });
    let (forgetting, on) = (state.clone(), tokio::runtime::Handle::current());
    let forget = move || {
        let num_blocks = on.block_on(forgetting.forget_cached());
        tracing::info!(num_blocks, "cached KV was dropped: retention erased memories");
    };
    let housekeeper = memories::Housekeeper::start(memories, forget);
    http::serve(listener, state, stop_signal()?).await?;
    engine.shutdown().await;
    housekeeper.stop();
    Ok(())
}

impl ServeArgs {
    fn keys(&self, data_dir: &DataDir, environment: &Environment) -> anyhow::Result<KeyStore> {
        let keys = KeyStore::open(data_dir.keys_path())?;
        match self.api_key.as_ref().or(environment.api_key.as_ref()) {
            None => Ok(keys),
            Some(key) if key.trim().is_empty() => bail!("--api-key must not be empty"),
            Some(key) => {
                let tenant = TenantName::try_from(SINGLE_KEY_TENANT.to_owned())?;
                Ok(keys.with_key(key, Identity { tenant, role: Role::Admin }))
            }
        }
    }

    /// Everybody who may have KV on disk.
    fn tenant_names(&self, keys: &KeyStore, environment: &Environment) -> Vec<String> {
        let mut names: Vec<String> = keys.tenants().iter().map(ToString::to_string).collect();
        names.extend(self.only_tenant(keys, environment).map(str::to_owned));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The tenant that a cube can be made for without asking: that of a server without keys, or of its single key.
    fn only_tenant(&self, keys: &KeyStore, environment: &Environment) -> Option<&'static str> {
        if !keys.is_configured() {
            return Some(http::LOCAL_TENANT);
        }
        (self.api_key.is_some() || environment.api_key.is_some()).then_some(SINGLE_KEY_TENANT)
    }

    fn limits(&self) -> HttpLimits {
        let mut limits = HttpLimits {
            num_connections_max: self.max_connections,
            request_timeout: self.request_timeout.map(Duration::from_secs),
            drain_timeout: Duration::from_secs(self.shutdown_timeout),
            ..HttpLimits::default()
        };
        limits.body.bytes_max = self.max_body.0;
        limits
    }
}

/// Resolves at the first SIGINT or SIGTERM.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        eprintln!("Stopping: running requests are finished first.");
    })
}
