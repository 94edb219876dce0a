//! The pool against a naive model, and its rules one by one.
use super::*;
use crate::key::KeyRoot;
use crate::rng::Rng;

fn root() -> KvKey {
    let root = KeyRoot {
        model_fingerprint: [0; 32],
        kv_dtype: "f32",
        kv_layout: "test",
        block_size: 1,
        rope_fingerprint: [0; 32],
        numerics_id: "test",
        adapter: None,
        tenant_salt: [0; 32],
    };
    root.key()
}

/// Keys of the blocks along a path of labels.
fn keys(path: &[u32]) -> Vec<KvKey> {
    crate::block_keys(root(), path, 1)
}

fn take(pool: &mut BlockPool, num_blocks: usize) -> Vec<FillingBlock> {
    pool.allocate(num_blocks).expect("there are enough blocks").collect()
}

fn ids(blocks: &[FillingBlock]) -> Vec<u32> {
    blocks.iter().map(|block| block.id().index()).collect()
}

/// Fills blocks for a whole path and returns the lease on its end.
fn fill(pool: &mut BlockPool, path: &[u32]) -> Lease {
    let mut lease = None;
    for (block, key) in take(pool, path.len()).into_iter().zip(keys(path)) {
        let (Published::Indexed(next) | Published::Duplicate(next)) = pool.publish(block, lease.take(), key);
        lease = Some(next);
    }
    lease.expect("the path is not empty")
}

fn num_found(pool: &BlockPool, path: &[u32]) -> usize {
    pool.find_prefix(&keys(path)).map_or(0, |prefix| prefix.num_blocks())
}

#[test]
fn freed_blocks_are_reused_first() {
    let mut pool = BlockPool::new(4);
    let mut blocks = take(&mut pool, 2);
    assert_eq!(ids(&blocks), [0, 1]);
    blocks.drain(..).for_each(|block| pool.discard(block));
    let blocks = take(&mut pool, 4);
    assert_eq!(ids(&blocks), [1, 0, 2, 3]);
}

#[test]
fn free_blocks_are_used_before_cached_ones_are_evicted() {
    let mut pool = BlockPool::new(3);
    let lease = fill(&mut pool, &[1]);
    pool.release(lease);
    let blocks = take(&mut pool, 2);
    assert_eq!(ids(&blocks), [1, 2]);
    assert_eq!((num_found(&pool, &[1]), pool.num_evictions()), (1, 0));
    let evicted = take(&mut pool, 1);
    assert_eq!(ids(&evicted), [0]);
    assert_eq!((num_found(&pool, &[1]), pool.num_evictions()), (0, 1));
}

#[test]
fn an_evicted_chain_is_handed_out_in_its_own_order() {
    let mut pool = BlockPool::new(3);
    let lease = fill(&mut pool, &[1, 2, 3]);
    pool.release(lease);
    let blocks = take(&mut pool, 3);
    assert_eq!(ids(&blocks), [0, 1, 2]);
}

#[test]
fn an_allocation_that_is_not_possible_changes_nothing() {
    let mut pool = BlockPool::new(3);
    let lease = fill(&mut pool, &[1]);
    let other = fill(&mut pool, &[2]);
    pool.release(other);
    let before = pool.counts();
    assert!(pool.allocate(3).is_none());
    assert_eq!(pool.counts(), before);
    assert_eq!(num_found(&pool, &[2]), 1);
    pool.release(lease);
}

#[test]
fn blocks_that_were_not_drawn_stay_free() {
    let mut pool = BlockPool::new(3);
    let mut allocation = pool.allocate(3).expect("all are free");
    let first = allocation.next().expect("there is one");
    drop(allocation);
    assert_eq!(pool.counts(), BlockCounts { free: 2, filling: 1, cached: 0, leased: 0 });
    pool.discard(first);
}

#[test]
fn leaves_are_evicted_before_what_they_hang_on() {
    let mut pool = BlockPool::new(3);
    let lease = fill(&mut pool, &[1, 2, 3]);
    pool.release(lease);
    let mut held = Vec::new();
    for num_left in [2, 1, 0] {
        held.extend(take(&mut pool, 1));
        assert_eq!(num_found(&pool, &[1, 2, 3]), num_left);
    }
    assert_eq!(ids(&held), [2, 1, 0]);
}

