//! `Scheduler`: owns the sequences and the block pool between steps. `batch` plans a step, `commit` applies it.
use std::collections::HashMap;
use std::sync::Arc;

use crate::block_info::BlockInfo;
use crate::block_pool::{BlockCounts, BlockPool, Holdings, MAX_BLOCKS};
use crate::error::{AddError, ConfigError};
use crate::eviction::EvictionPolicy;
use crate::heat::Heat;
use crate::ids::{SequenceId, TenantId, UnitId};
use crate::key::{BuildKeyHasher, KvKey, block_keys};
use crate::sequence::{NewSequence, Phase, Sequence};
use crate::tenants::{TenantStats, Tenants};
use crate::tiers::{Decision, Tier, TierConfig, TierStats, Tiers, TransferPlan};

/// The scheduler's limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SchedulerConfig {
    /// KV blocks in the device pool.
    pub num_blocks: usize,
    /// Tokens per block.
    pub block_size: usize,
    /// Rows of one step: decodes and prefill together. At least `max_running`.
    pub max_batch_tokens: usize,
    /// Sequences that hold blocks at the same time.
    pub max_running: usize,
    /// Sequences in all queues together. Preempted ones come back even when a queue is full.
    pub max_waiting: usize,
    /// Sequences in one tenant's queue.
    pub max_waiting_per_tenant: usize,
    /// Which cached block is given up first.
    pub eviction: EvictionPolicy,
    /// Host memory and disk.
    pub tiers: TierConfig,
}

/// What the scheduler holds now, and what it has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerStats {
    /// Sequences in the queues.
    pub num_waiting: usize,
    /// Sequences in the batch.
    pub num_running: usize,
    /// Blocks by place.
    pub blocks: BlockCounts,
    /// Tokens that first admissions found cached. Bypassing sequences count neither here nor as misses.
    pub prefix_hits_tokens: u64,
    /// Tokens that first admissions had to compute.
    pub prefix_misses_tokens: u64,
    /// Sequences sent back to waiting because blocks ran out.
    pub preemptions: u64,
    /// Cached blocks given up for others.
    pub evictions: u64,
    /// Blocks that were computed although another sequence had published them meanwhile; the copies were freed.
    pub deduplicated_blocks: u64,
}

/// Continuous batching over a block pool with a prefix cache. See the crate's description for the cycle of calls.
pub struct Scheduler {
    pub(crate) config: SchedulerConfig,
    pub(crate) pool: BlockPool,
    pub(crate) tiers: Tiers,
    pub(crate) sequences: HashMap<SequenceId, Sequence>,
    /// In order of arrival. The first is never preempted, so there is always progress.
    pub(crate) running: Vec<SequenceId>,
    pub(crate) tenants: Tenants,
    /// The block that each running sequence will fill next, when its tokens are known; valid within one `schedule`.
    pub(crate) frontiers: HashMap<KvKey, SequenceId, BuildKeyHasher>,
    pub(crate) totals: Totals,
    pub(crate) num_steps: u64,
    /// The number of the step that was planned and not yet committed or reverted.
    pub(crate) in_flight: Option<u64>,
    next_id: SequenceId,
}

/// The counters of [`SchedulerStats`] that only grow, less what the pool counts itself.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) prefix_hits_tokens: u64,
    pub(crate) prefix_misses_tokens: u64,
    pub(crate) preemptions: u64,
    pub(crate) deduplicated_blocks: u64,
}

impl SchedulerConfig {
    /// Blocks that hold `num_tokens` tokens.
    pub fn blocks_for(&self, num_tokens: usize) -> usize {
        num_tokens.div_ceil(self.block_size)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let limits = [
            ("num_blocks", self.num_blocks),
            ("block_size", self.block_size),
            ("max_batch_tokens", self.max_batch_tokens),
            ("max_running", self.max_running),
            ("max_waiting", self.max_waiting),
            ("max_waiting_per_tenant", self.max_waiting_per_tenant),
        ];
        if let Some((name, _)) = limits.into_iter().find(|&(_, limit)| limit == 0) {
            return Err(ConfigError::Zero { name });
        }
        if self.num_blocks > MAX_BLOCKS {
            return Err(ConfigError::TooManyBlocks { num_blocks: self.num_blocks, max: MAX_BLOCKS });
        }
        if self.max_batch_tokens < self.max_running {
            let (max_batch_tokens, max_running) = (self.max_batch_tokens, self.max_running);
            return Err(ConfigError::BatchBelowRunning { max_batch_tokens, max_running });
        }
        Ok(())
    }
}

