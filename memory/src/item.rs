//! What a memory is: plain data that stores write, search returns and the API shows.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::lifecycle::ItemState;
use crate::{CubeId, ItemId, MemoryError, Timestamp};

/// Greatest length of a memory's text in bytes; longer material is a document and is ingested in pieces.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// Most tags of a memory, and most entities.
pub const NUM_LABELS_MAX: usize = 64;
/// Greatest length of a tag, an entity or a scope name in bytes.
pub const LABEL_BYTES_MAX: usize = 256;
/// Greatest size of the metadata of a memory, as JSON, in bytes.
pub const METADATA_BYTES_MAX: usize = 16 << 10;

/// What sort of knowledge a memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemKind {
    /// Something that is so.
    Fact,
    /// What somebody likes or wants.
    Preference,
    /// Something that happened or will, at a time.
    Event,
    /// How something is done.
    Skill,
    /// A piece of a document.
    Document,
}

impl ItemKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Fact, Self::Preference, Self::Event, Self::Skill, Self::Document];

    /// The name in files and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fact => "fact",
            Self::Preference => "preference",
            Self::Event => "event",
            Self::Skill => "skill",
            Self::Document => "document",
        }
    }
}

impl fmt::Display for ItemKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for ItemKind {
    type Err = MemoryError;

    fn from_str(name: &str) -> Result<Self, MemoryError> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == name);
        known.ok_or_else(|| MemoryError::UnknownName {
            what: "a kind",
            name: name.chars().take(64).collect(),
            known: "fact, preference, event, skill, document",
        })
    }
}

/// Whose memory it is inside its tenant. A scope narrows; it never identifies a caller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// A person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A program that acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// One conversation or run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

impl Scope {
    /// Whether a memory of scope `other` lies inside this scope: every part that is set here must be equal there.
    pub fn contains(&self, other: &Self) -> bool {
        let fits = |want: &Option<String>, have: &Option<String>| want.is_none() || want == have;
        fits(&self.user, &other.user) && fits(&self.agent, &other.agent) && fits(&self.session, &other.session)
    }
}

/// Where a memory comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Source {
    /// Written through the API as it is.
    Direct,
    /// A turn of a conversation.
    Message {
        /// Id of the answer or conversation, as the API returned it.
        conversation: String,
        /// Who said it: `user` or `assistant`.
        role: String,
    },
    /// A part of a document.
    Document {
        /// Name of the document.
        name: String,
        /// First byte of the part in the document's text.
        start: u64,
        /// One past its last byte.
        end: u64,
    },
    /// Made from other memories: a merge, a summary.
    Derived {
        /// Those memories.
        from: Vec<ItemId>,
    },
    /// Brought from another system.
    Import {
        /// Which: `mem0`, `memos`, `jsonl`.
        format: String,
        /// Its id there, where it had one.
        external_id: Option<String>,
    },
}

/// One memory as it is at one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Identity over all versions.
    pub id: ItemId,
    /// Where it is kept.
    pub cube: CubeId,
    /// What sort of knowledge.
    pub kind: ItemKind,
    /// Where it is in its life.
    pub state: ItemState,
    /// 1 for the first; every change of anything below makes the next.
    pub version: u64,
    /// The memory itself.
    pub text: String,
    /// Labels to filter by; sorted, no duplicates.
    pub tags: Vec<String>,
    /// Names of what it is about; sorted, no duplicates.
    pub entities: Vec<String>,
    /// Whose it is.
    pub scope: Scope,
    /// Who wrote it: the actor's name.
    pub created_by: String,
    /// Where it comes from.
    pub source: Source,
    /// Since when it is true in the world; `None`: since ever.
    pub valid_from: Option<Timestamp>,
    /// Until when (exclusive); `None`: still.
    pub valid_to: Option<Timestamp>,
    /// When its first version was recorded.
    pub created_at: Timestamp,
    /// When this version was recorded.
    pub recorded_at: Timestamp,
    /// When it is to be archived or erased by retention; `None`: never.
    pub expires_at: Option<Timestamp>,
    /// How much it matters, 0 to 1.
    pub salience: f32,
    /// Whether a legal hold forbids every change, erasure and redaction included.
    pub legal_hold: bool,
    /// What the client keeps with it; not searched.
    pub metadata: BTreeMap<String, serde_json::Value>,
}

/// A memory to be written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewItem {
    /// What sort of knowledge.
    pub kind: ItemKind,
    /// Generated, unless somebody vouches for it.
    pub state: ItemState,
    /// The memory itself.
    pub text: String,
    /// Labels to filter by.
    pub tags: Vec<String>,
    /// Names of what it is about.
    pub entities: Vec<String>,
    /// Whose it is.
    pub scope: Scope,
    /// Where it comes from.
    pub source: Source,
    /// Since when it is true in the world.
    pub valid_from: Option<Timestamp>,
    /// Until when (exclusive).
    pub valid_to: Option<Timestamp>,
    /// When retention ends.
    pub expires_at: Option<Timestamp>,
    /// How much it matters, 0 to 1.
    pub salience: f32,
    /// What the client keeps with it.
    pub metadata: BTreeMap<String, serde_json::Value>,
}

impl NewItem {
    /// A fact with nothing but its text.
    pub fn fact(text: impl Into<String>) -> Self {
        Self {
            kind: ItemKind::Fact,
            state: ItemState::Activated,
            text: text.into(),
            tags: Vec::new(),
            entities: Vec::new(),
            scope: Scope::default(),
            source: Source::Direct,
            valid_from: None,
            valid_to: None,
            expires_at: None,
            salience: 0.5,
            metadata: BTreeMap::new(),
        }
    }
}

/// What one edit changes; `None` leaves a field as it is, `Some(None)` clears it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ItemPatch {
    /// New text.
    pub text: Option<String>,
    /// New kind.
    pub kind: Option<ItemKind>,
    /// New tags, all of them.
    pub tags: Option<Vec<String>>,
    /// New entities, all of them.
    pub entities: Option<Vec<String>>,
    /// New beginning of its truth.
    pub valid_from: Option<Option<Timestamp>>,
    /// New end of its truth.
    pub valid_to: Option<Option<Timestamp>>,
    /// New end of retention.
    pub expires_at: Option<Option<Timestamp>>,
    /// New salience.
    pub salience: Option<f32>,
    /// New metadata, all of it.
    pub metadata: Option<BTreeMap<String, serde_json::Value>>,
}

/// What made a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Change {
    /// The first version.
    Created,
    /// Fields were edited.
    Edited,
    /// The state changed.
    Transitioned {
        /// State before.
        from: ItemState,
        /// State after.
        to: ItemState,
    },
    /// Its content went into another memory.
    MergedInto {
        /// That memory.
        into: ItemId,
    },
    /// It came back out of a merge.
    Unmerged {
        /// The memory it had gone into.
        from: ItemId,
    },
    /// A newer memory says otherwise; this one ceased to be valid.
    Superseded {
        /// The newer memory.
        by: ItemId,
    },
    /// An earlier version was brought back.
    Restored {
        /// Which one.
        version: u64,
    },
    /// Parts of the text were blacked out; the old text is gone from every version.
    Redacted,
    /// A legal hold was set or lifted.
    Held {
        /// Whether it holds now.
        hold: bool,
    },
}

/// One entry of a memory's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// The memory as it was from then on.
    pub item: Item,
    /// What made this version.
    pub change: Change,
    /// Who made it.
    pub actor: String,
    /// Why, in the actor's words.
    pub reason: Option<String>,
}
