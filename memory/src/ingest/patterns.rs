//! Regular expressions as statics, compiled at their first use.

use regex::Regex;

/// A pattern of this crate. It is part of the program, so that it parses is an invariant.
pub(super) fn compiled(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern in the source parses: this is a bug")
}

/// Declares a static pattern.
macro_rules! pattern {
    ($name:ident, $pattern:expr) => {
        static $name: std::sync::LazyLock<regex::Regex> =
            std::sync::LazyLock::new(|| crate::ingest::patterns::compiled($pattern));
    };
}

pub(super) use pattern;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_without_regard_to_case_in_any_script() {
        assert!(compiled("(?i)^ö").is_match("Öl"));
    }
}
