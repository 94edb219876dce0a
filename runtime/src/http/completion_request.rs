//! The body of `/v1/completions`, read and checked field by field.

use models::GenerationConfig;
use serde_json::Value;

use super::error::ApiError;
use super::fields::{Fields, quoted, wrong_type};
use super::options::{
    GenerationOptions, IGNORED_FIELDS, NUM_LOGPROBS_MAX, refuse_structured_output, token_of, too_many,
};

/// Most sequences of one request: prompts times `n`.
pub const NUM_SEQUENCES_MAX: usize = 1024;
/// OpenAI's default length of a text completion.
pub const MAX_TOKENS_DEFAULT: usize = 16;

/// One prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptInput {
    /// Text, to be tokenised.
    Text(String),
    /// Token ids, used as they are.
    Tokens(Vec<u32>),
}

/// Whether a tokenizer adds what the model expects around a text, such as a beginning-of-sequence token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddSpecialTokens {
    /// It does, as usual.
    Add,
    /// It encodes the text alone.
    Skip,
}

/// Whether the answer repeats the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// The text begins with the prompt, and log-probabilities cover it.
    Prompt,
    /// The text is what was generated.
    Nothing,
}

/// How long an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerLen {
    /// What the client said; it must fit.
    Given(usize),
    /// The client said nothing: at most this, or what still fits.
    Default(usize),
}

/// A text completion request.
#[derive(Debug, Clone)]
pub struct CompletionRequest {
    /// Model asked for; `None`: the one that is served.
    pub model: Option<String>,
    /// The prompts, at least one.
    pub prompts: Vec<PromptInput>,
    /// What the two kinds of completion share.
    pub options: GenerationOptions,
    /// Upper bound of each answer.
    pub answer_len: AnswerLen,
    /// Alternatives reported with each token; `None`: no log-probabilities.
    pub num_logprobs: Option<usize>,
    /// Whether the prompt is repeated.
    pub echo: Echo,
    /// What the tokenizer adds to text prompts.
    pub special_tokens: AddSpecialTokens,
    /// Only this many tokens at the end of each prompt are used.
    pub prompt_tokens_max: Option<usize>,
}

impl CompletionRequest {
    /// Reads the body.
    ///
    /// # Errors
    /// A field is missing, unknown, or has a value that is not allowed.
    pub fn read(mut body: Fields, defaults: &GenerationConfig, vocab_size: usize) -> Result<Self, ApiError> {
        let model = body.text("model")?;
        let prompts = read_prompts(&mut body, vocab_size)?;
        let options = GenerationOptions::read(&mut body, defaults, vocab_size)?;
        if prompts.len() * options.num_choices > NUM_SEQUENCES_MAX {
            let limit = NUM_SEQUENCES_MAX;
            return Err(ApiError::QueueTooSmall { num_choices: prompts.len() * options.num_choices, limit });
        }
        let request = Self {
            model,
            prompts,
            answer_len: match body.count("max_tokens", 0, usize::MAX)? {
                Some(max_tokens) => AnswerLen::Given(max_tokens),
                None => AnswerLen::Default(MAX_TOKENS_DEFAULT),
            },
            num_logprobs: body.count("logprobs", 0, NUM_LOGPROBS_MAX)?,
            echo: if body.flag("echo")? == Some(true) { Echo::Prompt } else { Echo::Nothing },
            special_tokens: read_special_tokens(&mut body)?,
            prompt_tokens_max: body.count("truncate_prompt_tokens", 1, usize::MAX)?,
            options,
        };
        check_best_of(&mut body, request.options.num_choices)?;
        check_truncation(&mut body)?;
        body.refuse("suffix", &Value::String(String::new()), "text is only generated after the prompt")?;
        refuse_structured_output(&mut body)?;
        body.finish(IGNORED_FIELDS)?;
        Ok(request)
    }
}

/// Reads `add_special_tokens`; shared with `/tokenize`.
///
/// # Errors
/// It is not a flag.
pub fn read_special_tokens(body: &mut Fields) -> Result<AddSpecialTokens, ApiError> {
    Ok(match body.flag("add_special_tokens")? {
        Some(false) => AddSpecialTokens::Skip,
        Some(true) | None => AddSpecialTokens::Add,
    })
}

/// A string, a list of strings, a list of token ids, or a list of lists of token ids.
fn read_prompts(body: &mut Fields, vocab_size: usize) -> Result<Vec<PromptInput>, ApiError> {
    let list = match body.require("prompt")? {
        Value::String(text) => return Ok(vec![PromptInput::Text(text)]),
        Value::Array(list) => list,
        other => return Err(wrong_type("prompt".to_owned(), "a string or a list", &other)),
    };
    match list.first() {
        None => Err(ApiError::OutOfRange {
            param: "prompt".to_owned(),
            allowed: "a list that is not empty".to_owned(),
            got: "a list of 0".to_owned(),
        }),
        Some(Value::Number(_)) => Ok(vec![PromptInput::Tokens(read_tokens("prompt", &list, vocab_size)?)]),
        Some(_) if list.len() > NUM_SEQUENCES_MAX => Err(too_many("prompt", NUM_SEQUENCES_MAX, list.len())),
        Some(_) => list
            .into_iter()
            .enumerate()
            .map(|(index, prompt)| match prompt {
                Value::String(text) => Ok(PromptInput::Text(text)),
                Value::Array(tokens) => {
                    Ok(PromptInput::Tokens(read_tokens(&format!("prompt[{index}]"), &tokens, vocab_size)?))
                }
                other => Err(wrong_type(format!("prompt[{index}]"), "a string or a list of token ids", &other)),
            })
            .collect(),
    }
}

