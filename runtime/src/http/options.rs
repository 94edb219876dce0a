//! The fields that chat and text completions share: sampling, stop strings, number of choices, streaming, time limit.

use std::time::Duration;

use models::{GenerationConfig, SamplingParams};
use serde_json::{Value, json};

use super::error::ApiError;
use super::fields::{Fields, describe, integer_of, wrong_type};
use super::stop_strings::{NUM_STOPS_MAX, STOP_BYTES_MAX};

/// Most choices of one prompt.
pub const NUM_CHOICES_MAX: usize = 128;
/// Most alternatives reported with a token.
pub const NUM_LOGPROBS_MAX: usize = 20;
/// Most biased tokens.
pub const NUM_BIASES_MAX: usize = 4096;
/// Most token ids that a request may add to those that end its answer.
pub const NUM_STOP_TOKENS_MAX: usize = 64;
/// Longest time limit that a request may set itself.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Fields of OpenAI's API that change nothing here and harm nobody: they are accepted and ignored. `cache_salt` is
/// vLLM's: here the tenant decides whose cache is used, so a salt from the client is ignored too.
pub const IGNORED_FIELDS: &[&str] = &[
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
    "cache_salt",
];

/// How the answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// As one JSON object when everything is done.
    Whole,
    /// As server-sent events.
    Stream {
        /// Whether a last event tells the token counts.
        usage: UsageReport,
    },
}

/// Whether a stream tells its token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageReport {
    /// Every event has a `usage` field, filled in the last one.
    Included,
    /// No event has one.
    Omitted,
}

/// Whether the model's end-of-sequence tokens end the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndOfSequence {
    /// They end it, as usual.
    Ends,
    /// They are tokens like others (`ignore_eos`).
    Ignored,
}

/// What a request says beside its prompt.
#[derive(Debug, Clone)]
pub struct GenerationOptions {
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Strings that end the answer and are not part of it.
    pub stops: Vec<String>,
    /// Token ids that end the answer, beside those of the model.
    pub stop_tokens: Vec<u32>,
    /// What the model's end-of-sequence tokens do.
    pub end_of_sequence: EndOfSequence,
    /// Choices for each prompt.
    pub num_choices: usize,
    /// How the answer is sent.
    pub delivery: Delivery,
    /// After this long the request is given up.
    pub timeout: Option<Duration>,
}

impl GenerationOptions {
    /// Reads the shared fields. Defaults are the checkpoint's, else OpenAI's.
    ///
    /// # Errors
    /// A field has a value that is not allowed.
    pub fn read(body: &mut Fields, defaults: &GenerationConfig, vocab_size: usize) -> Result<Self, ApiError> {
        Ok(Self {
            sampling: read_sampling(body, defaults, vocab_size)?,
            stops: read_stops(body)?,
            stop_tokens: read_stop_tokens(body, vocab_size)?,
            end_of_sequence: match body.flag("ignore_eos")? {
                Some(true) => EndOfSequence::Ignored,
                Some(false) | None => EndOfSequence::Ends,
            },
            num_choices: body.count("n", 1, NUM_CHOICES_MAX)?.unwrap_or(1),
            delivery: read_delivery(body)?,
            timeout: read_timeout(body)?,
        })
    }
}

fn read_sampling(
    body: &mut Fields,
    defaults: &GenerationConfig,
    vocab_size: usize,
) -> Result<SamplingParams, ApiError> {
    let mut sampling = SamplingParams::default();
    let mut number = |field: &str, default: Option<f32>, target: &mut f32| -> Result<(), ApiError> {
        // The narrowing is wanted: sampling works in f32, and what is too large for it becomes infinite and is refused.
        let given = body.number(field)?.map(|number| number as f32);
        if let Some(number) = given.or(default) {
            *target = number;
        }
        Ok(())
    };
    number("temperature", defaults.temperature, &mut sampling.temperature)?;
    number("top_p", defaults.top_p, &mut sampling.top_p)?;
    number("min_p", defaults.min_p, &mut sampling.min_p)?;
    number("presence_penalty", None, &mut sampling.presence_penalty)?;
    number("frequency_penalty", None, &mut sampling.frequency_penalty)?;
    number("repetition_penalty", defaults.repetition_penalty, &mut sampling.repetition_penalty)?;
    sampling.top_k = match body.integer("top_k", -1, i64::from(u32::MAX))? {
        // vLLM's ways to say "all of them".
        Some(-1 | 0) => None,
        Some(top_k) => u32::try_from(top_k).ok(),
        None => defaults.top_k,
    };
    // A seed is a name for a sequence of draws; negative ones are mapped to the upper half of the unsigned range.
    sampling.seed = body.integer("seed", i64::MIN, i64::MAX)?.map(i64::cast_unsigned);
    sampling.logit_bias = read_logit_bias(body, vocab_size)?;
    sampling.validate().map_err(|invalid| ApiError::OutOfRange {
        param: invalid.name.to_owned(),
        allowed: match invalid.allowed.split_once(" to ") {
            Some((least, greatest)) => format!("between {least} and {greatest}"),
            None => invalid.allowed.to_owned(),
        },
        got: invalid.value,
    })?;
    Ok(sampling)
}

