//! Text to terms, the same way for what is stored and for what is asked: folded, cut into words, stemmed.
//!
//! - Latin words are stemmed by the English Snowball stemmer, possessives lose their ending.
//! - Numbers and codes are kept whole, and their parts are terms too: `A-4417` is found by `a-4417` and by `4417`.
//! - Scripts without spaces between words become overlapping pairs of characters.
//! - Stop words are kept: their weight is low by itself, and "The Who" stays findable.
//!
//! Text has no syntax here. Quotes, operators and brackets are borders of words like any other punctuation.
mod fold;
mod scripts;

use rust_stemmers::{Algorithm, Stemmer};
use unicode_segmentation::UnicodeSegmentation;

pub(crate) use fold::fold;
pub(crate) use scripts::{Script, runs};

/// Greatest length of a term in bytes; a longer word is cut to it, and so is the query's.
pub const TERM_BYTES_MAX: usize = 64;
/// Greatest number of equal terms that count: BM25 is flat long before.
pub const TERM_FREQUENCY_MAX: u8 = u8::MAX;

/// A text as the index sees it: its distinct terms, sorted, with their frequencies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Analyzed {
    terms: Vec<(String, u8)>,
    len: u32,
}

impl Analyzed {
    /// Terms of a text that is stored.
    pub fn of_document(text: &str) -> Self {
        Self::collect(text, Use::Document)
    }

    /// Terms of a text that is asked for. Of characters that are words only sometimes (single ideographs beside
    /// others) a document has more terms than a query.
    pub fn of_query(text: &str) -> Self {
        Self::collect(text, Use::Query)
    }

    fn collect(text: &str, purpose: Use) -> Self {
        let mut collector =
            Collector { stemmer: Stemmer::create(Algorithm::English), terms: Vec::new(), len: 0, purpose };
        for (script, run) in runs(&fold(text)) {
            match script {
                Script::Spaced => collector.add_words(run),
                _ => collector.add_pairs(script, run),
            }
        }
        let Collector { mut terms, len, .. } = collector;
        terms.sort_unstable();
        let mut counted: Vec<(String, u8)> = Vec::with_capacity(terms.len());
        for term in terms {
            match counted.last_mut() {
                Some((last, frequency)) if *last == term => *frequency = frequency.saturating_add(1),
                _ => counted.push((term, 1)),
            }
        }
        Self { terms: counted, len }
    }

    /// Distinct terms, sorted, with how often each occurs.
    pub fn terms(&self) -> impl ExactSizeIterator<Item = (&str, u8)> {
        self.terms.iter().map(|(term, frequency)| (term.as_str(), *frequency))
    }

    /// Number of distinct terms.
    pub fn num_terms(&self) -> usize {
        self.terms.len()
    }

    /// Length of the text in words. Parts of codes and single ideographs beside pairs are extra terms, not words.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether the text has no term at all.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// What the Jaccard similarity is at most, by the number of terms alone.
    pub fn jaccard_most(&self, other: &Self) -> f32 {
        let (fewer, more) = (self.terms.len().min(other.terms.len()), self.terms.len().max(other.terms.len()));
        if more == 0 { 0.0 } else { fewer as f32 / more as f32 }
    }

    /// Jaccard similarity of the two sets of terms, 0 to 1; two texts without terms have nothing in common.
    pub fn jaccard(&self, other: &Self) -> f32 {
        let (mut left, mut right) = (self.terms.iter().peekable(), other.terms.iter().peekable());
        let mut num_common = 0;
        while let (Some((left_term, _)), Some((right_term, _))) = (left.peek(), right.peek()) {
            let order = left_term.cmp(right_term);
            num_common += usize::from(order.is_eq());
            left.next_if(|_| order.is_le());
            right.next_if(|_| order.is_ge());
        }
        let num_all = self.terms.len() + other.terms.len() - num_common;
        if num_all == 0 { 0.0 } else { num_common as f32 / num_all as f32 }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Document,
    Query,
}

/// How a term counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It is a word of the text.
    Word,
    /// It is another way to find a word that is there already.
    Part,
}

struct Collector {
    stemmer: Stemmer,
    terms: Vec<String>,
    len: u32,
    purpose: Use,
}

impl Collector {
    fn push(&mut self, term: &str, role: Role) {
        let term = &term[..term.floor_char_boundary(TERM_BYTES_MAX)];
        if term.is_empty() {
            return;
        }
        self.len = self.len.saturating_add(u32::from(role == Role::Word));
        self.terms.push(term.to_owned());
    }

