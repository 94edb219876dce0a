//! Duplicates: whether two memories say the same, so that one may go into the other.
//!
//! Wrongly merging two facts loses one of them to every reader; keeping two copies costs a line. So a pair is called a
//! duplicate only if nothing in either text could say otherwise, in this order:
//!
//! 1. The same text but for spacing, compatibility forms, the case of its first letter and a full stop at the end:
//!    **exact**.
//! 2. The same words in the same order but for articles, contractions and punctuation, or one text with a few plain
//!    words more than the other and at least 0.85 of all terms in common: **near**.
//! 3. Everything else is **distinct**. In particular a word that was exchanged ("tea", "coffee"), moved ("Ann owes
//!    Bob"), or changed in form ("works", "worked"), and a number, code, name, date, sign, negation or limiting word
//!    ("only", "until", "perhaps") that one text has more than the other.
//!
//! Similarity of vectors has no say in this: embeddings of "code 4417" and "code 4471" are as good as equal.
mod words;

use std::cmp::Ordering;
use std::fmt;

use super::analyzer::Analyzed;
use words::{Word, words_of};

/// Least share of common terms of a near duplicate with more words.
pub const JACCARD_MIN: f32 = 0.85;

/// A hash of a text that is the same for exact duplicates and differs for others. It is derived from the text: an
/// erasure has to erase it too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TextHash([u8; 32]);

impl TextHash {
    /// Of a text: much cheaper than the whole profile.
    pub fn of(text: &str) -> Self {
        Self(*blake3::hash(words::normalise(text).as_bytes()).as_bytes())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TextHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TextHash({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// What a text is compared by.
#[derive(Debug, Clone)]
pub struct DuplicateProfile {
    hash: TextHash,
    terms: Analyzed,
    words: Vec<Word>,
}

/// How two texts relate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// They are the same text, for any reader.
    Exact,
    /// They say the same.
    Near {
        /// Share of common terms.
        jaccard: f32,
        /// Which one says more, and should be the one that stays.
        fuller: Fuller,
    },
    /// They may say different things.
    Distinct,
}

/// Which of two texts has more words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fuller {
    /// The one that was asked.
    This,
    /// The one it was compared with.
    Other,
    /// Neither.
    Neither,
}

impl DuplicateProfile {
    /// Of a text.
    pub fn new(text: &str) -> Self {
        let hash = TextHash::of(text);
        Self { hash, terms: Analyzed::of_document(text), words: words_of(text) }
    }

    /// The hash to look for exact duplicates by.
    pub fn hash(&self) -> TextHash {
        self.hash
    }

    /// Share of the terms of both that are in both, 0 to 1.
    pub fn similarity(&self, other: &Self) -> f32 {
        self.terms.jaccard(&other.terms)
    }

    /// How this text and the other relate; the same from both sides.
    pub fn compare(&self, other: &Self) -> Verdict {
        if self.hash == other.hash {
            return Verdict::Exact;
        }
        // Without words there is nothing to tell two texts apart by, and they are not the same.
        if self.words.is_empty() || other.words.is_empty() {
            return Verdict::Distinct;
        }
        let (fuller, longer, shorter) = match self.words.len().cmp(&other.words.len()) {
            Ordering::Equal if self.words == other.words => {
                return Verdict::Near { jaccard: self.similarity(other), fuller: Fuller::Neither };
            }
            Ordering::Equal => return Verdict::Distinct,
            Ordering::Greater => (Fuller::This, self, other),
            Ordering::Less => (Fuller::Other, other, self),
        };
        // A search compares hundreds of pairs: most differ too much in length for their terms to be looked at.
        if self.terms.jaccard_most(&other.terms) < JACCARD_MIN {
            return Verdict::Distinct;
        }
        let jaccard = self.similarity(other);
        if jaccard >= JACCARD_MIN && has_all(&longer.words, &shorter.words) {
            Verdict::Near { jaccard, fuller }
        } else {
            Verdict::Distinct
        }
    }
}

/// Whether the longer text has the words of the shorter one in their order, and nothing beside them that could change
/// what they say.
fn has_all(longer: &[Word], shorter: &[Word]) -> bool {
    let mut wanted = shorter.iter().peekable();
    longer.iter().all(|word| wanted.next_if_eq(&word).is_some() || word.is_plain()) && wanted.peek().is_none()
}

#[cfg(test)]
mod tests;
