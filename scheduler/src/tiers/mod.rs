//! MemScheduler: which KV blocks are copied to host memory and to disk, which are brought back, and which are dropped.
//! It plans; the engine moves the bytes and reports.
//!
//! ```text
//!            computed                       swap out, when evicted            spilled when hot, or saved when idle
//!   device ◄────────── sequence    device ───────────────────────► host ──────────────────────────────────────► disk
//!      ▲                                                             │                                            │
//!      └────────────────────────── load, when faster than to compute ┴────────────────────────────────────────────┘
//! ```
//!
//! A copy may be in several tiers. A lower tier's copy stays hittable while it is read, and what is being read is leased.
//! A load fills blocks that belong to it alone until it ends; a load that fails is a prefix that is computed.
mod decision;
mod index;
mod plan;
mod rates;
mod spill;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::block_info::BlockInfo;
use crate::block_pool::{BlockPool, Evicted, FillingBlock};
use crate::eviction::EvictionPolicy;
use crate::heat::Heat;
use crate::ids::{LoadId, SequenceId, TenantId, UnitId};
use crate::key::KvKey;

pub use decision::{Decision, DecisionKind};
pub use index::Place;
pub use plan::{BlockSource, DiskWrite, Drop, Load, LoadBlock, Measured, SwapOut, TransferPlan};
pub use rates::{PrefillCost, Weighed};

use decision::DecisionLog;
use index::{Removed, TierIndex};
use rates::Rates;
use spill::Candidate;

/// Where KV blocks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// The pool that attention reads.
    Device,
    /// Host memory; on the CPU backend a second budget of the same memory.
    Host,
    /// Files.
    Disk,
}

impl Tier {
    /// The tiers that blocks are loaded from, fastest first.
    pub const LOWER: [Tier; 2] = [Tier::Host, Tier::Disk];

    pub(crate) fn lower_index(self) -> Option<usize> {
        Tier::LOWER.iter().position(|tier| *tier == self)
    }

    /// The word for it in metrics and answers.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Device => "device",
            Tier::Host => "host",
            Tier::Disk => "disk",
        }
    }
}

/// The lower tiers' budgets, and what they are weighed by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierConfig {
    /// Blocks in host memory; 0: no such tier.
    pub host_blocks: usize,
    /// Blocks on disk; 0: no such tier.
    pub disk_blocks: usize,
    /// The share of each lower tier that one tenant may have.
    pub tenant_percent: u8,
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Blocks that may be on their way to disk at a time.
    pub max_disk_writes: usize,
    /// What prefill costs.
    pub prefill_cost: PrefillCost,
}

impl TierConfig {
    /// The device alone.
    pub const OFF: TierConfig = TierConfig {
        host_blocks: 0,
        disk_blocks: 0,
        tenant_percent: 100,
        block_bytes: 0,
        max_disk_writes: 0,
        prefill_cost: PrefillCost { attention_half_tokens: 2_048.0 },
    };

    fn tenant_share(&self, capacity: usize) -> usize {
        capacity * usize::from(self.tenant_percent.min(100)) / 100
    }
}

/// A lower tier's contents and what has happened in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TierStats {
    /// Blocks it may hold.
    pub capacity_blocks: usize,
    /// Blocks it holds, those on their way included.
    pub used_blocks: usize,
    /// Blocks loaded from it.
    pub hit_blocks: u64,
    /// Blocks that were found in it and computed all the same, as that was faster.
    pub declined_blocks: u64,
    /// Blocks copied into it.
    pub stored_blocks: u64,
    /// Blocks given up for others.
    pub evicted_blocks: u64,
    /// Blocks whose move from or to it failed.
    pub failed_blocks: u64,
    /// Measured bandwidth of loads, bytes per second; 0 before the first.
    pub bandwidth: f64,
}

/// A load on its way.
struct InFlight {
    /// `None` after a cancellation.
    sequence: Option<SequenceId>,
    blocks: Vec<LoadBlock>,
    /// Destinations that nobody waits for any more: in quarantine until the load ends.
    quarantine: Vec<FillingBlock>,
}

