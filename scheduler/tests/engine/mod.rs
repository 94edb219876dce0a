//! A pretended engine for tests that state one fact each: blocks of four tokens, and the next token is the sequence's
//! length.
use scheduler::{
    AddError, EvictionPolicy, KeyRoot, KvKey, NewSequence, PlannedSequence, PrefixReuse, Sampled, Scheduler,
    SchedulerConfig, SequenceId, StepPlan, TenantId, Then, TierConfig, Yield, block_keys,
};

pub const BLOCK_SIZE: usize = 4;

pub const CONFIG: SchedulerConfig = SchedulerConfig {
    num_blocks: 64,
    block_size: BLOCK_SIZE,
    max_batch_tokens: 16,
    max_running: 8,
    max_waiting: 64,
    max_waiting_per_tenant: 32,
    eviction: EvictionPolicy::CostAware,
    tiers: TierConfig::OFF,
};

pub struct Engine {
    pub scheduler: Scheduler,
    /// Every sequence's tokens when it was finished.
    pub finished: Vec<(SequenceId, Vec<u32>)>,
}

pub fn root(tenant_salt: u8) -> KvKey {
    let root = KeyRoot {
        model_fingerprint: [0; 32],
        kv_dtype: "f32",
        kv_layout: "test",
        block_size: BLOCK_SIZE as u32,
        rope_fingerprint: [0; 32],
        numerics_id: "test",
        adapter: None,
        tenant_salt: [tenant_salt; 32],
    };
    root.key()
}

/// A request of a tenant; its tenant's number is its salt.
pub fn request(tenant: u8, tokens: &[u32], max_new_tokens: usize) -> NewSequence {
    let root = root(tenant);
    NewSequence {
        tenant: TenantId(u64::from(tenant)),
        tokens: tokens.to_vec(),
        root,
        block_keys: block_keys(root, tokens, BLOCK_SIZE),
        max_new_tokens,
        reuse: PrefixReuse::Exact,
    }
}

/// A prompt that shares nothing with one of another start.
pub fn prompt(start: u32, num_tokens: usize) -> Vec<u32> {
    (0..num_tokens as u32).map(|position| start * 1_000 + position).collect()
}

impl Engine {
    pub fn new(config: SchedulerConfig) -> Engine {
        Engine { scheduler: Scheduler::new(config).expect("the configuration is legal"), finished: Vec::new() }
    }

    pub fn add(&mut self, new: NewSequence) -> SequenceId {
        self.try_add(new).expect("there is room")
    }

    pub fn try_add(&mut self, new: NewSequence) -> Result<SequenceId, AddError> {
        let added = self.scheduler.add(new);
        self.scheduler.check_invariants();
        added
    }

    /// Plans a step, checks it, and computes it. Returns what was planned.
    pub fn step(&mut self) -> Vec<PlannedSequence> {
        let plan = self.scheduler.schedule();
        self.scheduler.check_invariants();
        self.commit(plan)
    }

    pub fn commit(&mut self, plan: StepPlan) -> Vec<PlannedSequence> {
        let planned = plan.sequences.clone();
        let yielding = planned.iter().filter(|planned| planned.yields_token == Yield::Token);
        let mut sampled = Vec::new();
        for PlannedSequence { id, .. } in yielding {
            let sequence = self.scheduler.sequence(*id).expect("a planned sequence is known");
            let token = sequence.tokens().len() as u32;
            let num_generated = sequence.tokens().len() - sequence.num_prompt_tokens();
            let then = if num_generated + 1 >= self.max_new_tokens(*id) { Then::Finish } else { Then::Continue };
            if then == Then::Finish {
                self.finished.push((*id, [sequence.tokens(), &[token]].concat()));
            }
            sampled.push(Sampled { id: *id, token, then });
        }
        self.scheduler.commit(plan, &sampled);
        self.scheduler.check_invariants();
        planned
    }

    pub fn run_until_idle(&mut self) {
        while !self.scheduler.is_idle() {
            assert!(!self.step().is_empty(), "no progress");
        }
        let counts = self.scheduler.stats().blocks;
        assert_eq!((counts.filling, counts.leased), (0, 0), "blocks leaked");
    }

    fn max_new_tokens(&self, id: SequenceId) -> usize {
        self.scheduler.sequence(id).expect("it is known").max_new_tokens()
    }
}
