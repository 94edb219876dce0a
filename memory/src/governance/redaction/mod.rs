//! Redaction: finds payment cards, bank accounts, e-mail addresses, phone numbers and secrets in a text, and blacks
//! them out. Everything runs in time linear in the text; what has a checksum is checked.

mod numbers;
mod secrets;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::str::FromStr;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::error::cut;
use crate::MemoryError;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SensitiveKind {
    /// A key, token, password or private key block.
    Key,
    /// An account number in IBAN form.
    Iban,
    /// A payment card number.
    Card,
    /// An e-mail address.
    Email,
    /// A phone number.
    Phone,
    /// An IP address.
    Ip,
}

impl SensitiveKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [Self::Key, Self::Iban, Self::Card, Self::Email, Self::Phone, Self::Ip];

    /// The name in the redacted text and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Iban => "iban",
            Self::Card => "card",
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Ip => "ip",
        }
    }
}

impl fmt::Display for SensitiveKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for SensitiveKind {
    type Err = MemoryError;

    fn from_str(name: &str) -> Result<Self, MemoryError> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == name);
        known.ok_or_else(|| MemoryError::UnknownName {
            what: "a kind of sensitive text",
            name: cut(name),
            known: "key, iban, card, email, phone, ip",
        })
    }
}

/// Where something was found; never what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// What it is.
    pub kind: SensitiveKind,
    /// Its bytes in the text that was searched.
    pub range: Range<usize>,
}

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedactionConfig {
    /// The kinds.
    pub kinds: Vec<SensitiveKind>,
}

impl Default for RedactionConfig {
    /// Everything but IP addresses, which are rarely personal and easily mistaken for versions.
    fn default() -> Self {
        let kinds = SensitiveKind::ALL.into_iter().filter(|kind| *kind != SensitiveKind::Ip).collect();
        Self { kinds }
    }
}

/// Finds and blacks out; made once, used from any thread.
#[derive(Debug)]
pub struct Redactor {
    kinds: Vec<SensitiveKind>,
    secrets: secrets::Secrets,
    iban_start: Regex,
    email: Regex,
    phone: Regex,
    ip: Regex,
}

impl Redactor {
    /// A redactor for these kinds.
    pub fn new(config: &RedactionConfig) -> Self {
        Self {
            kinds: config.kinds.clone(),
            secrets: secrets::Secrets::new(),
            iban_start: pattern(r"(?-u:[A-Za-z]{2}[0-9]{2})"),
            email: pattern(r"[\p{L}\p{N}._%+'-]+@[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)+"),
            phone: pattern(numbers::PHONE_PATTERN),
            ip: pattern(r"(?-u:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})"),
        }
    }

    /// Everything that is found, in the order of the text. What overlaps is one finding, named after its longest part.
    pub fn find(&self, text: &str) -> Vec<Found> {
        let mut found = Vec::new();
        for &kind in &self.kinds {
            let ranges = match kind {
                SensitiveKind::Key => self.secrets.find(text),
                SensitiveKind::Iban => numbers::find_ibans(text, &self.iban_start),
                SensitiveKind::Card => numbers::find_cards(text),
                SensitiveKind::Email => find_emails(text, &self.email),
                SensitiveKind::Phone => numbers::find_phones(text, &self.phone),
                SensitiveKind::Ip => find_ips(text, &self.ip),
            };
            found.extend(ranges.into_iter().map(|range| Found { kind, range }));
        }
        merge_overlapping(found)
    }

    /// The text with every finding replaced by its kind, as `[redacted:card]`, and the findings in the old text.
    pub fn redact(&self, text: &str) -> (String, Vec<Found>) {
        let found = self.find(text);
        let mut redacted = String::with_capacity(text.len());
        let mut copied = 0;
        for Found { kind, range } in &found {
            redacted.push_str(&text[copied..range.start]);
            redacted.push_str("[redacted:");
            redacted.push_str(kind.as_str());
            redacted.push(']');
            copied = range.end;
        }
        redacted.push_str(&text[copied..]);
        (redacted, found)
    }
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new(&RedactionConfig::default())
    }
}

fn pattern(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern of this module compiles: this is a bug")
}

/// Unites what overlaps, so that no part of any finding is left over, whatever the order in which kinds are looked for.
fn merge_overlapping(mut found: Vec<Found>) -> Vec<Found> {
    found.sort_by_key(|one| (one.range.start, std::cmp::Reverse(one.range.end), one.kind));
    let mut merged: Vec<(Found, usize)> = Vec::with_capacity(found.len());
    for one in found {
        let len = one.range.len();
        match merged.last_mut() {
            Some((last, longest)) if one.range.start < last.range.end => {
                last.range.end = last.range.end.max(one.range.end);
                if len > *longest || (len == *longest && one.kind < last.kind) {
                    (last.kind, *longest) = (one.kind, len);
                }
            }
            _ => merged.push((one, len)),
        }
    }
    merged.into_iter().map(|(one, _)| one).collect()
}

fn find_emails(text: &str, pattern: &Regex) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    for found in pattern.find_iter(text) {
        let trimmed = found.as_str().trim_end_matches('-');
        let (local, domain) = trimmed.split_once('@').expect("the pattern has an @: this is a bug");
        let top = domain.rsplit('.').next().unwrap_or_default();
        // `pkg@1.2.3` and `user@10.0.0.1` are not addresses; a top-level domain has letters.
        let has_top = top.chars().count() >= 2 && top.chars().any(char::is_alphabetic);
        let start = found.start() + (local.len() - local.trim_start_matches(['.', '\'', '-', '%']).len());
        if has_top && !text[start..].starts_with('@') {
            ranges.push(start..found.start() + trimmed.len());
        }
    }
    ranges
}

fn find_ips(text: &str, pattern: &Regex) -> Vec<Range<usize>> {
    let is_joined = |character: char| character.is_alphanumeric() || matches!(character, '.' | ':' | '_');
    let candidates = pattern.find_iter(text).filter(|found| {
        let rest = &text[found.end()..];
        // A full stop may end a sentence, but not be followed by a further part.
        let rest = rest.strip_prefix(['.', ':']).filter(|rest| !rest.starts_with(is_joined)).unwrap_or(rest);
        !text[..found.start()].ends_with(is_joined) && !rest.starts_with(is_joined)
    });
    let is_ip = |text: &str| text.parse::<Ipv4Addr>().is_ok() || (text.len() > 4 && text.parse::<Ipv6Addr>().is_ok());
    candidates.filter(|found| is_ip(found.as_str())).map(|found| found.range()).collect()
}
