//! Which cached block is given up first.
use crate::heat::Heat;
use crate::ids::BlockId;

/// How the order of eviction is decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EvictionPolicy {
    /// By the work that a block is expected to save: uses, weighted by their work, that fade with the pool's turnover.
    #[default]
    CostAware,
    /// The least recently used first.
    Lru,
}

/// Steps of the cost-aware order in a half-life; blocks within one step go least recently used first.
const BUCKETS_PER_HALF_LIFE: f64 = 8.0;
/// Half-lives that the order tells apart: what is colder than the span is evicted in the order it came.
const NUM_BUCKETS: usize = 512;
const WORDS: usize = NUM_BUCKETS / 64;

/// The order in which unused cached blocks are evicted: coldest first, and within a small range of heat the least
/// recently used first. Every operation is O(1) on intrusive lists, one for each range.
///
/// The pool evicts leaves only, so the order never has to be asked about an inner node of the prefix tree:
/// - a block is put in when its last lease is returned. It may have children then; such an entry is dropped when it
///   comes up, because its children were used later and bring it back (next line).
/// - when a block's last child is evicted and it has no entry of its own, it was last used through that child, so it
///   takes the child's place.
///
/// With [`EvictionPolicy::Lru`] there is one list, and the order is exact LRU over leaves, where using a block uses all
/// blocks before it.
pub(crate) struct EvictionOrder {
    policy: EvictionPolicy,
    num_blocks: usize,
    /// `[num_blocks + NUM_BUCKETS]`; the last ones are the rings' anchors, between the newest and the oldest. A block
    /// that is not in the order links to itself.
    links: Vec<Link>,
    /// `[num_blocks]`: the list that a block is in.
    bucket_of: Vec<u16>,
    occupied: [u64; WORDS],
    /// The coldest range, in steps since time 0; its list is `base % NUM_BUCKETS`.
    base: i64,
}

#[derive(Clone, Copy)]
struct Link {
    older: u32,
    newer: u32,
}

impl EvictionOrder {
    pub(crate) fn new(num_blocks: usize, policy: EvictionPolicy) -> EvictionOrder {
        let alone = |index: usize| {
            let own = BlockId::new(index).index();
            Link { older: own, newer: own }
        };
        let links = (0..num_blocks + NUM_BUCKETS).map(alone).collect();
        let bucket_of = vec![0; num_blocks];
        EvictionOrder { policy, num_blocks, links, bucket_of, occupied: [0; WORDS], base: 0 }
    }

    pub(crate) fn policy(&self) -> EvictionPolicy {
        self.policy
    }

    pub(crate) fn contains(&self, block: BlockId) -> bool {
        self.links[block.as_usize()].newer != block.index()
    }

    /// The block to evict next.
    pub(crate) fn coldest(&self) -> Option<BlockId> {
        let anchor = self.anchor(self.coldest_bucket()?);
        let oldest = self.links[anchor as usize].newer;
        debug_assert_ne!(oldest, anchor, "an empty list is marked occupied: this is a bug");
        Some(BlockId::new(oldest as usize))
    }

    /// Makes `block` the last of its heat to be evicted, wherever it was before.
    pub(crate) fn put_newest(&mut self, block: BlockId, heat: Heat) {
        self.remove(block);
        let bucket = self.bucket(heat);
        let newest = self.links[self.anchor(bucket) as usize].older;
        self.insert_after(block, newest, bucket);
    }

    /// Makes `block` the first of its heat to be evicted, wherever it was before.
    pub(crate) fn put_oldest(&mut self, block: BlockId, heat: Heat) {
        self.remove(block);
        let bucket = self.bucket(heat);
        self.insert_after(block, self.anchor(bucket), bucket);
    }

    /// Takes `block` out of the order, if it is in it.
    pub(crate) fn remove(&mut self, block: BlockId) {
        let own = block.index();
        let Link { older, newer } = self.links[own as usize];
        if newer == own {
            return;
        }
        self.links[older as usize].newer = newer;
        self.links[newer as usize].older = older;
        self.links[own as usize] = Link { older: own, newer: own };
        if older == newer {
            let bucket = self.bucket_of[block.as_usize()] as usize;
            self.occupied[bucket / 64] &= !(1 << (bucket % 64));
        }
    }

    /// Lets the order tell heats up to `now` (in half-lives) apart, and half the span above it for what is hotter than
    /// a single use. Lists that fall behind the span are joined to the coldest that is left.
    pub(crate) fn advance(&mut self, now: f64) {
        if self.policy == EvictionPolicy::Lru {
            return;
        }
        let base = (now * BUCKETS_PER_HALF_LIFE) as i64 - NUM_BUCKETS as i64 / 2;
        while self.base < base {
            let (from, into) = (ring(self.base), ring(self.base + 1));
            self.join(from, into);
            self.base += 1;
        }
    }

