//! MemLifecycle: the states of a memory and the one table of transitions between them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::MemoryError;

/// Where a memory is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemState {
    /// Written down, not used yet.
    Generated,
    /// In use: it was recalled, confirmed or made by hand.
    Activated,
    /// Its content lives on in another memory; it can be brought back by undoing the merge.
    Merged,
    /// Kept, but not searched unless asked for.
    Archived,
    /// Never to change again. Only erasure and redaction reach it.
    Frozen,
}

impl ItemState {
    /// All states, in the order of a life.
    pub const ALL: [Self; 5] = [Self::Generated, Self::Activated, Self::Merged, Self::Archived, Self::Frozen];

    /// Whether a memory may go from this state to the other. The only place that knows.
    ///
    /// ```text
    /// from \ to    Generated  Activated  Merged  Archived  Frozen
    /// Generated        -          x         x        x        x
    /// Activated        -          -         x        x        x
    /// Merged           -          x         -        x        -      (to Activated: the merge is undone)
    /// Archived         -          x         -        -        x
    /// Frozen           -          -         -        -        -
    /// ```
    pub fn may_become(self, next: Self) -> bool {
        use ItemState::{Activated, Archived, Frozen, Generated, Merged};
        matches!(
            (self, next),
            (Generated, Activated | Merged | Archived | Frozen)
                | (Activated, Merged | Archived | Frozen)
                | (Merged, Activated | Archived)
                | (Archived, Activated | Frozen)
        )
    }

    /// Whether text, tags and times may be edited in this state.
    pub fn is_editable(self) -> bool {
        matches!(self, Self::Generated | Self::Activated)
    }

    /// Whether a search finds the memory unless it asks for other states.
    pub fn is_recalled(self) -> bool {
        matches!(self, Self::Generated | Self::Activated | Self::Frozen)
    }

    /// The name in files and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generated => "generated",
            Self::Activated => "activated",
            Self::Merged => "merged",
            Self::Archived => "archived",
            Self::Frozen => "frozen",
        }
    }
}

impl fmt::Display for ItemState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for ItemState {
    type Err = MemoryError;

    fn from_str(name: &str) -> Result<Self, MemoryError> {
        let known = Self::ALL.into_iter().find(|state| state.as_str() == name);
        known.ok_or_else(|| MemoryError::UnknownName {
            what: "a state",
            name: name.chars().take(64).collect(),
            known: "generated, activated, merged, archived, frozen",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_frozen_and_nothing_returns_to_generated() {
        for state in ItemState::ALL {
            assert!(!ItemState::Frozen.may_become(state));
            assert!(!state.may_become(ItemState::Generated));
            assert!(!state.may_become(state));
        }
    }

    #[test]
    fn names_and_states_convert_into_each_other() {
        for state in ItemState::ALL {
            assert_eq!(state.as_str().parse::<ItemState>().expect("its own name"), state);
        }
        assert!("Frozen".parse::<ItemState>().is_err());
    }
}
