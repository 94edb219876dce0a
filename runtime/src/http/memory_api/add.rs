//! Adding memories: as they are written, or found in a text or a conversation by rules.

use axum::response::Response;
use memory::Clock;
use memory::ingest::{self, ExtractionInput, Extractor, FastExtractor, Reference, Role, Speakers, Turn, new_items};
use memory::item::{NewItem, Source};
use memory::memories::{AddOptions, MemoriesError, NUM_ADDED_MAX};
use serde_json::{Value, json};

use super::call::{Call, created};
use super::fine::{Extracted, Fallback, Fine, apply_fallback, read_fallback};
use super::item_fields::{ItemFields, check_text, read_add_options};
use super::place::Place;
use super::render;
use super::values::{choice, require_text, take};
use crate::http::error::ApiError;
use crate::http::fields::{Fields, wrong_type};

/// Most turns of a conversation in one request.
const NUM_MESSAGES_MAX: usize = 1_000;
/// Longest name of a conversation, in bytes.
const CONVERSATION_BYTES_MAX: usize = 256;

/// How material becomes memories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// As it is.
    Raw,
    /// What rules find in it.
    Fast,
    /// What a model finds in it.
    Fine,
}

/// What is to be remembered.
enum Material {
    /// One text.
    Text(String),
    /// Memories, written out.
    Items(Vec<NewItem>),
    /// A conversation.
    Turns(Vec<Turn>),
}

/// `POST /v1/memories`
pub fn add(mut call: Call) -> Result<Response, ApiError> {
    let (options, defaults, asked) = read_shared(&mut call)?;
    let modes = [("raw", Mode::Raw), ("fast", Mode::Fast), ("fine", Mode::Fine)];
    let mode = choice(&mut call.fields, "mode", &modes)?.unwrap_or(Mode::Raw);
    let fallback = read_fallback(&mut call)?;
    let options = apply_fallback(fallback, mode == Mode::Fine, options)?;
    let speakers = [("user", Speakers::UserOnly), ("all", Speakers::UserAndAssistant)];
    let speakers = choice(&mut call.fields, "speakers", &speakers)?;
    let offset_minutes = call.fields.integer("utc_offset_minutes", -24 * 60, 24 * 60)?.unwrap_or(0);
    let conversation = read_conversation(&mut call)?;
    let material = read_material(&mut call.fields, &defaults)?;
    let reason = call.reason()?;
    call.finish()?;
    let conversation = conversation.or_else(|| defaults.scope.session.clone());
    let place = call.place_to_write(call.actor(&defaults.scope)?, asked.as_deref())?;
    let mut report = None;
    let items = match (mode, material) {
        (Mode::Raw, material) => as_it_is(material, &defaults, conversation, &call)?,
        (Mode::Fast | Mode::Fine, Material::Items(_)) => {
            let (param, other) = ("items", "mode");
            return Err(ApiError::Conflict {
                param,
                other,
                reason: "what is written out is added as it is (mode raw)",
            });
        }
        (mode, material) => {
            let now = Clock::system().now();
            let offset = i32::try_from(offset_minutes).unwrap_or(0);
            let reference = Reference::with_offset(now, offset).map_err(MemoriesError::from)?;
            let mut input = match material {
                Material::Turns(turns) => ExtractionInput { turns, ..ExtractionInput::text("", reference) },
                Material::Text(text) => ExtractionInput::text(text, reference),
                Material::Items(_) => unreachable!("refused above: this is a bug"),
            };
            input.speakers = speakers.unwrap_or(input.speakers);
            if mode == Mode::Fine {
                // Nobody makes a model work for what may not be written.
                place.run(|cube, actor| cube.check_may_write(actor))?;
                let (items, told) = fine_items(&call, fallback, input, &defaults, conversation)?;
                report = Some(told);
                items
            } else {
                let found = FastExtractor.extract(&input).map_err(MemoriesError::from)?;
                let items = new_items(found, &input, &defaults.scope, conversation.as_deref());
                items.into_iter().map(|item| defaults.over(item)).collect()
            }
        }
    };
    write(&place, items, AddOptions { reason: reason.as_deref(), ..options }, report)
}

