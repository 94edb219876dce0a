//! The pool's conservation law and the prefix tree's rules, checked in full; for tests and for idle moments.
use super::{BlockPool, FillingBlock, Lease, Node};
use crate::ids::BlockId;
use crate::key::KvKey;

/// The handles that are out, as their holders know them.
#[derive(Default)]
pub(crate) struct Holdings<'a> {
    pub(crate) leases: Vec<&'a Lease>,
    pub(crate) filling: Vec<&'a FillingBlock>,
}

impl BlockPool {
    /// Checks that every block is in exactly one place, that the handles out are the ones in `held`, and that the
    /// prefix tree is sound. O(num_blocks).
    ///
    /// # Panics
    /// When any of it does not hold.
    pub(crate) fn check_invariants(&self, held: &Holdings<'_>) {
        self.check_places(held);
        self.check_tree(held);
        for index in 0..self.num_blocks() {
            let block = BlockId::new(index);
            let node = self.nodes[index];
            assert!(!self.eviction.contains(block) || self.keys[index].is_some(), "{block} has no contents to evict");
            let is_evictable = self.keys[index].is_some() && node.num_children == 0 && node.num_users == 0;
            assert!(!is_evictable || self.eviction.contains(block), "{block} is an unused leaf and cannot be evicted");
        }
    }

    /// Checks that `table` lists the chain that ends in `lease`.
    ///
    /// # Panics
    /// When it does not.
    pub(crate) fn check_chain(&self, lease: Option<&Lease>, table: &[BlockId], keys: &[KvKey]) {
        let mut block = lease.map_or(self.root(), |lease| lease.0.index());
        for (entry, key) in table.iter().zip(keys).rev() {
            assert_eq!(entry.index(), block, "a table entry is not its successor's parent");
            assert_eq!(self.keys[entry.as_usize()].as_ref(), Some(key), "{entry} has another key");
            block = self.nodes[entry.as_usize()].parent;
        }
        assert_eq!(block, self.root(), "the leased chain is longer than the table");
    }

    fn check_places(&self, held: &Holdings<'_>) {
        let mut num_places = vec![0; self.num_blocks()];
        let free = self.free.iter();
        let filling = held.filling.iter().map(|filling| &filling.0);
        let ready = self.index.values();
        free.chain(filling).chain(ready).for_each(|block| num_places[block.as_usize()] += 1);
        assert!(num_places.iter().all(|&num| num == 1), "places per block: {num_places:?}");

        let counts = self.counts();
        assert_eq!(counts.filling, held.filling.len());
        assert_eq!(counts.free + counts.filling + counts.cached + counts.leased, self.num_blocks());
        for (key, block) in &self.index {
            assert_eq!(self.keys[block.as_usize()].as_ref(), Some(key), "{block} is indexed under another key");
        }
        assert_eq!(self.keys.iter().flatten().count(), self.index.len(), "a block without a place has a key");
    }

    fn check_tree(&self, held: &Holdings<'_>) {
        let mut num_children = vec![0; self.nodes.len()];
        let mut num_users = vec![0; self.nodes.len()];
        num_users[self.num_blocks()] = 1;
        held.leases.iter().for_each(|lease| num_users[lease.0.as_usize()] += 1);
        let mut num_leased = 0;
        for block in self.index.values() {
            let Node { parent, num_users: users, .. } = self.nodes[block.as_usize()];
            let run_start = self.nodes[self.run_start(block.index()) as usize];
            assert!(run_start.run_len == 1, "the run of {block} starts within another");
            let is_resident = parent == self.root() || self.keys[parent as usize].is_some();
            assert!(is_resident, "{block} is resident and its parent is not");
            num_children[parent as usize] += 1;
            if users > 0 {
                num_users[parent as usize] += 1;
                num_leased += 1;
            }
        }
        assert_eq!(num_leased, self.num_leased);
        let ready = self.index.values().map(|block| block.as_usize());
        for index in ready.chain([self.num_blocks()]) {
            assert_eq!(self.nodes[index].num_children, num_children[index], "children of node {index}");
            assert_eq!(self.nodes[index].num_users, num_users[index], "leases and used children of node {index}");
        }
    }
}
