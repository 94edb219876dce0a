//! `memos bench cache-reuse`: time to the first token of a cold prompt and of one whose beginning is cached.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::in_process::{BENCH_TENANT, generate_one};
use super::load::receive;
use super::output;
use super::progress::Progress;
use super::random::Random;
use super::reuse_report::{KvSource, LengthSamples, LoadTime, Measured, ReuseReport, Sample};
use super::statistics::milliseconds;
use super::{TokenRange, connect, model_name};
use crate::cli::engine_args::{Bytes, EngineArgs};
use crate::client::{Client, ClientError, Endpoint};
use crate::engine::{EngineError, EngineHandle, Reset};
use crate::environment::Environment;

/// Lengths of the shared prefix when none are given; those that do not fit the model's context are left out.
const LENGTHS_DEFAULT: [NonZeroUsize; 3] = [length(512), length(2048), length(8192)];
/// Decode steps from which the floor is taken, in each repetition.
const FLOOR_STEPS: usize = 8;
/// Disk space of the tier that is measured.
const TIERS_DISK: Bytes = Bytes(4 << 30);
/// An endpoint does not say how large its vocabulary is; nearly every one has these ids, and they are plain text.
const ENDPOINT_TOKENS: TokenRange = TokenRange(300..1000);

const fn length(tokens: usize) -> NonZeroUsize {
    NonZeroUsize::new(tokens).expect("a length is not zero")
}