/// What a model finds, and what is told of how it did.
fn fine_items(
    call: &Call,
    fallback: Option<Fallback>,
    input: ExtractionInput,
    defaults: &ItemFields,
    conversation: Option<String>,
) -> Result<(Vec<NewItem>, Value), ApiError> {
    let mut fine = Fine::new(call, fallback, ingest::Material::Conversation)?;
    let items = match fine.find(call, &input)? {
        Extracted::Candidates(found) => {
            let mut items = new_items(found, &input, &defaults.scope, conversation.as_deref());
            if !fine.fell_back() {
                items.iter_mut().for_each(|item| note_model(item, fine.model()));
            }
            items.into_iter().map(|item| defaults.over(item)).collect()
        }
        Extracted::AsItIs => as_it_is(Material::Turns(input.turns), defaults, conversation, call)?,
    };
    Ok((items, fine.report()))
}

/// Keeps which model found a memory.
pub fn note_model(item: &mut NewItem, model: &str) {
    item.metadata.insert("extracted_by".to_owned(), Value::from(model));
}

/// What is to be remembered as it is.
fn as_it_is(
    material: Material,
    defaults: &ItemFields,
    conversation: Option<String>,
    call: &Call,
) -> Result<Vec<NewItem>, ApiError> {
    match material {
        Material::Text(text) => {
            check_text("text", &text)?;
            Ok(vec![defaults.item(text, Source::Direct)])
        }
        Material::Items(items) => Ok(items),
        Material::Turns(turns) => raw_turns(turns, defaults, conversation, call),
    }
}

/// `POST /v1/memories/batch`
pub fn add_batch(mut call: Call) -> Result<Response, ApiError> {
    let (options, defaults, asked) = read_shared(&mut call)?;
    let fallback = read_fallback(&mut call)?;
    let options = apply_fallback(fallback, false, options)?;
    let list = call.fields.require("items")?;
    let items = read_items(list, &defaults)?;
    let reason = call.reason()?;
    call.finish()?;
    let place = call.place_to_write(call.actor(&defaults.scope)?, asked.as_deref())?;
    write(&place, items, AddOptions { reason: reason.as_deref(), ..options }, None)
}

fn read_shared(call: &mut Call) -> Result<(AddOptions<'static>, ItemFields, Option<String>), ApiError> {
    let scope = call.scope()?;
    let asked = call.cube_field()?;
    Ok((read_add_options(&mut call.fields)?, ItemFields::read(&mut call.fields, scope)?, asked))
}

fn read_conversation(call: &mut Call) -> Result<Option<String>, ApiError> {
    let conversation = call.fields.text("conversation_id")?;
    match &conversation {
        Some(name) if name.is_empty() || name.len() > CONVERSATION_BYTES_MAX => Err(ApiError::OutOfRange {
            param: "conversation_id".to_owned(),
            allowed: format!("1 to {CONVERSATION_BYTES_MAX} bytes"),
            got: format!("{} bytes", name.len()),
        }),
        _ => Ok(conversation),
    }
}

fn read_material(fields: &mut Fields, defaults: &ItemFields) -> Result<Material, ApiError> {
    let (items, messages) = (fields.take("items"), fields.take("messages"));
    let twice = |param, other| Err(ApiError::Conflict { param, other, reason: "give one of them" });
    match (fields.text("text")?, items, messages) {
        (Some(_), Some(_), _) => twice("items", "text"),
        (Some(_), _, Some(_)) => twice("messages", "text"),
        (None, Some(_), Some(_)) => twice("messages", "items"),
        (Some(text), None, None) if text.is_empty() => {
            let (param, allowed) = ("text".to_owned(), "a text of at least one character".to_owned());
            Err(ApiError::OutOfRange { param, allowed, got: "\"\"".to_owned() })
        }
        (Some(text), None, None) => Ok(Material::Text(text)),
        (None, Some(items), None) => Ok(Material::Items(read_items(items, defaults)?)),
        (None, None, Some(messages)) => Ok(Material::Turns(read_turns(messages)?)),
        (None, None, None) => Err(ApiError::Missing { param: "text".to_owned() }),
    }
}

