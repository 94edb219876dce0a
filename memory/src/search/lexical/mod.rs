//! The lexical index: an inverted index with BM25 in RAM, rebuilt from the rows at mount and changed with each commit.
//!
//! ```text
//! dictionary: term ─► TermId ─► postings: (slot, frequency), ordered by slot, 4 bytes each
//! rows:       Row  ─► Slot   ─► row, length, the ids of its terms (4 bytes each)
//! ```
//!
//! A row knows its terms, so removing it needs no text and takes exactly what it brought; a term without postings
//! leaves the dictionary. Statistics (number of texts, their lengths, document frequencies) are of all rows in the index,
//! whoever may read them: filters narrow what is returned, not what a term weighs.
mod postings;
mod score;
mod search;

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::postings::{NUM_SLOTS_MAX, Posting, Postings, Slot};
use self::score::Weigh;
use super::analyzer::Analyzed;
use super::{Row, SearchError};

pub use self::score::Bm25;

/// Most terms of a query that are searched for; of a longer one the rarest are.
pub const QUERY_TERMS_MAX: usize = 64;
/// Length of a query in bytes that is read; what comes after is not searched for.
pub const QUERY_BYTES_MAX: usize = 64 << 10;

type TermId = u32;

/// A question as terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LexicalQuery {
    terms: Vec<String>,
}

impl LexicalQuery {
    /// From any text: there is no syntax. Each term counts once, however often the question repeats it.
    pub fn new(text: &str) -> Self {
        let analyzed = Analyzed::of_query(&text[..text.floor_char_boundary(QUERY_BYTES_MAX)]);
        Self { terms: analyzed.terms().map(|(term, _)| term.to_owned()).collect() }
    }

    /// Whether there is nothing to search for.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }
}

/// What one term of the query gave to a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TermScore {
    /// The term as it is in the index: folded and stemmed.
    pub term: String,
    /// Its part of the score.
    pub score: f32,
}

struct Term {
    text: Arc<str>,
    postings: Postings,
}

/// See the module's description.
pub struct LexicalIndex {
    bm25: Bm25,
    dictionary: HashMap<Arc<str>, TermId>,
    /// By [`TermId`]; `None` is free to be used again.
    terms: Vec<Option<Term>>,
    free_terms: Vec<TermId>,
    slots: HashMap<Row, Slot>,
    /// By [`Slot`], these three. A free slot has no terms and no postings.
    rows: Vec<Row>,
    lens: Vec<u32>,
    row_terms: Vec<Box<[TermId]>>,
    free_slots: Vec<Slot>,
    num_words: u64,
}

impl LexicalIndex {
    /// Without any text.
    pub fn new(bm25: Bm25) -> Self {
        Self {
            bm25,
            dictionary: HashMap::new(),
            terms: Vec::new(),
            free_terms: Vec::new(),
            slots: HashMap::new(),
            rows: Vec::new(),
            lens: Vec::new(),
            row_terms: Vec::new(),
            free_slots: Vec::new(),
            num_words: 0,
        }
    }

    /// Number of rows, those without any term included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Number of different terms.
    pub fn num_terms(&self) -> usize {
        self.dictionary.len()
    }

    /// Number of rows that have this term, given as it is in the index; 0 says that nothing of it is left.
    pub fn num_rows_with(&self, term: &str) -> usize {
        let term = self.dictionary.get(term).map(|id| self.term(*id));
        term.map_or(0, |term| term.postings.as_slice().len())
    }

    /// Puts a row in, in place of what it was before.
    ///
    /// # Errors
    /// [`SearchError::Full`] when there are 2^24 rows.
    pub fn insert(&mut self, row: Row, text: &Analyzed) -> Result<(), SearchError> {
        self.remove(row);
        let slot = self.take_slot(row)?;
        let ids: Box<[TermId]> = text.terms().map(|(term, _)| self.intern(term)).collect();
        for (&id, (_, frequency)) in ids.iter().zip(text.terms()) {
            let term = self.terms[id as usize].as_mut().expect("an interned term exists: this is a bug");
            term.postings.insert(Posting::new(slot, frequency), text.len());
        }
        self.slots.insert(row, slot);
        self.lens[slot as usize] = text.len();
        self.row_terms[slot as usize] = ids;
        self.num_words += u64::from(text.len());
        Ok(())
    }

