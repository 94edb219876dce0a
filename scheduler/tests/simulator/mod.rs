//! Drives the scheduler with random operations and a pretended engine, and checks every plan against `model`, which
//! knows what is cached by naive bookkeeping. Shared by the randomised test and the soak example.
mod model;

use model::{Life, Model};
use scheduler::{
    EvictionPolicy, NewSequence, PrefixReuse, Sampled, Scheduler, SchedulerConfig, SequenceId, TenantId, Then,
    TierConfig, Yield, block_keys,
};

use crate::rng::Rng;
use crate::root::root_key;

/// One run's world: small enough that blocks run out, prompts coincide and queues overflow all the time.
pub struct Simulation {
    rng: Rng,
    config: SchedulerConfig,
    num_tenants: usize,
    max_prompt_len: usize,
    add_percent: usize,
    scheduler: Scheduler,
    model: Model,
    /// Tokens that prompts are cut from, so that many share a prefix.
    texts: Vec<Vec<u32>>,
    outcomes: Outcomes,
}

/// What happened in a run, to see that it exercised what it should.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcomes {
    pub steps: u64,
    pub reverted: u64,
    pub finished: u64,
    pub cancelled: u64,
    pub refused: u64,
    pub hits_tokens: u64,
    pub preemptions: u64,
    pub evictions: u64,
    pub deduplicated: u64,
    /// The most committed steps that a sequence spent waiting at one time.
    pub longest_wait: u64,
}

impl Outcomes {
    /// Sums the runs; the longest wait is the longest of any.
    pub fn add(&mut self, other: &Outcomes) {
        self.steps += other.steps;
        self.reverted += other.reverted;
        self.finished += other.finished;
        self.cancelled += other.cancelled;
        self.refused += other.refused;
        self.hits_tokens += other.hits_tokens;
        self.preemptions += other.preemptions;
        self.evictions += other.evictions;
        self.deduplicated += other.deduplicated;
        self.longest_wait = self.longest_wait.max(other.longest_wait);
    }
}

const VOCABULARY: usize = 3;
/// Not more than 21 sequences are there at a time, none has more than 100 tokens, and each step computes at least one.
const STEPS_WAITED_MAX: u64 = 2_100;
const ROOTS_PER_TENANT: usize = 2;

impl Simulation {
    pub fn new(seed: u64) -> Simulation {
        let mut rng = Rng::new(seed);
        let max_running = 1 + rng.below(6);
        let config = SchedulerConfig {
            num_blocks: 3 + rng.below(22),
            block_size: 1 + rng.below(4),
            max_batch_tokens: max_running + rng.below(24),
            max_running,
            max_waiting: 4 + rng.below(12),
            max_waiting_per_tenant: 2 + rng.below(6),
            eviction: EvictionPolicy::CostAware,
            tiers: TierConfig::OFF,
        };
        let num_texts = 1 + rng.below(4);
        let text_len = 1 + config.num_blocks * config.block_size;
        let texts = (0..num_texts).map(|_| (0..text_len).map(|_| rng.below(VOCABULARY) as u32).collect()).collect();
        Simulation {
            num_tenants: 1 + rng.below(3),
            max_prompt_len: 1 + rng.below(text_len),
            add_percent: 20 + rng.below(50),
            scheduler: Scheduler::new(config).expect("the configuration is legal"),
            model: Model::new(config),
            rng,
            config,
            texts,
            outcomes: Outcomes::default(),
        }
    }

