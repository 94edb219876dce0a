//! The posting list of one term: which slots have it and how often, with what bounds its contribution to any score.

use super::score::Weigh;

/// Place of a memory inside the index. Slots are dense and reused, whatever the rows are.
pub(super) type Slot = u32;

/// Slots there can be: a posting has 24 bits for its slot.
pub(super) const NUM_SLOTS_MAX: usize = 1 << 24;

/// A slot and a term frequency in four bytes; postings order by slot.
///
/// ```text
/// 31                      8 7        0
/// |         slot           | frequency |     the frequency saturates at 255
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Posting(u32);

impl Posting {
    pub fn new(slot: Slot, frequency: u8) -> Self {
        debug_assert!((slot as usize) < NUM_SLOTS_MAX && frequency > 0);
        Self(slot << 8 | u32::from(frequency))
    }

    pub fn slot(self) -> Slot {
        self.0 >> 8
    }

    pub fn frequency(self) -> u8 {
        self.0 as u8
    }
}

/// Frequencies that have a bound of their own; the last class is "this many or more".
const NUM_CLASSES: usize = 4;

/// The shortest text among the postings of each frequency. No posting weighs more than one of these pairs does,
/// whatever the average length of a text is by then, because a weight rises with the frequency and falls with the
/// length.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    len_min: [u32; NUM_CLASSES],
    frequency_max: u8,
}

impl Bounds {
    const EMPTY: Self = Self { len_min: [u32::MAX; NUM_CLASSES], frequency_max: 0 };

    fn include(&mut self, frequency: u8, len: u32) {
        let class = usize::from(frequency).min(NUM_CLASSES) - 1;
        self.len_min[class] = self.len_min[class].min(len);
        self.frequency_max = self.frequency_max.max(frequency);
    }
}

/// The postings of one term, ordered by slot.
#[derive(Debug, Default)]
pub(super) struct Postings {
    list: Vec<Posting>,
    bounds: Bounds,
    /// Postings there were when the bounds were last exact. Removals leave them loose, which costs time and never
    /// correctness; at half as many they are made exact again, so that this costs O(1) per removal.
    num_at_bounds: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Postings {
    pub fn as_slice(&self) -> &[Posting] {
        &self.list
    }

    pub fn insert(&mut self, posting: Posting, len: u32) {
        self.bounds.include(posting.frequency(), len);
        // Rows mostly come in the order of their slots.
        if self.list.last().is_none_or(|last| last.slot() < posting.slot()) {
            self.list.push(posting);
        } else {
            let at = self.list.partition_point(|other| other.slot() < posting.slot());
            self.list.insert(at, posting);
        }
        self.num_at_bounds = self.num_at_bounds.max(self.list.len());
    }

    /// Removes the posting of a slot. `lens` are the lengths of all slots.
    ///
    /// # Panics
    /// When there is no such posting: the index said there was.
    pub fn remove(&mut self, slot: Slot, lens: &[u32]) {
        let at = self.list.binary_search_by_key(&slot, |posting| posting.slot());
        self.list.remove(at.expect("a term of a slot has a posting for it: this is a bug"));
        if self.list.len() <= self.num_at_bounds / 2 {
            self.bounds = Bounds::EMPTY;
            for posting in &self.list {
                self.bounds.include(posting.frequency(), lens[posting.slot() as usize]);
            }
            self.num_at_bounds = self.list.len();
            self.list.shrink_to(2 * self.list.len());
        }
    }

    /// What no posting of this list exceeds.
    pub fn weight_max(&self, weigh: Weigh) -> u32 {
        let bounds = &self.bounds;
        let classes = (1..).zip(bounds.len_min).filter(|(_, len)| *len != u32::MAX);
        let weights = classes.map(|(frequency, len)| {
            let is_last = usize::from(frequency) == NUM_CLASSES;
            weigh.weight(if is_last { bounds.frequency_max } else { frequency }, len)
        });
        weights.max().unwrap_or(0)
    }

    pub fn shrink_to_fit(&mut self) {
        self.list.shrink_to_fit();
    }

    pub fn heap_bytes(&self) -> usize {
        self.list.capacity() * size_of::<Posting>()
    }
}
