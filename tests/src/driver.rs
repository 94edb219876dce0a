//! Scheduler and model driven together, one step after the other, with the logits of every sampled row kept.

use std::collections::HashMap;

use scheduler::{
    BlockCounts, EvictionPolicy, KeyRoot, KvKey, NewSequence, PrefixReuse, Sampled, Scheduler, SchedulerConfig,
    SchedulerStats, SequenceId, StepPlan, TenantId, Then, TierConfig, Yield, block_keys,
};

use crate::argmax;
use crate::paged_model::{PagedModel, Piece};

/// Steps after which a run counts as stuck.
const MAX_STEPS: usize = 10_000;

/// A prompt and how far to continue it.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Tokens to generate greedily.
    pub num_new: usize,
    /// Whether cached blocks may be used.
    pub reuse: PrefixReuse,
}

/// What came of a prompt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// Generated tokens.
    pub tokens: Vec<u32>,
    /// Logits that each of them was chosen from.
    pub logits: Vec<Vec<f32>>,
    /// Prompt tokens found in the cache at the first admission.
    pub cached_tokens: usize,
    /// Times it was sent back to waiting.
    pub num_preemptions: u32,
}

/// Limits of a driver.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Blocks the scheduler gives out; at most those of the model's pool.
    pub num_blocks: usize,
    /// Rows a step.
    pub max_batch_tokens: usize,
    /// Sequences at once.
    pub max_running: usize,
}

/// A scheduler over a model.
pub struct Driver {
    model: PagedModel,
    scheduler: Scheduler,
    root: KvKey,
}

/// A prompt on its way.
struct Pending {
    index: usize,
    num_new: usize,
    admitted: bool,
}

impl Driver {
    /// Puts a scheduler over a model.
    ///
    /// # Errors
    /// Limits that contradict each other.
    pub fn new(model: PagedModel, limits: Limits) -> anyhow::Result<Self> {
        let scheduler = Scheduler::new(SchedulerConfig {
            num_blocks: limits.num_blocks,
            block_size: model.block_size(),
            max_batch_tokens: limits.max_batch_tokens,
            max_running: limits.max_running,
            max_waiting: 1024,
            max_waiting_per_tenant: 1024,
            eviction: EvictionPolicy::CostAware,
            tiers: TierConfig::OFF,
        })?;
        let root = KeyRoot {
            model_fingerprint: model.model().fingerprint(),
            kv_dtype: "f32",
            kv_layout: "test",
            block_size: model.block_size() as u32,
            rope_fingerprint: model.model().rope_fingerprint(),
            numerics_id: model.numerics_id(),
            adapter: None,
            tenant_salt: [7; 32],
        }
        .key();
        Ok(Self { model, scheduler, root })
    }

    /// The scheduler's counters.
    pub fn stats(&self) -> SchedulerStats {
        self.scheduler.stats()
    }

    /// Blocks by place, after a check that none is lost.
    pub fn checked_blocks(&self) -> BlockCounts {
        self.scheduler.check_invariants();
        self.scheduler.stats().blocks
    }

    /// Runs all prompts together to their ends.
    ///
    /// # Errors
    /// A prompt is refused, or a forward pass fails.
    ///
    /// # Panics
    /// When the scheduler makes no progress.
    pub fn run(&mut self, prompts: &[Prompt]) -> anyhow::Result<Vec<Answer>> {
        let mut answers = vec![Answer::default(); prompts.len()];
        let mut pending = HashMap::new();
        for (index, prompt) in prompts.iter().enumerate() {
            let id = self.scheduler.add(NewSequence {
                tenant: TenantId(index as u64 % 3),
                tokens: prompt.tokens.clone(),
                root: self.root,
                block_keys: block_keys(self.root, &prompt.tokens, self.model.block_size()),
                max_new_tokens: prompt.num_new,
                reuse: prompt.reuse,
            })?;
            pending.insert(id, Pending { index, num_new: prompt.num_new, admitted: false });
        }
        for _ in 0..MAX_STEPS {
            if self.scheduler.is_idle() {
                return Ok(answers);
            }
            self.step(&mut pending, &mut answers)?;
            self.scheduler.check_invariants();
        }
        panic!("not finished after {MAX_STEPS} steps: {:?}", self.scheduler.stats());
    }

    fn step(&mut self, pending: &mut HashMap<SequenceId, Pending>, answers: &mut [Answer]) -> anyhow::Result<()> {
        let plan = self.scheduler.schedule();
        let logits = self.compute(&plan)?;
        let mut sampled = Vec::new();
        let mut end = 0;
        for planned in &plan.sequences {
            end += planned.num_tokens;
            let known = pending.get_mut(&planned.id).expect("only pending sequences are planned");
            let answer = &mut answers[known.index];
            if let (Some(admission), false) = (planned.admitted, known.admitted) {
                answer.cached_tokens = admission.cached_tokens;
                known.admitted = true;
            }
            if planned.yields_token == Yield::Nothing {
                continue;
            }
            let row = &logits[end - 1];
            let token = argmax(row);
            answer.tokens.push(token);
            answer.logits.push(row.clone());
            let sequence = self.scheduler.sequence(planned.id).expect("planned sequences are known");
            answer.num_preemptions = sequence.num_preemptions();
            let then = if answer.tokens.len() == known.num_new { Then::Finish } else { Then::Continue };
            sampled.push(Sampled { id: planned.id, token, then });
        }
        self.scheduler.commit(plan, &sampled);
        Ok(())
    }

    /// Logits of every row of the plan.
    fn compute(&mut self, plan: &StepPlan) -> anyhow::Result<Vec<Vec<f32>>> {
        let mut positions = Vec::new();
        let mut tables = Vec::new();
        let mut tokens = Vec::new();
        for planned in &plan.sequences {
            let sequence = self.scheduler.sequence(planned.id).expect("planned sequences are known");
            let range = planned.start..planned.start + planned.num_tokens;
            positions.push(range.clone().map(|position| position as u32).collect::<Vec<u32>>());
            tables.push(sequence.block_table().iter().map(|block| block.index()).collect::<Vec<u32>>());
            tokens.push(sequence.tokens()[range].to_vec());
        }
        let pieces: Vec<Piece<'_>> = (0..tokens.len())
            .map(|at| Piece { tokens: &tokens[at], positions: &positions[at], block_table: &tables[at] })
            .collect();
        if pieces.is_empty() { Ok(Vec::new()) } else { self.model.forward(&pieces) }
    }
}
