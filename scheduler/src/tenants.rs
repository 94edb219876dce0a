//! Fairness between tenants: virtual token counters, and each tenant's waiting queue.
//!
//! Each tenant has a counter of the service it got; the tenant with the smallest one among those with something to
//! prefill is served next (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024, algorithm 2). A tenant
//! that was away is lifted to the virtual time, so that it cannot save up service; the virtual time is the counter of
//! the tenant served last before its work was added (Goyal et al., "Start-time Fair Queueing", SIGCOMM 1996), which
//! needs no search over tenants. Work is charged when it is planned: cached tokens cost nothing.
use std::collections::{BTreeSet, HashMap};

use crate::ids::{SequenceId, TenantId};

/// Charge per row computed: the weight of an input token in the paper.
const ROW_COST: u64 = 1;
/// Charge on top when the row yields a token: an output token costs 2 in all, as in the paper.
const OUTPUT_COST: u64 = 1;
/// Tenants that are remembered before those without a debt are looked for and forgotten.
const FORGET_ABOVE_MIN: usize = 64;

/// What one tenant has in the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantStats {
    /// Who.
    pub tenant: TenantId,
    /// Sequences in its queue.
    pub num_waiting: usize,
    /// Sequences in the batch.
    pub num_running: usize,
}

/// All tenants that have sequences, or had so much service lately that it still counts.
pub(crate) struct Tenants {
    by_id: HashMap<TenantId, Tenant>,
    with_waiting: BTreeSet<TenantId>,
    num_waiting: usize,
    virtual_time: u64,
    forget_above: usize,
}

#[derive(Default)]
struct Tenant {
    served: u64,
    /// In order of arrival, so that a preempted sequence is again before all that came after it.
    waiting: BTreeSet<SequenceId>,
    num_running: usize,
}

/// What a planned row range costs its tenant.
pub(crate) fn service_cost(num_rows: usize, num_outputs: usize) -> u64 {
    num_rows as u64 * ROW_COST + num_outputs as u64 * OUTPUT_COST
}

impl Tenants {
    pub(crate) fn new() -> Tenants {
        Tenants {
            by_id: HashMap::new(),
            with_waiting: BTreeSet::new(),
            num_waiting: 0,
            virtual_time: 0,
            forget_above: FORGET_ABOVE_MIN,
        }
    }

    pub(crate) fn num_waiting(&self) -> usize {
        self.num_waiting
    }

    pub(crate) fn num_waiting_of(&self, tenant: TenantId) -> usize {
        self.by_id.get(&tenant).map_or(0, |tenant| tenant.waiting.len())
    }

    pub(crate) fn with_waiting(&self) -> impl Iterator<Item = TenantId> {
        self.with_waiting.iter().copied()
    }

    pub(crate) fn virtual_time(&self) -> u64 {
        self.virtual_time
    }

    pub(crate) fn set_virtual_time(&mut self, virtual_time: u64) {
        self.virtual_time = virtual_time;
    }

    /// The tenant's counter; 0 for one that is unknown.
    pub(crate) fn served(&self, tenant: TenantId) -> u64 {
        self.by_id.get(&tenant).map_or(0, |tenant| tenant.served)
    }

    /// A sequence arrives.
    pub(crate) fn arrive(&mut self, tenant: TenantId, id: SequenceId) {
        self.forget_settled();
        let virtual_time = self.virtual_time;
        let entry = self.by_id.entry(tenant).or_default();
        if entry.waiting.is_empty() {
            entry.served = entry.served.max(virtual_time);
        }
        self.enqueue(tenant, id);
    }

    /// A waiting sequence leaves the queue for good.
    pub(crate) fn leave_queue(&mut self, tenant: TenantId, id: SequenceId) {
        let entry = self.get_mut(tenant);
        assert!(entry.waiting.remove(&id), "{id} does not wait: this is a bug");
        if entry.waiting.is_empty() {
            self.with_waiting.remove(&tenant);
        }
        self.num_waiting -= 1;
    }

    /// A waiting sequence starts to run.
    pub(crate) fn admit(&mut self, tenant: TenantId, id: SequenceId) {
        self.leave_queue(tenant, id);
        self.get_mut(tenant).num_running += 1;
    }

    /// A running sequence goes back to the queue, to its place by arrival.
    pub(crate) fn send_back(&mut self, tenant: TenantId, id: SequenceId) {
        self.leave_batch(tenant);
        self.enqueue(tenant, id);
    }

