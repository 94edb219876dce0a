//! A sequence: one request's tokens, how far they are computed, and the blocks they are in.
use crate::block_table::BlockTable;
use crate::ids::{BlockId, LoadId, SequenceId, TenantId};
use crate::key::KvKey;
use crate::step::Loaded;

/// Whether a sequence may start from cached blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixReuse {
    /// It starts behind the longest cached prefix, and waits for a prefix that is being computed.
    Exact,
    /// Every token is computed for it (prompt logprobs need that). Its full blocks are still published for others.
    Bypass,
}

/// A request as it arrives at the scheduler.
#[derive(Clone, Debug)]
pub struct NewSequence {
    /// Whom its work is charged to.
    pub tenant: TenantId,
    /// The prompt.
    pub tokens: Vec<u32>,
    /// The key before the first block; carries model, adapter and tenant.
    pub root: KvKey,
    /// [`crate::block_keys`] of the prompt, computed by the caller, off the engine thread.
    pub block_keys: Vec<KvKey>,
    /// The most tokens that will be generated.
    pub max_new_tokens: usize,
    /// Whether it may start from cached blocks.
    pub reuse: PrefixReuse,
}

/// A sequence in the scheduler, waiting or running.
#[derive(Debug)]
pub struct Sequence {
    id: SequenceId,
    tenant: TenantId,
    /// The prompt, then the tokens generated so far.
    pub(crate) tokens: Vec<u32>,
    num_prompt_tokens: usize,
    max_new_tokens: usize,
    root: KvKey,
    /// `[tokens.len() / block_size]`: all full blocks of known tokens.
    pub(crate) block_keys: Vec<KvKey>,
    pub(crate) reuse: PrefixReuse,
    pub(crate) num_computed: usize,
    pub(crate) table: BlockTable,
    pub(crate) num_preemptions: u32,
    pub(crate) phase: Phase,
    /// Its prefix is being loaded: it holds the blocks for that, and computes nothing until the load ends.
    pub(crate) loading: Option<LoadId>,
    /// How it entered the batch, until its first rows are planned.
    pub(crate) arrival: Option<Arrival>,
    /// Its tenant's cache was dropped while it ran: nothing of it is kept when it ends.
    pub(crate) forgotten: bool,
}

/// What a sequence found when it entered the batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) cached_tokens: usize,
    pub(crate) loaded: Loaded,
}

/// Where a sequence is in its life; a finished one is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// In its tenant's queue, without blocks.
    Waiting { follows: Option<Follow> },
    /// In the batch, with blocks.
    Running,
}

/// A waiting sequence lets a running one compute the prefix that both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Follow {
    pub(crate) leader: SequenceId,
    /// Blocks, from the start, that the follower can use of the leader's.
    pub(crate) num_shared_blocks: usize,
}

impl Sequence {
    pub(crate) fn new(id: SequenceId, new: NewSequence) -> Sequence {
        Sequence {
            id,
            tenant: new.tenant,
            num_prompt_tokens: new.tokens.len(),
            tokens: new.tokens,
            max_new_tokens: new.max_new_tokens,
            root: new.root,
            block_keys: new.block_keys,
            reuse: new.reuse,
            num_computed: 0,
            table: BlockTable::default(),
            num_preemptions: 0,
            phase: Phase::Waiting { follows: None },
            loading: None,
            arrival: None,
            forgotten: false,
        }
    }

    /// Its identity.
    pub fn id(&self) -> SequenceId {
        self.id
    }

    /// Whom its work is charged to.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The prompt, then the tokens generated so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many of [`Sequence::tokens`] are the prompt.
    pub fn num_prompt_tokens(&self) -> usize {
        self.num_prompt_tokens
    }

    /// Tokens, from the first on, whose keys and values are in the blocks of the table.
    pub fn num_computed(&self) -> usize {
        self.num_computed
    }

    /// The physical block of each logical block, including those that the step in flight fills. Empty while waiting.
    /// Entries may change between steps (see [`crate::Published::Duplicate`]): read it anew for each step.
    pub fn block_table(&self) -> &[BlockId] {
        self.table.blocks()
    }

    /// How often it was sent back to waiting because blocks ran out.
    pub fn num_preemptions(&self) -> u32 {
        self.num_preemptions
    }

    /// It has blocks, and computes nothing until they are loaded.
    pub(crate) fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    pub(crate) fn root(&self) -> KvKey {
        self.root
    }

    pub(crate) fn num_uncomputed(&self) -> usize {
        self.tokens.len() - self.num_computed
    }

    /// One token left to compute, and its logits are sampled: a decode step, or the end of a prompt.
    pub(crate) fn is_decoding(&self) -> bool {
        self.num_uncomputed() == 1
    }

    pub(crate) fn num_generated(&self) -> usize {
        self.tokens.len() - self.num_prompt_tokens
    }

    /// The most tokens that will be generated.
    pub fn max_new_tokens(&self) -> usize {
        self.max_new_tokens
    }

    /// The most tokens it can come to have.
    pub(crate) fn num_tokens_max(&self) -> usize {
        self.num_prompt_tokens + self.max_new_tokens
    }

    /// The keys of the blocks that it may take from the cache: all full ones that leave a token to be computed, for
    /// without one there are no logits to sample from.
    pub(crate) fn reusable_keys(&self, block_size: usize) -> &[KvKey] {
        match self.reuse {
            PrefixReuse::Exact => &self.block_keys[..(self.tokens.len() - 1) / block_size],
            PrefixReuse::Bypass => &[],
        }
    }

    /// The key of the first block that is not full yet, when all of its tokens are known.
    pub(crate) fn frontier(&self, block_size: usize) -> Option<KvKey> {
        self.block_keys.get(self.num_computed / block_size).copied()
    }

    /// Appends a sampled token. A block's key is due once in `block_size` tokens; that hash is made here, as the
    /// token is not known anywhere else.
    pub(crate) fn push_token(&mut self, token: u32, block_size: usize) {
        self.tokens.push(token);
        if self.tokens.len().is_multiple_of(block_size) {
            let parent = self.block_keys.last().unwrap_or(&self.root);
            let key = parent.child(&self.tokens[self.tokens.len() - block_size..]);
            self.block_keys.push(key);
        }
    }
}