fn read_logit_bias(body: &mut Fields, vocab_size: usize) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(fields) = body.object("logit_bias")? else { return Ok(Vec::new()) };
    let biases = fields.into_map();
    if biases.len() > NUM_BIASES_MAX {
        return Err(too_many("logit_bias", NUM_BIASES_MAX, biases.len()));
    }
    let mut read = Vec::with_capacity(biases.len());
    for (id, bias) in biases {
        let param = format!("logit_bias.{}", super::fields::quoted(&id));
        let token = id.parse::<u32>().ok().filter(|&token| (token as usize) < vocab_size).ok_or_else(|| {
            ApiError::OutOfRange {
                param: "logit_bias".to_owned(),
                allowed: format!("a map whose keys are token ids below {vocab_size}"),
                got: format!("{:?}", super::fields::quoted(&id)),
            }
        })?;
        let number = bias.as_f64().ok_or_else(|| wrong_type(param.clone(), "a number", &bias))?;
        if !(-100.0..=100.0).contains(&number) {
            let allowed = "between -100 and 100".to_owned();
            return Err(ApiError::OutOfRange { param, allowed, got: describe(&bias) });
        }
        read.push((token, number as f32));
    }
    Ok(read)
}

fn read_stops(body: &mut Fields) -> Result<Vec<String>, ApiError> {
    let list = match body.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(single) => vec![single],
    };
    if list.len() > NUM_STOPS_MAX {
        return Err(too_many("stop", NUM_STOPS_MAX, list.len()));
    }
    list.into_iter()
        .map(|stop| match stop {
            Value::String(stop) if (1..=STOP_BYTES_MAX).contains(&stop.len()) => Ok(stop),
            Value::String(stop) => Err(ApiError::OutOfRange {
                param: "stop".to_owned(),
                allowed: format!("made of strings of 1 to {STOP_BYTES_MAX} bytes"),
                got: format!("one of {}", stop.len()),
            }),
            other => Err(wrong_type("stop".to_owned(), "a string or a list of strings", &other)),
        })
        .collect()
}

fn read_stop_tokens(body: &mut Fields, vocab_size: usize) -> Result<Vec<u32>, ApiError> {
    let list = body.list("stop_token_ids")?.unwrap_or_default();
    if list.len() > NUM_STOP_TOKENS_MAX {
        return Err(too_many("stop_token_ids", NUM_STOP_TOKENS_MAX, list.len()));
    }
    list.iter().map(|token| token_of("stop_token_ids", token, vocab_size)).collect()
}

/// A token id of the vocabulary.
///
/// # Errors
/// The value is something else.
pub fn token_of(param: &str, value: &Value, vocab_size: usize) -> Result<u32, ApiError> {
    let greatest = i64::try_from(vocab_size).unwrap_or(i64::MAX).saturating_sub(1);
    let token = integer_of(param, value, 0, greatest)?;
    u32::try_from(token).map_err(|_error| wrong_type(param.to_owned(), "a token id", value))
}

/// The error for a list that is too long.
pub fn too_many(param: &str, limit: usize, got: usize) -> ApiError {
    ApiError::OutOfRange {
        param: param.to_owned(),
        allowed: format!("a list of at most {limit}"),
        got: format!("a list of {got}"),
    }
}

fn read_delivery(body: &mut Fields) -> Result<Delivery, ApiError> {
    let stream = body.flag("stream")?.unwrap_or(false);
    let options = body.object("stream_options")?;
    let mut usage = UsageReport::Omitted;
    if let Some(mut options) = options {
        if !stream {
            let reason = "stream_options needs \"stream\": true";
            return Err(ApiError::Conflict { param: "stream_options", other: "stream", reason });
        }
        if options.flag("include_usage")? == Some(true) {
            usage = UsageReport::Included;
        }
        // OpenAI pads its events against observers of encrypted traffic; there is no such padding here.
        options.finish(&["include_obfuscation"])?;
    }
    Ok(if stream { Delivery::Stream { usage } } else { Delivery::Whole })
}

fn read_timeout(body: &mut Fields) -> Result<Option<Duration>, ApiError> {
    let greatest = usize::try_from(TIMEOUT_MAX.as_millis()).unwrap_or(usize::MAX);
    Ok(body.count("timeout_ms", 1, greatest)?.map(|ms| Duration::from_millis(ms as u64)))
}

