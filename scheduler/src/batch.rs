//! Planning a step: room for decodes (by preemption where needed), the decodes, then chunked prefill shared fairly
//! between tenants.
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::block_pool::PrefixMatch;
use crate::ids::{SequenceId, TenantId};
use crate::scheduler::Scheduler;
use crate::sequence::{Arrival, Follow, Phase, Sequence};
use crate::step::{Admission, Loaded, PlannedSequence, StepPlan, Yield};
use crate::tenants::service_cost;

/// A step while it is being planned.
struct Batch {
    planned: Vec<PlannedSequence>,
    /// Rows that are left.
    budget: usize,
    /// Running sequences that still have a prompt to compute and had no turn in this step, oldest first.
    prefilling: Vec<(TenantId, SequenceId)>,
    gate: Gate,
}

/// Whether waiting sequences may enter the batch in this step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Closed,
}

/// A tenant's place in line for prefill: the least served first, the earliest arrival among equals.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    served: u64,
    /// Its first sequence that could use the turn; waiting ones before it had their chance in this step.
    next: SequenceId,
    tenant: TenantId,
}

/// What came of trying to admit a waiting sequence.
enum Entry {
    Admitted,
    /// A running sequence is computing its prefix: others may pass it.
    Follows,
    /// Its blocks are not to be had: nobody may pass it, or it would wait forever.
    NoRoom,
}

/// What a waiting sequence can start from.
enum Lookup {
    /// A running sequence is computing its prefix.
    Follows,
    /// This much is cached, and nobody computes what comes next.
    Cached(Option<PrefixMatch>),
}

impl Scheduler {
    /// Plans the next step: every decoding sequence gets one row, and what is left of `max_batch_tokens` goes to
    /// prefill, running or newly admitted, of the tenants that had least service. Blocks are allocated for exactly
    /// the tokens of the step. Unless the scheduler is idle or waits for loads, there is something to compute.
    ///
    /// # Panics
    /// When the last plan was neither committed nor reverted.
    pub fn schedule(&mut self) -> StepPlan {
        assert!(self.in_flight.is_none(), "the last step was neither committed nor reverted: this is a bug");
        let virtual_time_before = self.tenants.virtual_time();
        self.make_room();
        let computing = self.running.iter().map(|&id| self.known(id)).filter(|sequence| !sequence.is_loading());
        let prefills = computing.filter(|sequence| !sequence.is_decoding());
        let mut batch = Batch {
            prefilling: prefills.map(|sequence| (sequence.tenant(), sequence.id())).collect(),
            planned: Vec::with_capacity(self.running.len()),
            budget: self.config.max_batch_tokens,
            gate: Gate::Open,
        };
        self.plan_decodes(&mut batch);
        self.plan_prefills(&mut batch);

        self.num_steps += 1;
        if !batch.planned.is_empty() {
            self.in_flight = Some(self.num_steps);
        }
        let transfers = self.tiers.take_plan();
        StepPlan { sequences: batch.planned, transfers, step: self.num_steps, virtual_time_before }
    }

    /// Preempts until every decoding sequence, and the oldest sequence whatever it does, can have its next block. Then
    /// there is something to compute in every step, and running out of blocks is never the end of it.
    fn make_room(&mut self) {
        loop {
            let needed = self.running.iter().enumerate().filter(|&(age, &id)| {
                let sequence = self.known(id);
                !sequence.is_loading() && (age == 0 || sequence.is_decoding()) && self.needs_block(sequence)
            });
            if needed.count() <= self.pool.num_available() || !self.preempt_one() {
                return;
            }
        }
    }

    /// Sends the youngest sequence of the most served tenant back to waiting; never the oldest of all, which can
    /// always run to its end, as `add` has made sure that it fits alone. False when all others are loading: their blocks
    /// come back, or become preemptible, when the loads end.
    fn preempt_one(&mut self) -> bool {
        let candidates = self.running.iter().skip(1).filter(|&&id| !self.known(id).is_loading());
        let victim = candidates.max_by_key(|&&id| (self.tenants.served(self.known(id).tenant()), id));
        let Some(&victim) = victim else {
            assert!(self.tiers.is_loading(), "the oldest sequence fits alone: this is a bug");
            return false;
        };
        self.send_back(victim).num_preemptions += 1;
        self.totals.preemptions += 1;
        true
    }

    fn needs_block(&self, sequence: &Sequence) -> bool {
        sequence.num_computed == sequence.table.len() * self.config.block_size
    }

    fn plan_decodes(&mut self, batch: &mut Batch) {
        for age in 0..self.running.len() {
            let id = self.running[age];
            let sequence = self.known(id);
            let has_room = !self.needs_block(sequence) || self.pool.num_available() > 0;
            if sequence.is_decoding() && !sequence.is_loading() && has_room {
                self.plan_rows(id, 1, batch);
            }
        }
    }

