//! The block pool of one tier: which blocks are free, being filled, cached or leased, and the prefix tree over the
//! cached ones. Sequences take blocks here and give full ones back for others to find.
//!
//! A block is in exactly one of four places, and the handle that a caller holds says which:
//!
//! ```text
//!            allocate                 publish                     release (last lease)
//!   free ─────────────► FillingBlock ─────────► Ready, leased ─────────────────────► Ready, cached
//!    ▲                     │ discard                 ▲              lease                │
//!    ├─────────────────────┘                         └───────────────────────────────────┤
//!    └───────────────────────────────────── evict (leaves first) ────────────────────────┘
//! ```
//!
//! A free block has no key. Ready blocks form a tree: a block's parent is the block before it, and a resident block's
//! ancestors are all resident. Two things follow. Residency is monotone along a prompt's keys, so a binary search
//! finds the longest cached prefix. And one [`Lease`] on a chain's deepest block protects the whole chain.
mod invariants;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;

use crate::eviction::EvictionOrder;
use crate::ids::BlockId;
use crate::key::{BuildKeyHasher, KvKey};

pub(crate) use invariants::Holdings;

/// The most blocks a pool can have: one index is the tree's root.
pub(crate) const MAX_BLOCKS: usize = u32::MAX as usize;

/// A block that its holder alone may write. Give it back with [`BlockPool::publish`] or [`BlockPool::discard`].
#[must_use = "a dropped filling block is lost to the pool"]
#[derive(Debug, PartialEq, Eq)]
pub struct FillingBlock(BlockId);

/// Keeps one Ready block and all blocks before it from being evicted. Give it back with [`BlockPool::release`].
#[must_use = "a dropped lease is never released"]
#[derive(Debug, PartialEq, Eq)]
pub struct Lease(BlockId);

/// The longest cached prefix of a list of keys, as found by [`BlockPool::find_prefix`]; stale after the next change
/// of the pool.
#[derive(Clone, Copy, Debug)]
pub struct PrefixMatch {
    num_blocks: usize,
    deepest: BlockId,
}

/// What became of a block given to [`BlockPool::publish`].
#[must_use = "the lease must be released"]
#[derive(Debug, PartialEq, Eq)]
pub enum Published {
    /// It is now the cached block of its key.
    Indexed(Lease),
    /// Its key was resident already: the lease is on that block, and the copy is free again.
    Duplicate(Lease),
}

/// How many blocks are in each place. The four add up to the size of the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCounts {
    /// Without contents.
    pub free: usize,
    /// Being written for one sequence.
    pub filling: usize,
    /// Ready and hittable, needed by no sequence now: evictable.
    pub cached: usize,
    /// Ready and part of at least one sequence's context.
    pub leased: usize,
}

/// The blocks of one tier. See the module's description.
pub struct BlockPool {
    /// Reused in order of release, so that neighbours freed together are handed out together.
    free: VecDeque<BlockId>,
    index: HashMap<KvKey, BlockId, BuildKeyHasher>,
    /// `[num_blocks]`; present for Ready blocks.
    keys: Vec<Option<KvKey>>,
    /// `[num_blocks + 1]`; the last is the root.
    nodes: Vec<Node>,
    eviction: EvictionOrder,
    num_filling: usize,
    num_leased: usize,
    num_evictions: u64,
}

/// A block's place in the prefix tree; meaningful for Ready blocks. Walks touch these only, so they are small.
///
/// Blocks that were allocated together mostly have consecutive ids. A block's ancestors stay while it stays, so how
/// far such a run reaches back is known once and for all when it is published, and a walk goes run by run instead of
/// waiting for one parent after the other to arrive from memory.
#[derive(Clone, Copy)]
struct Node {
    parent: u32,
    /// Blocks of the chain that ends here whose ids are consecutive, this one included.
    run_len: u32,
    num_children: u32,
    /// Leases on this block, plus children that are in use themselves. In use means: not 0.
    num_users: u32,
}

impl PrefixMatch {
    /// Length of the prefix in blocks; at least 1.
    pub fn num_blocks(&self) -> usize {
        self.num_blocks
    }
}

impl FillingBlock {
    /// Which block it is.
    pub fn id(&self) -> BlockId {
        self.0
    }
}

impl Lease {
    /// Which block it is on.
    pub fn id(&self) -> BlockId {
        self.0
    }
}