impl Scheduler {
    /// A scheduler with an empty pool and no sequences.
    ///
    /// # Errors
    /// When a limit is 0 or limits contradict each other.
    pub fn new(config: SchedulerConfig) -> Result<Scheduler, ConfigError> {
        config.validate()?;
        let mut pool = BlockPool::with_eviction(config.num_blocks, config.eviction);
        let tiers = Tiers::new(config.tiers, config.eviction);
        if !tiers.are_off() {
            pool.record_evictions();
        }
        Ok(Scheduler {
            config,
            pool,
            tiers,
            sequences: HashMap::new(),
            running: Vec::with_capacity(config.max_running),
            tenants: Tenants::new(),
            frontiers: HashMap::default(),
            totals: Totals::default(),
            num_steps: 0,
            in_flight: None,
            next_id: SequenceId::FIRST,
        })
    }

    /// Puts a sequence at the end of its tenant's queue. May be called while a step is in flight.
    ///
    /// # Errors
    /// When a queue is full, the sequence could never fit, or the request contradicts itself.
    pub fn add(&mut self, new: NewSequence) -> Result<SequenceId, AddError> {
        self.check_new(&new)?;
        debug_assert_eq!(new.block_keys, block_keys(new.root, &new.tokens, self.config.block_size), "foreign keys");
        let id = self.next_id;
        self.next_id = id.next();
        self.tenants.arrive(new.tenant, id);
        self.sequences.insert(id, Sequence::new(id, new));
        Ok(id)
    }

