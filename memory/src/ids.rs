//! Identities of what is stored: random enough to be unguessable, ordered by time so that an index over them stays compact.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::MemoryError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// A new id: UUID version 7 (RFC 9562), so later ids are greater.
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id from its 16 bytes.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes, as they are stored.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(formatter)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({})", stringify!($name), self.0.hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = MemoryError;

            /// Takes the hyphenated form only, so that an id has one spelling.
            fn from_str(text: &str) -> Result<Self, MemoryError> {
                let id = (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten();
                match id {
                    Some(id) if id.hyphenated().to_string() == text => Ok(Self(id)),
                    _ => Err(MemoryError::InvalidId { what: $what, text: text.chars().take(64).collect() }),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = MemoryError;

            fn try_from(text: String) -> Result<Self, MemoryError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

id!(
    /// One memory, in all its versions.
    ItemId,
    "a memory id"
);
id!(
    /// One MemCube, wherever it is carried and whatever it is called.
    CubeId,
    "a cube id"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = ItemId::new();
        assert_eq!(id.to_string().parse::<ItemId>().expect("its own text"), id);
        for text in ["", "x", &id.to_string().to_uppercase(), &format!("{{{id}}}"), &format!("{id} ")] {
            assert!(text.parse::<ItemId>().is_err(), "{text:?} is no id");
        }
    }

    #[test]
    fn later_ids_are_greater() {
        let ids: Vec<ItemId> = (0..1000).map(|_| ItemId::new()).collect();
        assert!(ids.is_sorted());
    }
}