impl BlockPool {
    /// A pool of `num_blocks` free blocks.
    ///
    /// # Panics
    /// When there are more blocks than a [`BlockId`] can name.
    pub fn new(num_blocks: usize) -> BlockPool {
        assert!(num_blocks <= MAX_BLOCKS, "{num_blocks} blocks are more than {MAX_BLOCKS}");
        let root = num_blocks as u32;
        let mut nodes = vec![Node { parent: root, run_len: 1, num_children: 0, num_users: 0 }; num_blocks + 1];
        // The root is always in use: walks towards it end there without a special case.
        nodes[num_blocks].num_users = 1;
        BlockPool {
            free: (0..num_blocks).map(BlockId::new).collect(),
            // At half load the table removes without leaving tombstones, so it never pauses to rehash.
            index: HashMap::with_capacity_and_hasher(2 * num_blocks, BuildKeyHasher::default()),
            keys: vec![None; num_blocks],
            nodes,
            eviction: EvictionOrder::new(num_blocks),
            num_filling: 0,
            num_leased: 0,
            num_evictions: 0,
        }
    }

    /// The size of the pool.
    pub fn num_blocks(&self) -> usize {
        self.keys.len()
    }

    /// How many blocks [`BlockPool::allocate`] could hand out now.
    pub fn num_available(&self) -> usize {
        self.free.len() + self.index.len() - self.num_leased
    }

    /// How many blocks are in each place.
    pub fn counts(&self) -> BlockCounts {
        BlockCounts {
            free: self.free.len(),
            filling: self.num_filling,
            cached: self.index.len() - self.num_leased,
            leased: self.num_leased,
        }
    }

    /// Cached blocks given up for others since the pool was made.
    pub fn num_evictions(&self) -> u64 {
        self.num_evictions
    }

    /// Takes `num_blocks` blocks to be filled: free ones first, then cached ones in eviction order. `None`, and no
    /// change, when there are not enough. Blocks that the iterator has not handed out when it is dropped stay free.
    pub fn allocate(&mut self, num_blocks: usize) -> Option<impl Iterator<Item = FillingBlock>> {
        if self.num_available() < num_blocks {
            return None;
        }
        while self.free.len() < num_blocks {
            // Chains are evicted from their end, so this order hands them out in the order they were written.
            let evicted = self.evict();
            self.free.push_front(evicted);
        }
        self.num_filling += num_blocks;
        Some(Allocation { pool: self, num_blocks })
    }

    /// Frees a block whose contents are of no use.
    pub fn discard(&mut self, block: FillingBlock) {
        self.num_filling -= 1;
        self.free.push_back(block.0);
    }

    /// Finds the longest prefix of `keys` that is resident, by binary search. `keys` are those of consecutive blocks
    /// from a root on.
    pub fn find_prefix(&self, keys: &[KvKey]) -> Option<PrefixMatch> {
        let mut found = None;
        let (mut resident, mut unknown) = (0, keys.len());
        while resident < unknown {
            let middle = resident + (unknown - resident) / 2;
            match self.index.get(&keys[middle]) {
                Some(&deepest) => {
                    resident = middle + 1;
                    found = Some(PrefixMatch { num_blocks: resident, deepest });
                }
                None => unknown = middle,
            }
        }
        found
    }

    /// Leases a prefix and appends its blocks to `table`, first block first.
    pub fn lease(&mut self, prefix: PrefixMatch, table: &mut Vec<BlockId>) -> Lease {
        self.eviction.remove(prefix.deepest);
        let start = table.len();
        table.resize(start + prefix.num_blocks, prefix.deepest);
        let mut unfilled = &mut table[start..];
        let mut block = prefix.deepest.index();
        let mut walk = ControlFlow::Continue(());
        while !unfilled.is_empty() {
            let first = self.run_start(block);
            let len = unfilled.len().checked_sub((block + 1 - first) as usize).expect("a stale prefix: this is a bug");
            let (rest, run) = unfilled.split_at_mut(len);
            run.iter_mut().zip(first..).for_each(|(entry, index)| *entry = BlockId::new(index as usize));
            unfilled = rest;
            if walk.is_continue() {
                walk = self.add_user_to_run(first, block);
            }
            block = self.nodes[first as usize].parent;
        }
        assert_eq!(block, self.root(), "a stale prefix: this is a bug");
        if walk.is_continue() {
            self.nodes[block as usize].num_users += 1;
        }
        Lease(prefix.deepest)
    }