    /// Takes a row out with all that came from it; says whether it was there.
    pub fn remove(&mut self, row: Row) -> bool {
        let Some(slot) = self.slots.remove(&row) else { return false };
        for id in std::mem::take(&mut self.row_terms[slot as usize]) {
            let term = self.terms[id as usize].as_mut().expect("a term of a row exists: this is a bug");
            term.postings.remove(slot, &self.lens);
            if term.postings.as_slice().is_empty() {
                self.dictionary.remove(&term.text);
                self.terms[id as usize] = None;
                self.free_terms.push(id);
            }
        }
        self.num_words -= u64::from(std::mem::take(&mut self.lens[slot as usize]));
        self.free_slots.push(slot);
        true
    }

    /// Gives back what growing reserved in advance; worth it once, after a rebuild.
    pub fn shrink_to_fit(&mut self) {
        for term in self.terms.iter_mut().flatten() {
            term.postings.shrink_to_fit();
        }
        self.terms.shrink_to_fit();
        self.rows.shrink_to_fit();
        self.lens.shrink_to_fit();
        self.row_terms.shrink_to_fit();
    }

    /// Bytes that the index holds, estimated from its capacities (hash tables with one control byte an entry, shared
    /// strings with two counts).
    pub fn heap_bytes(&self) -> usize {
        let table = |capacity: usize, entry: usize| capacity * 8 / 7 * (entry + 1);
        let texts: usize = self.dictionary.keys().map(|text| text.len() + 2 * size_of::<usize>()).sum();
        let postings: usize = self.terms.iter().flatten().map(|term| term.postings.heap_bytes()).sum();
        let row_terms: usize = self.row_terms.iter().map(|ids| size_of_val::<[TermId]>(ids)).sum();
        texts
            + postings
            + row_terms
            + table(self.dictionary.capacity(), size_of::<(Arc<str>, TermId)>())
            + table(self.slots.capacity(), size_of::<(Row, Slot)>())
            + self.terms.capacity() * size_of::<Option<Term>>()
            + self.rows.capacity() * size_of::<Row>()
            + self.lens.capacity() * size_of::<u32>()
            + self.row_terms.capacity() * size_of::<Box<[TermId]>>()
            + (self.free_terms.capacity() + self.free_slots.capacity()) * size_of::<u32>()
    }

    fn term(&self, id: TermId) -> &Term {
        self.terms[id as usize].as_ref().expect("the dictionary names terms that exist: this is a bug")
    }

    fn weigh(&self, term: &Term) -> Weigh {
        Weigh::new(self.bm25, term.postings.as_slice().len(), self.len(), self.num_words)
    }

    fn take_slot(&mut self, row: Row) -> Result<Slot, SearchError> {
        if let Some(slot) = self.free_slots.pop() {
            self.rows[slot as usize] = row;
            return Ok(slot);
        }
        if self.rows.len() == NUM_SLOTS_MAX {
            return Err(SearchError::Full { limit: NUM_SLOTS_MAX });
        }
        self.rows.push(row);
        self.lens.push(0);
        self.row_terms.push(Box::default());
        Ok((self.rows.len() - 1) as Slot)
    }

    fn intern(&mut self, text: &str) -> TermId {
        if let Some(id) = self.dictionary.get(text) {
            return *id;
        }
        let text: Arc<str> = text.into();
        let term = Some(Term { text: text.clone(), postings: Postings::default() });
        let id = match self.free_terms.pop() {
            Some(id) => {
                self.terms[id as usize] = term;
                id
            }
            None => {
                self.terms.push(term);
                TermId::try_from(self.terms.len() - 1).expect("fewer terms than postings: this is a bug")
            }
        };
        self.dictionary.insert(text, id);
        id
    }
}

impl Default for LexicalIndex {
    fn default() -> Self {
        Self::new(Bm25::default())
    }
}

#[cfg(test)]
mod tests;