    /// Gives turns to tenants until the budget is spent or nobody can use it.
    fn plan_prefills(&mut self, batch: &mut Batch) {
        if batch.prefilling.is_empty() && self.tenants.num_waiting() == 0 {
            return;
        }
        self.note_frontiers();
        let mut turns = self.line_up(batch);
        let mut last_served = None;
        while batch.budget > 0
            && let Some(Reverse(turn)) = turns.pop()
        {
            let num_planned = batch.planned.len();
            let next = self.take_turn(&turn, batch);
            if batch.planned.len() > num_planned {
                self.tenants.set_virtual_time(turn.served.max(self.tenants.virtual_time()));
                last_served = Some(turn.tenant);
            }
            if let Some(next) = next {
                turns.push(Reverse(Turn { served: self.tenants.served(turn.tenant), next, ..turn }));
            }
        }
        // When nobody is left in line, what was served counts as settled: else a tenant that used an idle server
        // would be behind every newcomer for it.
        if let Some(tenant) = last_served
            && self.tenants.num_waiting() == 0
            && batch.prefilling.is_empty()
            && batch.planned.iter().all(|planned| planned.yields_token == Yield::Token)
        {
            self.tenants.set_virtual_time(self.tenants.served(tenant).max(self.tenants.virtual_time()));
        }
    }

    fn note_frontiers(&mut self) {
        self.frontiers.clear();
        for &id in &self.running {
            let sequence = self.sequences.get(&id).expect("a running sequence is known: this is a bug");
            if let Some(key) = sequence.frontier(self.config.block_size) {
                self.frontiers.entry(key).or_insert(id);
            }
        }
    }

    fn line_up(&self, batch: &Batch) -> BinaryHeap<Reverse<Turn>> {
        let mut tenants: Vec<TenantId> = batch.prefilling.iter().map(|&(tenant, _)| tenant).collect();
        tenants.extend(self.tenants.with_waiting());
        tenants.sort_unstable();
        tenants.dedup();
        let turns = tenants.into_iter().map(|tenant| {
            let running = batch.prefilling.iter().find(|&&(owner, _)| owner == tenant).map(|&(_, id)| id);
            let next = running.or_else(|| self.tenants.next_waiting(tenant, SequenceId::FIRST));
            let next = next.expect("a tenant in line has a sequence: this is a bug");
            Reverse(Turn { served: self.tenants.served(tenant), next, tenant })
        });
        turns.collect()
    }

    /// Lets a tenant plan one prefill: of its oldest running sequence, else of the first waiting one that may enter.
    /// Returns the arrival from which its next turn looks on, or `None` when it has no more use for turns.
    fn take_turn(&mut self, turn: &Turn, batch: &mut Batch) -> Option<SequenceId> {
        if let Some(position) = batch.prefilling.iter().position(|&(tenant, _)| tenant == turn.tenant) {
            let (_, id) = batch.prefilling.remove(position);
            let num_tokens = self.prefill_len(id, batch);
            if num_tokens > 0 {
                self.plan_rows(id, num_tokens, batch);
            }
            return Some(SequenceId::FIRST);
        }
        if batch.gate == Gate::Closed {
            return None;
        }
        if self.running.len() == self.config.max_running {
            batch.gate = Gate::Closed;
            return None;
        }
        let mut next = turn.next;
        while let Some(id) = self.tenants.next_waiting(turn.tenant, next) {
            next = id.next();
            match self.try_admit(id, batch) {
                Entry::Admitted => return Some(next),
                Entry::Follows => {}
                Entry::NoRoom => {
                    batch.gate = Gate::Closed;
                    return None;
                }
            }
        }
        None
    }

    /// Rows of a running sequence's prompt that fit into the budget and into blocks that are to be had without
    /// preemption.
    fn prefill_len(&self, id: SequenceId, batch: &Batch) -> usize {
        let sequence = self.known(id);
        let num_blocks = sequence.table.len() + self.pool.num_available();
        let room = num_blocks * self.config.block_size - sequence.num_computed;
        sequence.num_uncomputed().min(batch.budget).min(room)
    }

    /// Admits a waiting sequence, with its cached prefix, when all of its known tokens fit beside what the running
    /// sequences are still going to need: that keeps it from being preempted right away.
    fn try_admit(&mut self, id: SequenceId, batch: &mut Batch) -> Entry {
        let block_size = self.config.block_size;
        let prefix = match self.look_up(id) {
            Lookup::Follows => return Entry::Follows,
            Lookup::Cached(prefix) => prefix,
        };
        let needed_by_running: usize = self.running.iter().map(|&id| self.num_blocks_expected(self.known(id))).sum();
        let sequence = self.sequences.get_mut(&id).expect("a waiting sequence is known: this is a bug");
        if let Some(prefix) = prefix {
            sequence.table.lease_prefix(&mut self.pool, prefix);
        }
        let num_cached = sequence.table.len();
        let num_needed = self.config.blocks_for(sequence.tokens.len()) - num_cached;
        if num_needed + needed_by_running > self.pool.num_available() {
            sequence.table.release(&mut self.pool);
            return Entry::NoRoom;
        }
        sequence.phase = Phase::Running;
        sequence.num_computed = num_cached * block_size;
        sequence.arrival = Some(Arrival { cached_tokens: sequence.num_computed, loaded: Loaded::default() });
        if let Some(key) = sequence.frontier(block_size) {
            self.frontiers.entry(key).or_insert(id);
        }
        let num_tokens = sequence.num_uncomputed().min(batch.budget);
        self.tenants.admit(sequence.tenant(), id);
        let age = self.running.partition_point(|&running| running < id);
        self.running.insert(age, id);
        if !self.try_load(id) {
            self.plan_rows(id, num_tokens, batch);
        }
        Entry::Admitted
    }

