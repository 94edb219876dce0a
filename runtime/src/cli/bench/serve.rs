//! `memos bench serve`: concurrent streaming load against any OpenAI-compatible endpoint.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::load::{Load, Pacing, receive};
use super::output;
use super::progress::Progress;
use super::report::ServeReport;
use super::workload::{Prompt, RandomPrompts, poisson_arrivals, read_dataset};
use super::{TokenRange, connect};
use crate::client::{Client, Endpoint};
use crate::environment::Environment;

/// Requests in flight when nothing else is said.
const CONCURRENCY_DEFAULT: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

/// Options of `memos bench serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Base URL of the endpoint; /v1 is added when it has no path. http and https
    #[arg(long, default_value = "http://127.0.0.1:8000/v1", value_name = "URL")]
    pub base_url: String,
    /// API key; better in the environment variable MEMOS_API_KEY, where other users of the machine cannot see it
    #[arg(long, value_name = "KEY")]
    pub api_key: Option<String>,
    /// Model to ask for; by default the first one that the endpoint lists
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Which endpoint the requests go to
    #[arg(long, value_enum, default_value = "chat")]
    pub endpoint: Endpoint,
    /// Requests that are measured
    #[arg(long, default_value = "100", value_name = "N")]
    pub num_requests: NonZeroUsize,
    /// Requests sent before, one at a time and not measured
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub warmup: usize,
    /// Requests in flight at most. Default: 16, or no limit when --request-rate is given
    #[arg(long, value_name = "N")]
    pub concurrency: Option<NonZeroUsize>,
    /// Mean arrivals a second, at random times; without it the next request follows an answer
    #[arg(long, value_name = "PER_SECOND", value_parser = positive)]
    pub request_rate: Option<f64>,
    /// What random prompts consist of
    #[arg(long, value_enum, default_value = "words", conflicts_with = "dataset")]
    pub prompt: PromptKind,
    /// Length of a prompt behind its shared prefix: token ids, or made-up words of one to three tokens each
    #[arg(long, default_value = "256", value_name = "N", conflicts_with = "dataset")]
    pub input_len: NonZeroUsize,
    /// Length of a beginning that all prompts share, in the same unit; in a chat it is the system turn
    #[arg(long, default_value_t = 0, value_name = "N", conflicts_with = "dataset")]
    pub shared_prefix_len: usize,
    /// Token ids that prompts are drawn from, as FIRST..END with END excluded
    #[arg(long, default_value = "300..1000", value_name = "RANGE", conflicts_with = "dataset")]
    pub token_ids: TokenRange,
    /// Prompts from a JSON Lines file, used in turn: a string, {"prompt": TEXT or IDS} or {"messages": [...]} a line
    #[arg(long, value_name = "FILE")]
    pub dataset: Option<PathBuf>,
    /// Tokens to generate at most
    #[arg(long, default_value = "64", value_name = "N")]
    pub output_len: NonZeroUsize,
    /// Generate exactly --output-len tokens (sends `ignore_eos`, which vLLM, SGLang and memos understand)
    #[arg(long)]
    pub ignore_eos: bool,
    /// Sampling temperature that is sent
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    pub temperature: f64,
    /// Further fields of the request body, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    pub extra_body: Option<Map<String, Value>>,
    /// Seed of prompts and arrivals: the same seed sends the same requests at the same times
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Seconds after which a request counts as failed
    #[arg(long, default_value_t = 600.0, value_name = "SECONDS", value_parser = positive)]
    pub timeout_s: f64,
    /// Also write the report as JSON; `-` writes it to stdout and the tables to stderr
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What random prompts are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromptKind {
    /// Made-up words: works everywhere, the number of tokens depends on the tokenizer.
    Words,
    /// Random token ids: exact lengths; for `--endpoint completions` of servers that take them.
    TokenIds,
}

