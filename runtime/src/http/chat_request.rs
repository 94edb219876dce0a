//! The body of `/v1/chat/completions`, read and checked field by field.

use models::GenerationConfig;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::fields::{Fields, describe, quoted, wrong_type};
use super::memory_options::MemoryOptions;
use super::messages::Conversation;
use super::options::{GenerationOptions, IGNORED_FIELDS, NUM_LOGPROBS_MAX, refuse_structured_output, too_many};

/// Most tools of one request.
pub const NUM_TOOLS_MAX: usize = 512;
/// OpenAI's fields that only hint at speed.
const IGNORED_CHAT_FIELDS: &[&str] = &["prediction"];

/// What happens when a conversation has outgrown the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncation {
    /// The request is refused.
    Error,
    /// Its oldest turns are left out until it fits; system messages and the last turn always stay.
    OldestTurns,
}

/// How the prompt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptEnding {
    /// With the opening of an answer, as usual.
    GenerationPrompt,
    /// With the last message closed; the model decides who speaks.
    Closed,
    /// Within the last message, which the answer continues.
    FinalMessageOpen,
}

/// What turns a conversation into a prompt; shared with `/tokenize`.
#[derive(Debug, Clone)]
pub struct PromptParts {
    /// Who said what.
    pub conversation: Conversation,
    /// Tools, as the client described them.
    pub tools: Option<Value>,
    /// How the prompt ends.
    pub ending: PromptEnding,
    /// Variables for the template.
    pub template_arguments: Map<String, Value>,
}

/// A chat request.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    /// Model asked for; `None`: the one that is served.
    pub model: Option<String>,
    /// The conversation and how it is rendered.
    pub prompt: PromptParts,
    /// What the two kinds of completion share.
    pub options: GenerationOptions,
    /// Upper bound of the answer; `None`: the rest of the context.
    pub max_tokens: Option<usize>,
    /// Alternatives reported with each token; `None`: no log-probabilities.
    pub num_logprobs: Option<usize>,
    /// What happens when the conversation does not fit.
    pub truncation: Truncation,
    /// What is recalled and remembered; `None`: as the server does.
    pub memory: Option<MemoryOptions>,
}

impl ChatRequest {
    /// Reads the body.
    ///
    /// # Errors
    /// A field is missing, unknown, or has a value that is not allowed.
    pub fn read(mut body: Fields, defaults: &GenerationConfig, vocab_size: usize) -> Result<Self, ApiError> {
        let model = body.text("model")?;
        let mut prompt = PromptParts::read(&mut body)?;
        if read_tool_choice(&mut body)? == ToolChoice::None {
            prompt.tools = None;
        }
        let options = GenerationOptions::read(&mut body, defaults, vocab_size)?;
        let request = Self {
            model,
            prompt,
            options,
            max_tokens: read_max_tokens(&mut body)?,
            num_logprobs: read_num_logprobs(&mut body)?,
            truncation: read_truncation(&mut body)?,
            memory: MemoryOptions::read(&mut body)?,
        };
        refuse_unsupported(&mut body)?;
        body.finish(&[IGNORED_FIELDS, IGNORED_CHAT_FIELDS].concat())?;
        Ok(request)
    }
}

impl PromptParts {
    /// Reads messages, tools and what concerns the template.
    ///
    /// # Errors
    /// One of them is not what it should be.
    pub fn read(body: &mut Fields) -> Result<Self, ApiError> {
        let conversation = Conversation::read(body)?;
        let ending = read_ending(body, &conversation)?;
        Ok(Self {
            conversation,
            tools: read_tools(body)?,
            ending,
            template_arguments: body.object("chat_template_kwargs")?.map(Fields::into_map).unwrap_or_default(),
        })
    }
}

fn read_ending(body: &mut Fields, conversation: &Conversation) -> Result<PromptEnding, ApiError> {
    let generation_prompt = body.flag("add_generation_prompt")?;
    if body.flag("continue_final_message")? != Some(true) {
        return Ok(match generation_prompt {
            Some(false) => PromptEnding::Closed,
            Some(true) | None => PromptEnding::GenerationPrompt,
        });
    }
    let conflict =
        |reason| ApiError::Conflict { param: "continue_final_message", other: "add_generation_prompt", reason };
    if generation_prompt != Some(false) {
        return Err(conflict("the final message can be continued only with \"add_generation_prompt\": false"));
    }
    if !conversation.ends_with_assistant() {
        return Err(ApiError::OutOfRange {
            param: "continue_final_message".to_owned(),
            allowed: "false unless the last message is the assistant's".to_owned(),
            got: "true".to_owned(),
        });
    }
    Ok(PromptEnding::FinalMessageOpen)
}

