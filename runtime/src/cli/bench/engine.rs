//! `memos bench engine`: prefill and decode tokens a second of the engine in this process.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use kernels::{DType, Isa};
use models::ModelConfig;
use serde::Serialize;
use serde_json::{Value, json};

use super::in_process::{TokenTimes, generate};
use super::output;
use super::progress::Progress;
use super::random::Random;
use super::statistics::Repetitions;
use crate::cli::engine_args::{EngineArgs, LoadedEngine};
use crate::cli::table::{Table, figure};
use crate::engine::EngineHandle;
use crate::environment::Environment;

/// Options of `memos bench engine`.
#[derive(Debug, Clone, Args)]
pub struct EngineBenchArgs {
    /// The engine under test.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Tokens of each prompt
    #[arg(long, default_value = "512", value_name = "N")]
    pub prompt_len: NonZeroUsize,
    /// Decode steps behind each prompt
    #[arg(long, default_value = "32", value_name = "N")]
    pub decode_len: NonZeroUsize,
    /// Sequences at the same time
    #[arg(long, default_value = "1", value_name = "N")]
    pub batch: NonZeroUsize,
    /// Measured repetitions; one more is run before them to warm up
    #[arg(long, default_value = "5", value_name = "N")]
    pub repetitions: NonZeroUsize,
    /// Seed of the prompts
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Also write the result as JSON; `-` writes it to stdout and the table to stderr
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Result of the benchmark. The first fields are stable: other programs read them.
#[derive(Debug, Clone, Serialize)]
struct EngineReport {
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: f64,
    threads: usize,
    isa: String,
    dtype: String,
    prompt_len: usize,
    decode_len: usize,
    batch: usize,
    details: Details,
}

#[derive(Debug, Clone, Serialize)]
struct Details {
    model: String,
    load_format: String,
    backend: String,
    numerics_id: &'static str,
    kv_dtype: String,
    block_size: usize,
    max_batch_tokens: usize,
    repetitions: usize,
    seed: u64,
    /// Tokens a second of each repetition.
    prefill: Repetitions,
    /// Tokens a second of each repetition.
    decode: Repetitions,
    /// Milliseconds from one token of a sequence to its next.
    decode_step_ms: Repetitions,
}

/// One repetition.
struct Sample {
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: f64,
    decode_step_ms: f64,
}

/// Runs the benchmark and prints the result.
///
/// # Errors
/// A model that cannot be loaded, lengths that do not fit its context, a file that cannot be written.
pub async fn run(args: EngineBenchArgs, environment: &Environment) -> anyhow::Result<()> {
    let batch = args.batch.get();
    ensure!(
        args.engine.max_running >= batch,
        "a batch of {batch} needs --max-running {batch}; it is {}",
        args.engine.max_running
    );
    let loaded = args.engine.start(environment, None)?;
    let result = measure_all(&args, &loaded.engine).await;
    let report = result.and_then(|samples| report(&args, &loaded, &samples));
    loaded.engine.shutdown().await;
    let report = report?;
    let mut json: Value = serde_json::to_value(&report)?;
    json["benchmark"] = json!("engine");
    output::deliver(&report.to_text(), &json, args.json.as_deref())
}

async fn measure_all(args: &EngineBenchArgs, engine: &EngineHandle) -> anyhow::Result<Vec<Sample>> {
    let progress = Progress::new("repetitions", args.repetitions.get() + 1);
    let mut samples = Vec::with_capacity(args.repetitions.get());
    for repetition in 0..=args.repetitions.get() {
        let sample = measure(args, engine, repetition).await?;
        progress.advance();
        if repetition > 0 {
            samples.push(sample);
        }
    }
    Ok(samples)
}

/// Prefill and decode are two runs over the same prompts. The second finds them in the prefix cache, so that its
/// sequences begin to decode together instead of one after the other.
async fn measure(args: &EngineBenchArgs, engine: &EngineHandle, repetition: usize) -> anyhow::Result<Sample> {
    engine.clear_cache().await?;
    let vocab_size = u32::try_from(engine.info().vocab_size).context("the vocabulary is too large")?;
    let mut random = Random::new(args.seed, repetition as u64);
    let prompts: Vec<Vec<u32>> =
        (0..args.batch.get()).map(|_| random.tokens(args.prompt_len.get(), 0..vocab_size)).collect();
    let prefill = generate(engine, prompts.clone(), 1).await?;
    let slowest = prefill.iter().map(TokenTimes::first).max().unwrap_or_default();
    let decode = generate(engine, prompts, args.decode_len.get() + 1).await?;
    let (num_tokens, span) = decoded_together(&decode).context("the sequences never decoded at the same time")?;
    let gaps: Vec<Duration> = decode.iter().flat_map(TokenTimes::gaps).collect();
    Ok(Sample {
        prefill_tokens_per_s: (args.batch.get() * args.prompt_len.get()) as f64 / slowest.as_secs_f64(),
        decode_tokens_per_s: num_tokens as f64 / span.as_secs_f64(),
        decode_step_ms: gaps.iter().sum::<Duration>().as_secs_f64() * 1e3 / gaps.len() as f64,
    })
}

/// Tokens that arrived while all sequences were decoding, and how long that was: from the last sequence's first token
/// to the first sequence's last one. `None` when there is no such time.
fn decoded_together(sequences: &[TokenTimes]) -> Option<(usize, Duration)> {
    let from = sequences.iter().map(TokenTimes::first).max()?;
    let to = sequences.iter().filter_map(|times| times.tokens.last()).min()?;
    let span = to.checked_sub(from).filter(|span| !span.is_zero())?;
    let counted = |times: &TokenTimes| times.tokens.iter().filter(|&at| *at > from && at <= to).count();
    Some((sequences.iter().map(counted).sum(), span))
}

fn report(args: &EngineBenchArgs, loaded: &LoadedEngine, samples: &[Sample]) -> anyhow::Result<EngineReport> {
    let of = |value: fn(&Sample) -> f64| {
        Repetitions::of(samples.iter().map(value).collect()).context("no repetition was measured")
    };
    let info = loaded.engine.info();
    let dtype = match args.engine.dtype {
        Some(dtype) => DType::from(dtype),
        None => ModelConfig::load(&loaded.source)?.dtype,
    };
    let (prefill, decode) = (of(|sample| sample.prefill_tokens_per_s)?, of(|sample| sample.decode_tokens_per_s)?);
    // The same rule by which the device counts its threads.
    let threads = args.engine.threads.map_or_else(std::thread::available_parallelism, Ok)?;
    Ok(EngineReport {
        prefill_tokens_per_s: prefill.median,
        decode_tokens_per_s: decode.median,
        threads: threads.get(),
        isa: args.engine.cpu_isa.unwrap_or_else(Isa::detect).to_string(),
        dtype: dtype.to_string(),
        prompt_len: args.prompt_len.get(),
        decode_len: args.decode_len.get(),
        batch: args.batch.get(),
        details: Details {
            model: info.name.clone(),
            load_format: format!("{:?}", args.engine.load_format).to_lowercase(),
            backend: info.backend.clone(),
            numerics_id: info.numerics_id,
            kv_dtype: info.kv_dtype.to_string(),
            block_size: info.block_size,
            max_batch_tokens: args.engine.max_batch_tokens,
            repetitions: samples.len(),
            seed: args.seed,
            prefill,
            decode,
            decode_step_ms: of(|sample| sample.decode_step_ms)?,
        },
    })
}

impl EngineReport {
    fn to_text(&self) -> String {
        let Details { model, backend, repetitions, .. } = &self.details;
        let mut table = Table::new(&["", "median", "min", "max"]);
        for (name, figures) in [
            ("prefill tokens/s", &self.details.prefill),
            ("decode tokens/s", &self.details.decode),
            ("decode step ms", &self.details.decode_step_ms),
        ] {
            let cells = [figures.median, figures.min, figures.max].map(|value| figure(Some(value)));
            table.push(std::iter::once(name.to_owned()).chain(cells).collect());
        }
        format!(
            "{model}, {}, {backend}\n{} x {} prompt tokens, {} decode steps, {repetitions} repetitions\n\n{table}",
            self.dtype, self.batch, self.prompt_len, self.decode_len
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(milliseconds: &[u64]) -> TokenTimes {
        let tokens = milliseconds.iter().map(|&at| Duration::from_millis(at)).collect();
        TokenTimes { tokens, cached_tokens: 0 }
    }

    #[test]
    fn one_sequence_decodes_from_its_first_token_on() {
        assert_eq!(decoded_together(&[times(&[100, 110, 120])]), Some((2, Duration::from_millis(20))));
    }

    #[test]
    fn only_the_time_in_which_all_sequences_decode_counts() {
        let early = times(&[100, 110, 120, 130]);
        let late = times(&[110, 120, 130, 140]);
        assert_eq!(decoded_together(&[early, late]), Some((4, Duration::from_millis(20))));
    }

    #[test]
    fn sequences_that_never_meet_have_no_common_rate() {
        assert_eq!(decoded_together(&[times(&[10, 20]), times(&[30, 40])]), None);
        assert_eq!(decoded_together(&[]), None);
    }
}
