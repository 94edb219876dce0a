//! The blocks of one sequence: a leased chain of full ones, then those still being filled.
use std::collections::VecDeque;

use crate::block_pool::{BlockPool, FillingBlock, Holdings, Lease, PrefixMatch, Published};
use crate::ids::BlockId;
use crate::key::KvKey;

/// Maps a sequence's logical blocks to blocks of the pool. It owns the handles, so it is not `Clone`, and it must be
/// emptied with [`BlockTable::release`] before it is dropped.
///
/// ```text
///   blocks:  [ leased chain: full, shared, read only | filling: of this sequence alone ]
///                                               ▲ lease     ▲ filling, front first
/// ```
#[derive(Debug, Default)]
pub(crate) struct BlockTable {
    blocks: Vec<BlockId>,
    lease: Option<Lease>,
    filling: VecDeque<FillingBlock>,
}

impl BlockTable {
    pub(crate) fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Leases a cached prefix, just found, as the start of an empty table.
    pub(crate) fn lease_prefix(&mut self, pool: &mut BlockPool, prefix: PrefixMatch) {
        assert!(self.is_empty(), "a prefix can only start a table: this is a bug");
        self.lease = Some(pool.lease(prefix, &mut self.blocks));
    }

    /// Allocates until the table has `num_blocks`; the caller has made sure that they are available.
    pub(crate) fn grow_to(&mut self, pool: &mut BlockPool, num_blocks: usize) {
        let num_new = num_blocks.saturating_sub(self.blocks.len());
        if num_new == 0 {
            return;
        }
        for block in pool.allocate(num_new).expect("blocks were counted before they were planned: this is a bug") {
            self.blocks.push(block.id());
            self.filling.push_back(block);
        }
    }

    /// Discards filling blocks from the end until the table has `num_blocks`.
    pub(crate) fn shrink_to(&mut self, pool: &mut BlockPool, num_blocks: usize) {
        while self.blocks.len() > num_blocks {
            let block = self.filling.pop_back().expect("leased blocks are never taken back: this is a bug");
            self.blocks.pop();
            pool.discard(block);
        }
    }

    /// Publishes the first filling block, which is full now. When another sequence has published the same block
    /// before, the table continues on that one, and the copy is freed.
    pub(crate) fn publish_next(&mut self, pool: &mut BlockPool, key: KvKey) -> Origin {
        let position = self.num_full();
        let block = self.filling.pop_front().expect("a computed block was allocated: this is a bug");
        let (lease, origin) = match pool.publish(block, self.lease.take(), key) {
            Published::Indexed(lease) => (lease, Origin::Own),
            Published::Duplicate(lease) => (lease, Origin::Other),
        };
        self.blocks[position] = lease.id();
        self.lease = Some(lease);
        origin
    }

    /// Gives everything back after a use that saved `2^weight_log2` times the work of a block near the start.
    pub(crate) fn release_after_use(&mut self, pool: &mut BlockPool, weight_log2: f64) {
        if let Some(lease) = self.lease.take() {
            pool.release_after_use(lease, weight_log2);
        }
        self.release(pool);
    }

    /// Takes the blocks being filled out of the table.
    pub(crate) fn take_filling(&mut self) -> Vec<FillingBlock> {
        self.blocks.truncate(self.num_full());
        self.filling.drain(..).collect()
    }

    /// Gives everything back: full blocks stay cached, the others are freed.
    pub(crate) fn release(&mut self, pool: &mut BlockPool) {
        self.filling.drain(..).for_each(|block| pool.discard(block));
        if let Some(lease) = self.lease.take() {
            pool.release(lease);
        }
        self.blocks.clear();
    }

    /// Full blocks: the leased chain.
    pub(crate) fn num_full(&self) -> usize {
        self.blocks.len() - self.filling.len()
    }

    pub(crate) fn collect_holdings<'a>(&'a self, held: &mut Holdings<'a>) {
        held.leases.extend(self.lease.as_ref());
        held.filling.extend(self.filling.iter());
    }

    /// # Panics
    /// When the table does not list the blocks that it holds.
    pub(crate) fn check_invariants(&self, pool: &BlockPool, keys: &[KvKey]) {
        let (full, filling) = self.blocks.split_at(self.num_full());
        assert!(full.len() <= keys.len(), "{} full blocks, {} keys", full.len(), keys.len());
        pool.check_chain(self.lease.as_ref(), full, &keys[..full.len()]);
        assert!(filling.iter().copied().eq(self.filling.iter().map(FillingBlock::id)), "filling blocks differ");
    }
}

/// Which copy of a published block the table continues on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Own,
    Other,
}