fn read_tools(body: &mut Fields) -> Result<Option<Value>, ApiError> {
    let Some(tools) = body.list("tools")?.filter(|tools| !tools.is_empty()) else { return Ok(None) };
    if tools.len() > NUM_TOOLS_MAX {
        return Err(too_many("tools", NUM_TOOLS_MAX, tools.len()));
    }
    for (index, tool) in tools.iter().enumerate() {
        let kind = tool.get("type");
        if kind.and_then(Value::as_str) != Some("function") {
            return Err(ApiError::OutOfRange {
                param: format!("tools[{index}].type"),
                allowed: "\"function\"".to_owned(),
                got: kind.map_or_else(|| "nothing".to_owned(), describe),
            });
        }
        if tool.pointer("/function/name").and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(ApiError::Missing { param: format!("tools[{index}].function.name") });
        }
    }
    Ok(Some(Value::Array(tools)))
}

#[derive(PartialEq, Eq)]
enum ToolChoice {
    None,
    Auto,
}

fn read_tool_choice(body: &mut Fields) -> Result<ToolChoice, ApiError> {
    match body.take("tool_choice") {
        None => Ok(ToolChoice::Auto),
        Some(Value::String(choice)) if choice == "auto" => Ok(ToolChoice::Auto),
        Some(Value::String(choice)) if choice == "none" => Ok(ToolChoice::None),
        Some(Value::String(choice)) if choice != "required" => Err(ApiError::OutOfRange {
            param: "tool_choice".to_owned(),
            allowed: "\"none\" or \"auto\"".to_owned(),
            got: format!("{:?}", quoted(&choice)),
        }),
        Some(Value::String(_) | Value::Object(_)) => Err(ApiError::Unsupported {
            param: "tool_choice".to_owned(),
            reason: "a tool cannot be forced before structured output is there; use \"auto\" or \"none\"",
        }),
        Some(other) => Err(wrong_type("tool_choice".to_owned(), "a string or an object", &other)),
    }
}

fn read_max_tokens(body: &mut Fields) -> Result<Option<usize>, ApiError> {
    let older = body.count("max_tokens", 1, usize::MAX)?;
    let newer = body.count("max_completion_tokens", 1, usize::MAX)?;
    if let (Some(older), Some(newer)) = (older, newer)
        && older != newer
    {
        let reason = "they are two names for one limit and differ";
        return Err(ApiError::Conflict { param: "max_completion_tokens", other: "max_tokens", reason });
    }
    Ok(newer.or(older))
}