    /// A running sequence is gone.
    pub(crate) fn leave_batch(&mut self, tenant: TenantId) {
        self.get_mut(tenant).num_running -= 1;
    }

    /// The tenant's first waiting sequence that arrived at `from` or later.
    pub(crate) fn next_waiting(&self, tenant: TenantId, from: SequenceId) -> Option<SequenceId> {
        self.by_id.get(&tenant)?.waiting.range(from..).next().copied()
    }

    pub(crate) fn charge(&mut self, tenant: TenantId, cost: u64) {
        self.get_mut(tenant).served += cost;
    }

    /// Takes a charge back whose work was not done.
    pub(crate) fn refund(&mut self, tenant: TenantId, cost: u64) {
        self.get_mut(tenant).served -= cost;
    }

    /// Tenants with sequences, in order of id.
    pub(crate) fn stats(&self) -> Vec<TenantStats> {
        let active = self.by_id.iter().filter(|(_, entry)| entry.has_sequences());
        let stats = active.map(|(&tenant, entry)| TenantStats {
            tenant,
            num_waiting: entry.waiting.len(),
            num_running: entry.num_running,
        });
        let mut stats: Vec<TenantStats> = stats.collect();
        stats.sort_by_key(|stats| stats.tenant);
        stats
    }

    #[cfg(test)]
    pub(crate) fn num_remembered(&self) -> usize {
        self.by_id.len()
    }

    /// # Panics
    /// When counts and queues contradict each other.
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.by_id.values().map(|entry| entry.waiting.len()).sum::<usize>(), self.num_waiting);
        for (tenant, entry) in &self.by_id {
            assert_eq!(!entry.waiting.is_empty(), self.with_waiting.contains(tenant), "{tenant}");
        }
        assert!(self.with_waiting.iter().all(|tenant| self.by_id.contains_key(tenant)));
    }

    fn enqueue(&mut self, tenant: TenantId, id: SequenceId) {
        assert!(self.get_mut(tenant).waiting.insert(id), "{id} waits twice: this is a bug");
        self.with_waiting.insert(tenant);
        self.num_waiting += 1;
    }

    fn get_mut(&mut self, tenant: TenantId) -> &mut Tenant {
        self.by_id.get_mut(&tenant).expect("a tenant with sequences is known: this is a bug")
    }

    /// Forgets tenants that would be lifted to the virtual time on return anyway, so that a server with many tenants
    /// keeps only those that matter. Done when their number has doubled: constant time per arrival on average.
    fn forget_settled(&mut self) {
        if self.by_id.len() < self.forget_above {
            return;
        }
        let virtual_time = self.virtual_time;
        self.by_id.retain(|_, entry| entry.has_sequences() || entry.served > virtual_time);
        self.forget_above = FORGET_ABOVE_MIN.max(2 * self.by_id.len());
    }
}

impl Tenant {
    fn has_sequences(&self) -> bool {
        self.num_running > 0 || !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One sequence from arrival to finish, charged `cost` in one turn.
    fn serve(tenants: &mut Tenants, tenant: TenantId, id: SequenceId, cost: u64) {
        tenants.arrive(tenant, id);
        tenants.admit(tenant, id);
        tenants.set_virtual_time(tenants.served(tenant).max(tenants.virtual_time()));
        tenants.charge(tenant, cost);
        tenants.leave_batch(tenant);
    }

    #[test]
    fn tenants_without_a_debt_are_forgotten() {
        let mut tenants = Tenants::new();
        let mut id = SequenceId::FIRST;
        for tenant in 0..10_000 {
            id = id.next();
            serve(&mut tenants, TenantId(tenant), id, 10);
            // Nobody is in line.
            tenants.set_virtual_time(tenants.served(TenantId(tenant)));
            tenants.check_invariants();
            assert!(tenants.by_id.len() <= FORGET_ABOVE_MIN);
        }
    }

    #[test]
    fn debts_and_queues_are_remembered() {
        let mut tenants = Tenants::new();
        let mut id = SequenceId::FIRST;
        serve(&mut tenants, TenantId(0), id, 1_000);
        for tenant in 1..1_000 {
            id = id.next();
            tenants.arrive(TenantId(tenant), id);
        }
        assert_eq!((tenants.served(TenantId(0)), tenants.num_waiting()), (1_000, 999));
        tenants.check_invariants();
    }
}
