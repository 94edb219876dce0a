//! The messages of a chat request: checked, brought into the one form that templates understand, and grouped into turns.

use memory::ingest;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::fields::{Fields, describe, quoted, wrong_type};

/// Most messages of one request.
pub const NUM_MESSAGES_MAX: usize = 10_000;
/// Fields of a message that clients echo from an answer and that mean nothing on the way in.
const IGNORED_MESSAGE_FIELDS: &[&str] = &["refusal", "annotations"];

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// A conversation in the form that templates take: roles system, user, assistant and tool, content as a string.
#[derive(Debug, Clone)]
pub struct Conversation {
    messages: Vec<(Role, Value)>,
}

impl Conversation {
    /// Reads the field `messages`.
    ///
    /// # Errors
    /// It is missing, empty, too long, or a message is not what it should be.
    pub fn read(body: &mut Fields) -> Result<Self, ApiError> {
        let list = match body.require("messages")? {
            Value::Array(list) => list,
            other => return Err(wrong_type("messages".to_owned(), "a list of messages", &other)),
        };
        if list.is_empty() || list.len() > NUM_MESSAGES_MAX {
            return Err(ApiError::OutOfRange {
                param: "messages".to_owned(),
                allowed: format!("a list of 1 to {NUM_MESSAGES_MAX}"),
                got: format!("a list of {}", list.len()),
            });
        }
        let read = |(index, message)| read_message(format!("messages[{index}]"), message);
        Ok(Self { messages: list.into_iter().enumerate().map(read).collect::<Result<_, _>>()? })
    }

    /// The messages as the template sees them.
    pub fn to_json(&self) -> Value {
        Value::Array(self.messages.iter().map(|(_role, message)| message.clone()).collect())
    }

    /// Who said what, without what belongs to tools and templates.
    pub fn turns(&self) -> Vec<ingest::Turn> {
        let text = |message: &Value| message["content"].as_str().unwrap_or_default().to_owned();
        self.messages
            .iter()
            .map(|(role, message)| ingest::Turn { role: role.in_memory(), text: text(message) })
            .collect()
    }

    /// The conversation with memories in its system turn: behind the instructions, after a blank line. Where it does not
    /// begin with instructions, the memories are a system turn of their own.
    pub fn with_memories(mut self, block: &str) -> Self {
        match self.messages.first_mut() {
            Some((Role::System, message)) => {
                let instructions = message["content"].as_str().unwrap_or_default();
                let content =
                    if instructions.is_empty() { block.to_owned() } else { format!("{instructions}\n\n{block}") };
                message["content"] = Value::String(content);
            }
            _ => self.messages.insert(0, (Role::System, json!({"role": "system", "content": block}))),
        }
        self
    }

    /// Number of messages.
    pub fn num_messages(&self) -> usize {
        self.messages.len()
    }

    /// Whether the last message is the assistant's, so that it can be continued.
    pub fn ends_with_assistant(&self) -> bool {
        matches!(self.messages.last(), Some((Role::Assistant, _)))
    }

    /// How many turns can be dropped: all but the last. A turn is a user message and what follows it up to the next
    /// user message.
    pub fn num_droppable_turns(&self) -> usize {
        self.turn_starts().len().saturating_sub(1)
    }

    /// The conversation without its oldest turns. System messages stay where they are.
    pub fn without_oldest_turns(&self, num_turns: usize) -> Self {
        if num_turns == 0 {
            return self.clone();
        }
        let first_kept = self.turn_starts().get(num_turns).copied().unwrap_or(self.messages.len());
        let kept = |(index, (role, _)): &(usize, &(Role, Value))| *index >= first_kept || *role == Role::System;
        Self { messages: self.messages.iter().enumerate().filter(kept).map(|(_, message)| message.clone()).collect() }
    }

    /// Index of the first message of every turn. What the assistant says before the first user message belongs to
    /// the first turn.
    fn turn_starts(&self) -> Vec<usize> {
        let mut starts: Vec<usize> =
            self.messages.iter().enumerate().filter(|(_, (role, _))| *role == Role::User).map(|(i, _)| i).collect();
        if let Some(first) = starts.first_mut() {
            *first = 0;
        }
        starts
    }
}