    fn bucket(&self, heat: Heat) -> usize {
        match self.policy {
            EvictionPolicy::Lru => 0,
            EvictionPolicy::CostAware => {
                let step = (heat.half_lives() * BUCKETS_PER_HALF_LIFE).floor() as i64;
                ring(step.clamp(self.base, self.base + NUM_BUCKETS as i64 - 1))
            }
        }
    }

    fn coldest_bucket(&self) -> Option<usize> {
        let start = ring(self.base);
        // The first word is visited twice: for the lists from the start on, and at the end for those before it.
        (0..=WORDS).find_map(|turn| {
            let word = (start / 64 + turn) % WORDS;
            let mask = match turn {
                0 => u64::MAX << (start % 64),
                WORDS => !(u64::MAX << (start % 64)),
                _ => u64::MAX,
            };
            let lists = self.occupied[word] & mask;
            (lists != 0).then(|| word * 64 + lists.trailing_zeros() as usize)
        })
    }

    /// Puts all of one list before all of another: what is colder goes first.
    fn join(&mut self, from: usize, into: usize) {
        if self.occupied[from / 64] & (1 << (from % 64)) == 0 {
            return;
        }
        while let Some(block) = self.newest_of(from) {
            self.remove(block);
            self.insert_after(block, self.anchor(into), into);
        }
    }

    fn newest_of(&self, bucket: usize) -> Option<BlockId> {
        let anchor = self.anchor(bucket);
        let newest = self.links[anchor as usize].older;
        (newest != anchor).then(|| BlockId::new(newest as usize))
    }

    fn anchor(&self, bucket: usize) -> u32 {
        (self.num_blocks + bucket) as u32
    }

    fn insert_after(&mut self, block: BlockId, older: u32, bucket: usize) {
        let own = block.index();
        let newer = self.links[older as usize].newer;
        self.links[own as usize] = Link { older, newer };
        self.links[older as usize].newer = own;
        self.links[newer as usize].older = own;
        self.bucket_of[block.as_usize()] = bucket as u16;
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
    }
}

fn ring(step: i64) -> usize {
    step.rem_euclid(NUM_BUCKETS as i64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(order: &mut EvictionOrder) -> Vec<u32> {
        let pop = || {
            let block = order.coldest()?;
            order.remove(block);
            Some(block.index())
        };
        std::iter::from_fn(pop).collect()
    }

    fn heat(half_lives: f64) -> Heat {
        Heat::use_at(half_lives, 0.0)
    }

    #[test]
    fn lru_takes_the_oldest_first_and_a_touch_renews() {
        let mut order = EvictionOrder::new(4, EvictionPolicy::Lru);
        for index in [2, 0, 3] {
            order.put_newest(BlockId::new(index), heat(1e6 - index as f64));
        }
        order.put_newest(BlockId::new(2), heat(0.0));
        order.put_oldest(BlockId::new(1), heat(9.0));
        assert!(order.contains(BlockId::new(0)));
        assert_eq!(drain(&mut order), [1, 0, 3, 2]);
        assert!(!order.contains(BlockId::new(0)));
    }

    #[test]
    fn removing_twice_changes_nothing() {
        let mut order = EvictionOrder::new(2, EvictionPolicy::CostAware);
        order.put_newest(BlockId::new(0), heat(0.0));
        order.put_newest(BlockId::new(1), heat(0.0));
        order.remove(BlockId::new(0));
        order.remove(BlockId::new(0));
        assert_eq!(drain(&mut order), [1]);
        assert_eq!(order.coldest(), None);
    }

    #[test]
    fn the_coldest_goes_first_whenever_it_was_used() {
        let mut order = EvictionOrder::new(4, EvictionPolicy::CostAware);
        for (index, half_lives) in [(0, 5.0), (1, 2.0), (2, 9.0), (3, 2.0)] {
            order.put_newest(BlockId::new(index), heat(half_lives));
        }
        assert_eq!(drain(&mut order), [1, 3, 0, 2]);
    }

    #[test]
    fn what_falls_behind_the_span_keeps_its_order() {
        let mut order = EvictionOrder::new(4, EvictionPolicy::CostAware);
        for (index, half_lives) in [(0, 4.0), (1, 1.0), (2, 2.0)] {
            order.put_newest(BlockId::new(index), heat(half_lives));
        }
        order.advance(1_000.0);
        order.put_newest(BlockId::new(3), heat(1_000.0));
        assert_eq!(drain(&mut order), [1, 2, 0, 3]);
    }

    #[test]
    fn never_used_and_hotter_than_the_span_are_its_ends() {
        let mut order = EvictionOrder::new(3, EvictionPolicy::CostAware);
        order.advance(50.0);
        order.put_newest(BlockId::new(0), heat(1e9));
        order.put_newest(BlockId::new(1), heat(50.0));
        order.put_newest(BlockId::new(2), Heat::COLD);
        assert_eq!(drain(&mut order), [2, 1, 0]);
    }
}