fn read_num_logprobs(body: &mut Fields) -> Result<Option<usize>, ApiError> {
    let wanted = body.flag("logprobs")?.unwrap_or(false);
    let num_top = body.count("top_logprobs", 0, NUM_LOGPROBS_MAX)?;
    match (wanted, num_top) {
        (true, num_top) => Ok(Some(num_top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            let reason = "top_logprobs needs \"logprobs\": true";
            Err(ApiError::Conflict { param: "top_logprobs", other: "logprobs", reason })
        }
    }
}

fn read_truncation(body: &mut Fields) -> Result<Truncation, ApiError> {
    match body.text("truncation")?.as_deref() {
        None | Some("error") => Ok(Truncation::Error),
        Some("oldest_turns") => Ok(Truncation::OldestTurns),
        Some(other) => Err(ApiError::OutOfRange {
            param: "truncation".to_owned(),
            allowed: "\"error\" or \"oldest_turns\"".to_owned(),
            got: format!("{:?}", quoted(other)),
        }),
    }
}

fn refuse_unsupported(body: &mut Fields) -> Result<(), ApiError> {
    refuse_structured_output(body)?;
    body.refuse("modalities", &serde_json::json!(["text"]), "only text is answered")?;
    body.refuse("audio", &Value::Null, "only text is answered")?;
    body.refuse("functions", &Value::Null, "it was replaced by tools")?;
    body.refuse("function_call", &Value::Null, "it was replaced by tool_choice")?;
    body.refuse("web_search_options", &Value::Null, "there is no web search")?;
    body.refuse(
        "reasoning_effort",
        &Value::Null,
        "models differ; pass what the template knows in chat_template_kwargs",
    )?;
    body.refuse("verbosity", &Value::Null, "say in a message how long the answer should be")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(mut body: Value) -> Result<ChatRequest, ApiError> {
        if body.get("messages").is_none() {
            body["messages"] = json!([{"role": "user", "content": "hi"}]);
        }
        ChatRequest::read(Fields::of_value(String::new(), body)?, &GenerationConfig::default(), 100)
    }

    fn message(body: Value) -> String {
        read(body).expect_err("refused").to_string()
    }

    #[test]
    fn a_minimal_request_has_the_defaults() {
        let request = read(json!({"model": "m"})).expect("valid");
        assert_eq!(request.model.as_deref(), Some("m"));
        assert_eq!((request.max_tokens, request.num_logprobs), (None, None));
        assert_eq!((request.truncation, request.prompt.ending), (Truncation::Error, PromptEnding::GenerationPrompt));
    }

    #[test]
    fn the_two_token_limits_must_agree() {
        assert_eq!(read(json!({"max_tokens": 5})).expect("valid").max_tokens, Some(5));
        assert_eq!(read(json!({"max_tokens": 5, "max_completion_tokens": 5})).expect("valid").max_tokens, Some(5));
        assert!(message(json!({"max_tokens": 5, "max_completion_tokens": 6})).contains("max_tokens"));
        assert_eq!(message(json!({"max_tokens": 0})), "max_tokens must be a whole number of at least 1, got 0");
    }

    #[test]
    fn top_logprobs_need_logprobs() {
        assert_eq!(read(json!({"logprobs": true})).expect("valid").num_logprobs, Some(0));
        assert_eq!(read(json!({"logprobs": true, "top_logprobs": 20})).expect("valid").num_logprobs, Some(20));
        assert_eq!(read(json!({"logprobs": false, "top_logprobs": 0})).expect("valid").num_logprobs, None);
        assert!(message(json!({"top_logprobs": 3})).contains("logprobs"));
        assert!(message(json!({"logprobs": true, "top_logprobs": 21})).contains("between 0 and 20"));
        assert_eq!(message(json!({"logprobs": 3})), "logprobs must be true or false, got 3");
    }

    #[test]
    fn what_needs_structured_output_is_refused_clearly() {
        assert!(read(json!({"response_format": {"type": "text"}})).is_ok());
        assert!(
            message(json!({"response_format": {"type": "json_object"}})).contains("response_format is not supported")
        );
        assert!(message(json!({"tool_choice": "required"})).contains("tool_choice is not supported"));
        assert!(message(json!({"tool_choice": {"type": "function"}})).contains("tool_choice is not supported"));
        assert!(message(json!({"tool_choice": "maybe"})).contains("\"none\" or \"auto\""));
        assert!(message(json!({"functions": []})).contains("tools"));
    }

    #[test]
    fn tools_reach_the_template_unless_they_must_not_be_used() {
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
        assert_eq!(read(json!({"tools": tools})).expect("valid").prompt.tools, Some(tools.clone()));
        assert_eq!(read(json!({"tools": tools, "tool_choice": "none"})).expect("valid").prompt.tools, None);
        assert!(message(json!({"tools": [{"type": "function"}]})).contains("tools[0].function.name"));
        assert!(message(json!({"tools": [{}]})).contains("tools[0].type"));
    }

    #[test]
    fn only_an_assistants_message_can_be_continued() {
        let messages = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
        let body = json!({"messages": messages, "continue_final_message": true, "add_generation_prompt": false});
        assert_eq!(read(body).expect("valid").prompt.ending, PromptEnding::FinalMessageOpen);
        assert!(
            message(json!({"messages": messages, "continue_final_message": true})).contains("add_generation_prompt")
        );
        assert!(message(json!({"continue_final_message": true, "add_generation_prompt": false})).contains("assistant"));
        assert_eq!(read(json!({"add_generation_prompt": false})).expect("valid").prompt.ending, PromptEnding::Closed);
    }

    #[test]
    fn the_overflow_policy_is_one_of_two() {
        assert_eq!(read(json!({"truncation": "oldest_turns"})).expect("valid").truncation, Truncation::OldestTurns);
        assert!(message(json!({"truncation": "newest"})).contains("\"error\" or \"oldest_turns\""));
    }

    #[test]
    fn unknown_fields_are_named() {
        assert_eq!(message(json!({"max_token": 5})), "unknown field max_token");
        assert!(read(json!({"user": "u", "parallel_tool_calls": true, "prediction": {}})).is_ok());
    }
}