fn read_items(value: Value, defaults: &ItemFields) -> Result<Vec<NewItem>, ApiError> {
    let read = |(index, value): (usize, Value)| {
        let path = format!("items[{index}]");
        let entry = match value {
            Value::String(text) => Fields::of_value(path, json!({ "text": text }))?,
            other => Fields::of_value(path, other)?,
        };
        defaults.read_entry(entry)
    };
    bounded_list("items", value, NUM_ADDED_MAX)?.into_iter().enumerate().map(read).collect()
}

fn read_turns(value: Value) -> Result<Vec<Turn>, ApiError> {
    let read = |(index, value): (usize, Value)| {
        let mut message = Fields::of_value(format!("messages[{index}]"), value)?;
        let roles = [Role::User, Role::Assistant, Role::System, Role::Tool].map(|role| (role.as_str(), role));
        let role = choice(&mut message, "role", &roles)?;
        let role = role.ok_or_else(|| ApiError::Missing { param: message.name("role") })?;
        let text = read_content(&mut message)?;
        message.finish(&["name", "tool_calls", "tool_call_id", "refusal"])?;
        Ok(Turn { role, text })
    };
    bounded_list("messages", value, NUM_MESSAGES_MAX)?.into_iter().enumerate().map(read).collect()
}

/// The text of a message: a string, or OpenAI's list of parts, of which only text can be remembered.
fn read_content(message: &mut Fields) -> Result<String, ApiError> {
    let name = message.name("content");
    let parts = match message.take("content") {
        None => return Ok(String::new()),
        Some(Value::String(text)) => return Ok(text),
        Some(Value::Array(parts)) => parts,
        Some(other) => return Err(wrong_type(name, "a string or a list of parts", &other)),
    };
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let mut part = Fields::of_value(format!("{name}[{index}]"), part)?;
        take::<TextPart>(&mut part, "type", "\"text\"")?;
        texts.push(require_text(&mut part, "text")?);
        part.finish(&[])?;
    }
    Ok(texts.join("\n"))
}

/// The one type of part that can be remembered.
struct TextPart;

impl std::str::FromStr for TextPart {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        if name == "text" { Ok(Self) } else { Err(()) }
    }
}

fn bounded_list(param: &str, value: Value, most: usize) -> Result<Vec<Value>, ApiError> {
    match value {
        Value::Array(list) if (1..=most).contains(&list.len()) => Ok(list),
        Value::Array(list) => Err(ApiError::OutOfRange {
            param: param.to_owned(),
            allowed: format!("a list of 1 to {most}"),
            got: format!("a list of {}", list.len()),
        }),
        other => Err(wrong_type(param.to_owned(), "a list", &other)),
    }
}

/// What user and assistant said, turn by turn. Instructions and what tools returned are no memories.
fn raw_turns(
    turns: Vec<Turn>,
    defaults: &ItemFields,
    conversation: Option<String>,
    call: &Call,
) -> Result<Vec<NewItem>, ApiError> {
    let conversation = conversation.unwrap_or_else(|| call.app.new_id("conversation"));
    let said = turns.into_iter().enumerate().filter(|(_, turn)| matches!(turn.role, Role::User | Role::Assistant));
    let item = |(index, turn): (usize, Turn)| {
        check_text(&format!("messages[{index}].content"), &turn.text)?;
        let source = Source::Message { conversation: conversation.clone(), role: turn.role.as_str().to_owned() };
        Ok(defaults.item(turn.text, source))
    };
    said.filter(|(_, turn)| !turn.text.trim().is_empty()).map(item).collect()
}

fn write(
    place: &Place,
    items: Vec<NewItem>,
    options: AddOptions<'_>,
    extraction: Option<Value>,
) -> Result<Response, ApiError> {
    let added = place.run(|cube, actor| cube.add(actor, items, options))?;
    let results: Vec<Value> = added.iter().map(render::added).collect();
    let mut answer = json!({"object": "list", "cube": place.cube().manifest().id, "results": results});
    if let Some(extraction) = extraction {
        answer["extraction"] = extraction;
    }
    Ok(created(answer))
}
