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
use std::sync::Arc;

use crate::block_info::BlockInfo;
use crate::eviction::{EvictionOrder, EvictionPolicy};
use crate::heat::Heat;
use crate::ids::{BlockId, TenantId};
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
    /// The latest freed first: its memory has been touched, and is taken from the system already. What is freed from the
    /// end of a chain comes out in the chain's order.
    free: VecDeque<BlockId>,
    index: HashMap<KvKey, BlockId, BuildKeyHasher>,
    /// `[num_blocks]`; present for Ready blocks.
    keys: Vec<Option<KvKey>>,
    /// `[num_blocks + 1]`; the last is the root.
    nodes: Vec<Node>,
    eviction: EvictionOrder,
    /// `[num_blocks]`: past uses of a block itself, and of the blocks behind it that are gone.
    heats: Vec<Heat>,
    /// Blocks handed out so far: the clock by which uses fade.
    num_allocated: u64,
    num_filling: usize,
    num_leased: usize,
    num_evictions: u64,
    /// What lower tiers need to know; absent when there are none.
    demotion: Option<Demotion>,
}

/// A record of what is evicted, for a lower tier to take it over.
struct Demotion {
    /// `[num_blocks]`; present for Ready blocks that were described.
    infos: Vec<Option<Arc<BlockInfo>>>,
    evicted: Vec<Evicted>,
}

/// A block that was just evicted. Its bytes are there until the next step writes them.
#[derive(Debug)]
pub(crate) struct Evicted {
    pub(crate) block: BlockId,
    pub(crate) info: Arc<BlockInfo>,
    pub(crate) heat: Heat,
}

