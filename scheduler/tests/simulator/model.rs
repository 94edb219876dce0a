//! The naive model: what each block of memory contains, which prefixes are cached, and what each sequence must
//! become when nothing ever interrupts it. It learns about evictions only by seeing a block handed out again.
use std::collections::{BTreeMap, HashMap, HashSet};

use scheduler::{
    AddError, BlockCounts, BlockId, PlannedSequence, PrefixReuse, Sampled, Scheduler, SchedulerConfig, SequenceId,
    StepPlan, TenantId, Then, Yield,
};

use super::VOCABULARY;
use crate::rng::{Rng, mix};

/// Stands for the keys and values of a position: a hash of the root and of all tokens up to it.
type Content = u64;

/// A request as the model follows it.
pub struct Life {
    tenant: TenantId,
    /// The prompt and all outputs of an uninterrupted run.
    text: Vec<u32>,
    /// `contents[p]` belongs to position `p` of `text`.
    contents: Vec<Content>,
    prompt_len: usize,
    reuse: PrefixReuse,
    /// Tokens that exist so far.
    num_known: usize,
    num_computed: usize,
    table: Vec<BlockId>,
    num_preemptions: u32,
    pub steps_waited: u64,
}

pub struct Model {
    config: SchedulerConfig,
    pub lives: BTreeMap<SequenceId, Life>,
    /// `[num_blocks][block_size]`; `None` is garbage.
    memory: Vec<Vec<Option<Content>>>,
    /// Cached blocks by the content of their last position.
    resident: HashMap<Content, BlockId>,
    hits_tokens: u64,
    misses_tokens: u64,
    preemptions: u64,
    deduplicated: u64,
    planned: Vec<PlannedSequence>,
}

/// The token that follows a position: a function of everything before it.
fn next_token(content: Content) -> u32 {
    (content % VOCABULARY as u64) as u32
}

impl Life {
    pub fn new(
        tenant: TenantId,
        root_seed: u64,
        prompt: Vec<u32>,
        max_new_tokens: usize,
        reuse: PrefixReuse,
        rng: &mut Rng,
    ) -> Life {
        let (prompt_len, mut text) = (prompt.len(), prompt);
        let num_outputs = if rng.chance(70) { max_new_tokens } else { rng.below(max_new_tokens + 1) }.max(1);
        let mut contents = Vec::new();
        let mut content = mix(root_seed + 1);
        for position in 0..prompt_len + num_outputs {
            if position == text.len() {
                text.push(next_token(content));
            }
            content = mix(content ^ (u64::from(text[position]) + 1));
            contents.push(content);
        }
        let (num_known, num_computed, table) = (prompt_len, 0, Vec::new());
        Life {
            tenant,
            text,
            contents,
            prompt_len,
            reuse,
            num_known,
            num_computed,
            table,
            num_preemptions: 0,
            steps_waited: 0,
        }
    }

    fn is_running(&self) -> bool {
        !self.table.is_empty()
    }

    fn stop(&mut self) {
        self.table.clear();
        self.num_computed = 0;
    }
}

impl Model {
    pub fn new(config: SchedulerConfig) -> Model {
        Model {
            config,
            lives: BTreeMap::new(),
            memory: vec![vec![None; config.block_size]; config.num_blocks],
            resident: HashMap::new(),
            hits_tokens: 0,
            misses_tokens: 0,
            preemptions: 0,
            deduplicated: 0,
            planned: Vec::new(),
        }
    }

    /// The error with which this sequence must be refused.
    pub fn refusal(&self, life: &Life, max_new_tokens: usize) -> Option<AddError> {
        let SchedulerConfig { num_blocks, block_size, max_waiting, max_waiting_per_tenant, .. } = self.config;
        let waiting = || self.lives.values().filter(|other| !other.is_running());
        let needed_blocks = (life.prompt_len + max_new_tokens).div_ceil(block_size);
        if life.prompt_len == 0 {
            Some(AddError::EmptyPrompt)
        } else if needed_blocks > num_blocks {
            Some(AddError::TooLong { needed_blocks, num_blocks })
        } else if waiting().count() >= max_waiting {
            Some(AddError::QueueFull { max_waiting })
        } else if waiting().filter(|other| other.tenant == life.tenant).count() >= max_waiting_per_tenant {
            Some(AddError::TenantQueueFull { tenant: life.tenant, max_waiting_per_tenant })
        } else {
            None
        }
    }

    pub fn clear_cache(&mut self) {
        let used = self.used_blocks();
        self.resident.retain(|_, block| used.contains(block));
    }