    /// Runs `num_operations` random operations, then steps until every sequence is finished.
    pub fn run(mut self, num_operations: usize) -> Outcomes {
        for _ in 0..num_operations {
            match self.rng.below(100) {
                roll if roll < self.add_percent => self.add(),
                95..98 => self.cancel(),
                98 if self.rng.chance(30) => {
                    self.scheduler.clear_device();
                    self.model.clear_cache();
                }
                _ => self.step(),
            }
            self.check();
        }
        self.add_percent = 0;
        let num_steps_max = 1_000 * (1 + self.model.lives.len());
        for _ in 0..num_steps_max {
            if self.scheduler.is_idle() {
                break;
            }
            self.step();
            self.check();
        }
        assert!(self.scheduler.is_idle() && self.model.lives.is_empty(), "sequences are left over");
        let counts = self.scheduler.stats().blocks;
        assert_eq!((counts.filling, counts.leased), (0, 0), "blocks leaked");
        let stats = self.scheduler.stats();
        Outcomes {
            hits_tokens: stats.prefix_hits_tokens,
            preemptions: stats.preemptions,
            evictions: stats.evictions,
            deduplicated: stats.deduplicated_blocks,
            ..self.outcomes
        }
    }

    fn add(&mut self) {
        let tenant = TenantId(self.rng.below(self.num_tenants) as u64);
        let root_seed = tenant.0 * ROOTS_PER_TENANT as u64 + self.rng.below(ROOTS_PER_TENANT) as u64;
        let root = root_key(root_seed);
        let text = &self.texts[self.rng.below(self.texts.len())];
        let prompt_len = self.rng.below(self.max_prompt_len + 1);
        let mut tokens = text[..prompt_len].to_vec();
        if self.rng.chance(50) && !tokens.is_empty() {
            let changed = self.rng.below(tokens.len());
            tokens[changed] = self.rng.below(VOCABULARY) as u32;
        }
        let max_new_tokens = self.rng.below(self.config.block_size * 6);
        let block_keys = block_keys(root, &tokens, self.config.block_size);
        let reuse = if self.rng.chance(15) { PrefixReuse::Bypass } else { PrefixReuse::Exact };
        let life = Life::new(tenant, root_seed, tokens.clone(), max_new_tokens, reuse, &mut self.rng);
        let expected = self.model.refusal(&life, max_new_tokens);
        let new = NewSequence { tenant, tokens, root, block_keys, max_new_tokens, reuse };
        match self.scheduler.add(new) {
            Ok(id) => {
                assert_eq!(expected, None);
                self.model.lives.insert(id, life);
            }
            Err(error) => {
                assert_eq!(Some(error), expected);
                self.outcomes.refused += 1;
            }
        }
    }

    fn cancel(&mut self) {
        let ids: Vec<SequenceId> = self.model.lives.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.rng.below(ids.len())];
        assert!(self.scheduler.cancel(id));
        assert!(!self.scheduler.cancel(id), "cancelled twice");
        self.model.lives.remove(&id);
        self.outcomes.cancelled += 1;
    }

    fn step(&mut self) {
        let plan = self.scheduler.schedule();
        assert_eq!(plan.is_empty(), self.scheduler.is_idle(), "no progress");
        self.outcomes.steps += 1;
        self.model.observe_plan(&self.scheduler, &plan);
        if self.rng.chance(self.add_percent / 4) {
            // Requests arrive while the engine computes, too.
            self.add();
        }
        if self.rng.chance(8) {
            self.model.observe_failure();
            self.scheduler.revert(plan);
            self.outcomes.reverted += 1;
        } else {
            self.model.compute(&plan);
            let yielding = plan.sequences.iter().filter(|planned| planned.yields_token == Yield::Token);
            let sampled: Vec<Sampled> = yielding.map(|planned| self.model.sample(planned)).collect();
            self.scheduler.commit(plan, &sampled);
            self.model.observe_commit(&self.scheduler);
            let finished = sampled.iter().filter(|answer| answer.then == Then::Finish);
            self.outcomes.finished += finished.count() as u64;
            let longest_wait = self.model.lives.values().map(|life| life.steps_waited).max().unwrap_or(0);
            assert!(longest_wait <= STEPS_WAITED_MAX, "a sequence starves");
            self.outcomes.longest_wait = self.outcomes.longest_wait.max(longest_wait);
        }
    }

    fn check(&self) {
        self.scheduler.check_invariants();
        self.model.check(&self.scheduler);
    }
}