/// A block that a load brought.
pub(crate) struct Arrived {
    pub(crate) key: KvKey,
    pub(crate) info: Arc<BlockInfo>,
    pub(crate) tier: Tier,
    /// Its uses in the tier that it came from.
    pub(crate) heat: Heat,
}

/// The lower tiers.
pub(crate) struct Tiers {
    config: TierConfig,
    policy: EvictionPolicy,
    host: TierIndex,
    disk: TierIndex,
    stats: [TierStats; Tier::LOWER.len()],
    rates: Rates,
    loads: HashMap<LoadId, InFlight>,
    next_load: LoadId,
    plan: TransferPlan,
    candidates: Vec<Candidate>,
    /// Computed blocks that are not on disk, oldest first.
    unsaved: VecDeque<Arc<BlockInfo>>,
    num_disk_writes: usize,
    decisions: DecisionLog,
}

/// Blocks that a waiting sequence could have from lower tiers, behind its prefix on the device.
pub(crate) struct Extension {
    pub(crate) places: Vec<(Tier, Place, KvKey)>,
    pub(crate) weighed: Weighed,
}

impl Tiers {
    pub(crate) fn new(config: TierConfig, policy: EvictionPolicy) -> Tiers {
        let index = |capacity| TierIndex::new(capacity, config.tenant_share(capacity), policy);
        Tiers {
            config,
            policy,
            host: index(config.host_blocks),
            disk: index(config.disk_blocks),
            stats: Default::default(),
            rates: Rates::default(),
            loads: HashMap::new(),
            next_load: LoadId::FIRST,
            plan: TransferPlan::default(),
            candidates: Vec::new(),
            unsaved: VecDeque::new(),
            num_disk_writes: 0,
            decisions: DecisionLog::default(),
        }
    }

    pub(crate) fn are_off(&self) -> bool {
        self.host.is_off() && self.disk.is_off()
    }

    /// What the engine has to do before the next step computes anything.
    pub(crate) fn take_plan(&mut self) -> TransferPlan {
        self.spill_candidates();
        std::mem::take(&mut self.plan)
    }

    /// Takes evicted blocks over where that is worth it. Their bytes are there until the next step runs.
    pub(crate) fn demote(&mut self, evicted: Vec<Evicted>, now: f64) {
        for Evicted { block, info, heat } in evicted {
            let heat = match self.policy {
                EvictionPolicy::CostAware => heat,
                EvictionPolicy::Lru => Heat::use_at(now, 0.0),
            };
            if self.host.contains(&info.key()) {
                continue;
            }
            match self.host.insert(vec![Arc::clone(&info)], heat) {
                Ok((unit, removed)) => {
                    self.host.make_ready(unit);
                    self.stats_mut(Tier::Host).stored_blocks += 1;
                    self.plan.swap_outs.push(SwapOut { block, unit });
                    removed.into_iter().for_each(|removed| self.spill_evicted(removed));
                }
                Err(_too_cold_or_off) => {
                    self.candidates.push(Candidate { info, heat, source: BlockSource::Device(block) })
                }
            }
        }
    }

    fn spill_evicted(&mut self, removed: Removed) {
        let Removed { unit, blocks, heat } = removed;
        self.stats_mut(Tier::Host).evicted_blocks += blocks.len() as u64;
        let source = BlockSource::Host(unit);
        self.candidates.extend(blocks.into_iter().map(|info| Candidate { info, heat, source }));
        self.plan.drops.push(Drop { tier: Tier::Host, unit });
    }

