//! Renders conversations to prompt text with the model's own Jinja template, as transformers' `apply_chat_template`.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::Serde;
use minijinja::{Environment, Value as TemplateValue};
use serde_json::{Map, Value};

use crate::fields::shortened;
use crate::tokenizer::SpecialNames;
use crate::{ModelError, ModelSource};

mod functions;
mod messages;

const TEMPLATE_FILE: &str = "chat_template.jinja";
const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
/// The template for conversations, unless tools are given and the model has [`TOOL_USE`].
const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// What one rendering may cost, in minijinja's units (an instruction, or 64 bytes of text): about a second. A template
/// comes with the model and may be hostile.
const FUEL: u64 = 4_000_000;

/// The chat templates of a model; clones share them.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    special: BTreeMap<&'static str, String>,
}

/// A conversation to render.
#[derive(Debug, Clone, Copy)]
pub struct ChatInput<'a> {
    /// Array of messages in OpenAI's form. Text parts are joined by newlines; arguments of tool calls that are JSON
    /// text are parsed, as templates expect objects.
    pub messages: &'a Value,
    /// Array of tools in OpenAI's form.
    pub tools: Option<&'a Value>,
    /// Whether the prompt ends in the beginning of an answer.
    pub add_generation_prompt: Continuation,
    /// Further variables (`enable_thinking`, `documents`, …). They do not override `messages` and `tools`.
    pub kwargs: &'a Map<String, Value>,
}

/// What follows the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuation {
    /// The model's answer: the template opens the assistant's turn.
    AssistantTurn,
    /// The rest of the last message: the prompt ends where its content does.
    FinalMessage,
    /// Nothing: the conversation is rendered as it is.
    Nothing,
}

impl ChatTemplate {
    /// The model's templates: `chat_template.jinja`, else `chat_template` of `tokenizer_config.json` (text, or a list
    /// of named ones). `None` when it has neither.
    ///
    /// # Errors
    /// [`ModelError::TemplateSyntax`], [`ModelError::Json`], [`ModelError::InvalidField`].
    pub fn load(source: &ModelSource) -> Result<Option<Self>, ModelError> {
        let special = SpecialNames::load(source)?;
        if let Some(bytes) = source.read(TEMPLATE_FILE)? {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            return Self::new(vec![(DEFAULT.to_owned(), text)], &special).map(Some);
        }
        let config = source.read_json(TOKENIZER_CONFIG_FILE)?;
        match config.as_ref().and_then(|config| config.get("chat_template")).filter(|template| !template.is_null()) {
            Some(template) => Self::new(named_templates(template)?, &special).map(Some),
            None => Ok(None),
        }
    }

    /// A template given as text, with the special tokens of the model.
    ///
    /// # Errors
    /// [`ModelError::TemplateSyntax`], and what reading the special tokens can give.
    pub fn from_text(text: &str, source: &ModelSource) -> Result<Self, ModelError> {
        Self::new(vec![(DEFAULT.to_owned(), text.to_owned())], &SpecialNames::load(source)?)
    }

    fn new(templates: Vec<(String, String)>, special: &SpecialNames) -> Result<Self, ModelError> {
        let mut environment = functions::environment();
        environment.set_fuel(Some(FUEL));
        for (name, text) in templates {
            let text = functions::without_generation_tags(&text);
            environment
                .add_template_owned(name.clone(), text)
                .map_err(|source| ModelError::TemplateSyntax { name, source })?;
        }
        let special = [
            ("bos_token", &special.bos),
            ("eos_token", &special.eos),
            ("unk_token", &special.unk),
            ("pad_token", &special.pad),
        ];
        let special = special.into_iter().filter_map(|(name, token)| Some((name, token.clone()?))).collect();
        Ok(Self { environment: Arc::new(environment), special })
    }

    /// The prompt text of a conversation; to be encoded without adding special tokens.
    ///
    /// # Errors
    /// [`ModelError::TemplateRefused`] with the template's own words, [`ModelError::InvalidMessage`],
    /// [`ModelError::ContentPart`], [`ModelError::TemplateName`], [`ModelError::TemplateRender`] for everything else,
    /// such as a template that does not end.
    pub fn render(&self, input: &ChatInput) -> Result<String, ModelError> {
        let messages = messages::normalized(input.messages)?;
        let tools = input.tools.filter(|tools| tools.as_array().is_none_or(|list| !list.is_empty()));
        let template = self.template(tools)?;
        let mut variables: BTreeMap<String, TemplateValue> = BTreeMap::new();
        // Templates test these for none rather than for being defined.
        variables.insert("documents".to_owned(), TemplateValue::from(()));
        for (name, token) in &self.special {
            variables.insert((*name).to_owned(), TemplateValue::from(token.as_str()));
        }
        for (name, value) in input.kwargs {
            variables.insert(name.clone(), TemplateValue::from(Serde(value)));
        }
        variables.insert("messages".to_owned(), TemplateValue::from(Serde(&messages)));
        let tools = tools.map_or(TemplateValue::from(()), |tools| TemplateValue::from(Serde(tools)));
        variables.insert("tools".to_owned(), tools);
        let opens_turn = input.add_generation_prompt == Continuation::AssistantTurn;
        variables.insert("add_generation_prompt".to_owned(), TemplateValue::from(opens_turn));
        let text =
            template.render(TemplateValue::from(variables)).map_err(|source| match functions::raised(&source) {
                Some(message) => ModelError::TemplateRefused { message },
                None => ModelError::TemplateRender { source },
            })?;
        match input.add_generation_prompt {
            Continuation::FinalMessage => cut_behind_final_message(text, &messages),
            Continuation::AssistantTurn | Continuation::Nothing => Ok(text),
        }
    }

    /// `tool_use` for conversations with tools where there is one, else `default`.
    fn template(&self, tools: Option<&Value>) -> Result<minijinja::Template<'_, '_>, ModelError> {
        if tools.is_some()
            && let Ok(template) = self.environment.get_template(TOOL_USE)
        {
            return Ok(template);
        }
        self.environment.get_template(DEFAULT).map_err(|_| ModelError::TemplateName { name: DEFAULT.to_owned() })
    }
}

/// Drops what the template writes behind the content of the last message. Templates may trim content, so it is looked
/// for without the space around it; space at its end is kept where the template kept it.
fn cut_behind_final_message(mut text: String, messages: &Value) -> Result<String, ModelError> {
    let last = messages.as_array().and_then(|list| list.last());
    let content = last.and_then(|message| message.get("content")?.as_str()).unwrap_or_default();
    let trimmed = content.trim();
    match text.rfind(trimmed).filter(|_| !trimmed.is_empty()) {
        Some(start) => {
            let kept = content.trim_start();
            let end = if text[start..].starts_with(kept) { start + kept.len() } else { start + trimmed.len() };
            text.truncate(end);
            Ok(text)
        }
        None => Err(ModelError::FinalMessage),
    }
}

/// Name and text of every template of a `chat_template` field.
fn named_templates(field: &Value) -> Result<Vec<(String, String)>, ModelError> {
    let invalid = || ModelError::InvalidField {
        file: TOKENIZER_CONFIG_FILE,
        name: "chat_template",
        value: shortened(field),
        expected: "a template or a list of {name, template}",
    };
    let named = |entry: &Value| {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        Some((text("name")?, text("template")?))
    };
    match field {
        Value::String(text) => Ok(vec![(DEFAULT.to_owned(), text.clone())]),
        Value::Array(list) => list.iter().map(|entry| named(entry).ok_or_else(invalid)).collect(),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests;