/// A list of token ids of the vocabulary.
///
/// # Errors
/// One of them is something else.
pub fn read_tokens(param: &str, list: &[Value], vocab_size: usize) -> Result<Vec<u32>, ApiError> {
    let read = |(index, token): (usize, &Value)| match token {
        // The common case allocates no name.
        Value::Number(number) if number.as_u64().is_some_and(|token| token < vocab_size as u64) => {
            token_of(param, token, vocab_size)
        }
        _ => token_of(&format!("{param}[{index}]"), token, vocab_size),
    };
    list.iter().enumerate().map(read).collect()
}

fn check_best_of(body: &mut Fields, num_choices: usize) -> Result<(), ApiError> {
    match body.count("best_of", 1, usize::MAX)? {
        Some(best_of) if best_of != num_choices => {
            let reason = "every choice is returned, so best_of can only equal n";
            Err(ApiError::Conflict { param: "best_of", other: "n", reason })
        }
        _ => Ok(()),
    }
}

fn check_truncation(body: &mut Fields) -> Result<(), ApiError> {
    match body.text("truncation")?.as_deref() {
        None | Some("error") => Ok(()),
        Some(other) => Err(ApiError::OutOfRange {
            param: "truncation".to_owned(),
            allowed: "\"error\" here (a text has no turns; truncate_prompt_tokens cuts its beginning)".to_owned(),
            got: format!("{:?}", quoted(other)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(mut body: Value) -> Result<CompletionRequest, ApiError> {
        if body.get("prompt").is_none() {
            body["prompt"] = json!("hi");
        }
        CompletionRequest::read(Fields::of_value(String::new(), body)?, &GenerationConfig::default(), 100)
    }

    fn message(body: Value) -> String {
        read(body).expect_err("refused").to_string()
    }

    #[test]
    fn a_prompt_has_four_forms() {
        let prompts = |prompt: Value| read(json!({"prompt": prompt})).expect("valid").prompts;
        let text = |text: &str| PromptInput::Text(text.to_owned());
        assert_eq!(prompts(json!("a")), [text("a")]);
        assert_eq!(prompts(json!(["a", "b"])), [text("a"), text("b")]);
        assert_eq!(prompts(json!([1, 2])), [PromptInput::Tokens(vec![1, 2])]);
        assert_eq!(prompts(json!([[1], [2, 3]])), [PromptInput::Tokens(vec![1]), PromptInput::Tokens(vec![2, 3])]);
    }

    #[test]
    fn wrong_prompts_are_named_with_their_place() {
        assert!(message(json!({"prompt": []})).contains("not empty"));
        assert!(message(json!({"prompt": 5})).contains("prompt must be a string or a list, got 5"));
        assert!(
            message(json!({"prompt": [1, 100]})).contains("prompt[1] must be a whole number between 0 and 99, got 100")
        );
        assert!(message(json!({"prompt": [1, -1]})).contains("prompt[1]"));
        assert!(message(json!({"prompt": [1, "a"]})).contains("prompt[1] must be a whole number, got \"a\""));
        assert!(message(json!({"prompt": ["a", 1]})).contains("prompt[1] must be a string"));
        assert!(message(json!({"prompt": [[1], [2.5]]})).contains("prompt[1][0]"));
        assert!(message(json!({"prompt": vec!["a"; 1025]})).contains("at most 1024"));
        assert!(message(json!({"prompt": vec!["a"; 512], "n": 3})).contains("1536 sequences"));
        assert!(message(json!({"prompt": null})).contains("prompt is required"));
    }

    #[test]
    fn lengths_have_openais_default() {
        assert_eq!(read(json!({})).expect("valid").answer_len, AnswerLen::Default(16));
        assert_eq!(read(json!({"max_tokens": 0})).expect("valid").answer_len, AnswerLen::Given(0));
        assert!(message(json!({"max_tokens": -1})).contains("at least 0"));
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        assert!(message(json!({"suffix": "x"})).contains("suffix"));
        assert!(read(json!({"suffix": ""})).is_ok());
        assert!(message(json!({"best_of": 2})).contains("best_of"));
        assert!(read(json!({"best_of": 2, "n": 2})).is_ok());
        assert!(message(json!({"logprobs": 21})).contains("between 0 and 20"));
        assert!(message(json!({"logprobs": true})).contains("a whole number"));
        assert!(message(json!({"truncation": "oldest_turns"})).contains("truncate_prompt_tokens"));
        assert_eq!(message(json!({"prompts": "x"})), "unknown field prompts");
    }
}
