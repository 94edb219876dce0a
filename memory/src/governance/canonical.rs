//! One byte form for what is hashed or signed: a domain tag, then fields with their lengths, so that no two different
//! values have the same bytes.

use crate::Timestamp;

/// Collects the bytes.
#[derive(Debug)]
pub(super) struct Canonical(Vec<u8>);

impl Canonical {
    /// Starts with the domain: the same fields for another purpose give other bytes.
    pub(super) fn new(domain: &'static str) -> Self {
        Self(Vec::with_capacity(256)).text(domain)
    }

    pub(super) fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub(super) fn moment(mut self, moment: Timestamp) -> Self {
        self.0.extend_from_slice(&moment.unix_ms().to_le_bytes());
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    pub(super) fn optional(mut self, bytes: Option<&[u8]>) -> Self {
        self.0.push(u8::from(bytes.is_some()));
        self.bytes(bytes.unwrap_or_default())
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}