    /// The longest run of `keys` that lower tiers hold, and how much of it is worth loading. `first_block` is the position
    /// of the first key in its sequence.
    pub(crate) fn find_extension(&mut self, keys: &[KvKey], first_block: usize, block_size: usize) -> Extension {
        let place_of = |key: &KvKey| {
            let host = self.host.find(key).map(|place| (Tier::Host, place, *key));
            host.or_else(|| self.disk.find(key).map(|place| (Tier::Disk, place, *key)))
        };
        let mut places: Vec<_> = keys.iter().map_while(place_of).collect();
        let sources: Vec<Tier> = places.iter().map(|(tier, ..)| *tier).collect();
        let cost = self.config.prefill_cost;
        let works: Vec<f64> =
            (0..places.len()).map(|at| cost.work((first_block + at) * block_size, block_size)).collect();
        let queued_s = self.queued_s();
        let weighed = self.rates.weigh(&sources, &works, self.config.block_bytes, queued_s);
        if !places.is_empty() && weighed.num_blocks == 0 {
            self.decisions.note(DecisionKind::Recompute, places.len(), weighed);
        }
        for (tier, ..) in places.drain(weighed.num_blocks..) {
            self.stats_mut(tier).declined_blocks += 1;
        }
        Extension { places, weighed }
    }

    /// Seconds until a new load would begin.
    fn queued_s(&self) -> f64 {
        let blocks = self.loads.values().flat_map(|load| &load.blocks);
        let block_s = |block: &LoadBlock| Some(self.config.block_bytes as f64 / self.rates.bandwidth(block.tier)?);
        blocks.filter_map(block_s).sum()
    }

    /// Starts a load into blocks that the sequence has just taken.
    pub(crate) fn start_load(&mut self, sequence: SequenceId, extension: Extension, to: &[crate::BlockId]) -> LoadId {
        let id = self.next_load;
        self.next_load = id.next();
        let Extension { places, weighed } = extension;
        let blocks: Vec<LoadBlock> =
            std::iter::zip(places, to).map(|((tier, place, key), &to)| LoadBlock { to, tier, place, key }).collect();
        for block in &blocks {
            self.index_mut(block.tier).lease(block.place.unit);
        }
        self.decisions.note(DecisionKind::Load(id), blocks.len(), weighed);
        self.plan.loads.push(Load { id, blocks: blocks.clone() });
        self.loads.insert(id, InFlight { sequence: Some(sequence), blocks, quarantine: Vec::new() });
        id
    }

    /// Nobody waits for a load any more: its destinations stay with it until it ends.
    pub(crate) fn orphan(&mut self, id: LoadId, destinations: Vec<FillingBlock>) {
        let load = self.loads.get_mut(&id).expect("a sequence that loads has a load: this is a bug");
        load.sequence = None;
        load.quarantine = destinations;
    }

    /// Ends a load of which the first `num_ok` blocks arrived. Says who waits for it, and gives the heat of each arrived
    /// block. Sources that failed are not found again.
    pub(crate) fn end_load(
        &mut self,
        id: LoadId,
        num_ok: usize,
        measured: &[Measured],
        pool: &mut BlockPool,
    ) -> Option<(Option<SequenceId>, Vec<Arrived>)> {
        let InFlight { sequence, blocks, quarantine } = self.loads.remove(&id)?;
        quarantine.into_iter().for_each(|block| pool.discard(block));
        let now = Heat::use_at(pool.half_lives(), 0.0);
        let mut arrived = Vec::with_capacity(num_ok);
        for (position, block) in blocks.iter().enumerate() {
            let index = self.index_mut(block.tier);
            if position < num_ok {
                let info = Arc::clone(&index.blocks(block.place.unit)[block.place.offset]);
                index.warm(block.place.unit, now);
                arrived.push(Arrived { key: block.key, info, tier: block.tier, heat: index.heat(block.place.unit) });
                self.stats_mut(block.tier).hit_blocks += 1;
            }
        }
        // One unit may be the source of many blocks, so the failed one is removed before any lease is returned.
        if let Some(failed) = blocks.get(num_ok) {
            self.stats_mut(failed.tier).failed_blocks += 1;
            let removed = self.index_mut(failed.tier).remove(failed.place.unit);
            self.drop_unit(failed.tier, removed);
        }
        for block in &blocks {
            let removed = self.index_mut(block.tier).release(block.place.unit);
            self.drop_unit(block.tier, removed);
        }
        for &Measured { tier, bytes, seconds } in measured {
            self.rates.observe_load(tier, bytes, seconds);
        }
        self.decisions.measured(id, measured.iter().map(|measured| measured.seconds).sum());
        Some((sequence, arrived))
    }