    /// Checks a fresh plan in its order, and takes its hits, evictions and allocations over.
    pub fn observe_plan(&mut self, scheduler: &Scheduler, plan: &StepPlan) {
        self.observe_preemptions(scheduler);
        assert!(plan.num_tokens() <= self.config.max_batch_tokens, "the batch is too long");
        let ids: HashSet<SequenceId> = plan.sequences.iter().map(|planned| planned.id).collect();
        assert_eq!(ids.len(), plan.sequences.len(), "a sequence is planned twice");
        for (id, life) in &self.lives {
            let decodes = life.is_running() && life.num_known == life.num_computed + 1;
            assert!(!decodes || ids.contains(id), "a decode was left out");
        }
        // Within one tenant, the oldest sequence goes first: nothing may ever hold it up.
        let num_tenants = self.lives.values().map(|life| life.tenant).collect::<HashSet<_>>().len();
        let oldest = self.lives.iter().find(|(_, life)| life.is_running()).map(|(id, _)| id);
        assert!(num_tenants > 1 || oldest.is_none_or(|id| ids.contains(id)), "the oldest sequence was held up");
        for planned in &plan.sequences {
            self.observe_rows(scheduler, planned);
        }
        self.planned = plan.sequences.clone();
    }

    /// The forward pass: every row reads all positions before it through the block table and writes its own.
    pub fn compute(&mut self, plan: &StepPlan) {
        let block_size = self.config.block_size;
        for planned in &plan.sequences {
            let life = &self.lives[&planned.id];
            for position in 0..planned.start {
                let slot = self.memory[index(life.table[position / block_size])][position % block_size];
                assert_eq!(slot, Some(life.contents[position]), "{} reads another prefix", planned.id);
            }
            for position in planned.start..planned.start + planned.num_tokens {
                let block = life.table[position / block_size];
                self.memory[index(block)][position % block_size] = Some(life.contents[position]);
            }
        }
    }

    /// The token sampled from the last row of a planned sequence, from what its slot in memory says.
    pub fn sample(&self, planned: &PlannedSequence) -> Sampled {
        let life = &self.lives[&planned.id];
        let position = planned.start + planned.num_tokens - 1;
        let slot = self.memory[index(life.table[position / self.config.block_size])][position % self.config.block_size];
        let token = next_token(slot.expect("the row was computed"));
        assert_eq!(token, life.text[life.num_known], "the continuation differs from an uninterrupted run");
        let then = if life.num_known + 1 == life.text.len() { Then::Finish } else { Then::Continue };
        Sampled { id: planned.id, token, then }
    }

    /// The forward pass failed somewhere on its way: what it was to write is garbage, and nothing else has changed.
    pub fn observe_failure(&mut self) {
        for planned in std::mem::take(&mut self.planned) {
            let block_size = self.config.block_size;
            let life = self.lives.get_mut(&planned.id).expect("a planned sequence lives");
            for position in planned.start..planned.start + planned.num_tokens {
                self.memory[index(life.table[position / block_size])][position % block_size] = None;
            }
            if planned.admitted.is_some() {
                life.stop();
            } else {
                life.table.truncate(planned.start.div_ceil(block_size));
            }
        }
    }

    pub fn observe_commit(&mut self, scheduler: &Scheduler) {
        let waiting = self.lives.values_mut().filter(|life| !life.is_running());
        waiting.for_each(|life| life.steps_waited += 1);
        for planned in std::mem::take(&mut self.planned) {
            let block_size = self.config.block_size;
            let life = self.lives.get_mut(&planned.id).expect("a planned sequence lives");
            if planned.admitted.is_some() && life.num_preemptions == 0 && life.reuse == PrefixReuse::Exact {
                self.hits_tokens += planned.start as u64;
                self.misses_tokens += (life.num_known - planned.start) as u64;
            }
            life.steps_waited = 0;
            life.num_computed += planned.num_tokens;
            for position in planned.start / block_size..life.num_computed / block_size {
                let content = life.contents[(position + 1) * block_size - 1];
                let own = life.table[position];
                let kept = *self.resident.entry(content).or_insert(own);
                life.table[position] = kept;
                self.deduplicated += u64::from(kept != own);
            }
            if planned.yields_token == Yield::Token {
                life.num_known += 1;
            }
            match scheduler.sequence(planned.id) {
                Some(sequence) => assert_eq!(sequence.block_table(), life.table, "{}", planned.id),
                None => {
                    let life = self.lives.remove(&planned.id).expect("it was there");
                    assert_eq!(life.num_known, life.text.len(), "{} vanished", planned.id);
                }
            }
        }
    }

