//! What a load run sends and when: prompts (random or from a file), answer lengths, arrival times. All of it is seeded.

use std::io::{BufRead, Read};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::random::Random;

/// Streams of [`Random`] by purpose.
const STREAM_ARRIVALS: u64 = 0;
const STREAM_SHARED_PREFIX: u64 = 1;
const STREAM_PROMPTS: u64 = 2;
/// Longest line of a dataset file.
const DATASET_LINE_BYTES_MAX: u64 = 4 << 20;
/// Syllables of made-up words; each word costs most tokenizers one or two tokens.
const SYLLABLES: [&str; 16] =
    ["ba", "ce", "di", "fo", "gu", "ha", "ke", "li", "mo", "nu", "pa", "re", "si", "to", "vu", "we"];

/// A dataset file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not a prompt.
    #[error("{}, line {line}: {problem}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no line at all.
    #[error("{} holds no prompt", .0.display())]
    Empty(PathBuf),
}

/// One prompt as it goes into a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Plain text; `system` is the part that all requests share, when there is one.
    Text {
        /// Shared beginning.
        system: Option<String>,
        /// The rest.
        text: String,
    },
    /// Token ids, for `/v1/completions`.
    Tokens(Vec<u32>),
    /// A list of OpenAI messages, for `/v1/chat/completions`.
    Messages(Value),
}

/// How random prompts are made.
#[derive(Debug, Clone)]
pub struct RandomPrompts {
    /// Everything is drawn from it.
    pub seed: u64,
    /// Tokens (or words) that are the same in all prompts.
    pub shared_prefix_len: usize,
    /// Tokens (or words) that are a prompt's own.
    pub input_len: NonZeroUsize,
    /// `Some`: token ids from this range; `None`: made-up words.
    pub token_ids: Option<Range<u32>>,
}

impl RandomPrompts {
    /// The `index`-th prompt; it does not depend on how many others are made.
    pub fn prompt(&self, index: usize) -> Prompt {
        let mut shared = Random::new(self.seed, STREAM_SHARED_PREFIX);
        let mut own = Random::new(self.seed, STREAM_PROMPTS + index as u64);
        match &self.token_ids {
            Some(range) => {
                let mut tokens = shared.tokens(self.shared_prefix_len, range.clone());
                tokens.extend(own.tokens(self.input_len.get(), range.clone()));
                Prompt::Tokens(tokens)
            }
            None => Prompt::Text {
                system: (self.shared_prefix_len > 0).then(|| words(&mut shared, self.shared_prefix_len)),
                text: words(&mut own, self.input_len.get()),
            },
        }
    }
}

fn words(random: &mut Random, count: usize) -> String {
    let mut syllable = || SYLLABLES[random.below(0..SYLLABLES.len() as u32) as usize];
    let words: Vec<String> = (0..count).map(|_| format!("{}{}", syllable(), syllable())).collect();
    words.join(" ")
}

/// Reads prompts from JSON Lines: a JSON string, `{"prompt": TEXT}`, `{"prompt": [TOKEN, ...]}` or
/// `{"messages": [...]}` a line; other fields are ignored.
///
/// # Errors
/// See [`DatasetError`]; a wrong line is named by its number.
pub fn read_dataset(path: &Path) -> Result<Vec<Prompt>, DatasetError> {
    let io_error = |source| DatasetError::Io { path: path.to_owned(), source };
    let mut reader = std::io::BufReader::new(std::fs::File::open(path).map_err(io_error)?);
    let mut prompts = Vec::new();
    for line in 1.. {
        let mut bytes = Vec::new();
        let len =
            Read::by_ref(&mut reader).take(DATASET_LINE_BYTES_MAX).read_until(b'\n', &mut bytes).map_err(io_error)?;
        if len == 0 {
            break;
        }
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let problem = |problem| DatasetError::Line { path: path.to_owned(), line, problem };
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| problem(error.to_string()))?;
        prompts.push(prompt_of(value).map_err(problem)?);
    }
    if prompts.is_empty() { Err(DatasetError::Empty(path.to_owned())) } else { Ok(prompts) }
}