    pub(crate) fn observe_prefill(&mut self, num_rows: usize, work: f64, seconds: f64) {
        self.rates.observe_prefill(num_rows, work, seconds);
    }

    pub(crate) fn prefill_cost(&self) -> PrefillCost {
        self.config.prefill_cost
    }

    pub(crate) fn is_loading(&self) -> bool {
        !self.loads.is_empty()
    }

    /// Blocks in quarantine: destinations of loads that nobody waits for.
    pub(crate) fn quarantined(&self) -> impl Iterator<Item = &FillingBlock> {
        self.loads.values().flat_map(|load| &load.quarantine)
    }

    /// Forgets a tenant's blocks, or everybody's, and says how many that were.
    pub(crate) fn forget(&mut self, of: Option<TenantId>) -> usize {
        let mine = |info: &Arc<BlockInfo>| of.is_none_or(|tenant| info.tenant() == tenant);
        self.unsaved.retain(|info| !mine(info));
        self.candidates.retain(|candidate| !mine(&candidate.info));
        Tier::LOWER.into_iter().map(|tier| self.forget_tier(tier, of)).sum()
    }

    /// Forgets a tenant's blocks, or everybody's, in one tier.
    pub(crate) fn forget_tier(&mut self, tier: Tier, of: Option<TenantId>) -> usize {
        let before = self.index(tier).num_blocks();
        let removed = self.index_mut(tier).remove_all(of);
        removed.into_iter().for_each(|removed| self.drop_unit(tier, Some(removed)));
        before - self.index(tier).num_blocks()
    }

    /// A unit's bytes could not be written or are gone.
    pub(crate) fn fail_unit(&mut self, tier: Tier, unit: UnitId) {
        let num_blocks = self.index(tier).blocks(unit).len();
        self.stats_mut(tier).failed_blocks += num_blocks as u64;
        let removed = self.index_mut(tier).remove(unit);
        self.drop_unit(tier, removed);
    }

    pub(crate) fn stats(&self, tier: Tier) -> TierStats {
        let Some(stats) = tier.lower_index().map(|index| self.stats[index]) else { return TierStats::default() };
        TierStats {
            capacity_blocks: self.index(tier).capacity(),
            used_blocks: self.index(tier).num_blocks(),
            bandwidth: self.rates.bandwidth(tier).unwrap_or(0.0),
            ..stats
        }
    }

    pub(crate) fn decisions(&self) -> impl Iterator<Item = &Decision> {
        self.decisions.iter()
    }

    /// # Panics
    /// When a tier's books do not balance.
    pub(crate) fn check_invariants(&self) {
        for tier in Tier::LOWER {
            let mut leases: HashMap<UnitId, u32> = HashMap::new();
            let blocks = self.loads.values().flat_map(|load| &load.blocks).filter(|block| block.tier == tier);
            blocks.for_each(|block| *leases.entry(block.place.unit).or_default() += 1);
            self.index(tier).check_invariants(&leases);
        }
    }

    fn drop_unit(&mut self, tier: Tier, removed: Option<Removed>) {
        self.plan.drops.extend(removed.map(|removed| Drop { tier, unit: removed.unit }));
    }

    fn index(&self, tier: Tier) -> &TierIndex {
        match tier {
            Tier::Host => &self.host,
            Tier::Disk => &self.disk,
            Tier::Device => unreachable!("the device has a block pool: this is a bug"),
        }
    }

    fn index_mut(&mut self, tier: Tier) -> &mut TierIndex {
        match tier {
            Tier::Host => &mut self.host,
            Tier::Disk => &mut self.disk,
            Tier::Device => unreachable!("the device has a block pool: this is a bug"),
        }
    }

    fn stats_mut(&mut self, tier: Tier) -> &mut TierStats {
        &mut self.stats[tier.lower_index().expect("only lower tiers have these: this is a bug")]
    }
}