    /// Words of a run with visible borders. Words that only a joiner holds together may be one code.
    fn add_words(&mut self, run: &str) {
        let mut code_start = 0;
        let mut code_end = 0;
        let mut num_words = 0;
        for (start, word) in run.unicode_word_indices() {
            let is_joined = num_words > 0 && is_joiner(&run[code_end..start]);
            if !is_joined {
                self.add_code(&run[code_start..code_end], num_words);
                code_start = start;
                num_words = 0;
            }
            num_words += 1;
            code_end = start + word.len();
            self.add_word(word);
        }
        self.add_code(&run[code_start..code_end], num_words);
    }

    /// The whole of several joined words, if it is a code (`a-4417`, `2026-03-01`) or an address (`bob@example.com`).
    fn add_code(&mut self, joined: &str, num_words: usize) {
        if num_words > 1 && joined.contains(|letter: char| letter.is_ascii_digit() || letter == '@') {
            self.push(joined, Role::Part);
        }
        // Of a moment (`2026-03-01T12:00`) the day and the month are asked for.
        if let Some(date) = joined.get(.."2026-03-01".len()).filter(|date| is_date(date)) {
            if date.len() < joined.len() {
                self.push(date, Role::Part);
            }
            self.push(&date[.."2026-03".len()], Role::Part);
        }
    }

    fn add_word(&mut self, word: &str) {
        let word = word.strip_suffix("'s").unwrap_or(word);
        if word.contains('\'') {
            // "don't" and "O'Brien" are also written without the mark.
            let joined: String = word.chars().filter(|&letter| letter != '\'').collect();
            return self.push_stemmed(&joined, Role::Word);
        }
        // Unicode keeps "3.14", "1,000", "example.com" and "snake_case" as one word each.
        if !word.contains(is_inner_mark) {
            return self.push_stemmed(word, Role::Word);
        }
        let is_number = word.chars().all(|letter| letter.is_ascii_digit() || is_inner_mark(letter));
        if is_number {
            self.push(word, Role::Word);
            if word.contains(',') {
                self.push(&word.replace(',', ""), Role::Part);
            }
        } else if word.split(is_inner_mark).all(|part| part.chars().count() <= 1) {
            // An acronym: "u.s.a" is also written "usa".
            self.push(&word.replace(is_inner_mark, ""), Role::Word);
        } else {
            self.push(word, Role::Word);
            for part in word.split(is_inner_mark) {
                self.push_stemmed(part, Role::Part);
            }
        }
    }

    /// A word without marks: stemmed if it is of Latin letters, with its parts if it mixes letters and digits.
    fn push_stemmed(&mut self, word: &str, role: Role) {
        if word.bytes().all(|byte| byte.is_ascii_lowercase()) {
            let stem = self.stemmer.stem(word);
            return self.push(&stem, role);
        }
        self.push(word, role);
        if word.bytes().any(|byte| byte.is_ascii_digit()) {
            self.push_digit_runs(word);
        }
    }

    /// Runs of two digits and more inside of a word: `a4417` is found by `4417`, but `p5` is not by `5`.
    fn push_digit_runs(&mut self, word: &str) {
        for digits in word.split(|letter: char| !letter.is_ascii_digit()) {
            if digits.len() > 1 && digits.len() < word.len() {
                self.push(digits, Role::Part);
            }
        }
    }

    /// Overlapping pairs of characters.
    fn add_pairs(&mut self, script: Script, run: &str) {
        let starts: Vec<usize> = run.char_indices().map(|(start, _)| start).chain([run.len()]).collect();
        let num_letters = starts.len() - 1;
        for pair in starts.windows(3) {
            self.push(&run[pair[0]..pair[2]], Role::Word);
        }
        if num_letters == 1 {
            self.push(run, Role::Word);
        } else if script.has_single_words() && self.purpose == Use::Document {
            for letter in starts.windows(2) {
                self.push(&run[letter[0]..letter[1]], Role::Part);
            }
        }
    }
}

/// Whether this has the form of a date in ISO 8601.
fn is_date(text: &str) -> bool {
    text.bytes()
        .enumerate()
        .all(|(index, byte)| if index == 4 || index == 7 { byte == b'-' } else { byte.is_ascii_digit() })
}

/// Marks that Unicode lets stand inside of one word.
fn is_inner_mark(letter: char) -> bool {
    matches!(letter, '.' | ',' | '_' | ':' | ';')
}

/// What may stand between the words of one code.
fn is_joiner(between: &str) -> bool {
    matches!(between, "-" | "/" | "." | ":" | "@" | "#" | "+" | "&" | "_")
}

#[cfg(test)]
mod tests;
