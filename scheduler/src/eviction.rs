//! Which cached block is given up first: the one place that a cost-aware policy replaces.
use crate::ids::BlockId;

/// The order in which unused cached blocks are evicted: least recently used first.
///
/// The pool evicts leaves only, so the order never has to be asked about an inner node of the prefix tree, and every
/// operation is O(1) on an intrusive list:
/// - a block is put at the newest end when its last lease is returned. It may have children then; such an entry is
///   dropped when it comes up, because its children were used later and bring it back (next line).
/// - when a block's last child is evicted and it has no entry of its own, it was last used through that child, so it
///   takes the child's place at the oldest end.
///
/// Together this is exact LRU over leaves, where using a block uses all blocks before it.
pub(crate) struct EvictionOrder {
    /// `[num_blocks + 1]`; the last is the ring's anchor, between the newest and the oldest. A block that is not in
    /// the order links to itself.
    links: Vec<Link>,
}

#[derive(Clone, Copy)]
struct Link {
    older: u32,
    newer: u32,
}

impl EvictionOrder {
    pub(crate) fn new(num_blocks: usize) -> EvictionOrder {
        let alone = |index: usize| {
            let own = BlockId::new(index).index();
            Link { older: own, newer: own }
        };
        EvictionOrder { links: (0..=num_blocks).map(alone).collect() }
    }

    pub(crate) fn contains(&self, block: BlockId) -> bool {
        self.links[block.as_usize()].newer != block.index()
    }

    pub(crate) fn oldest(&self) -> Option<BlockId> {
        let anchor = self.anchor();
        let oldest = self.links[anchor as usize].newer;
        (oldest != anchor).then(|| BlockId::new(oldest as usize))
    }

    /// Makes `block` the last to be evicted, wherever it was before.
    pub(crate) fn put_newest(&mut self, block: BlockId) {
        self.remove(block);
        self.insert_after(block, self.links[self.anchor() as usize].older);
    }

    /// Makes `block` the first to be evicted, wherever it was before.
    pub(crate) fn put_oldest(&mut self, block: BlockId) {
        self.remove(block);
        self.insert_after(block, self.anchor());
    }

    /// Takes `block` out of the order, if it is in it.
    pub(crate) fn remove(&mut self, block: BlockId) {
        let own = block.index();
        let Link { older, newer } = self.links[own as usize];
        self.links[older as usize].newer = newer;
        self.links[newer as usize].older = older;
        self.links[own as usize] = Link { older: own, newer: own };
    }

    fn anchor(&self) -> u32 {
        (self.links.len() - 1) as u32
    }

    fn insert_after(&mut self, block: BlockId, older: u32) {
        let own = block.index();
        let newer = self.links[older as usize].newer;
        self.links[own as usize] = Link { older, newer };
        self.links[older as usize].newer = own;
        self.links[newer as usize].older = own;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(order: &mut EvictionOrder) -> Vec<u32> {
        let pop = || {
            let block = order.oldest()?;
            order.remove(block);
            Some(block.index())
        };
        std::iter::from_fn(pop).collect()
    }

    #[test]
    fn the_oldest_comes_first_and_a_touch_renews() {
        let mut order = EvictionOrder::new(4);
        for index in [2, 0, 3] {
            order.put_newest(BlockId::new(index));
        }
        order.put_newest(BlockId::new(2));
        order.put_oldest(BlockId::new(1));
        assert!(order.contains(BlockId::new(0)));
        assert_eq!(drain(&mut order), [1, 0, 3, 2]);
        assert!(!order.contains(BlockId::new(0)));
    }

    #[test]
    fn removing_twice_changes_nothing() {
        let mut order = EvictionOrder::new(2);
        order.put_newest(BlockId::new(0));
        order.put_newest(BlockId::new(1));
        order.remove(BlockId::new(0));
        order.remove(BlockId::new(0));
        assert_eq!(drain(&mut order), [1]);
    }
}
