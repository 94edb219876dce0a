//! A scheduler with all tiers over a pretended engine whose blocks hold hashes: every row that is computed checks that
//! all rows before it are what they should be. Moves take a random time, arrive in any order and fail at random.
use std::collections::HashMap;

use scheduler::{
    BlockId, BlockInfo, BlockSource, EvictionPolicy, Load, Measured, NewSequence, PrefillCost, PrefixReuse, Sampled,
    Scheduler, SchedulerConfig, SequenceId, TenantId, Then, Tier, TierConfig, TransferPlan, UnitId, Yield, block_keys,
};

use crate::rng::{Rng, mix};
use crate::root::root_key;

/// Stands for the keys and values of one position: a hash of the root and all tokens up to it.
type Content = u64;
/// A block's contents; `None` is garbage.
type Bytes = Vec<Option<Content>>;

const VOCABULARY: usize = 3;
const NUM_TENANTS: usize = 2;

/// What a run exercised.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exercised {
    pub finished: u64,
    pub cancelled: u64,
    pub reverted: u64,
    pub host_tokens: u64,
    pub disk_tokens: u64,
    pub failed_loads: u64,
    pub orphaned_loads: u64,
    pub failed_writes: u64,
    pub preemptions: u64,
    pub adopted: u64,
    pub forgotten: u64,
}

/// What goes wrong, percent of the moves.
#[derive(Clone, Copy)]
pub struct Faults {
    pub load: usize,
    pub write: usize,
    /// The engine forgets to secure evicted blocks before the step writes them.
    pub missing_barrier: bool,
}

pub struct World {
    rng: Rng,
    faults: Faults,
    config: SchedulerConfig,
    scheduler: Scheduler,
    device: Vec<Bytes>,
    host: HashMap<UnitId, Bytes>,
    disk: HashMap<UnitId, Vec<Bytes>>,
    loads: Vec<Load>,
    writes: Vec<(UnitId, Vec<Bytes>)>,
    lives: HashMap<SequenceId, (u64, usize)>,
    texts: Vec<Vec<u32>>,
    pub exercised: Exercised,
}

