//! What the writing process says on its standard output, and what must therefore be in the cube afterwards.
//!
//! ```text
//! created                              the cube is there
//! begin <thread> <verb> <ids> <words>  an operation was started
//! done <thread> <ids>                  it returned, with the ids that it made
//! refused <thread> <error>             it returned an error: it was not done
//! ```

use std::collections::{BTreeMap, BTreeSet};

use memory::ItemId;
use memory::lifecycle::ItemState;

/// An operation on memories; each memory is known by a word that no other one has.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    pub verb: String,
    pub ids: Vec<ItemId>,
    pub words: Vec<String>,
}

impl Operation {
    pub fn new(verb: &str, ids: &[ItemId], words: &[String]) -> Self {
        Self { verb: verb.to_owned(), ids: ids.to_vec(), words: words.to_vec() }
    }
}

/// A list as one word of a line.
pub fn joined<T: ToString>(values: &[T]) -> String {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    format!("[{}]", texts.join(","))
}

fn split(list: &str) -> Vec<&str> {
    list[1..list.len() - 1].split(',').filter(|part| !part.is_empty()).collect()
}

fn ids(list: &str) -> Vec<ItemId> {
    split(list).into_iter().map(|id| id.parse().expect("an id")).collect()
}

/// A memory as it must be.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    pub word: String,
    pub version: u64,
    pub state: ItemState,
}

/// Everything that was acknowledged, over all rounds on one folder.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub is_created: bool,
    pub items: BTreeMap<ItemId, Known>,
    /// Words that no search may find any more.
    pub gone: BTreeSet<String>,
    /// Operations that were neither done nor refused when the process ended.
    pub in_flight: BTreeMap<usize, Operation>,
    pub num_acknowledged: usize,
    pub num_refused: usize,
}

impl Model {
    /// Takes one line of the process. One that was cut off says nothing.
    pub fn read(&mut self, line: &str) {
        let parts: Vec<&str> = line.splitn(5, ' ').collect();
        let thread = parts.get(1).and_then(|number| number.parse().ok());
        match (parts[0], thread) {
            ("created", _) => self.is_created = true,
            ("begin", Some(thread)) => {
                let words = split(parts[4]).into_iter().map(str::to_owned).collect();
                let operation = Operation { verb: parts[2].to_owned(), ids: ids(parts[3]), words };
                assert_eq!(self.in_flight.insert(thread, operation), None, "a thread does one thing at a time");
            }
            ("done", Some(thread)) => {
                let operation = self.in_flight.remove(&thread).expect("what is done was begun");
                self.apply(&operation, &ids(parts[2]));
                self.num_acknowledged += 1;
            }
            ("refused", Some(thread)) => {
                let operation = self.in_flight.remove(&thread).expect("what is refused was begun");
                self.num_refused += 1;
                if operation.verb == "erase" {
                    // It is told as failed also when the memory is gone but its bytes could not be purged yet.
                    self.in_flight.insert(thread, operation);
                }
            }
            _ => panic!("the process said {line:?}"),
        }
    }

    /// The operation was done and made these memories.
    pub fn apply(&mut self, operation: &Operation, made: &[ItemId]) {
        let Operation { verb, ids, words } = operation;
        let new = |word: &String| Known { word: word.clone(), version: 1, state: ItemState::Activated };
        match verb.as_str() {
            "add" => {
                assert_eq!(made.len(), words.len(), "all of a batch or none of it");
                self.items.extend(made.iter().copied().zip(words.iter().map(new)));
            }
            "update" => {
                let known = self.known(ids[0]);
                known.version += 1;
                let old = std::mem::replace(&mut known.word, words[0].clone());
                self.gone.insert(old);
            }
            "archive" => self.advance(ids[0], ItemState::Archived),
            "merge" => {
                for id in ids {
                    self.advance(*id, ItemState::Merged);
                }
                self.items.insert(made[0], new(&words[0]));
            }
            "erase" => {
                let known = self.items.remove(&ids[0]).expect("what is erased was there");
                self.gone.insert(known.word);
            }
            other => panic!("the process did {other:?}"),
        }
    }

    fn advance(&mut self, id: ItemId, state: ItemState) {
        let known = self.known(id);
        known.version += 1;
        known.state = state;
    }

    fn known(&mut self, id: ItemId) -> &mut Known {
        self.items.get_mut(&id).expect("an operation on a memory that is there")
    }
}
