//! Facts about the store as a whole, and what these tests have in common.

mod erasure;
mod failure;
mod listing;
mod model;
mod random;
mod rules;
mod walks;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tempfile::TempDir;

use super::{By, Store, StoreError};
use crate::item::{Item, NewItem};
use crate::{Clock, CubeId, ItemId, Timestamp};

/// A store in a folder of its own, with a clock that the test turns.
struct Bench {
    folder: TempDir,
    store: Store,
    clock: Arc<AtomicI64>,
}

const BY: By<'static> = By { actor: "ada", reason: Some("a test") };
const FILE: &str = "memory.sqlite";
/// 2027-01-15T08:00:00Z.
const START_MS: i64 = 1_800_000_000_000;

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(AtomicI64::new(START_MS));
        let store = open(&folder.path().join(FILE), CubeId::new(), &clock).expect("a new store");
        Self { folder, store, clock }
    }

    fn reopened(self) -> Self {
        let Self { folder, store, clock } = self;
        let (path, cube) = (store.path().to_owned(), store.cube());
        drop(store);
        let store = open(&path, cube, &clock).expect("the store as it was left");
        Self { folder, store, clock }
    }

    fn add(&self, text: &str) -> Item {
        self.insert(NewItem::fact(text))
    }

    fn insert(&self, new: NewItem) -> Item {
        self.store.write(|tx| tx.insert(new, BY)).expect("a good item")
    }

    fn get(&self, id: ItemId) -> Option<Item> {
        self.store.read(|reader| reader.get(id)).expect("a readable store")
    }

    fn assert_sound(&self) {
        assert_eq!(self.store.check().expect("an examination"), []);
    }
}

fn open(path: &Path, cube: CubeId, clock: &Arc<AtomicI64>) -> Result<Store, StoreError> {
    let clock = Arc::clone(clock);
    let clock = Clock::from_fn(move || moment(clock.load(Ordering::Relaxed)));
    Store::open(path, cube, clock, &[])
}

fn moment(unix_ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(unix_ms).expect("a moment of our time")
}

/// The variant of an error, to compare refusals by.
fn variant(error: &StoreError) -> String {
    let text = format!("{error:?}");
    text.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}
