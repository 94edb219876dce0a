//! `memos bench`: load against an endpoint, latency of cache reuse, speed of the engine, quality of retrieval, spliced reuse;
//! and what they share.

mod cache_reuse;
mod engine;
mod in_process;
mod load;
mod output;
mod progress;
mod random;
mod report;
mod retrieval;
mod reuse_report;
mod serve;
mod splice;
mod splice_chats;
mod splice_report;
mod statistics;
mod workload;

use std::ops::Range;
use std::str::FromStr;

use anyhow::Context;
use clap::Subcommand;

pub use cache_reuse::CacheReuseArgs;
pub use engine::EngineBenchArgs;
pub use retrieval::RetrievalArgs;
pub use serve::ServeArgs;
pub use splice::SpliceArgs;

use crate::client::Client;
use crate::environment::Environment;

/// The benchmarks.
#[derive(Debug, Clone, Subcommand)]
pub enum BenchCommand {
    /// Concurrent streaming load against any OpenAI-compatible endpoint
    ///
    /// Without --request-rate there are --concurrency clients, each of which sends its next request when its last one has
    /// been answered. With --request-rate requests arrive at random times (Poisson) whether or not earlier ones have been
    /// answered, and latencies count from the arrival, so that a stall of the server shows in every request that it delays.
    Serve(Box<ServeArgs>),
    /// Time to the first token with a cold and with a warm prefix cache
    ///
    /// For each length and repetition, a random prefix with a short suffix is sent (cold), then the same prefix with another
    /// suffix (warm), then that once more (repeat). Medians over the repetitions are reported, beside them the time of one
    /// decode step, below which no first token can come. Runs on an engine in this process unless --base-url is given.
    CacheReuse(Box<CacheReuseArgs>),
    /// Prefill and decode tokens a second of the engine, without HTTP
    ///
    /// A batch of random prompts is computed (prefill: all prompt tokens, over the time to the last first token), then each
    /// prompt is continued (decode: tokens of all sequences, over the time in which all of them were decoding). Every
    /// repetition takes new prompts; the first one is not counted. Medians are reported.
    Engine(Box<EngineBenchArgs>),
    /// How well and how fast memories are found, on a labelled collection
    ///
    /// The documents become memories of a temporary cube and the queries are searched there: by words, by vectors and by both.
    /// Reported are recall, nDCG and latency; with --tune also which way of fusing is best on other queries of the collection.
    Retrieval(Box<RetrievalArgs>),
    /// What using a memory's KV at another place costs and saves
    ///
    /// Memory lines are computed behind various contexts, moved into prompts and partly computed again: their first tokens, or
    /// those that deviate most. Reported are exact answers on chats whose answers are known, distance from the full
    /// computation, and the time of a prompt of random segments in a new order against computing it.
    Splice(Box<SpliceArgs>),
}

/// Runs a benchmark.
///
/// # Errors
/// Whatever keeps it from measuring.
pub async fn run(command: BenchCommand, environment: &Environment) -> anyhow::Result<()> {
    match command {
        BenchCommand::Serve(args) => serve::run(*args, environment).await,
        BenchCommand::CacheReuse(args) => cache_reuse::run(*args, environment).await,
        BenchCommand::Engine(args) => engine::run(*args, environment).await,
        BenchCommand::Retrieval(args) => {
            let environment = environment.clone();
            tokio::task::spawn_blocking(move || retrieval::run(&args, &environment)).await?
        }
        BenchCommand::Splice(args) => {
            let environment = environment.clone();
            tokio::task::spawn_blocking(move || splice::run(&args, &environment)).await?
        }
    }
}

/// Token ids, written `FIRST..END` with `END` excluded. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRange(pub Range<u32>);

/// A range that could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a range of token ids such as 300..1000")]
pub struct NotATokenRange(String);

impl FromStr for TokenRange {
    type Err = NotATokenRange;

    fn from_str(text: &str) -> Result<Self, NotATokenRange> {
        let range = text.split_once("..").and_then(|(first, end)| Some(first.parse().ok()?..end.parse().ok()?));
        range.filter(|range| !range.is_empty()).map(Self).ok_or_else(|| NotATokenRange(text.to_owned()))
    }
}

/// The client of a benchmark; the key comes from the option, else from the environment.
fn connect(base_url: &str, api_key: Option<&str>, environment: &Environment) -> anyhow::Result<Client> {
    Ok(Client::new(base_url, api_key.or(environment.api_key.as_deref()))?)
}

/// The model to ask for: the given one, else the first that the endpoint lists.
async fn model_name(client: &Client, given: Option<&str>) -> anyhow::Result<String> {
    if let Some(name) = given {
        return Ok(name.to_owned());
    }
    let models = client.models().await.context("cannot ask the endpoint for its models; name one with --model")?;
    models.into_iter().next().context("the endpoint lists no model; name one with --model")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_ranges_are_read_and_empty_ones_refused() {
        assert_eq!("300..1000".parse(), Ok(TokenRange(300..1000)));
        for wrong in ["", "5", "5..5", "9..5", "a..b", "-1..5", "0..99999999999"] {
            assert!(wrong.parse::<TokenRange>().is_err(), "{wrong}");
        }
    }
}
