//! The end of a step: its rows count as computed, or as never having been tried.
use std::sync::Arc;

use crate::block_info::BlockInfo;
use crate::block_pool::BlockPool;
use crate::block_table::Origin;
use crate::ids::{LoadId, UnitId};
use crate::scheduler::Scheduler;
use crate::sequence::{Arrival, Sequence};
use crate::step::{Loaded, PlannedSequence, Sampled, StepPlan, Then, Yield};
use crate::tiers::{Arrived, Measured, Tier};

impl Scheduler {
    /// Applies a step whose forward pass succeeded: rows become computed, full blocks get their key and can be found
    /// by others, sampled tokens are appended, finished sequences leave.
    ///
    /// `sampled` has one entry for each [`Yield::Token`] of the plan, in the plan's order.
    ///
    /// # Panics
    /// When the plan is not the one in flight, when `sampled` does not answer it, or when a sequence goes on beyond its
    /// `max_new_tokens`.
    pub fn commit(&mut self, plan: StepPlan, sampled: &[Sampled]) {
        self.end_step(&plan);
        let mut sampled = sampled.iter();
        for planned in &plan.sequences {
            self.apply_rows(planned);
            if planned.yields_token == Yield::Token {
                let answer = sampled.next().unwrap_or_else(|| panic!("no token was sampled for {}", planned.id));
                assert_eq!(answer.id, planned.id, "sampled tokens are not in the plan's order");
                self.apply_token(answer);
            }
        }
        assert_eq!(sampled.len(), 0, "more tokens were sampled than planned");
    }

    /// Undoes a step whose forward pass failed: nothing counts as computed, no block was published, new blocks are
    /// free again, admitted sequences are back in their queues, and tenants are not charged. (What was preempted or
    /// evicted to make room stays so.)
    ///
    /// # Panics
    /// When the plan is not the one in flight.
    pub fn revert(&mut self, plan: StepPlan) {
        self.end_step(&plan);
        for planned in plan.sequences.iter().rev() {
            let tenant = self.known(planned.id).tenant();
            self.tenants.refund(tenant, planned.cost());
            if planned.admitted.is_some() {
                self.send_back(planned.id);
            } else {
                let sequence = self.sequences.get_mut(&planned.id).expect("a planned sequence is known: this is a bug");
                sequence.table.shrink_to(&mut self.pool, self.config.blocks_for(sequence.num_computed));
            }
        }
        self.tenants.set_virtual_time(plan.virtual_time_before);
    }

    fn end_step(&mut self, plan: &StepPlan) {
        let in_flight = self.in_flight.take();
        assert!(in_flight == Some(plan.step) || plan.is_empty(), "the plan is not the one in flight: this is a bug");
    }

    fn apply_rows(&mut self, planned: &PlannedSequence) {
        let block_size = self.config.block_size;
        let sequence = self.sequences.get_mut(&planned.id).expect("a planned sequence is known: this is a bug");
        assert_eq!(sequence.num_computed, planned.start, "the plan was changed: this is a bug");
        if let Some(admission) = planned.admitted
            && sequence.num_preemptions == 0
            && sequence.reuse == crate::PrefixReuse::Exact
        {
            self.totals.prefix_hits_tokens += admission.cached_tokens as u64;
            self.totals.prefix_misses_tokens += sequence.num_uncomputed() as u64;
        }
        sequence.num_computed += planned.num_tokens;
        for position in sequence.table.num_full()..sequence.num_computed / block_size {
            match sequence.table.publish_next(&mut self.pool, sequence.block_keys[position]) {
                Origin::Own => {}
                Origin::Other => self.totals.deduplicated_blocks += 1,
            }
            if !self.tiers.are_off() && !sequence.forgotten {
                let info = describe(sequence, position, &self.pool, block_size);
                self.pool.describe(sequence.table.blocks()[position], &info);
                self.tiers.note_unsaved(&info, self.config.num_blocks + self.config.tiers.host_blocks);
            }
        }
    }

    /// Ends a load: its first `num_ok` blocks arrived, in order, and their bytes are what their keys say. The rest is
    /// computed, and the first that failed is not looked for in its tier again. Not within a step.
    ///
    /// # Panics
    /// While a step is in flight.
    pub fn end_load(&mut self, id: LoadId, num_ok: usize, measured: &[Measured]) {
        assert!(self.in_flight.is_none(), "end_load within a step: this is a bug");
        let Some((waiting, arrived)) = self.tiers.end_load(id, num_ok, measured, &mut self.pool) else { return };
        let Some(sequence) = waiting.and_then(|id| self.sequences.get_mut(&id)) else { return };
        sequence.loading = None;
        let mut loaded = Loaded::default();
        for Arrived { key, info, tier, heat } in arrived {
            match sequence.table.publish_next(&mut self.pool, key) {
                Origin::Own | Origin::Other => {}
            }
            let block = sequence.table.blocks()[sequence.table.num_full() - 1];
            self.pool.describe(block, &info);
            self.pool.warm(block, heat);
            match tier {
                Tier::Host => loaded.host_tokens += self.config.block_size,
                Tier::Disk => loaded.disk_tokens += self.config.block_size,
                Tier::Device => unreachable!("nothing is loaded from the device: this is a bug"),
            }
        }
        sequence.num_computed = sequence.table.num_full() * self.config.block_size;
        sequence.table.shrink_to(&mut self.pool, sequence.table.num_full());
        sequence.arrival = Some(Arrival { cached_tokens: sequence.num_computed, loaded });
    }

    /// A copy to host memory failed: it is not found there any more.
    pub fn fail_swap_out(&mut self, unit: UnitId) {
        self.tiers.fail_unit(Tier::Host, unit);
    }

    /// Ends a write to disk of `num_blocks` blocks. False: what was written, if anything, has to go.
    pub fn end_disk_write(&mut self, unit: UnitId, num_blocks: usize, ok: bool) -> bool {
        self.tiers.end_disk_write(unit, num_blocks, ok)
    }

    /// Takes note of what a forward pass took: `seconds` for all rows of `plan`, to weigh loads against computing.
    pub fn observe_step(&mut self, plan: &StepPlan, seconds: f64) {
        let cost = self.tiers.prefill_cost();
        let work = plan.sequences.iter().map(|planned| cost.work(planned.start, planned.num_tokens)).sum();
        self.tiers.observe_prefill(plan.num_tokens(), work, seconds);
    }

    fn apply_token(&mut self, answer: &Sampled) {
        let sequence = self.sequences.get_mut(&answer.id).expect("a planned sequence is known: this is a bug");
        match answer.then {
            Then::Continue => {
                sequence.push_token(answer.token, self.config.block_size);
                let (id, max) = (answer.id, sequence.max_new_tokens());
                assert!(sequence.num_generated() < max, "{id} goes on beyond its {max} new tokens: this is a bug");
            }
            Then::Finish => {
                let sequence: Sequence = self.sequences.remove(&answer.id).expect("it was there: this is a bug");
                self.retire(sequence);
            }
        }
    }
}

/// What the full block at a position of a sequence's table holds.
fn describe(sequence: &Sequence, position: usize, pool: &BlockPool, block_size: usize) -> Arc<BlockInfo> {
    let key = sequence.block_keys[position];
    let tokens = &sequence.tokens[position * block_size..(position + 1) * block_size];
    let parent = position.checked_sub(1).and_then(|before| pool.info(sequence.table.blocks()[before]));
    BlockInfo::new(parent, sequence.root(), sequence.tenant(), key, tokens)
}
