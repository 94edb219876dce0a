//! What is recalled and written when a request does not say: the operator's choice.

use memory::cube::CubeName;

use super::MemoryTemplate;

/// Most memories in one prompt unless the request says otherwise. A question is seldom answered by more, and small models
/// answer worse the more they have to read.
pub const NUM_MEMORIES_DEFAULT: usize = 10;
/// Most tokens of one prompt's memories unless request or operator say otherwise.
pub const BUDGET_TOKENS_DEFAULT: usize = 1024;

/// Whether the turns of a conversation become memories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryWriting {
    /// What the user tells is remembered.
    On,
    /// Nothing is.
    Off,
}

/// How chat requests use memory when they do not say.
#[derive(Debug, Clone)]
pub struct MemoryDefaults {
    /// Recalled from and written to when a request names no cube; `None`: such requests have no memory.
    pub cube: Option<CubeName>,
    /// Whether requests that say nothing about memory write to it.
    pub writing: MemoryWriting,
    /// Most tokens of a prompt's memories.
    pub budget_tokens: usize,
    /// How memories are written into the prompt.
    pub template: MemoryTemplate,
}

impl Default for MemoryDefaults {
    fn default() -> Self {
        Self {
            cube: None,
            writing: MemoryWriting::On,
            budget_tokens: BUDGET_TOKENS_DEFAULT,
            template: MemoryTemplate::default(),
        }
    }
}