/// Refuses the fields of OpenAI's API that would need structured output, which is not there yet.
///
/// # Errors
/// One of them asks for something.
pub fn refuse_structured_output(body: &mut Fields) -> Result<(), ApiError> {
    body.refuse("response_format", &json!({"type": "text"}), "only {\"type\": \"text\"} is answered at the moment")
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCAB_SIZE: usize = 100;

    fn read(body: Value) -> Result<GenerationOptions, ApiError> {
        let mut fields = Fields::of_value(String::new(), body)?;
        let options = GenerationOptions::read(&mut fields, &GenerationConfig::default(), VOCAB_SIZE)?;
        fields.finish(IGNORED_FIELDS)?;
        Ok(options)
    }

    fn message(body: Value) -> String {
        read(body).expect_err("refused").to_string()
    }

    #[test]
    fn absent_fields_have_openais_defaults() {
        let options = read(json!({})).expect("nothing is needed");
        assert_eq!((options.sampling.temperature, options.sampling.top_p), (1.0, 1.0));
        assert_eq!((options.num_choices, options.delivery), (1, Delivery::Whole));
        assert_eq!((options.end_of_sequence, options.timeout), (EndOfSequence::Ends, None));
    }

    #[test]
    fn the_checkpoints_defaults_yield_to_the_request() {
        let defaults = GenerationConfig { temperature: Some(0.6), top_k: Some(20), ..GenerationConfig::default() };
        let mut body = Fields::of_value(String::new(), json!({"temperature": 0})).expect("an object");
        let options = GenerationOptions::read(&mut body, &defaults, VOCAB_SIZE).expect("valid");
        assert_eq!((options.sampling.temperature, options.sampling.top_k), (0.0, Some(20)));
    }

    #[test]
    fn numbers_out_of_range_name_field_range_and_value() {
        for (field, value) in [
            ("temperature", json!(-1)),
            ("temperature", json!(2.5)),
            ("top_p", json!(1.1)),
            ("top_p", json!(-0.1)),
            ("min_p", json!(2)),
            ("presence_penalty", json!(3)),
            ("frequency_penalty", json!(-3)),
            ("repetition_penalty", json!(0)),
            ("top_k", json!(-2)),
            ("n", json!(0)),
            ("n", json!(1000)),
            ("timeout_ms", json!(0)),
            ("temperature", json!(1e300)),
        ] {
            let error = read(json!({field: value})).expect_err("refused");
            let text = error.to_string();
            assert!(text.starts_with(&format!("{field} must be ")), "{text}");
            assert_eq!(error.to_json()["error"]["param"], field);
        }
        assert_eq!(message(json!({"temperature": -1})), "temperature must be between 0 and 2, got -1");
        assert_eq!(message(json!({"temperature": "hot"})), "temperature must be a number, got \"hot\"");
        assert_eq!(message(json!({"stream": 1})), "stream must be true or false, got 1");
    }

    #[test]
    fn stop_is_a_string_or_up_to_four() {
        assert_eq!(read(json!({"stop": "a"})).expect("valid").stops, ["a"]);
        assert_eq!(read(json!({"stop": ["a", "b"]})).expect("valid").stops, ["a", "b"]);
        assert!(read(json!({"stop": []})).expect("valid").stops.is_empty());
        assert!(message(json!({"stop": ""})).contains("1 to 1024 bytes"));
        assert!(message(json!({"stop": vec!["a"; 5]})).contains("at most 4"));
        assert!(message(json!({"stop": [1]})).contains("a string"));
    }

    #[test]
    fn biases_are_checked_for_token_and_range() {
        let options = read(json!({"logit_bias": {"7": -100, "8": 1.5}})).expect("valid");
        assert_eq!(options.sampling.logit_bias, [(7, -100.0), (8, 1.5)]);
        assert!(message(json!({"logit_bias": {"100": 1}})).contains("below 100"));
        assert!(message(json!({"logit_bias": {"x": 1}})).contains("\"x\""));
        assert!(message(json!({"logit_bias": {"7": 101}})).contains("logit_bias.7 must be between -100 and 100"));
        assert!(message(json!({"logit_bias": [1]})).contains("an object"));
    }

    #[test]
    fn seeds_may_be_negative() {
        assert_eq!(read(json!({"seed": -1})).expect("valid").sampling.seed, Some(u64::MAX));
        assert_eq!(read(json!({"seed": 5})).expect("valid").sampling.seed, Some(5));
    }

    #[test]
    fn stream_options_need_a_stream() {
        let usage = UsageReport::Included;
        let options = read(json!({"stream": true, "stream_options": {"include_usage": true}})).expect("valid");
        assert_eq!(options.delivery, Delivery::Stream { usage });
        assert!(message(json!({"stream_options": {"include_usage": true}})).contains("stream"));
        assert_eq!(
            message(json!({"stream": true, "stream_options": {"usage": true}})),
            "unknown field stream_options.usage"
        );
    }

    #[test]
    fn unknown_fields_are_refused_and_harmless_ones_are_not() {
        assert_eq!(message(json!({"temprature": 1})), "unknown field temprature");
        read(json!({"user": "a", "metadata": {}, "store": false, "cache_salt": "x"})).expect("ignored");
    }
}