    /// Makes a filled block Ready under `key`, behind the block that `parent` leases, and moves that lease to it.
    /// `parent` is `None` for a sequence's first block. See [`Published::Duplicate`] for a key that is resident.
    pub fn publish(&mut self, block: FillingBlock, parent: Option<Lease>, key: KvKey) -> Published {
        let parent_index = parent.as_ref().map_or(self.root(), |lease| lease.0.index());
        if let Some(&resident) = self.index.get(&key) {
            debug_assert_eq!(self.nodes[resident.as_usize()].parent, parent_index, "one key, two parents");
            self.eviction.remove(resident);
            self.add_user(resident);
            if let Some(parent) = parent {
                self.release(parent);
            }
            self.discard(block);
            return Published::Duplicate(Lease(resident));
        }
        let FillingBlock(block) = block;
        self.index.insert(key, block);
        self.keys[block.as_usize()] = Some(key);
        // The parent gains a child in use. Where it was leased it loses that lease, so its count stays.
        let continues_run = parent_index + 1 == block.index();
        let run_len = if continues_run { self.nodes[parent_index as usize].run_len + 1 } else { 1 };
        self.nodes[block.as_usize()] = Node { parent: parent_index, run_len, num_children: 0, num_users: 1 };
        self.nodes[parent_index as usize].num_children += 1;
        if parent.is_none() {
            self.nodes[parent_index as usize].num_users += 1;
        }
        self.num_filling -= 1;
        self.num_leased += 1;
        Published::Indexed(Lease(block))
    }

    /// Returns a lease. Blocks that no other lease protects become cached, most recently used.
    pub fn release(&mut self, lease: Lease) {
        if self.nodes[lease.0.as_usize()].num_users == 1 {
            self.eviction.put_newest(lease.0);
        }
        let mut block = lease.0.index();
        loop {
            let first = self.run_start(block);
            for node in self.nodes[first as usize..=block as usize].iter_mut().rev() {
                node.num_users -= 1;
                if node.num_users > 0 {
                    return;
                }
                self.num_leased -= 1;
            }
            block = self.nodes[first as usize].parent;
        }
    }

    /// Evicts everything that no lease protects, and says how many blocks that were.
    pub fn clear_cached(&mut self) -> usize {
        let num_cached = self.index.len() - self.num_leased;
        for _ in 0..num_cached {
            let evicted = self.evict();
            self.free.push_back(evicted);
        }
        num_cached
    }

    fn root(&self) -> u32 {
        self.keys.len() as u32
    }

    /// The first block of the run that ends in `block`.
    fn run_start(&self, block: u32) -> u32 {
        block + 1 - self.nodes[block as usize].run_len
    }

    /// Counts one more lease on `block`; blocks before it that were not in use come into use.
    fn add_user(&mut self, block: BlockId) {
        let mut block = block.index();
        loop {
            let first = self.run_start(block);
            if self.add_user_to_run(first, block).is_break() {
                return;
            }
            block = self.nodes[first as usize].parent;
        }
    }

    /// Counts one more user on `last`, and on each block of the run before one that comes into use by that. Breaks
    /// at a block that was in use already: so are those before it.
    fn add_user_to_run(&mut self, first: u32, last: u32) -> ControlFlow<()> {
        for node in self.nodes[first as usize..=last as usize].iter_mut().rev() {
            node.num_users += 1;
            if node.num_users > 1 {
                return ControlFlow::Break(());
            }
            self.num_leased += 1;
        }
        ControlFlow::Continue(())
    }

    /// Takes the next cached leaf out of the tree. There must be a cached block.
    fn evict(&mut self) -> BlockId {
        loop {
            let block = self.eviction.oldest().expect("a cached leaf is always in the eviction order: this is a bug");
            self.eviction.remove(block);
            let Node { parent, num_children, num_users, .. } = self.nodes[block.as_usize()];
            if num_children > 0 {
                continue;
            }
            debug_assert_eq!(num_users, 0, "a leased leaf is not in the order: this is a bug");
            let key = self.keys[block.as_usize()].take().expect("a Ready block has a key: this is a bug");
            self.index.remove(&key);
            let parent_node = &mut self.nodes[parent as usize];
            parent_node.num_children -= 1;
            if parent_node.num_children == 0 && parent_node.num_users == 0 {
                let parent = BlockId::new(parent as usize);
                if !self.eviction.contains(parent) {
                    self.eviction.put_oldest(parent);
                }
            }
            self.num_evictions += 1;
            return block;
        }
    }
}

/// Hands out blocks that [`BlockPool::allocate`] has made sure of.
struct Allocation<'a> {
    pool: &'a mut BlockPool,
    num_blocks: usize,
}

impl Iterator for Allocation<'_> {
    type Item = FillingBlock;

    fn next(&mut self) -> Option<FillingBlock> {
        self.num_blocks = self.num_blocks.checked_sub(1)?;
        self.pool.free.pop_front().map(FillingBlock)
    }
}

impl Drop for Allocation<'_> {
    fn drop(&mut self) {
        self.pool.num_filling -= self.num_blocks;
    }
}