#[test]
fn the_least_recently_used_leaf_is_evicted_first() {
    let mut pool = BlockPool::new(4);
    for path in [[1, 2], [3, 4]] {
        let lease = fill(&mut pool, &path);
        pool.release(lease);
    }
    let prefix = pool.find_prefix(&keys(&[1, 2])).expect("it was published");
    let lease = pool.lease(prefix, &mut Vec::new());
    pool.release(lease);
    let evicted = take(&mut pool, 2);
    assert_eq!((num_found(&pool, &[1, 2]), num_found(&pool, &[3, 4]), evicted.len()), (2, 0, 2));
}

#[test]
fn a_lease_on_the_deepest_block_protects_the_whole_chain() {
    let mut pool = BlockPool::new(4);
    let lease = fill(&mut pool, &[1, 2, 3]);
    assert_eq!(pool.counts(), BlockCounts { free: 1, filling: 0, cached: 0, leased: 3 });
    assert!(pool.allocate(2).is_none());
    assert_eq!(pool.clear_cached(), 0);
    assert_eq!(num_found(&pool, &[1, 2, 3]), 3);
    pool.release(lease);
    assert_eq!(pool.counts(), BlockCounts { free: 1, filling: 0, cached: 3, leased: 0 });
    assert_eq!(pool.clear_cached(), 3);
    assert_eq!(pool.counts().free, 4);
}

#[test]
fn a_second_copy_of_a_block_is_freed_and_the_first_is_leased() {
    let mut pool = BlockPool::new(4);
    let first = fill(&mut pool, &[1, 2]);
    let second = fill(&mut pool, &[1, 2]);
    assert_eq!(first.id(), second.id());
    assert_eq!(pool.counts(), BlockCounts { free: 2, filling: 0, cached: 0, leased: 2 });
    pool.release(first);
    assert_eq!(pool.counts().leased, 2);
    pool.release(second);
    assert_eq!(pool.counts().cached, 2);
}

#[test]
fn a_prefix_is_found_to_its_last_resident_block() {
    let mut pool = BlockPool::new(40);
    let path: Vec<u32> = (0..33).collect();
    let lease = fill(&mut pool, &path[..21]);
    for len in 0..path.len() {
        assert_eq!(num_found(&pool, &path[..len]), len.min(21));
    }
    let mut table = Vec::new();
    let prefix = pool.find_prefix(&keys(&path)).expect("it was published");
    let second = pool.lease(prefix, &mut table);
    assert!(table.iter().map(|block| block.index()).eq(0..21));
    pool.release(lease);
    pool.release(second);
}

/// What the pool should know about one cached block.
#[derive(Clone)]
struct Entry {
    block: BlockId,
    /// When a sequence that used it last let go.
    used: u64,
}

/// Least recently used over leaves by exhaustive search.
#[derive(Default)]
struct NaiveCache {
    entries: HashMap<Vec<u32>, Entry>,
    leased_paths: Vec<Vec<u32>>,
    now: u64,
}

impl NaiveCache {
    fn is_leased(&self, path: &[u32]) -> bool {
        self.leased_paths.iter().any(|leased| leased.starts_with(path))
    }

    fn evict(&mut self) {
        let is_leaf =
            |path: &[u32]| !self.entries.keys().any(|other| other.len() > path.len() && other.starts_with(path));
        let evictable = self.entries.iter().filter(|(path, _)| is_leaf(path) && !self.is_leased(path));
        let victim = evictable.min_by_key(|(_, entry)| entry.used).map(|(path, _)| path.clone());
        self.entries.remove(&victim.expect("the pool said that there is one"));
    }

    fn release(&mut self, path: &[u32]) {
        self.now += 1;
        let held = self.leased_paths.iter().position(|leased| leased == path).expect("it is leased");
        self.leased_paths.swap_remove(held);
        for len in 1..=path.len() {
            self.entries.get_mut(&path[..len]).expect("a leased chain is resident").used = self.now;
        }
    }