    pub fn check(&self, scheduler: &Scheduler) {
        let used = self.used_blocks();
        let resident: HashSet<BlockId> = self.resident.values().copied().collect();
        assert_eq!(resident.len(), self.resident.len(), "one block for two prefixes");
        let leased = resident.intersection(&used).count();
        let filling = used.len() - leased;
        let cached = resident.len() - leased;
        let free = self.config.num_blocks - leased - filling - cached;
        let stats = scheduler.stats();
        assert_eq!(stats.blocks, BlockCounts { free, filling, cached, leased });
        let num_running = self.lives.values().filter(|life| life.is_running()).count();
        assert_eq!((stats.num_running, stats.num_waiting), (num_running, self.lives.len() - num_running));
        assert_eq!((stats.prefix_hits_tokens, stats.prefix_misses_tokens), (self.hits_tokens, self.misses_tokens));
        assert_eq!((stats.preemptions, stats.deduplicated_blocks), (self.preemptions, self.deduplicated));
        for (&id, life) in &self.lives {
            let sequence = scheduler.sequence(id).expect("a living sequence is known");
            assert_eq!(sequence.tokens(), &life.text[..life.num_known], "{id}");
            assert_eq!(sequence.num_computed(), life.num_computed, "{id}");
            assert_eq!(sequence.block_table(), life.table, "{id}");
        }
    }

    fn observe_preemptions(&mut self, scheduler: &Scheduler) {
        let oldest = self.lives.iter().find(|(_, life)| life.is_running()).map(|(&id, _)| id);
        for (&id, life) in &mut self.lives {
            let num_preemptions = scheduler.sequence(id).expect("a living sequence is known").num_preemptions();
            if num_preemptions > life.num_preemptions {
                assert!(life.is_running() && Some(id) != oldest, "the oldest sequence was preempted");
                assert_eq!(num_preemptions, life.num_preemptions + 1);
                life.num_preemptions = num_preemptions;
                life.stop();
                self.preemptions += 1;
            }
        }
    }

    fn observe_rows(&mut self, scheduler: &Scheduler, planned: &PlannedSequence) {
        let block_size = self.config.block_size;
        let sequence = scheduler.sequence(planned.id).expect("a planned sequence is known");
        let end = planned.start + planned.num_tokens;
        assert!(planned.num_tokens > 0);
        let mut life = self.lives.remove(&planned.id).expect("a planned sequence lives");
        assert_eq!(planned.yields_token == Yield::Token, end == life.num_known);
        if let Some(admission) = planned.admitted {
            assert!(!life.is_running());
            assert_eq!(admission.cached_tokens, planned.start);
            life.table = self.expected_hit(&life);
            life.num_computed = life.table.len() * block_size;
            self.check_not_computed_elsewhere(&life);
        }
        assert_eq!(planned.start, life.num_computed, "{} computes what is cached", planned.id);
        let table = sequence.block_table();
        assert_eq!(table.len(), end.div_ceil(block_size), "blocks for exactly the tokens of the step");
        assert_eq!(&table[..life.table.len()], life.table, "{} has another prefix", planned.id);
        for &fresh in &table[life.table.len()..] {
            assert!(!self.used_blocks().contains(&fresh), "{fresh} is in use");
            self.resident.retain(|_, block| *block != fresh);
            self.memory[index(fresh)].fill(None);
        }
        for &written in &table[planned.start / block_size..] {
            assert!(self.resident.values().all(|&block| block != written), "{written} is shared and written");
            assert!(!self.used_blocks().contains(&written), "{written} has two writers");
        }
        life.table = table.to_vec();
        self.lives.insert(planned.id, life);
    }

    /// The blocks of the longest cached prefix that leaves a token to compute.
    fn expected_hit(&self, life: &Life) -> Vec<BlockId> {
        let num_reusable = self.num_reusable(life);
        let ends = (0..num_reusable).map(|position| life.contents[(position + 1) * self.config.block_size - 1]);
        ends.map_while(|content| self.resident.get(&content).copied()).collect()
    }

    /// A sequence is not admitted to compute a block that a running one is about to fill.
    fn check_not_computed_elsewhere(&self, life: &Life) {
        let block_size = self.config.block_size;
        let next = life.num_computed / block_size;
        if next >= self.num_reusable(life) {
            return;
        }
        let wanted = life.contents[(next + 1) * block_size - 1];
        for other in self.lives.values().filter(|other| other.is_running()) {
            let frontier_end = (other.num_computed / block_size + 1) * block_size;
            let is_known = frontier_end <= other.num_known;
            assert!(!is_known || other.contents[frontier_end - 1] != wanted, "a prefix is computed twice");
        }
    }

    fn num_reusable(&self, life: &Life) -> usize {
        match life.reuse {
            PrefixReuse::Exact => (life.num_known - 1) / self.config.block_size,
            PrefixReuse::Bypass => 0,
        }
    }

    fn used_blocks(&self) -> HashSet<BlockId> {
        self.lives.values().flat_map(|life| life.table.iter().copied()).collect()
    }
}

fn index(block: BlockId) -> usize {
    block.index() as usize
}
