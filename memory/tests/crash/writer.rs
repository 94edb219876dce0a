//! The process that is killed: several threads write through the boundary and say what was acknowledged as soon as it was.

use std::io::Write;
use std::path::Path;

use memory::governance::{Actor, Role};
use memory::item::{ItemPatch, NewItem};
use memory::lifecycle::ItemState;
use memory::memories::{AddOptions, Duplicates, MemoriesError, MountedCube};
use memory::{Clock, ItemId};

use crate::journal::{Operation, joined};
use crate::support::{Random, actor, open, word};

/// Name of the cube that is written.
pub const CUBE: &str = "notes";
/// Words that one thread of one run may use.
const WORDS_PER_THREAD: u64 = 1_000_000;

/// What one run does.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Different for each run on the same folder, so that words differ.
    pub run: u64,
    pub seed: u64,
    pub num_threads: usize,
    /// Of each thread.
    pub num_operations: usize,
}

/// Who writes.
pub fn owner() -> Actor {
    actor("acme", Role::Admin, None, None)
}

/// The text of the memory with this word.
pub fn text(word: &str) -> String {
    format!("Delivery {word} moves to next week")
}

/// Opens or makes the cube and writes until all is done.
pub fn write(folder: &Path, work: Work) {
    let memories = open(folder, Clock::system());
    let failed = memories.mount_all().expect("the folder can be listed");
    assert!(failed.is_empty(), "{failed:?}");
    let name = CUBE.parse().expect("a name");
    let cube = memories.cube(&name).or_else(|_| memories.create(&owner(), name)).expect("a cube");
    say("created");
    std::thread::scope(|scope| {
        for thread in 0..work.num_threads {
            let cube = &cube;
            scope.spawn(move || Thread::new(cube, work, thread).work(work.num_operations));
        }
    });
}

/// One whole line, written at once.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).expect("somebody listens");
}

struct Thread<'a> {
    cube: &'a MountedCube,
    actor: Actor,
    random: Random,
    number: usize,
    next_word: u64,
    /// Memories of this thread that may still be edited, merged or erased, each on its own.
    single: Vec<ItemId>,
    /// Memories that were added together.
    batched: Vec<ItemId>,
}

impl<'a> Thread<'a> {
    fn new(cube: &'a MountedCube, work: Work, number: usize) -> Self {
        let random = Random(work.seed ^ (number as u64) << 32);
        let next_word = (work.run * work.num_threads as u64 + number as u64 + 1) * WORDS_PER_THREAD;
        Self { cube, actor: owner(), random, number, next_word, single: Vec::new(), batched: Vec::new() }
    }

    fn work(&mut self, num_operations: usize) {
        for _ in 0..num_operations {
            let operation = self.choose();
            let Operation { verb, ids, words } = &operation;
            say(&format!("begin {} {verb} {} {}", self.number, joined(ids), joined(words)));
            match self.run(&operation) {
                Ok(made) => {
                    say(&format!("done {} {}", self.number, joined(&made)));
                    self.note(&operation, &made);
                }
                // A full disk closes the cube for writing: the rest would be refused too.
                Err(error) => return say(&format!("refused {} {error}", self.number)),
            }
        }
    }

    fn choose(&mut self) -> Operation {
        let draw = self.random.below(100);
        match draw {
            0..12 => Operation::new("add", &[], &self.words(8)),
            12..30 if !self.batched.is_empty() => {
                let id = self.batched[self.random.below(self.batched.len())];
                Operation::new("update", &[id], &self.words(1))
            }
            30..45 if !self.single.is_empty() => {
                let id = self.single[self.random.below(self.single.len())];
                Operation::new("update", &[id], &self.words(1))
            }
            45..55 if self.batched.len() >= 2 => {
                let parents = [self.take_batched(), self.take_batched()];
                Operation::new("merge", &parents, &self.words(1))
            }
            55..60 if !self.batched.is_empty() => Operation::new("archive", &[self.take_batched()], &[]),
            60..64 if !self.single.is_empty() => {
                let place = self.random.below(self.single.len());
                Operation::new("erase", &[self.single.swap_remove(place)], &[])
            }
            _ => Operation::new("add", &[], &self.words(1)),
        }
    }

    fn take_batched(&mut self) -> ItemId {
        let place = self.random.below(self.batched.len());
        self.batched.swap_remove(place)
    }

    fn words(&mut self, num: u64) -> Vec<String> {
        self.next_word += num;
        (self.next_word - num..self.next_word).map(word).collect()
    }

    fn run(&self, operation: &Operation) -> Result<Vec<ItemId>, MemoriesError> {
        let Operation { verb, ids, words } = operation;
        let (cube, actor) = (self.cube, &self.actor);
        let new = |word: &String| NewItem { entities: vec![word.clone()], ..NewItem::fact(text(word)) };
        match verb.as_str() {
            "add" => {
                let options = AddOptions { duplicates: Duplicates::SkipNear, ..AddOptions::default() };
                let added = cube.add(actor, words.iter().map(new).collect(), options)?;
                Ok(added.into_iter().map(|added| added.item.id).collect())
            }
            "update" => {
                let (text, entities) = (Some(text(&words[0])), Some(words.clone()));
                let patch = ItemPatch { text, entities, ..ItemPatch::default() };
                cube.update(actor, ids[0], None, patch, None).map(|_item| Vec::new())
            }
            "merge" => Ok(vec![cube.merge(actor, ids, new(&words[0]), None)?.id]),
            "archive" => cube.transition(actor, ids[0], None, ItemState::Archived, None).map(|_item| Vec::new()),
            "erase" => cube.erase(actor, ids, Some("asked for")).map(|_erasure| Vec::new()),
            other => unreachable!("{other} is not chosen"),
        }
    }

    fn note(&mut self, operation: &Operation, made: &[ItemId]) {
        match made {
            // What came of a merge names its parents in the audit, so it is not erased alone.
            [_] if operation.verb == "merge" => {}
            [id] => self.single.push(*id),
            several => self.batched.extend(several),
        }
    }
}
