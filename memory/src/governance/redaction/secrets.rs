//! Secrets: keys and tokens that are known by their prefix, private key blocks, and what follows a word like "password".

use std::collections::HashMap;
use std::ops::Range;

use regex::Regex;

use super::pattern;

/// Tokens that say themselves what they are. The tail is long enough that no ordinary word fits.
const PREFIXED: &str = concat!(
    r"\b(?-u:",
    r"mk-[0-9a-f]{32,}",
    r"|sk-[A-Za-z0-9_-]{16,}",
    r"|[srp]k_(?:live|test)_[A-Za-z0-9]{10,}",
    r"|gh[pousr]_[A-Za-z0-9]{30,}",
    r"|github_pat_[A-Za-z0-9_]{22,}",
    r"|glpat-[A-Za-z0-9_-]{20,}",
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}",
    r"|AIza[A-Za-z0-9_-]{35}",
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}",
    r"|hf_[A-Za-z0-9]{30,}",
    r"|npm_[A-Za-z0-9]{36}",
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    r")",
);

const PRIVATE_KEY_BLOCK: &str = concat!(
    r"(?s)-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----.*?",
    r"(?:-----END [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----|\z)",
);

/// A word that announces a secret, what links it to the secret, and the secret.
const ANNOUNCED: &str = concat!(
    r"(?i)\b(?:api[ _-]?keys?|access[ _-]?keys?|secret(?:[ _-](?:access[ _-])?keys?)?|private[ _-]keys?|",
    r"(?:auth|access|bearer|refresh|session)?[ _-]?tokens?|bearer|credentials?|",
    r"passwords?|passwd|pwd|passphrase|passwort|kennwort|mot de passe|contraseña)",
    r#"(?P<link>["']?\s{0,4}(?:=>|:=|=|:)\s{0,4}|\s+(?:is|was|are|ist|war|lautet|est|es)\s{0,2}:?\s+|\s+)"#,
    r#"["'`“„«]?(?P<secret>[^\s"'`”“»<>]{6,512})"#,
);

/// Shortest secret after a bare word, where nothing but its own look says that it is one.
const BARE_LEN_MIN: usize = 16;

#[derive(Debug)]
pub(super) struct Secrets {
    prefixed: Regex,
    private_key_block: Regex,
    announced: Regex,
}

impl Secrets {
    pub(super) fn new() -> Self {
        Self {
            prefixed: pattern(PREFIXED),
            private_key_block: pattern(PRIVATE_KEY_BLOCK),
            announced: pattern(ANNOUNCED),
        }
    }

    pub(super) fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = self.prefixed.find_iter(text).map(|found| found.range()).collect();
        ranges.extend(self.private_key_block.find_iter(text).map(|found| found.range()));
        for captures in self.announced.captures_iter(text) {
            let (Some(link), Some(secret)) = (captures.name("link"), captures.name("secret")) else { continue };
            let value = secret.as_str().trim_end_matches(['.', ',', ';', ':', ')', ']', '?']);
            let is_bare = link.as_str().trim().is_empty();
            let is_secret = if is_bare {
                value.len() >= BARE_LEN_MIN && has_letters_and_digits(value) && bits_per_character(value) >= 3.0
            } else {
                value.chars().count() >= 6 && looks_chosen(value)
            };
            // A link to a page about passwords is no password.
            if is_secret && !value.contains("://") {
                ranges.push(secret.start()..secret.start() + value.len());
            }
        }
        ranges
    }
}

/// Whether a text after "password is" is one rather than the next word of the sentence: it mixes letters with digits,
/// or has three of the four classes of characters. Ordinary words, codes of digits and dates do not.
fn looks_chosen(value: &str) -> bool {
    let has = |class: fn(char) -> bool| value.chars().any(class);
    let classes = [
        has(char::is_lowercase),
        has(char::is_uppercase),
        has(char::is_numeric),
        has(|character| !character.is_alphanumeric()),
    ];
    has_letters_and_digits(value) || classes.into_iter().filter(|there| *there).count() >= 3
}

fn has_letters_and_digits(value: &str) -> bool {
    value.chars().any(char::is_alphabetic) && value.chars().any(char::is_numeric)
}

/// Shannon entropy of the characters.
fn bits_per_character(value: &str) -> f64 {
    let mut counts: HashMap<char, u32> = HashMap::new();
    for character in value.chars() {
        *counts.entry(character).or_default() += 1;
    }
    let total = f64::from(counts.values().sum::<u32>());
    counts.values().map(|count| f64::from(*count) / total).map(|share| -share * share.log2()).sum()
}