/// Runs the load and prints the report.
///
/// # Errors
/// Arguments that contradict each other, an unreadable dataset, no model, or not a single answer.
pub async fn run(args: ServeArgs, environment: &Environment) -> anyhow::Result<()> {
    let client = connect(&args.base_url, args.api_key.as_deref(), environment)?;
    let model = super::model_name(&client, args.model.as_deref()).await?;
    let bodies = args.bodies(&model)?;
    warm_up(&args, &client, &bodies).await?;
    let num_requests = args.num_requests.get();
    let concurrency = match (args.concurrency, args.request_rate) {
        (Some(concurrency), _) => concurrency.get(),
        (None, Some(_rate)) => num_requests,
        (None, None) => CONCURRENCY_DEFAULT.get(),
    };
    let pacing = match args.request_rate {
        None => Pacing::Closed,
        Some(rate) => Pacing::Open(poisson_arrivals(args.seed, rate, num_requests)),
    };
    let load = Load {
        client,
        endpoint: args.endpoint,
        body: move |index| bodies.body(index),
        num_requests,
        pacing,
        concurrency,
        timeout: Duration::from_secs_f64(args.timeout_s),
    };
    let records = load.run(&Progress::new("requests", num_requests)).await;
    let report = ServeReport::of(&records);
    let config = args.config(&model, concurrency);
    let mut json = json!({"benchmark": "serve", "config": config});
    json["results"] = serde_json::to_value(&report)?;
    output::deliver(&report.to_text(), &json, args.json.as_deref())?;
    ensure!(report.num_successes > 0, "not one of {num_requests} requests was answered");
    Ok(())
}

async fn warm_up(args: &ServeArgs, client: &Client, bodies: &Bodies) -> anyhow::Result<()> {
    for index in 0..args.warmup {
        // Indices behind the measured ones: no measured prompt is in a cache because of the warm-up.
        let body = bodies.body(args.num_requests.get() + index);
        let answer = receive(client, args.endpoint, &body, tokio::time::Instant::now());
        tokio::time::timeout(Duration::from_secs_f64(args.timeout_s), answer)
            .await
            .context("the first request, sent to warm up, was not answered in time")?
            .context("the first request, sent to warm up, failed")?;
    }
    Ok(())
}

/// Makes request bodies.
struct Bodies {
    prompts: Prompts,
    endpoint: Endpoint,
    /// The fields that do not depend on the prompt.
    constant: Value,
}

enum Prompts {
    Random(RandomPrompts),
    Dataset(Vec<Prompt>),
}

impl ServeArgs {
    fn bodies(&self, model: &str) -> anyhow::Result<Bodies> {
        let prompts = match &self.dataset {
            Some(path) => Prompts::Dataset(read_dataset(path)?),
            None => Prompts::Random(RandomPrompts {
                seed: self.seed,
                shared_prefix_len: self.shared_prefix_len,
                input_len: self.input_len,
                token_ids: (self.prompt == PromptKind::TokenIds).then(|| self.token_ids.0.clone()),
            }),
        };
        let fits = match &prompts {
            Prompts::Random(_) => self.prompt == PromptKind::Words || self.endpoint == Endpoint::Completions,
            Prompts::Dataset(prompts) => prompts.iter().all(|prompt| match prompt {
                Prompt::Text { .. } => true,
                Prompt::Tokens(_) => self.endpoint == Endpoint::Completions,
                Prompt::Messages(_) => self.endpoint == Endpoint::Chat,
            }),
        };
        ensure!(fits, "token ids need --endpoint completions, messages need --endpoint chat");
        let mut constant = json!({
            "model": model,
            "stream": true,
            "stream_options": {"include_usage": true},
            "max_tokens": self.output_len,
            "temperature": self.temperature,
        });
        if self.ignore_eos {
            constant["ignore_eos"] = json!(true);
        }
        for (field, value) in self.extra_body.iter().flatten() {
            constant[field] = value.clone();
        }
        Ok(Bodies { prompts, endpoint: self.endpoint, constant })
    }