    /// Drops a waiting or running sequence; its full blocks stay cached. False when there is no such sequence.
    ///
    /// # Panics
    /// While a step is in flight: its rows may still be read and written.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        assert!(self.in_flight.is_none(), "cancel({id}) within a step: this is a bug");
        let Some(sequence) = self.sequences.remove(&id) else {
            return false;
        };
        match sequence.phase {
            Phase::Waiting { .. } => self.tenants.leave_queue(sequence.tenant(), id),
            Phase::Running => self.retire(sequence),
        }
        true
    }

    /// The sequence, while it waits or runs.
    pub fn sequence(&self, id: SequenceId) -> Option<&Sequence> {
        self.sequences.get(&id)
    }

    /// No sequence waits or runs.
    pub fn is_idle(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Counts of now and totals so far; constant time.
    pub fn stats(&self) -> SchedulerStats {
        SchedulerStats {
            num_waiting: self.tenants.num_waiting(),
            num_running: self.running.len(),
            blocks: self.pool.counts(),
            prefix_hits_tokens: self.totals.prefix_hits_tokens,
            prefix_misses_tokens: self.totals.prefix_misses_tokens,
            preemptions: self.totals.preemptions,
            evictions: self.pool.num_evictions(),
            deduplicated_blocks: self.totals.deduplicated_blocks,
        }
    }

    /// Each tenant that has sequences, in order of id.
    pub fn tenant_stats(&self) -> Vec<TenantStats> {
        self.tenants.stats()
    }

    /// Forgets all cached blocks on the device that no running sequence uses, and all of `of` (or everybody's) in the
    /// lower tiers; says how many blocks that were. What running sequences of `of` leave is forgotten when they end. The
    /// next plan says which bytes have to go.
    pub fn clear_cache(&mut self, of: Option<TenantId>) -> usize {
        for sequence in self.sequences.values_mut() {
            sequence.forgotten |= of.is_none_or(|tenant| sequence.tenant() == tenant);
        }
        self.pool.undescribe(of);
        self.tiers.forget(of) + self.pool.clear_cached()
    }

    /// Forgets all cached blocks on the device that no running sequence uses, and leaves the lower tiers as they are.
    pub fn clear_device(&mut self) -> usize {
        self.pool.clear_cached()
    }

    /// Forgets all of host memory, and leaves the other tiers as they are.
    pub fn clear_host(&mut self) -> usize {
        self.tiers.forget_tier(Tier::Host, None)
    }

    /// Gives up all cached blocks on the device that no running sequence uses, as if others needed their place, and says
    /// how many that were. Not within a step: the plan is to be carried out before the next one.
    ///
    /// # Panics
    /// While a step is in flight.
    pub fn evict_device(&mut self) -> (usize, TransferPlan) {
        assert!(self.in_flight.is_none(), "evict_device within a step: this is a bug");
        let num_blocks = self.pool.evict_cached();
        self.demote_evicted();
        (num_blocks, self.tiers.take_plan())
    }

    /// A lower tier's contents and what has happened in it.
    pub fn tier_stats(&self, tier: Tier) -> TierStats {
        self.tiers.stats(tier)
    }

    /// The latest decisions, oldest first.
    pub fn decisions(&self) -> impl Iterator<Item = &Decision> {
        self.tiers.decisions()
    }

    /// Loads are on their way.
    pub fn is_loading(&self) -> bool {
        self.tiers.is_loading()
    }

    /// Computed blocks that are not on disk yet.
    pub fn num_unsaved(&self) -> usize {
        self.tiers.num_unsaved()
    }

    /// Plans to save up to `max_blocks` computed blocks to disk, oldest first. For idle moments, and before the end. Not
    /// within a step.
    ///
    /// # Panics
    /// While a step is in flight.
    pub fn save(&mut self, max_blocks: usize) -> TransferPlan {
        assert!(self.in_flight.is_none(), "save within a step: this is a bug");
        self.tiers.save(&self.pool, max_blocks);
        self.tiers.take_plan()
    }

    /// Moves that came up outside of a step: what was forgotten or failed since the last plan. Not within a step.
    ///
    /// # Panics
    /// While a step is in flight.
    pub fn take_transfers(&mut self) -> TransferPlan {
        assert!(self.in_flight.is_none(), "take_transfers within a step: this is a bug");
        self.tiers.take_plan()
    }

    /// Takes over consecutive blocks that are on disk from before. `None` when there is no room or they are known.
    pub fn adopt_from_disk(&mut self, blocks: Vec<Arc<BlockInfo>>) -> Option<UnitId> {
        self.tiers.adopt(blocks, Heat::use_at(self.pool.half_lives(), 0.0))
    }

    /// What was evicted since the last call is offered to the lower tiers.
    pub(crate) fn demote_evicted(&mut self) {
        let evicted = self.pool.take_evicted();
        if !evicted.is_empty() {
            self.tiers.demote(evicted, self.pool.half_lives());
        }
    }

    /// Checks conservation of blocks (free + filling + cached + leased is all of them, each in one place), the prefix
    /// tree, and that sequences, queues and block tables agree. O(blocks + tokens): for tests and idle moments.
    ///
    /// # Panics
    /// When any of it does not hold.
    pub fn check_invariants(&self) {
        let mut held = Holdings::default();
        for sequence in self.sequences.values() {
            sequence.table.collect_holdings(&mut held);
            self.check_sequence(sequence);
        }
        held.filling.extend(self.tiers.quarantined());
        self.pool.check_invariants(&held);
        self.tiers.check_invariants();
        self.tenants.check_invariants();
        assert!(self.running.is_sorted());
        assert!(self.running.len() <= self.config.max_running);
        assert_eq!(self.running.len() + self.tenants.num_waiting(), self.sequences.len());
    }

    /// Takes a sequence out of the batch and gives its blocks back. It is no longer in the map.
    pub(crate) fn retire(&mut self, mut sequence: Sequence) {
        self.stop_loading(&mut sequence);
        self.release_blocks(&mut sequence);
        self.running.retain(|&running| running != sequence.id());
        self.tenants.leave_batch(sequence.tenant());
    }

    /// Sends a running sequence back to its queue without blocks. Its full blocks stay cached: it finds on
    /// readmission what is left of them.
    pub(crate) fn send_back(&mut self, id: SequenceId) -> &mut Sequence {
        let mut sequence = self.sequences.remove(&id).expect("a running sequence is known: this is a bug");
        self.release_blocks(&mut sequence);
        sequence.num_computed = 0;
        sequence.phase = Phase::Waiting { follows: None };
        sequence.arrival = None;
        let sequence = self.sequences.entry(id).or_insert(sequence);
        self.running.retain(|&running| running != id);
        self.tenants.send_back(sequence.tenant(), id);
        sequence
    }

    /// Gives a sequence's blocks back, as used by it.
    fn release_blocks(&mut self, sequence: &mut Sequence) {
        let weight_log2 = self.tiers.prefill_cost().work_at(sequence.num_computed).log2();
        sequence.table.release_after_use(&mut self.pool, weight_log2);
        if sequence.forgotten {
            self.pool.clear_cached();
        }
    }

    /// Leaves the blocks that a load is filling to that load.
    fn stop_loading(&mut self, sequence: &mut Sequence) {
        if let Some(load) = sequence.loading.take() {
            self.tiers.orphan(load, sequence.table.take_filling());
        }
    }

    /// The sequence of an id that the scheduler itself noted down.
    pub(crate) fn known(&self, id: SequenceId) -> &Sequence {
        self.sequences.get(&id).expect("a noted sequence is known: this is a bug")
    }

    fn check_new(&self, new: &NewSequence) -> Result<(), AddError> {
        let SchedulerConfig { num_blocks, block_size, max_waiting, max_waiting_per_tenant, .. } = self.config;
        if new.tokens.is_empty() {
            return Err(AddError::EmptyPrompt);
        }
        let expected = new.tokens.len() / block_size;
        if new.block_keys.len() != expected {
            return Err(AddError::WrongKeyCount { expected, got: new.block_keys.len() });
        }
        let needed_blocks = self.config.blocks_for(new.tokens.len().saturating_add(new.max_new_tokens));
        if needed_blocks > num_blocks {
            return Err(AddError::TooLong { needed_blocks, num_blocks });
        }
        if self.tenants.num_waiting() >= max_waiting {
            return Err(AddError::QueueFull { max_waiting });
        }
        if self.tenants.num_waiting_of(new.tenant) >= max_waiting_per_tenant {
            return Err(AddError::TenantQueueFull { tenant: new.tenant, max_waiting_per_tenant });
        }
        Ok(())
    }

    fn check_sequence(&self, sequence: &Sequence) {
        let (id, block_size) = (sequence.id(), self.config.block_size);
        assert_eq!(sequence.block_keys.len(), sequence.tokens.len() / block_size, "{id}");
        assert_eq!(sequence.phase == Phase::Running, self.running.contains(&id), "{id}");
        if sequence.phase != Phase::Running {
            assert!(sequence.table.is_empty() && sequence.num_computed == 0, "{id} waits and has blocks");
            return;
        }
        sequence.table.check_invariants(&self.pool, &sequence.block_keys);
        assert!(sequence.num_computed < sequence.tokens.len(), "{id} has nothing to compute");
        assert_eq!(
            sequence.table.num_full(),
            sequence.num_computed / block_size,
            "{id}: a full block is not published"
        );
        if self.in_flight.is_none() && !sequence.is_loading() {
            assert_eq!(sequence.table.len(), self.config.blocks_for(sequence.num_computed), "{id} has spare blocks");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyRoot, PrefixReuse, Sampled, Then};

    #[test]
    fn a_server_of_many_tenants_remembers_few() {
        let config = SchedulerConfig {
            num_blocks: 8,
            block_size: 4,
            max_batch_tokens: 8,
            max_running: 1,
            max_waiting: 1,
            max_waiting_per_tenant: 1,
            eviction: EvictionPolicy::Lru,
            tiers: TierConfig::OFF,
        };
        let key_root = KeyRoot {
            model_fingerprint: [0; 32],
            kv_dtype: "f32",
            kv_layout: "test",
            block_size: 4,
            rope_fingerprint: [0; 32],
            numerics_id: "test",
            adapter: None,
            tenant_salt: [0; 32],
        };
        let mut scheduler = Scheduler::new(config).expect("the configuration is legal");
        for tenant in (0..2_000).map(TenantId) {
            let (tokens, root, reuse) = (vec![1, 2, 3], key_root.key(), PrefixReuse::Exact);
            let new = NewSequence { tenant, tokens, root, block_keys: Vec::new(), max_new_tokens: 1, reuse };
            let id = scheduler.add(new).expect("the queue is empty");
            let plan = scheduler.schedule();
            scheduler.commit(plan, &[Sampled { id, token: 4, then: Then::Finish }]);
        }
        assert!(scheduler.is_idle());
        assert!(scheduler.tenants.num_remembered() < 200, "{} tenants", scheduler.tenants.num_remembered());
    }
}