fn read_message(path: String, message: Value) -> Result<(Role, Value), ApiError> {
    let mut fields = Fields::of_value(path, message)?;
    let role = read_role(&mut fields)?;
    let content = read_content(&mut fields)?;
    let tool_calls = if role == Role::Assistant { read_tool_calls(&mut fields)? } else { None };
    let mut read = Map::new();
    read.insert("role".to_owned(), json!(role.as_str()));
    match (content, &tool_calls) {
        (Some(content), _) => read.insert("content".to_owned(), Value::String(content)),
        // Templates join contents with text; an empty one is what they expect of a message that only calls tools.
        (None, Some(_)) => read.insert("content".to_owned(), json!("")),
        (None, None) => return Err(ApiError::Missing { param: fields.name("content") }),
    };
    if let Some(tool_calls) = tool_calls {
        read.insert("tool_calls".to_owned(), tool_calls);
    }
    let mut texts = vec!["name"];
    match role {
        Role::Tool => texts.push("tool_call_id"),
        Role::Assistant => texts.push("reasoning_content"),
        Role::System | Role::User => {}
    }
    for field in texts {
        if let Some(text) = fields.text(field)? {
            read.insert(field.to_owned(), Value::String(text));
        }
    }
    fields.finish(IGNORED_MESSAGE_FIELDS)?;
    Ok((role, Value::Object(read)))
}

