//! The four rights of a grant, what each of them includes, and sets of them: the one table that knows.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::cut;
use crate::MemoryError;

/// What a grant gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// See and recall.
    Read,
    /// Add, edit and transition.
    Write,
    /// Grant to others what one holds.
    Share,
    /// Everything, erasure, holds and export included.
    Admin,
}

impl Right {
    /// All rights.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Share, Self::Admin];

    /// The rights that the holder of this one has.
    ///
    /// ```text
    /// held \ includes   read   write   share   admin
    /// read               x
    /// write              x       x
    /// share              x               x
    /// admin              x       x       x       x
    /// ```
    pub fn included(self) -> RightSet {
        match self {
            Self::Read => RightSet::of(&[Self::Read]),
            Self::Write => RightSet::of(&[Self::Read, Self::Write]),
            Self::Share => RightSet::of(&[Self::Read, Self::Share]),
            Self::Admin => RightSet::of(&Self::ALL),
        }
    }

    /// The name in rows, policies and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Share => "share",
            Self::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for Right {
    type Err = MemoryError;

    fn from_str(name: &str) -> Result<Self, MemoryError> {
        let known = Self::ALL.into_iter().find(|right| right.as_str() == name);
        known.ok_or_else(|| MemoryError::UnknownName {
            what: "a right",
            name: cut(name),
            known: "read, write, share, admin",
        })
    }
}

/// A set of rights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RightSet(u8);

impl RightSet {
    /// No right.
    pub const NONE: Self = Self(0);

    fn of(rights: &[Right]) -> Self {
        Self(rights.iter().fold(0, |bits, right| bits | right.bit()))
    }

    /// Whether the right is in the set.
    pub fn contains(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }

    /// Whether every right of the other set is in this one.
    pub fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The rights of both sets.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether there is no right in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The rights, in the order of [`Right::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.contains(*right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_right_includes_itself_and_reading_and_nothing_is_gained_in_two_steps() {
        for right in Right::ALL {
            let included = right.included();
            assert!(included.contains(right) && included.contains(Right::Read));
            for inner in included.iter() {
                assert!(included.covers(inner.included()), "{right} includes {inner} but not what that includes");
            }
            assert_eq!(right.as_str().parse::<Right>().expect("its own name"), right);
        }
        assert!(Right::Admin.included().covers(RightSet::of(&Right::ALL)));
        assert!(!Right::Share.included().contains(Right::Write));
        assert!("Read".parse::<Right>().is_err() && RightSet::NONE.is_empty());
    }
}