/// Options of `memos bench cache-reuse`.
#[derive(Debug, Clone, Args)]
pub struct CacheReuseArgs {
    /// The engine under test; with --base-url only --model is used, as the name to ask for.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Measure an OpenAI-compatible endpoint instead; it must take token ids in /v1/completions
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// API key; better in the environment variable MEMOS_API_KEY, where other users of the machine cannot see it
    #[arg(long, value_name = "KEY", requires = "base_url")]
    pub api_key: Option<String>,
    /// Lengths of the shared prefix in tokens, separated by commas. Default: those of 512,2048,8192 that fit
    #[arg(long, value_name = "TOKENS,...", value_delimiter = ',')]
    pub lengths: Option<Vec<NonZeroUsize>>,
    /// Tokens behind the prefix
    #[arg(long, default_value = "16", value_name = "N")]
    pub suffix_len: NonZeroUsize,
    /// Repetitions of each length, each with a prefix of its own
    #[arg(long, default_value = "5", value_name = "N")]
    pub repetitions: NonZeroUsize,
    /// Token ids that prompts are drawn from, as FIRST..END with END excluded. Default: the whole vocabulary in
    /// process, 300..1000 for an endpoint
    #[arg(long, value_name = "RANGE")]
    pub token_ids: Option<TokenRange>,
    /// Seed of the prompts. An endpoint keeps its cache between runs: use another seed for another cold run
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Also measure host memory, disk (with the system's page cache and without it) and a restart; in process only. Without
    /// --host-cache the host tier is as large as the KV cache, without --disk-cache the disk tier has 4 GiB, and without
    /// --disk-cache-folder it is in a temporary folder
    #[arg(long, conflicts_with = "base_url")]
    pub tiers: bool,
    /// Also write the result as JSON; `-` writes it to stdout and the table to stderr
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What is measured.
enum Target {
    Engine(EngineHandle),
    Endpoint { client: Client, model: String },
}

/// Runs the benchmark and prints the result.
///
/// # Errors
/// A model that cannot be loaded, an endpoint that does not answer, a given length that does not fit.
pub async fn run(args: CacheReuseArgs, environment: &Environment) -> anyhow::Result<()> {
    if args.tiers {
        return run_tiers(args, environment).await;
    }
    let target = match &args.base_url {
        None => Target::Engine(args.engine.start(environment, None)?.engine),
        Some(base_url) => {
            let client = connect(base_url, args.api_key.as_deref(), environment)?;
            let model = model_name(&client, args.engine.model.as_deref()).await?;
            Target::Endpoint { client, model }
        }
    };
    let report = measure_all(&args, &target).await;
    if let Target::Engine(engine) = &target {
        engine.shutdown().await;
    }
    deliver(&report?, &args)
}

/// The same with all tiers, and the engine started anew in each repetition.
async fn run_tiers(mut args: CacheReuseArgs, environment: &Environment) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    if args.engine.host_cache.0 == 0 {
        args.engine.host_cache = args.engine.kv_cache_memory;
    }
    let disk = args.engine.disk_options(TIERS_DISK, scratch.path(), vec![BENCH_TENANT])?;
    let disk = disk.context("--tiers needs a disk cache: --disk-cache must not be 0")?;
    let start = || -> anyhow::Result<Target> {
        let loaded = args.engine.start_with_disk(environment, None, Some(disk.clone()))?;
        Ok(Target::Engine(loaded.engine))
    };
    let mut target = start()?;
    let tokens = TokenRange(0..u32::try_from(target.engine()?.info().vocab_size)?);
    let warm_up = Case { prefix_len: 64, repetition: u64::MAX, tokens: &tokens };
    target.measure(&args, &warm_up).await.context("the request that warms up failed")?;
    let mut report = ReuseReport::new(target.describe());
    let lengths = args.lengths.clone().unwrap_or_else(|| LENGTHS_DEFAULT.to_vec());
    let progress = Progress::new("repetitions", lengths.len() * args.repetitions.get());
    for prefix_len in lengths {
        let mut samples = LengthSamples::new(prefix_len.get());
        for repetition in 0..args.repetitions.get() as u64 {
            let case = Case { prefix_len: prefix_len.get(), repetition, tokens: &tokens };
            samples.push(target.measure(&args, &case).await?);
            target.measure_lower(&args, &case, &disk.folder, &mut samples).await?;
            target.engine()?.flush().await?;
            target.engine()?.shutdown().await;
            drop(target);
            target = start()?;
            samples.push_lower(KvSource::Restart, target.warm(&args, &case, 4).await?);
            progress.advance();
        }
        report.push(samples, KvSource::Device);
    }
    target.engine()?.shutdown().await;
    deliver(&report, &args)
}

fn deliver(report: &ReuseReport, args: &CacheReuseArgs) -> anyhow::Result<()> {
    let json = json!({
        "benchmark": "cache-reuse",
        "config": {
            "target": report.target,
            "base_url": args.base_url,
            "suffix_len": args.suffix_len,
            "repetitions": args.repetitions,
            "seed": args.seed,
        },
        "rows": report.rows,
        "floors": report.floors,
        "left_out": report.left_out,
    });
    output::deliver(&report.to_text(), &json, args.json.as_deref())
}

async fn measure_all(args: &CacheReuseArgs, target: &Target) -> anyhow::Result<ReuseReport> {
    let tokens = match (&args.token_ids, target) {
        (Some(range), _) => range.clone(),
        (None, Target::Engine(engine)) => TokenRange(0..u32::try_from(engine.info().vocab_size)?),
        (None, Target::Endpoint { .. }) => ENDPOINT_TOKENS,
    };
    let lengths = args.lengths.as_deref().unwrap_or(&LENGTHS_DEFAULT);
    let progress = Progress::new("repetitions", lengths.len() * args.repetitions.get());
    let mut report = ReuseReport::new(target.describe());
    // The first requests of a process pay for cold processor caches and untouched memory.
    let warm_up = Case { prefix_len: 64, repetition: u64::MAX, tokens: &tokens };
    target.measure(args, &warm_up).await.context("the request that warms up failed")?;
    for &prefix_len in lengths {
        let mut samples = LengthSamples::new(prefix_len.get());
        for repetition in 0..args.repetitions.get() as u64 {
            let case = Case { prefix_len: prefix_len.get(), repetition, tokens: &tokens };
            match target.measure(args, &case).await {
                Ok(measured) => samples.push(measured),
                Err(error) if args.lengths.is_none() && is_too_long(&error) => {
                    report.left_out.push(format!("{prefix_len}: {error}"));
                    break;
                }
                Err(error) => return Err(error.context(format!("at a prefix of {prefix_len} tokens"))),
            }
            progress.advance();
        }
        report.push(samples, target.kv_source());
    }
    if report.rows.is_empty() {
        bail!("no length fits: {}", report.left_out.join("; "));
    }
    Ok(report)
}

/// One repetition at one length.
struct Case<'a> {
    prefix_len: usize,
    repetition: u64,
    tokens: &'a TokenRange,
}

