//! Moments: milliseconds since 1970 in UTC, read and written as RFC 3339, and the clock they come from.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::MemoryError;

/// A moment in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment this many milliseconds after 1970; `None` outside of the years -9999 to 9999.
    pub fn from_unix_ms(unix_ms: i64) -> Option<Self> {
        jiff::Timestamp::from_millisecond(unix_ms).ok().map(|_valid| Self(unix_ms))
    }

    /// Milliseconds since 1970.
    pub fn unix_ms(self) -> i64 {
        self.0
    }

    /// The next millisecond.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).expect("a timestamp is made from a valid one: this is a bug")
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.3}", self.to_jiff())
    }
}

impl FromStr for Timestamp {
    type Err = MemoryError;

    /// RFC 3339 with an offset, such as `2026-03-01T12:00:00Z`; finer parts than milliseconds are cut off.
    fn from_str(text: &str) -> Result<Self, MemoryError> {
        let invalid = |_| MemoryError::InvalidTime { text: text.chars().take(64).collect() };
        text.parse::<jiff::Timestamp>().map(|moment| Self(moment.as_millisecond())).map_err(invalid)
    }
}

impl TryFrom<String> for Timestamp {
    type Error = MemoryError;

    fn try_from(text: String) -> Result<Self, MemoryError> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(moment: Timestamp) -> Self {
        moment.to_string()
    }
}

/// Where "now" comes from: the system, or a test.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system's clock. It may go backwards; whoever orders by it has to guard against that.
    pub fn system() -> Self {
        Self::from_fn(|| Timestamp(jiff::Timestamp::now().as_millisecond()))
    }

    /// A clock that asks the function.
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The moment.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_moment_convert_into_each_other() {
        let moment: Timestamp = "2026-03-01T12:00:00.123456+02:00".parse().expect("a moment");
        assert_eq!(moment.to_string(), "2026-03-01T10:00:00.123Z");
        assert_eq!(moment.to_string().parse::<Timestamp>().expect("its own text"), moment);
        assert_eq!(Timestamp::from_unix_ms(0).expect("1970").to_string(), "1970-01-01T00:00:00.000Z");
        assert!(Timestamp::from_unix_ms(i64::MAX).is_none());
        for text in ["", "yesterday", "2026-13-01T00:00:00Z", "2026-03-01", "2026-03-01T12:00:00"] {
            assert!(text.parse::<Timestamp>().is_err(), "{text:?} is no moment");
        }
    }
}
