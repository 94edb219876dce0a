//! What a memory is given on the command line, and by what memories are filtered.

use clap::{Args, ValueEnum};
use memory::Timestamp;
use memory::item::{ItemKind, NewItem, Scope};
use memory::lifecycle::ItemState;
use memory::memories::{Duplicates, SearchFilter};
use memory::store::ItemFilter;

/// What happens to a memory that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DuplicatesArg {
    /// It is added all the same
    Keep,
    /// It is not added when one has the same text
    SkipExact,
    /// Nor when one says the same in slightly other words, or more
    SkipNear,
}

impl From<DuplicatesArg> for Duplicates {
    fn from(argument: DuplicatesArg) -> Self {
        match argument {
            DuplicatesArg::Keep => Self::Keep,
            DuplicatesArg::SkipExact => Self::SkipExact,
            DuplicatesArg::SkipNear => Self::SkipNear,
        }
    }
}

/// Whose memory it is.
#[derive(Debug, Clone, Args)]
pub(super) struct ScopeArgs {
    /// Of this user
    #[arg(long)]
    user: Option<String>,
    /// Of this agent
    #[arg(long)]
    agent: Option<String>,
    /// Of this session
    #[arg(long)]
    session: Option<String>,
}

impl From<ScopeArgs> for Scope {
    fn from(arguments: ScopeArgs) -> Self {
        Self { user: arguments.user, agent: arguments.agent, session: arguments.session }
    }
}

/// The fields of a new memory but for its text.
#[derive(Debug, Clone, Args)]
pub(super) struct NewItemArgs {
    /// What sort of knowledge: fact, preference, event, skill or document
    #[arg(long, default_value = "fact")]
    kind: ItemKind,
    /// A label to filter by; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// A name that it is about; may be repeated
    #[arg(long = "entity", value_name = "NAME")]
    entities: Vec<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Since when it is true, such as 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME")]
    valid_from: Option<Timestamp>,
    /// Until when it is true
    #[arg(long, value_name = "TIME")]
    valid_to: Option<Timestamp>,
    /// When it is archived
    #[arg(long, value_name = "TIME")]
    expires_at: Option<Timestamp>,
    /// How much it matters, 0 to 1
    #[arg(long, default_value_t = 0.5)]
    salience: f32,
}

impl NewItemArgs {
    pub(super) fn with_text(self, text: String) -> NewItem {
        NewItem {
            kind: self.kind,
            tags: self.tags,
            entities: self.entities,
            scope: self.scope.into(),
            valid_from: self.valid_from,
            valid_to: self.valid_to,
            expires_at: self.expires_at,
            salience: self.salience,
            ..NewItem::fact(text)
        }
    }
}

/// Which memories are wanted.
#[derive(Debug, Clone, Args)]
pub(super) struct FilterArgs {
    /// Of this kind; may be repeated
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<ItemKind>,
    /// In this state: generated, activated, merged, archived or frozen; may be repeated
    #[arg(long = "state", value_name = "STATE")]
    states: Vec<ItemState>,
    /// With this tag; may be repeated, then with all of them
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// True in the world at this moment
    #[arg(long, value_name = "TIME")]
    valid_at: Option<Timestamp>,
}

impl FilterArgs {
    pub(super) fn listed(self) -> ItemFilter {
        ItemFilter {
            kinds: self.kinds,
            states: self.states,
            tags_all: self.tags,
            scope: self.scope.into(),
            valid_at: self.valid_at,
            ..ItemFilter::default()
        }
    }

    pub(super) fn searched(self) -> SearchFilter {
        SearchFilter {
            kinds: self.kinds,
            states: self.states,
            tags_all: self.tags,
            tags_any: Vec::new(),
            scope: self.scope.into(),
            valid_at: self.valid_at,
        }
    }
}