/// Turnovers of the pool in which a use loses half of its weight. Of those tried on the traces of the example `eviction`, one
/// that gains most where prefixes are shared and loses little where talks end.
const HALF_LIFE_TURNOVERS: f64 = 1.0;

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
    /// A pool of `num_blocks` free blocks, evicted least recently used first.
    ///
    /// # Panics
    /// When there are more blocks than a [`BlockId`] can name.
    pub fn new(num_blocks: usize) -> BlockPool {
        BlockPool::with_eviction(num_blocks, EvictionPolicy::Lru)
    }

    /// A pool of `num_blocks` free blocks.
    ///
    /// # Panics
    /// When there are more blocks than a [`BlockId`] can name.
    pub fn with_eviction(num_blocks: usize, policy: EvictionPolicy) -> BlockPool {
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
            eviction: EvictionOrder::new(num_blocks, policy),
            heats: vec![Heat::COLD; num_blocks],
            num_allocated: 0,
            num_filling: 0,
            num_leased: 0,
            num_evictions: 0,
            demotion: None,
        }
    }

    /// From now on, evicted blocks that were described are kept for [`BlockPool::take_evicted`].
    pub(crate) fn record_evictions(&mut self) {
        self.demotion = Some(Demotion { infos: vec![None; self.num_blocks()], evicted: Vec::new() });
    }

    /// Notes what a Ready block holds, for the tier that takes it over when it is evicted.
    pub(crate) fn describe(&mut self, block: BlockId, info: &Arc<BlockInfo>) {
        if let Some(demotion) = &mut self.demotion {
            demotion.infos[block.as_usize()].get_or_insert_with(|| Arc::clone(info));
        }
    }

    /// What a Ready block holds, when it was described.
    pub(crate) fn info(&self, block: BlockId) -> Option<&Arc<BlockInfo>> {
        self.demotion.as_ref()?.infos[block.as_usize()].as_ref()
    }

    /// The Ready block of a key.
    pub(crate) fn find(&self, key: &KvKey) -> Option<BlockId> {
        self.index.get(key).copied()
    }

    /// Past uses of a Ready block.
    pub(crate) fn heat(&self, block: BlockId) -> Heat {
        self.heats[block.as_usize()]
    }

    /// Adds uses that a block had elsewhere, before it came here.
    pub(crate) fn warm(&mut self, block: BlockId, heat: Heat) {
        self.heats[block.as_usize()] = self.heats[block.as_usize()].plus(heat);
    }

    /// The blocks evicted since the last call.
    pub(crate) fn take_evicted(&mut self) -> Vec<Evicted> {
        self.demotion.as_mut().map_or_else(Vec::new, |demotion| std::mem::take(&mut demotion.evicted))
    }

    /// The time by which uses fade, in half-lives.
    pub(crate) fn half_lives(&self) -> f64 {
        self.num_allocated as f64 / (self.num_blocks() as f64 * HALF_LIFE_TURNOVERS)
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
        self.num_allocated += num_blocks as u64;
        self.eviction.advance(self.half_lives());
        Some(Allocation { pool: self, num_blocks })
    }

    /// Frees a block whose contents are of no use.
    pub fn discard(&mut self, block: FillingBlock) {
        self.num_filling -= 1;
        self.free.push_front(block.0);
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
    ///
    /// That alone is no use of them: see [`BlockPool::release_after_use`].
    pub fn release(&mut self, lease: Lease) {
        if self.nodes[lease.0.as_usize()].num_users == 1 {
            self.eviction.put_newest(lease.0, self.heats[lease.0.as_usize()]);
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

    /// Returns a lease after a use that saved `2^weight_log2` times the work of a block near the start.
    pub fn release_after_use(&mut self, lease: Lease, weight_log2: f64) {
        if self.eviction.policy() == EvictionPolicy::CostAware {
            self.warm(lease.0, Heat::use_at(self.half_lives(), weight_log2));
        }
        self.release(lease);
    }

    /// Leaves blocks of a tenant, or of everybody, undescribed: what is evicted of them goes to no other tier.
    pub(crate) fn undescribe(&mut self, of: Option<TenantId>) {
        for info in self.demotion.iter_mut().flat_map(|demotion| &mut demotion.infos) {
            if info.as_ref().is_some_and(|info| of.is_none_or(|tenant| info.tenant() == tenant)) {
                *info = None;
            }
        }
    }

    /// Evicts everything that no lease protects, and says how many blocks that were.
    pub fn clear_cached(&mut self) -> usize {
        let num_cached = self.evict_cached();
        // What is forgotten goes to no other tier.
        self.take_evicted();
        num_cached
    }

    /// Evicts everything that no lease protects, for lower tiers to take it over.
    pub(crate) fn evict_cached(&mut self) -> usize {
        let num_cached = self.index.len() - self.num_leased;
        for _ in 0..num_cached {
            let evicted = self.evict();
            self.free.push_front(evicted);
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
            let block = self.eviction.coldest().expect("a cached leaf is always in the eviction order: this is a bug");
            self.eviction.remove(block);
            let Node { parent, num_children, num_users, .. } = self.nodes[block.as_usize()];
            if num_children > 0 {
                continue;
            }
            debug_assert_eq!(num_users, 0, "a leased leaf is not in the order: this is a bug");
            let key = self.keys[block.as_usize()].take().expect("a Ready block has a key: this is a bug");
            self.index.remove(&key);
            let heat = std::mem::replace(&mut self.heats[block.as_usize()], Heat::COLD);
            if let Some(demotion) = &mut self.demotion
                && let Some(info) = demotion.infos[block.as_usize()].take()
            {
                demotion.evicted.push(Evicted { block, info, heat });
            }
            if parent != self.root() {
                self.warm(BlockId::new(parent as usize), heat);
            }
            let parent_node = &mut self.nodes[parent as usize];
            parent_node.num_children -= 1;
            if parent_node.num_children == 0 && parent_node.num_users == 0 {
                let parent = BlockId::new(parent as usize);
                let heat = self.heats[parent.as_usize()];
                match self.eviction.policy() {
                    EvictionPolicy::Lru if self.eviction.contains(parent) => {}
                    EvictionPolicy::Lru | EvictionPolicy::CostAware => self.eviction.put_oldest(parent, heat),
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