    fn check(&self, pool: &BlockPool) {
        assert_eq!(pool.index.len(), self.entries.len());
        for (path, entry) in &self.entries {
            let prefix = pool.find_prefix(&keys(path)).expect("the model has it");
            assert_eq!((prefix.num_blocks(), prefix.deepest), (path.len(), entry.block), "{path:?}");
        }
        let num_leased = self.entries.keys().filter(|path| self.is_leased(path)).count();
        assert_eq!(pool.counts().leased, num_leased);
    }
}

/// A random holder of blocks: a leased chain and blocks that it fills.
#[derive(Default)]
struct Holder {
    path: Vec<u32>,
    lease: Option<Lease>,
    filling: VecDeque<FillingBlock>,
}

fn random_operation(pool: &mut BlockPool, naive: &mut NaiveCache, holders: &mut [Holder], rng: &mut Rng) {
    let holder = &mut holders[rng.below(holders.len())];
    match rng.below(10) {
        0..3 => {
            let num_blocks = 1 + rng.below(3);
            let num_evicted = num_blocks.saturating_sub(pool.counts().free);
            if pool.num_available() >= num_blocks {
                (0..num_evicted).for_each(|_| naive.evict());
                holder.filling.extend(take(pool, num_blocks));
            } else {
                assert!(pool.allocate(num_blocks).is_none());
            }
        }
        3..7 => {
            if let Some(block) = holder.filling.pop_front() {
                let parent = holder.path.clone();
                holder.path.push(rng.below(2) as u32);
                let key = keys(&holder.path)[parent.len()];
                let own = block.id();
                let known = naive.entries.get(&holder.path).map(|entry| entry.block);
                let published = pool.publish(block, holder.lease.take(), key);
                assert_eq!(matches!(published, Published::Duplicate(_)), known.is_some());
                let (Published::Indexed(lease) | Published::Duplicate(lease)) = published;
                assert_eq!(lease.id(), known.unwrap_or(own));
                naive.entries.entry(holder.path.clone()).or_insert(Entry { block: own, used: 0 });
                naive.leased_paths.push(holder.path.clone());
                if !parent.is_empty() {
                    let held = naive.leased_paths.iter().position(|leased| *leased == parent);
                    naive.leased_paths.swap_remove(held.expect("it is leased"));
                }
                holder.lease = Some(lease);
            }
        }
        7 => {
            holder.filling.drain(..).for_each(|block| pool.discard(block));
            if let Some(lease) = holder.lease.take() {
                pool.release(lease);
                naive.release(&holder.path);
                holder.path.clear();
            }
        }
        8 if holder.lease.is_none() => {
            let wanted: Vec<u32> = (0..rng.below(7)).map(|_| rng.below(2) as u32).collect();
            if let Some(prefix) = pool.find_prefix(&keys(&wanted)) {
                let mut table = Vec::new();
                holder.lease = Some(pool.lease(prefix, &mut table));
                holder.path = wanted[..prefix.num_blocks()].to_vec();
                naive.leased_paths.push(holder.path.clone());
                let expected = (1..=table.len()).map(|len| naive.entries[&wanted[..len]].block);
                assert!(expected.eq(table.iter().copied()));
            }
        }
        9 if rng.chance(3) => {
            let leased: Vec<Vec<u32>> = naive.entries.keys().filter(|path| naive.is_leased(path)).cloned().collect();
            assert_eq!(pool.clear_cached(), naive.entries.len() - leased.len());
            naive.entries.retain(|path, _| leased.contains(path));
        }
        _ => {}
    }
}

#[test]
fn random_operations_agree_with_exhaustive_lru_over_leaves() {
    let mut num_evictions = 0;
    for seed in 0..40 {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let mut pool = BlockPool::new(2 + rng.below(14));
        let mut naive = NaiveCache::default();
        let mut holders: Vec<Holder> = (0..1 + rng.below(4)).map(|_| Holder::default()).collect();
        for _ in 0..500 {
            random_operation(&mut pool, &mut naive, &mut holders, &mut rng);
            let leases = holders.iter().filter_map(|holder| holder.lease.as_ref()).collect();
            let filling = holders.iter().flat_map(|holder| &holder.filling).collect();
            pool.check_invariants(&Holdings { leases, filling });
            naive.check(&pool);
        }
        num_evictions += pool.num_evictions();
    }
    assert!(num_evictions > 1_000, "only {num_evictions} evictions");
}