impl Role {
    fn in_memory(self) -> ingest::Role {
        match self {
            Self::System => ingest::Role::System,
            Self::User => ingest::Role::User,
            Self::Assistant => ingest::Role::Assistant,
            Self::Tool => ingest::Role::Tool,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

fn read_role(fields: &mut Fields) -> Result<Role, ApiError> {
    match fields.require("role")? {
        Value::String(role) => match role.as_str() {
            // "developer" is OpenAI's newer name for "system"; templates know the older one.
            "system" | "developer" => Ok(Role::System),
            "user" => Ok(Role::User),
            "assistant" => Ok(Role::Assistant),
            "tool" => Ok(Role::Tool),
            other => Err(ApiError::OutOfRange {
                param: fields.name("role"),
                allowed: "system, developer, user, assistant or tool".to_owned(),
                got: format!("{:?}", quoted(other)),
            }),
        },
        other => Err(wrong_type(fields.name("role"), "a string", &other)),
    }
}

/// A string, or parts of type text, which are joined by line breaks as vLLM does.
fn read_content(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    let name = fields.name("content");
    match fields.take("content") {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Array(parts)) => {
            let read = |(index, part)| read_part(format!("{name}[{index}]"), part);
            let texts: Vec<String> = parts.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
            Ok(Some(texts.join("\n")))
        }
        Some(other) => Err(wrong_type(name, "a string or a list of parts", &other)),
    }
}

fn read_part(path: String, part: Value) -> Result<String, ApiError> {
    let mut fields = Fields::of_value(path, part)?;
    match fields.require("type")? {
        Value::String(kind) if kind == "text" => {}
        other => {
            let allowed = "\"text\" (this server takes no images, audio or files)".to_owned();
            return Err(ApiError::OutOfRange { param: fields.name("type"), allowed, got: describe(&other) });
        }
    }
    let text = fields.text("text")?.ok_or_else(|| ApiError::Missing { param: fields.name("text") })?;
    fields.finish(&["annotations"])?;
    Ok(text)
}

/// Tool calls with their arguments parsed: OpenAI sends them as a string of JSON, templates print them as an object.
fn read_tool_calls(fields: &mut Fields) -> Result<Option<Value>, ApiError> {
    let name = fields.name("tool_calls");
    let Some(list) = fields.list("tool_calls")? else { return Ok(None) };
    if list.is_empty() {
        return Ok(None);
    }
    let read = |(index, call)| read_tool_call(format!("{name}[{index}]"), call);
    Ok(Some(Value::Array(list.into_iter().enumerate().map(read).collect::<Result<_, _>>()?)))
}

fn read_tool_call(path: String, call: Value) -> Result<Value, ApiError> {
    let mut fields = Fields::of_value(path, call)?;
    let id = fields.text("id")?;
    if let Some(kind) = fields.text("type")?
        && kind != "function"
    {
        let allowed = "\"function\"".to_owned();
        return Err(ApiError::OutOfRange { param: fields.name("type"), allowed, got: quoted(&kind) });
    }
    let mut function =
        fields.object("function")?.ok_or_else(|| ApiError::Missing { param: fields.name("function") })?;
    fields.finish(&["index"])?;
    let name = function.text("name")?.ok_or_else(|| ApiError::Missing { param: function.name("name") })?;
    let arguments_name = function.name("arguments");
    let arguments = match function.take("arguments") {
        None => json!({}),
        Some(Value::Object(arguments)) => Value::Object(arguments),
        Some(Value::String(text)) if text.trim().is_empty() => json!({}),
        Some(Value::String(text)) => serde_json::from_str(&text).map_err(|error| ApiError::OutOfRange {
            param: arguments_name,
            allowed: "a string of JSON".to_owned(),
            got: error.to_string(),
        })?,
        Some(other) => return Err(wrong_type(arguments_name, "a string of JSON", &other)),
    };
    function.finish(&[])?;
    let mut read = Map::new();
    if let Some(id) = id {
        read.insert("id".to_owned(), Value::String(id));
    }
    read.insert("type".to_owned(), json!("function"));
    read.insert("function".to_owned(), json!({"name": name, "arguments": arguments}));
    Ok(Value::Object(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(messages: Value) -> Result<Conversation, ApiError> {
        Conversation::read(&mut Fields::of_value(String::new(), json!({"messages": messages}))?)
    }

    fn message(messages: Value) -> String {
        read(messages).expect_err("refused").to_string()
    }

    #[test]
    fn content_is_a_string_or_text_parts() {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        let conversation =
            read(json!([{"role": "developer", "content": "s"}, {"role": "user", "content": parts}])).expect("valid");
        let expected = json!([{"role": "system", "content": "s"}, {"role": "user", "content": "a\nb"}]);
        assert_eq!(conversation.to_json(), expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        assert_eq!(message(json!([])), "messages must be a list of 1 to 10000, got a list of 0");
        assert_eq!(message(json!("hi")), "messages must be a list of messages, got \"hi\"");
        assert_eq!(message(json!([{"content": "x"}])), "messages[0].role is required");
        assert_eq!(message(json!([{"role": "user"}])), "messages[0].content is required");
        assert!(message(json!([{"role": "robot", "content": "x"}])).starts_with("messages[0].role must be system"));
        let image = json!([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]);
        let text = message(json!([{"role": "user", "content": image}]));
        assert!(
            text.starts_with("messages[0].content[1].type must be \"text\"") && text.contains("image_url"),
            "{text}"
        );
        assert_eq!(
            message(json!([{"role": "user", "content": 5}])),
            "messages[0].content must be a string or a list of parts, got 5"
        );
        assert_eq!(message(json!([{"role": "user", "content": "x", "mood": 1}])), "unknown field messages[0].mood");
        assert_eq!(message(json!(["x"])), "messages[0] must be an object, got \"x\"");
    }

    #[test]
    fn an_echoed_answer_with_tool_calls_is_accepted() {
        let call = json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}});
        let echoed = json!({
            "role": "assistant", "content": null, "refusal": null, "audio": null, "function_call": null,
            "annotations": [], "tool_calls": [call],
        });
        let messages =
            json!([{"role": "user", "content": "x"}, echoed, {"role": "tool", "tool_call_id": "c1", "content": "2"}]);
        let read = read(messages).expect("valid").to_json();
        assert_eq!(read[1]["tool_calls"][0]["function"]["arguments"], json!({"a": 1}));
        assert_eq!(read[1]["content"], "");
        assert_eq!(read[2], json!({"role": "tool", "content": "2", "tool_call_id": "c1"}));
        let broken = json!([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]);
        assert!(message(broken).starts_with("messages[0].tool_calls[0].function.arguments must be a string of JSON"));
    }

    #[test]
    fn turns_are_dropped_oldest_first_and_the_system_stays() {
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        let conversation = read(json!([
            turn("system", "s"),
            turn("user", "1"),
            turn("assistant", "a"),
            turn("user", "2"),
            turn("assistant", "b"),
            turn("tool", "t"),
            turn("user", "3"),
        ]))
        .expect("valid");
        let contents = |num_turns: usize| -> Vec<String> {
            let Value::Array(list) = conversation.without_oldest_turns(num_turns).to_json() else { return Vec::new() };
            list.iter().map(|message| message["content"].as_str().unwrap_or("?").to_owned()).collect()
        };
        assert_eq!(conversation.num_droppable_turns(), 2);
        assert_eq!(contents(0), ["s", "1", "a", "2", "b", "t", "3"]);
        assert_eq!(contents(1), ["s", "2", "b", "t", "3"]);
        assert_eq!(contents(2), ["s", "3"]);
    }

    #[test]
    fn a_conversation_without_a_user_has_no_turn_to_drop() {
        let messages = json!([{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}]);
        let conversation = read(messages).expect("valid");
        assert_eq!(conversation.num_droppable_turns(), 0);
        assert_eq!(conversation.without_oldest_turns(0).num_messages(), 2);
    }
}
