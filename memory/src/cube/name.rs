//! Names of cubes: one spelling, one folder, nothing that looks like another name or leads out of the folder.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::CubeError;

/// Greatest length of a name in bytes.
pub const NAME_LEN_MAX: usize = 64;

/// A cube's name, checked: 1 to 64 of `a`-`z`, `0`-`9`, `-`, `_` and `.`, beginning and ending with a letter or digit.
///
/// Lower-case ASCII only: two names that look alike are then the same name, on every file system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CubeName(String);

impl CubeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CubeName {
    type Err = CubeError;

    fn from_str(name: &str) -> Result<Self, CubeError> {
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = name.as_bytes();
        let ends_plain = bytes.first().is_some_and(plain) && bytes.last().is_some_and(plain);
        let all_allowed = bytes.iter().all(|byte| plain(byte) || matches!(byte, b'-' | b'_' | b'.'));
        if bytes.len() > NAME_LEN_MAX || !ends_plain || !all_allowed || name.contains("..") {
            return Err(CubeError::InvalidName { name: name.chars().take(NAME_LEN_MAX).collect() });
        }
        Ok(Self(name.to_owned()))
    }
}

impl TryFrom<String> for CubeName {
    type Error = CubeError;

    fn try_from(name: String) -> Result<Self, CubeError> {
        name.parse()
    }
}

impl From<CubeName> for String {
    fn from(name: CubeName) -> Self {
        name.0
    }
}

impl fmt::Display for CubeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_taken_and_everything_else_is_refused() {
        for name in ["a", "team-notes", "v1.2_x", &"x".repeat(NAME_LEN_MAX)] {
            assert_eq!(name.parse::<CubeName>().expect("a name").as_str(), name);
        }
        let long = "x".repeat(NAME_LEN_MAX + 1);
        let refused =
            ["", ".", "..", "a..b", "../x", "a/b", "a\\b", "A", "ä", "а", "a ", " a", "-a", "a.", "a\0", "a\n", &long];
        for name in refused {
            assert!(matches!(name.parse::<CubeName>(), Err(CubeError::InvalidName { .. })), "{name:?} is refused");
        }
    }
}
