//! The seam between turns and memories: what an extractor is given, what it finds, and how that becomes items.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

use super::document::{check_bytes, check_control_characters};
use super::{IngestError, Reference, TimeSpan};
use crate::Timestamp;
use crate::item::{ItemKind, NewItem, Scope, Source};
use crate::lifecycle::ItemState;

/// Most turns in one extraction.
pub(super) const NUM_TURNS_MAX: usize = 1000;
/// Most text in one extraction; longer material is a document.
pub(super) const INPUT_BYTES_MAX: usize = 1 << 20;
/// Most candidates that one extraction gives.
pub(super) const NUM_CANDIDATES_MAX: usize = 10_000;

/// Who said a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Assistant,
    /// Instructions. Never remembered: recalled memories stand there.
    System,
    /// What a tool returned. Never remembered.
    Tool,
}

impl Role {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::System => "system",
            Self::Tool => "tool",
        }
    }
}

/// One turn of a conversation, or one piece of free text said by the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub text: String,
}

/// Whose turns are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speakers {
    /// The user's alone: what an assistant says is made of what it was told, or made up.
    #[default]
    UserOnly,
    /// The assistant's too.
    UserAndAssistant,
}

/// What memories are to be found in.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtractionInput {
    /// The turns, oldest first.
    pub turns: Vec<Turn>,
    /// Whose turns count.
    pub speakers: Speakers,
    /// The moment that "tomorrow" counts from.
    pub reference: Reference,
    /// Names that are already known, so that they are recognised at the beginning of a sentence as well.
    pub known_entities: Vec<String>,
}

impl ExtractionInput {
    /// Free text that the user gave.
    pub fn text(text: impl Into<String>, reference: Reference) -> Self {
        Self {
            turns: vec![Turn { role: Role::User, text: text.into() }],
            speakers: Speakers::UserOnly,
            reference,
            known_entities: Vec::new(),
        }
    }

    /// Checks limits and characters; every extractor begins with it.
    ///
    /// # Errors
    /// `TooMany` turns, `TooLarge` text, `ControlCharacter`.
    pub fn check(&self) -> Result<(), IngestError> {
        if self.turns.len() > NUM_TURNS_MAX {
            return Err(IngestError::TooMany { what: "turns", limit: NUM_TURNS_MAX });
        }
        let num_bytes = self.turns.iter().map(|turn| turn.text.len()).sum();
        check_bytes("the text", num_bytes, INPUT_BYTES_MAX)?;
        self.turns.iter().try_for_each(|turn| check_control_characters(&turn.text))
    }

    /// The turns that are to be remembered, with their places.
    pub fn remembered_turns(&self) -> impl Iterator<Item = (usize, &Turn)> {
        self.turns.iter().enumerate().filter(|(_, turn)| match turn.role {
            Role::User => true,
            Role::Assistant => self.speakers == Speakers::UserAndAssistant,
            Role::System | Role::Tool => false,
        })
    }
}

/// Something that may become a memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The memory, true and understandable on its own.
    pub text: String,
    /// What sort of knowledge.
    pub kind: ItemKind,
    /// Topics.
    pub tags: Vec<String>,
    /// Names.
    pub entities: Vec<String>,
    /// Since when it is true in the world.
    pub valid_from: Option<Timestamp>,
    /// Until when (exclusive).
    pub valid_to: Option<Timestamp>,
    /// When what it tells happens, which is not when it is true: a dinner of next week is known today.
    pub event_time: Option<TimeSpan>,
    /// How much it matters, 0 to 1.
    pub salience: f32,
    /// Index of the turn that told it; `None` where an extractor does not say.
    pub turn: Option<usize>,
    /// Its bytes in that turn's text.
    pub span: Option<Range<usize>>,
}

/// Finds memories in turns: by rules, by a model, or by a service elsewhere.
pub trait Extractor {
    /// The candidates, in the order in which they were told.
    ///
    /// # Errors
    /// Input beyond the limits, or a model or service that failed or answered something else.
    fn extract(&self, input: &ExtractionInput) -> Result<Vec<Candidate>, IngestError>;
}

/// The candidates as memories of this scope. `conversation` is what the API called the exchange; without one, the
/// text was written down directly.
pub fn new_items(
    candidates: Vec<Candidate>,
    input: &ExtractionInput,
    scope: &Scope,
    conversation: Option<&str>,
) -> Vec<NewItem> {
    let item = |candidate: Candidate| {
        let role = candidate.turn.and_then(|turn| input.turns.get(turn)).map_or(Role::User, |turn| turn.role);
        let source = conversation.map_or(Source::Direct, |conversation| Source::Message {
            conversation: conversation.to_owned(),
            role: role.as_str().to_owned(),
        });
        let mut metadata = BTreeMap::new();
        if let Some(time) = candidate.event_time {
            metadata.insert("event_from".to_owned(), Value::from(time.start.to_string()));
            metadata.insert("event_to".to_owned(), Value::from(time.end.to_string()));
        }
        NewItem {
            kind: candidate.kind,
            state: ItemState::Generated,
            text: candidate.text,
            tags: candidate.tags,
            entities: candidate.entities,
            scope: scope.clone(),
            source,
            valid_from: candidate.valid_from,
            valid_to: candidate.valid_to,
            expires_at: None,
            salience: candidate.salience,
            metadata,
        }
    };
    candidates.into_iter().map(item).collect()
}