    /// What was measured, for the JSON report: everything but the key.
    fn config(&self, model: &str, concurrency: usize) -> Value {
        json!({
            "base_url": self.base_url,
            "model": model,
            "endpoint": self.endpoint.name(),
            "num_requests": self.num_requests,
            "warmup": self.warmup,
            "concurrency": concurrency,
            "request_rate_per_s": self.request_rate,
            "prompt": self.dataset.is_none().then_some(self.prompt),
            "input_len": self.dataset.is_none().then_some(self.input_len),
            "shared_prefix_len": self.dataset.is_none().then_some(self.shared_prefix_len),
            "dataset": self.dataset,
            "output_len": self.output_len,
            "ignore_eos": self.ignore_eos,
            "temperature": self.temperature,
            "extra_body": self.extra_body,
            "seed": self.seed,
            "timeout_s": self.timeout_s,
        })
    }
}

impl Bodies {
    fn body(&self, index: usize) -> Value {
        let prompt = match &self.prompts {
            Prompts::Random(random) => random.prompt(index),
            Prompts::Dataset(prompts) => prompts[index % prompts.len()].clone(),
        };
        let mut body = self.constant.clone();
        match (self.endpoint, prompt) {
            (Endpoint::Chat, Prompt::Messages(messages)) => body["messages"] = messages,
            (Endpoint::Chat, Prompt::Text { system, text }) => {
                let system = system.map(|content| json!({"role": "system", "content": content}));
                let user = json!({"role": "user", "content": text});
                body["messages"] = Value::Array(system.into_iter().chain([user]).collect());
            }
            (Endpoint::Completions, Prompt::Text { system: Some(system), text }) => {
                body["prompt"] = json!(format!("{system} {text}"));
            }
            (Endpoint::Completions, Prompt::Text { system: None, text }) => body["prompt"] = json!(text),
            (Endpoint::Completions, Prompt::Tokens(tokens)) => body["prompt"] = json!(tokens),
            (Endpoint::Chat, Prompt::Tokens(_)) | (Endpoint::Completions, Prompt::Messages(_)) => {
                unreachable!("prompts were matched with the endpoint before the run: this is a bug")
            }
        }
        body
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().map_err(|error| error.to_string())?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err("it must be a positive number".to_owned()) }
}

fn json_object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn parse(words: &[&str]) -> Result<ServeArgs, clap::Error> {
        Command::try_parse_from(std::iter::once(&"bench").chain(words)).map(|command| command.args)
    }

    #[test]
    fn bodies_ask_for_a_stream_with_usage_and_carry_further_fields() {
        let args = parse(&["--ignore-eos", "--shared-prefix-len", "2", "--extra-body", r#"{"top_k": 1}"#]);
        let body = args.expect("valid").bodies("m").expect("words fit a chat").body(0);
        assert_eq!(body["stream_options"], json!({"include_usage": true}));
        assert_eq!((&body["ignore_eos"], &body["top_k"], &body["max_tokens"]), (&json!(true), &json!(1), &json!(64)));
        let roles: Vec<&Value> = body["messages"].as_array().expect("a list").iter().map(|m| &m["role"]).collect();
        assert_eq!(roles, ["system", "user"]);
    }

    #[test]
    fn token_ids_go_to_completions_only() {
        let args = parse(&["--prompt", "token-ids", "--token-ids", "5..9"]).expect("valid");
        assert!(args.bodies("m").is_err());
        let args = ServeArgs { endpoint: Endpoint::Completions, ..args };
        let body = args.bodies("m").expect("fits").body(3);
        let tokens = body["prompt"].as_array().expect("a list");
        assert_eq!(tokens.len(), 256);
        assert!(tokens.iter().all(|token| (5..9).contains(&token.as_u64().expect("an id"))));
    }

    #[test]
    fn unusable_values_are_refused_at_the_command_line() {
        for words in [
            ["--request-rate", "0"],
            ["--request-rate", "nan"],
            ["--concurrency", "0"],
            ["--output-len", "0"],
            ["--timeout-s", "-1"],
            ["--token-ids", "9..9"],
            ["--extra-body", "[1]"],
        ] {
            assert!(parse(&words).is_err(), "{words:?}");
        }
        assert!(parse(&["--dataset", "f", "--input-len", "3"]).is_err());
    }

    #[test]
    fn the_report_never_holds_the_key() {
        let args = parse(&["--api-key", "sk-secret"]).expect("valid");
        assert!(!args.config("m", 1).to_string().contains("sk-secret"));
    }
}
