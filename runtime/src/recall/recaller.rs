//! Asks the cubes: one search in each, through the boundary, and one selection over all that they find.

use std::sync::Arc;

use memory::cube::CubeName;
use memory::governance::Actor;
use memory::memories::{Memories, MemoriesError, MountedCube, SearchRequest};
use memory::{ItemId, Timestamp};

use super::block::MemoryTemplate;
use super::plain_text::PlainText;
use super::selection::{self, Bounds, Candidate, Dropped, Recall};

/// How much relevance counts against variety. Ten memories that say nearly the same answer no more than one does.
const LAMBDA: f32 = 0.8;

/// What is to be recalled.
#[derive(Debug, Clone)]
pub struct RecallRequest {
    /// The question.
    pub query: String,
    /// Most memories.
    pub limit: usize,
    /// Most tokens of the block in the prompt.
    pub budget_tokens: usize,
    /// As the cubes were recorded at this moment; `None`: now.
    pub as_of: Option<Timestamp>,
    /// What if these were not there.
    pub without: Vec<ItemId>,
    /// What if these said something else.
    pub instead: Vec<(ItemId, String)>,
}

impl RecallRequest {
    /// Whether this looks at the memories as they are, which counts as using them.
    pub fn is_of_the_present(&self) -> bool {
        self.as_of.is_none() && self.without.is_empty() && self.instead.is_empty()
    }
}

/// Recalls for one actor.
#[derive(Clone, Copy)]
pub struct Recaller<'a> {
    /// Who asks.
    pub actor: &'a Actor,
    /// Makes texts harmless and counts tokens.
    pub plain_text: &'a PlainText,
    /// How memories are written into the prompt.
    pub template: &'a MemoryTemplate,
}

impl Recaller<'_> {
    /// Searches the cubes and writes the block.
    ///
    /// # Errors
    /// The actor may not read one of the cubes, or a search fails.
    pub fn recall(&self, cubes: &[Arc<MountedCube>], request: &RecallRequest) -> Result<Recall, MemoriesError> {
        let search = SearchRequest {
            as_of: request.as_of,
            without: request.without.clone(),
            instead: request.instead.clone(),
            lambda: LAMBDA,
            ..SearchRequest::new(request.query.as_str(), request.limit)
        };
        let mut candidates = Vec::new();
        let mut dropped = Vec::new();
        for cube in cubes {
            let name = &cube.manifest().name;
            let answer = cube.search(self.actor, &search)?;
            candidates.extend(answer.results.into_iter().map(|found| Candidate {
                cube: name.clone(),
                text: self.plain_text.line(&found.item.text),
                item: found.item,
                trace: found.trace,
            }));
            dropped.extend(answer.left_out.into_iter().map(|trace| Dropped::by_search(name.clone(), trace)));
        }
        let bounds = Bounds { limit: request.limit, budget_tokens: request.budget_tokens };
        let count_tokens = |text: &str| self.plain_text.num_tokens(text);
        let mut recall = selection::select(candidates, bounds, self.template, count_tokens);
        recall.dropped.extend(dropped);
        Ok(recall)
    }
}

/// The cubes of these names, without asking whether the caller may know of them: what is done with them decides that.
///
/// # Errors
/// One is not mounted.
pub fn cubes_named(memories: &Memories, names: &[CubeName]) -> Result<Vec<Arc<MountedCube>>, MemoriesError> {
    names.iter().map(|name| memories.cube(name)).collect()
}

/// Notes that these memories went into a prompt, so that they become active and their use is counted.
pub fn note_use(cubes: &[Arc<MountedCube>], recall: &Recall) {
    for cube in cubes {
        let name = &cube.manifest().name;
        cube.note_recalled(recall.memories.iter().filter(|memory| memory.cube == *name).map(|memory| memory.item.id));
    }
}