fn prompt_of(mut line: Value) -> Result<Prompt, String> {
    if let Some(messages @ Value::Array(_)) = line.get_mut("messages").map(Value::take) {
        return Ok(Prompt::Messages(messages));
    }
    let prompt = match line.get_mut("prompt") {
        Some(prompt) => prompt.take(),
        None => line,
    };
    match prompt {
        Value::String(text) => Ok(Prompt::Text { system: None, text }),
        tokens @ Value::Array(_) => serde_json::from_value(tokens)
            .map(Prompt::Tokens)
            .map_err(|error| format!("`prompt` is not a list of token ids: {error}")),
        _ => Err("expected a string, or an object with `prompt` or `messages`".to_owned()),
    }
}

/// Arrival times of a Poisson process: independent exponential gaps with the mean `1 / rate_per_s`.
/// The first request arrives at once.
///
/// # Panics
/// When the rate is not a positive number.
pub fn poisson_arrivals(seed: u64, rate_per_s: f64, count: usize) -> Vec<Duration> {
    assert!(rate_per_s.is_finite() && rate_per_s > 0.0, "{rate_per_s} is not a rate");
    let mut random = Random::new(seed, STREAM_ARRIVALS);
    let mut at_s = 0.0;
    let mut arrivals = Vec::with_capacity(count);
    for _request in 0..count {
        arrivals.push(Duration::from_secs_f64(at_s));
        at_s -= random.unit().ln() / rate_per_s;
    }
    arrivals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random_prompts(token_ids: Option<Range<u32>>) -> RandomPrompts {
        RandomPrompts { seed: 1, shared_prefix_len: 5, input_len: NonZeroUsize::new(7).expect("not zero"), token_ids }
    }

    #[test]
    fn prompts_share_their_prefix_and_nothing_else() {
        let prompts = random_prompts(Some(300..100_000));
        let (Prompt::Tokens(first), Prompt::Tokens(second)) = (prompts.prompt(0), prompts.prompt(1)) else {
            panic!("token ids were asked for")
        };
        assert_eq!((first.len(), second.len()), (12, 12));
        assert_eq!(first[..5], second[..5]);
        assert!(first[5..].iter().zip(&second[5..]).all(|(a, b)| a != b), "{first:?} {second:?}");
        assert_eq!(prompts.prompt(0), Prompt::Tokens(first));
    }

    #[test]
    fn words_put_the_shared_part_into_the_system_turn() {
        let Prompt::Text { system: Some(system), text } = random_prompts(None).prompt(3) else {
            panic!("words with a shared prefix")
        };
        assert_eq!((system.split(' ').count(), text.split(' ').count()), (5, 7));
    }

    #[test]
    fn poisson_gaps_have_the_mean_of_the_rate_and_their_own_spread() {
        let seed = 11;
        let arrivals = poisson_arrivals(seed, 50.0, 20_001);
        assert_eq!(arrivals[0], Duration::ZERO);
        let gaps: Vec<f64> = arrivals.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // For an exponential distribution the deviation equals the mean; 20,000 samples give both to about 2%.
        assert!((mean * 50.0 - 1.0).abs() < 0.03, "seed {seed}: mean {mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "seed {seed}: deviation {}", variance.sqrt());
        assert_eq!(arrivals, poisson_arrivals(seed, 50.0, 20_001));
    }

    #[test]
    fn every_kind_of_dataset_line_is_read_and_a_wrong_one_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("prompts.jsonl");
        let lines =
            "\"hi\"\n{\"prompt\": \"ho\", \"id\": 1}\n\n{\"prompt\": [1, 2]}\n{\"messages\": [{\"role\": \"user\"}]}";
        std::fs::write(&path, lines).expect("written");
        let prompts = read_dataset(&path).expect("four prompts");
        let text = |text: &str| Prompt::Text { system: None, text: text.to_owned() };
        let messages = Prompt::Messages(serde_json::json!([{"role": "user"}]));
        assert_eq!(prompts, [text("hi"), text("ho"), Prompt::Tokens(vec![1, 2]), messages]);

        std::fs::write(&path, "\"hi\"\n{\"prompt\": [-1]}\n").expect("written");
        assert!(matches!(read_dataset(&path), Err(DatasetError::Line { line: 2, .. })));
        std::fs::write(&path, "\n").expect("written");
        assert!(matches!(read_dataset(&path), Err(DatasetError::Empty(_))));
        assert!(matches!(read_dataset(&folder.path().join("none")), Err(DatasetError::Io { .. })));
    }
}