/// The contents of all positions of a tenant's tokens.
fn contents(tenant: u64, tokens: &[u32]) -> Vec<Content> {
    let mut content = mix(tenant + 1);
    let next = |&token: &u32| {
        content = mix(content ^ (u64::from(token) + 1));
        content
    };
    tokens.iter().map(next).collect()
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> World {
        let mut rng = Rng::new(seed);
        let max_running = 1 + rng.below(6);
        let config = SchedulerConfig {
            num_blocks: 3 + rng.below(16),
            block_size: 1 + rng.below(4),
            max_batch_tokens: max_running + rng.below(24),
            max_running,
            max_waiting: 4 + rng.below(12),
            max_waiting_per_tenant: 2 + rng.below(6),
            eviction: if rng.chance(50) { EvictionPolicy::CostAware } else { EvictionPolicy::Lru },
            tiers: TierConfig {
                host_blocks: rng.below(24),
                disk_blocks: rng.below(64),
                tenant_percent: if rng.chance(50) { 100 } else { 60 },
                block_bytes: 1_000,
                max_disk_writes: 1 + rng.below(40),
                prefill_cost: PrefillCost { attention_half_tokens: 50.0 },
            },
        };
        let text_len = 1 + config.num_blocks * config.block_size;
        let texts =
            (0..1 + rng.below(4)).map(|_| (0..text_len).map(|_| rng.below(VOCABULARY) as u32).collect()).collect();
        World {
            scheduler: Scheduler::new(config).expect("the configuration is legal"),
            device: vec![vec![None; config.block_size]; config.num_blocks],
            host: HashMap::new(),
            disk: HashMap::new(),
            loads: Vec::new(),
            writes: Vec::new(),
            lives: HashMap::new(),
            exercised: Exercised::default(),
            rng,
            faults,
            config,
            texts,
        }
    }

    pub fn run(mut self, num_operations: usize) -> Exercised {
        for _ in 0..num_operations {
            match self.rng.below(100) {
                0..40 => self.add(),
                40..43 => self.cancel(),
                43..55 => self.end_load(),
                55..63 => self.end_write(),
                63..66 => {
                    let plan = self.scheduler.save(1 + self.rng.below(8));
                    self.carry_out(plan);
                }
                66 if self.rng.chance(20) => self.forget(),
                67 if self.rng.chance(20) => self.restart(),
                _ => self.step(),
            }
            self.scheduler.check_invariants();
        }
        let mut num_rounds = 0;
        while !self.scheduler.is_idle() || !self.loads.is_empty() || !self.writes.is_empty() {
            self.end_load();
            self.end_write();
            self.step();
            self.scheduler.check_invariants();
            num_rounds += 1;
            assert!(num_rounds < 100_000, "no end");
        }
        let counts = self.scheduler.stats().blocks;
        assert_eq!((counts.filling, counts.leased), (0, 0), "blocks leaked");
        let used = |tier| self.scheduler.tier_stats(tier).used_blocks;
        let on_disk: usize = self.disk.values().map(Vec::len).sum();
        assert_eq!((used(Tier::Host), used(Tier::Disk)), (self.host.len(), on_disk), "bytes leaked");
        self.exercised.preemptions = self.scheduler.stats().preemptions;
        self.exercised
    }

    fn add(&mut self) {
        let tenant = self.rng.below(NUM_TENANTS) as u64;
        let text = &self.texts[self.rng.below(self.texts.len())];
        let mut tokens = text[..self.rng.below(text.len() + 1)].to_vec();
        if self.rng.chance(30) && !tokens.is_empty() {
            let changed = self.rng.below(tokens.len());
            tokens[changed] = self.rng.below(VOCABULARY) as u32;
        }
        let max_new_tokens = self.rng.below(self.config.block_size * 5);
        let reuse = if self.rng.chance(10) { PrefixReuse::Bypass } else { PrefixReuse::Exact };
        let block_keys = block_keys(root_key(tenant), &tokens, self.config.block_size);
        let id = TenantId(tenant);
        let new = NewSequence { tenant: id, tokens, root: root_key(tenant), block_keys, max_new_tokens, reuse };
        if let Ok(id) = self.scheduler.add(new) {
            self.lives.insert(id, (tenant, max_new_tokens.max(1)));
        }
    }

    fn cancel(&mut self) {
        let mut ids: Vec<SequenceId> = self.lives.keys().copied().collect();
        ids.sort_unstable();
        if !ids.is_empty() {
            let id = ids[self.rng.below(ids.len())];
            assert!(self.scheduler.cancel(id));
            self.lives.remove(&id);
            self.exercised.cancelled += 1;
        }
    }

    fn forget(&mut self) {
        let of = self.rng.chance(70).then(|| TenantId(self.rng.below(NUM_TENANTS) as u64));
        self.scheduler.clear_cache(of);
        let plan = self.scheduler.take_transfers();
        self.carry_out(plan);
        self.exercised.forgotten += 1;
    }

    /// The process ends and starts again: files are all that is left.
    fn restart(&mut self) {
        if !self.loads.is_empty() || !self.writes.is_empty() {
            return;
        }
        let mut chains = Vec::new();
        for (tenant, text) in
            (0..NUM_TENANTS as u64).flat_map(|tenant| self.texts.iter().map(move |text| (tenant, text)))
        {
            chains.push((tenant, text.clone()));
        }
        self.scheduler = Scheduler::new(self.config).expect("it was legal before");
        self.lives.clear();
        self.host.clear();
        self.disk.clear();
        let block_size = self.config.block_size;
        for (tenant, tokens) in chains {
            let keys = block_keys(root_key(tenant), &tokens, block_size);
            let mut blocks = Vec::new();
            for (key, tokens) in keys.iter().zip(tokens.chunks_exact(block_size)) {
                let info = BlockInfo::new(blocks.last(), root_key(tenant), TenantId(tenant), *key, tokens);
                blocks.push(info);
            }
            let contents: Vec<Bytes> = contents(tenant, &tokens)
                .chunks_exact(block_size)
                .map(|block| block.iter().copied().map(Some).collect())
                .collect();
            if let Some(unit) = self.scheduler.adopt_from_disk(blocks) {
                self.disk.insert(unit, contents);
                self.exercised.adopted += 1;
            }
        }
        let plan = self.scheduler.take_transfers();
        self.carry_out(plan);
    }

    fn step(&mut self) {
        let mut plan = self.scheduler.schedule();
        let transfers = std::mem::take(&mut plan.transfers);
        if self.faults.missing_barrier {
            self.compute(&plan);
            self.carry_out(transfers);
        } else {
            self.carry_out(transfers);
            self.compute(&plan);
        }
        if plan.is_empty() || self.rng.chance(6) {
            for planned in &plan.sequences {
                self.spoil(planned.id, planned.start, planned.num_tokens);
            }
            self.exercised.reverted += u64::from(!plan.is_empty());
            self.scheduler.revert(plan);
            return;
        }
        self.scheduler.observe_step(&plan, 0.001 * self.rng.below(100) as f64);
        let mut sampled = Vec::new();
        for planned in plan.sequences.iter().filter(|planned| planned.yields_token == Yield::Token) {
            let sequence = self.scheduler.sequence(planned.id).expect("a planned sequence is known");
            let num_generated = sequence.tokens().len() - sequence.num_prompt_tokens();
            let (tenant, max_new_tokens) = self.lives[&planned.id];
            let content = *contents(tenant, sequence.tokens()).last().expect("it has tokens");
            let then = if num_generated + 1 >= max_new_tokens { Then::Finish } else { Then::Continue };
            if then == Then::Finish {
                self.lives.remove(&planned.id);
                self.exercised.finished += 1;
            }
            sampled.push(Sampled { id: planned.id, token: (content % VOCABULARY as u64) as u32, then });
        }
        for planned in &plan.sequences {
            self.exercised.host_tokens += planned.loaded.host_tokens as u64;
            self.exercised.disk_tokens += planned.loaded.disk_tokens as u64;
        }
        self.scheduler.commit(plan, &sampled);
    }

    /// Every row reads all positions before it and writes its own.
    fn compute(&mut self, plan: &scheduler::StepPlan) {
        let block_size = self.config.block_size;
        for planned in &plan.sequences {
            let sequence = self.scheduler.sequence(planned.id).expect("a planned sequence is known");
            let expected = contents(self.lives[&planned.id].0, sequence.tokens());
            let table = sequence.block_table();
            for position in 0..planned.start {
                let found = self.device[index(table[position / block_size])][position % block_size];
                assert_eq!(found, Some(expected[position]), "{} reads wrong bytes at {position}", planned.id);
            }
            for position in planned.start..planned.start + planned.num_tokens {
                self.device[index(table[position / block_size])][position % block_size] = Some(expected[position]);
            }
        }
    }

    fn spoil(&mut self, id: SequenceId, start: usize, num_tokens: usize) {
        let block_size = self.config.block_size;
        let table = self.scheduler.sequence(id).expect("a planned sequence is known").block_table();
        for position in start..start + num_tokens {
            self.device[index(table[position / block_size])][position % block_size] = None;
        }
    }

    fn carry_out(&mut self, plan: TransferPlan) {
        let TransferPlan { swap_outs, disk_writes, drops, loads } = plan;
        for swap_out in swap_outs {
            self.host.insert(swap_out.unit, self.device[index(swap_out.block)].clone());
            if self.rng.chance(self.faults.write) {
                self.host.remove(&swap_out.unit);
                self.scheduler.fail_swap_out(swap_out.unit);
                self.exercised.failed_writes += 1;
            }
        }
        for write in disk_writes {
            let bytes_of = |source: &BlockSource| match source {
                BlockSource::Device(block) => Some(self.device[index(*block)].clone()),
                BlockSource::Host(unit) => self.host.get(unit).cloned(),
            };
            let bytes: Option<Vec<Bytes>> = write.blocks.iter().map(|(_, source)| bytes_of(source)).collect();
            match bytes {
                Some(bytes) => self.writes.push((write.unit, bytes)),
                None => assert!(!self.scheduler.end_disk_write(write.unit, write.blocks.len(), false)),
            }
        }
        for drop in drops {
            match drop.tier {
                Tier::Host => drop_bytes(&mut self.host, drop.unit),
                Tier::Disk => drop_bytes(&mut self.disk, drop.unit),
                Tier::Device => unreachable!("nothing is dropped from the device"),
            }
        }
        for load in loads {
            // Whoever fills a block may have written it in part when the load fails: it is garbage from now on.
            load.blocks.iter().for_each(|block| self.device[index(block.to)].fill(None));
            self.loads.push(load);
        }
    }

    fn end_load(&mut self) {
        if self.loads.is_empty() {
            return;
        }
        let load = self.loads.swap_remove(self.rng.below(self.loads.len()));
        let fails_at = if self.rng.chance(self.faults.load) { self.rng.below(load.blocks.len()) } else { usize::MAX };
        let mut num_ok = 0;
        for (position, block) in load.blocks.iter().enumerate() {
            let bytes = match block.tier {
                Tier::Host => self.host.get(&block.place.unit).cloned(),
                Tier::Disk => self.disk.get(&block.place.unit).map(|blocks| blocks[block.place.offset].clone()),
                Tier::Device => None,
            };
            let Some(bytes) = bytes.filter(|_| position != fails_at) else { break };
            self.device[index(block.to)] = bytes;
            num_ok += 1;
        }
        self.exercised.failed_loads += u64::from(num_ok < load.blocks.len());
        let seconds = 0.001 * self.rng.below(100) as f64;
        let measured = Measured { tier: load.blocks[0].tier, bytes: 1_000 * num_ok as u64, seconds };
        let running = self.scheduler.stats().num_running;
        self.scheduler.end_load(load.id, num_ok, &[measured]);
        self.exercised.orphaned_loads += u64::from(running == 0);
    }

    fn end_write(&mut self) {
        if self.writes.is_empty() {
            return;
        }
        let (unit, bytes) = self.writes.swap_remove(self.rng.below(self.writes.len()));
        let ok = !self.rng.chance(self.faults.write);
        self.exercised.failed_writes += u64::from(!ok);
        if self.scheduler.end_disk_write(unit, bytes.len(), ok) {
            self.disk.insert(unit, bytes);
        }
    }
}

fn drop_bytes<T>(bytes: &mut HashMap<UnitId, T>, unit: UnitId) {
    // A copy that failed, or was never finished, has none.
    bytes.remove(&unit);
}

fn index(block: BlockId) -> usize {
    block.index() as usize
}