/// Tells the system to forget what it has of the files in a folder.
fn drop_page_cache(folder: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            let file = std::fs::File::open(&path)?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

impl Target {
    fn engine(&self) -> anyhow::Result<&EngineHandle> {
        match self {
            Self::Engine(engine) => Ok(engine),
            Self::Endpoint { .. } => bail!("an endpoint's tiers cannot be chosen"),
        }
    }

    /// The prefix of a case with the `turn`th other suffix.
    async fn warm(&self, args: &CacheReuseArgs, case: &Case<'_>, turn: u64) -> anyhow::Result<Sample> {
        let (seed, len) = (args.seed, args.suffix_len.get());
        let mut random = Random::new(seed, case.repetition ^ ((case.prefix_len as u64) << 32));
        let prefix = random.tokens(case.prefix_len, case.tokens.0.clone());
        let suffix = Random::new(seed, u64::MAX - turn).tokens(len, case.tokens.0.clone());
        let sample = self.request(&[prefix.as_slice(), &suffix].concat(), 1).await?.0;
        let engine = self.engine()?;
        let decisions = engine.decisions().await?;
        let load = decisions.iter().rev().find_map(|decision| {
            let bytes = (decision.num_blocks * engine.info().block_bytes) as u64;
            Some(LoadTime { bytes, seconds: decision.measured_s? })
        });
        Ok(Sample { load, ..sample })
    }

    /// Measures a prefix that is on the device, from the tiers below.
    async fn measure_lower(
        &self,
        args: &CacheReuseArgs,
        case: &Case<'_>,
        folder: &Path,
        samples: &mut LengthSamples,
    ) -> anyhow::Result<()> {
        let engine = self.engine()?;
        engine.flush().await?;
        engine.reset(Reset::SwapOut).await?;
        samples.push_lower(KvSource::Host, self.warm(args, case, 1).await?);
        engine.flush().await?;
        engine.reset(Reset::ForgetMemory).await?;
        samples.push_lower(KvSource::Disk, self.warm(args, case, 2).await?);
        engine.reset(Reset::ForgetMemory).await?;
        drop_page_cache(folder)?;
        samples.push_lower(KvSource::DiskUncached, self.warm(args, case, 3).await?);
        Ok(())
    }

    fn describe(&self) -> String {
        match self {
            Self::Engine(engine) => format!("{} in this process, {}", engine.info().name, engine.info().backend),
            Self::Endpoint { model, .. } => format!("{model} at an endpoint"),
        }
    }

    fn kv_source(&self) -> KvSource {
        match self {
            Self::Engine(_) => KvSource::Device,
            Self::Endpoint { .. } => KvSource::Server,
        }
    }

    async fn measure(&self, args: &CacheReuseArgs, case: &Case<'_>) -> anyhow::Result<Measured> {
        if let Self::Engine(engine) = self {
            // Otherwise later repetitions would also measure the eviction of earlier ones.
            engine.clear_cache().await?;
        }
        let mut random = Random::new(args.seed, case.repetition ^ ((case.prefix_len as u64) << 32));
        let prefix = random.tokens(case.prefix_len, case.tokens.0.clone());
        let mut with_suffix = || {
            let suffix = random.tokens(args.suffix_len.get(), case.tokens.0.clone());
            [prefix.as_slice(), &suffix].concat()
        };
        let (first, second) = (with_suffix(), with_suffix());
        let (cold, _) = self.request(&first, 1).await?;
        let (warm, _) = self.request(&second, 1).await?;
        let (repeat, decode_steps) = self.request(&second, 1 + FLOOR_STEPS).await?;
        let decode_steps_ms = decode_steps.into_iter().map(milliseconds).collect();
        Ok(Measured { cold, warm, repeat, decode_steps_ms })
    }

    /// Sends one prompt; returns the time to the first token and the decode steps behind it: each of
    /// them in process, their mean at an endpoint, where several tokens may arrive in one event.
    async fn request(&self, prompt: &[u32], max_tokens: usize) -> anyhow::Result<(Sample, Vec<Duration>)> {
        match self {
            Self::Engine(engine) => {
                let times = generate_one(engine, prompt, max_tokens).await?;
                let gaps = times.gaps().collect();
                let ttft_ms = milliseconds(times.first());
                Ok((Sample { ttft_ms, cached_tokens: Some(times.cached_tokens), load: None }, gaps))
            }
            Self::Endpoint { client, model } => {
                let body = json!({
                    "model": model,
                    "prompt": prompt,
                    "max_tokens": max_tokens,
                    "temperature": 0,
                    "ignore_eos": true,
                    "stream": true,
                    "stream_options": {"include_usage": true},
                });
                let start = Instant::now();
                let answer = receive(client, Endpoint::Completions, &body, start.into()).await?;
                // A token that is only a part of a character may show no text before the end.
                let first = answer.text_events.first().copied().unwrap_or_else(|| start.elapsed());
                let decode_steps = answer.mean_step().into_iter().collect();
                let cached_tokens = answer.usage.and_then(|usage| usage.cached_tokens);
                Ok((Sample { ttft_ms: milliseconds(first), cached_tokens, load: None }, decode_steps))
            }
        }
    }
}

fn is_too_long(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(EngineError::TooLong { .. }))
        || error.downcast_ref::<ClientError>().is_some_and(ClientError::is_context_full)
}