    /// Starts to load what lower tiers have of a sequence's prefix, behind what is on the device, where that is faster
    /// than to compute it. Its blocks are available: all of the sequence's are.
    fn try_load(&mut self, id: SequenceId) -> bool {
        if self.tiers.are_off() {
            return false;
        }
        let block_size = self.config.block_size;
        let sequence = self.sequences.get_mut(&id).expect("an admitted sequence is known: this is a bug");
        let num_cached = sequence.table.len();
        let keys = sequence.reusable_keys(block_size);
        let Some(keys) = keys.get(num_cached..).filter(|keys| !keys.is_empty()) else { return false };
        let offered = self.tiers.find_extension(keys, num_cached, block_size);
        if offered.places.is_empty() {
            return false;
        }
        sequence.table.grow_to(&mut self.pool, num_cached + offered.places.len());
        let to = &sequence.table.blocks()[num_cached..];
        sequence.loading = Some(self.tiers.start_load(id, offered, to));
        self.demote_evicted();
        true
    }

    /// Blocks that a running sequence will still take for its known tokens, and one more if it can grow beyond them.
    fn num_blocks_expected(&self, sequence: &Sequence) -> usize {
        let num_known = self.config.blocks_for(sequence.tokens.len());
        let growth = self.config.blocks_for(sequence.num_tokens_max()).saturating_sub(num_known).min(1);
        num_known - sequence.table.len().min(num_known) + growth
    }

    /// What a waiting sequence can start from. It follows when the next block that it needs, and could reuse, is one
    /// that a running sequence is going to fill. It holds nothing while it waits, and a leader never waits for
    /// anybody, so nobody waits in a circle; when the leader is cancelled or preempted the follower goes ahead itself.
    fn look_up(&mut self, id: SequenceId) -> Lookup {
        let block_size = self.config.block_size;
        let sequence = self.known(id);
        if let Phase::Waiting { follows: Some(Follow { leader, num_shared_blocks }) } = sequence.phase
            && let Some(leader) = self.sequences.get(&leader)
            && leader.phase == Phase::Running
            && leader.num_computed / block_size < num_shared_blocks
        {
            return Lookup::Follows;
        }
        let keys = sequence.reusable_keys(block_size);
        let prefix = self.pool.find_prefix(keys);
        let num_cached = prefix.map_or(0, |prefix| prefix.num_blocks());
        let follows = keys.get(num_cached).and_then(|key| self.frontiers.get(key)).map(|&leader| {
            let leader_keys = &self.known(leader).block_keys;
            let num_shared_blocks = keys.iter().zip(leader_keys).take_while(|(own, other)| own == other).count();
            Follow { leader, num_shared_blocks }
        });
        let sequence = self.sequences.get_mut(&id).expect("a waiting sequence is known: this is a bug");
        sequence.phase = Phase::Waiting { follows };
        if follows.is_some() { Lookup::Follows } else { Lookup::Cached(prefix) }
    }

    /// Adds rows of a running sequence to the step, with blocks for them, and charges its tenant.
    fn plan_rows(&mut self, id: SequenceId, num_tokens: usize, batch: &mut Batch) {
        let sequence = self.sequences.get_mut(&id).expect("a running sequence is known: this is a bug");
        let start = sequence.num_computed;
        let end = start + num_tokens;
        sequence.table.grow_to(&mut self.pool, self.config.blocks_for(end));
        let yields_token = if end == sequence.tokens.len() { Yield::Token } else { Yield::Nothing };
        let arrival = sequence.arrival.take();
        let admitted = arrival.map(|Arrival { cached_tokens, .. }| Admission { cached_tokens });
        let loaded = arrival.map_or(Loaded::default(), |arrival| arrival.loaded);
        let planned = PlannedSequence { id, start, num_tokens, yields_token, admitted, loaded };
        self.tenants.charge(sequence.tenant(), planned.cost());
        batch.budget -= num_tokens;
        batch.planned.push(planned);
        self.demote_evicted();
    }
}

impl PlannedSequence {
    /// What these rows cost the sequence's tenant.
    pub(crate) fn cost(&self) -> u64 {
        let num_outputs = match self.yields_token {
            Yield::Token => 1,
            Yield::Nothing => 0,
        };
        service_cost(self.num_tokens, num_outputs)
    }
}
