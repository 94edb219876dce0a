//! Messages in OpenAI's form brought into the form that templates expect: content is text, arguments are objects.

use serde_json::Value;

use crate::ModelError;
use crate::fields::shortened;

/// The messages with content as text and with parsed arguments of tool calls.
///
/// # Errors
/// [`ModelError::InvalidMessage`], [`ModelError::ContentPart`].
pub(super) fn normalized(messages: &Value) -> Result<Value, ModelError> {
    let Some(list) = messages.as_array() else {
        return Err(invalid(0, messages, "a list of messages"));
    };
    list.iter().enumerate().map(|(index, message)| normalized_message(index, message)).collect()
}

fn normalized_message(index: usize, message: &Value) -> Result<Value, ModelError> {
    let Some(fields) = message.as_object() else { return Err(invalid(index, message, "an object")) };
    let mut fields = fields.clone();
    match fields.get("content") {
        None | Some(Value::Null | Value::String(_)) => {}
        Some(Value::Array(parts)) => {
            let texts = parts.iter().enumerate().map(|(part, value)| part_text(index, part, value));
            let text = texts.collect::<Result<Vec<_>, _>>()?.join("\n");
            fields.insert("content".to_owned(), Value::String(text));
        }
        Some(other) => return Err(invalid(index, other, "content that is text or a list of parts")),
    }
    if let Some(calls) = fields.get_mut("tool_calls").and_then(Value::as_array_mut) {
        calls.iter_mut().for_each(parse_arguments);
    }
    Ok(Value::Object(fields))
}

/// The text of one part of a message's content.
fn part_text(message: usize, part: usize, value: &Value) -> Result<String, ModelError> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let kind = value.get("type").and_then(Value::as_str).unwrap_or("none");
    match value.get("text").and_then(Value::as_str) {
        Some(text) if kind == "text" => Ok(text.to_owned()),
        _ => Err(ModelError::ContentPart { message, part, kind: kind.to_owned() }),
    }
}

/// Clients send arguments as JSON text; templates print objects.
fn parse_arguments(call: &mut Value) {
    let Some(arguments) = call.pointer_mut("/function/arguments") else { return };
    if let Some(text) = arguments.as_str()
        && let Ok(parsed @ Value::Object(_)) = serde_json::from_str(text)
    {
        *arguments = parsed;
    }
}

fn invalid(message: usize, found: &Value, expected: &'static str) -> ModelError {
    ModelError::InvalidMessage { message, found: shortened(found), expected }
}
