//! What one lower tier holds, by key: units of one block (host memory) or of a run of blocks (a file), with leases, a
//! budget and an order of eviction. The bytes are the engine's.
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::block_info::BlockInfo;
use crate::eviction::EvictionPolicy;
use crate::heat::Heat;
use crate::ids::{TenantId, UnitId};
use crate::key::{BuildKeyHasher, KvKey};

/// Where a block is in a lower tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The unit that holds it.
    pub unit: UnitId,
    /// Which of the unit's blocks it is.
    pub offset: usize,
}

/// A unit that left its tier: its bytes may go.
#[derive(Debug)]
pub(crate) struct Removed {
    pub(crate) unit: UnitId,
    pub(crate) blocks: Vec<Arc<BlockInfo>>,
    pub(crate) heat: Heat,
}

/// Why a unit was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// It is larger than the tier, or than what one tenant may have of it.
    TooLarge,
    /// Everything that would have to go for it is worth more, or in use.
    ColderThanTheRest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its bytes are on their way.
    Filling,
    /// Hittable, and protected while leased.
    Ready { leases: u32 },
    /// Not to be found any more; it goes with its last lease.
    Doomed { leases: u32 },
}

struct Unit {
    blocks: Vec<Arc<BlockInfo>>,
    heat: Heat,
    state: State,
}

/// One lower tier's contents.
pub(crate) struct TierIndex {
    policy: EvictionPolicy,
    /// Blocks.
    capacity: usize,
    /// Blocks of one tenant.
    tenant_capacity: usize,
    index: HashMap<KvKey, Place, BuildKeyHasher>,
    units: HashMap<UnitId, Unit>,
    tenants: HashMap<TenantId, TenantUnits>,
    num_blocks: usize,
    next_unit: UnitId,
}

/// One tenant's part of a tier.
#[derive(Default)]
struct TenantUnits {
    num_blocks: usize,
    /// Ready units without leases: coldest first, and of equal heat the deepest, so that chains go from their end.
    evictable: BTreeSet<(u64, usize, UnitId)>,
}

impl TierIndex {
    pub(crate) fn new(capacity: usize, tenant_capacity: usize, policy: EvictionPolicy) -> TierIndex {
        TierIndex {
            policy,
            capacity,
            tenant_capacity,
            index: HashMap::default(),
            units: HashMap::new(),
            tenants: HashMap::new(),
            num_blocks: 0,
            next_unit: UnitId::FIRST,
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    /// A block that can be loaded now.
    pub(crate) fn find(&self, key: &KvKey) -> Option<Place> {
        let place = *self.index.get(key)?;
        matches!(self.units[&place.unit].state, State::Ready { .. }).then_some(place)
    }

    /// A block that is there or on its way.
    pub(crate) fn contains(&self, key: &KvKey) -> bool {
        self.index.contains_key(key)
    }

    pub(crate) fn is_off(&self) -> bool {
        self.capacity == 0
    }

    /// The blocks of a unit; empty when it is gone.
    pub(crate) fn blocks(&self, unit: UnitId) -> &[Arc<BlockInfo>] {
        self.units.get(&unit).map_or(&[], |unit| &unit.blocks)
    }

    /// A unit's uses.
    pub(crate) fn heat(&self, unit: UnitId) -> Heat {
        self.units.get(&unit).map_or(Heat::COLD, |unit| unit.heat)
    }

    /// Takes a unit in, Filling, and evicts colder ones for it. `blocks` are consecutive, of one tenant, not empty, and
    /// none is in the tier.
    pub(crate) fn insert(
        &mut self,
        blocks: Vec<Arc<BlockInfo>>,
        heat: Heat,
    ) -> Result<(UnitId, Vec<Removed>), NotTaken> {
        let tenant = blocks[0].tenant();
        let removed = self.make_room(tenant, blocks.len(), heat)?;
        let unit = self.next_unit;
        self.next_unit = unit.next();
        for (offset, info) in blocks.iter().enumerate() {
            let before = self.index.insert(info.key(), Place { unit, offset });
            debug_assert_eq!(before, None, "a block twice in one tier: this is a bug");
        }
        self.num_blocks += blocks.len();
        self.tenants.entry(tenant).or_default().num_blocks += blocks.len();
        self.units.insert(unit, Unit { blocks, heat, state: State::Filling });
        Ok((unit, removed))
    }

    /// The bytes of a Filling unit are there.
    pub(crate) fn make_ready(&mut self, unit: UnitId) {
        if let Some(Unit { state: state @ State::Filling, .. }) = self.units.get_mut(&unit) {
            *state = State::Ready { leases: 0 };
            self.make_evictable(unit);
        }
    }

    /// Protects a Ready unit while it is read.
    pub(crate) fn lease(&mut self, unit: UnitId) {
        self.make_unevictable(unit);
        match self.units.get_mut(&unit).map(|unit| &mut unit.state) {
            Some(State::Ready { leases }) => *leases += 1,
            _ => unreachable!("only Ready units are found: this is a bug"),
        }
    }

    /// Returns a lease. A unit that was removed meanwhile goes with its last one.
    pub(crate) fn release(&mut self, unit: UnitId) -> Option<Removed> {
        match self.units.get_mut(&unit).map(|unit| &mut unit.state) {
            Some(State::Ready { leases }) => {
                *leases -= 1;
                if *leases == 0 {
                    self.make_evictable(unit);
                }
                None
            }
            Some(State::Doomed { leases }) => {
                *leases -= 1;
                if *leases == 0 { self.take(unit) } else { None }
            }
            _ => unreachable!("a lease is on a unit: this is a bug"),
        }
    }

    /// Adds a use.
    pub(crate) fn warm(&mut self, unit: UnitId, heat: Heat) {
        let was_evictable = self.make_unevictable(unit);
        if let Some(found) = self.units.get_mut(&unit) {
            found.heat = match self.policy {
                EvictionPolicy::CostAware => found.heat.plus(heat),
                EvictionPolicy::Lru => heat,
            };
        }
        if was_evictable {
            self.make_evictable(unit);
        }
    }

    /// Makes a unit unfindable; it is gone at once unless it is leased or still being filled.
    pub(crate) fn remove(&mut self, unit: UnitId) -> Option<Removed> {
        self.make_unevictable(unit);
        let found = self.units.get_mut(&unit)?;
        let leases = match found.state {
            State::Filling => 0,
            State::Ready { leases } => leases,
            State::Doomed { .. } => return None,
        };
        for info in &found.blocks {
            self.index.remove(&info.key());
        }
        found.state = State::Doomed { leases };
        if leases == 0 { self.take(unit) } else { None }
    }

    /// Removes all units of a tenant, or of everybody.
    pub(crate) fn remove_all(&mut self, of: Option<TenantId>) -> Vec<Removed> {
        let owned = |unit: &Unit| of.is_none_or(|tenant| unit.blocks[0].tenant() == tenant);
        let mut units: Vec<UnitId> = self.units.iter().filter(|(_, unit)| owned(unit)).map(|(id, _)| *id).collect();
        units.sort_unstable();
        units.into_iter().filter_map(|unit| self.remove(unit)).collect()
    }

    fn make_room(&mut self, tenant: TenantId, num_blocks: usize, heat: Heat) -> Result<Vec<Removed>, NotTaken> {
        if num_blocks > self.capacity.min(self.tenant_capacity) {
            return Err(NotTaken::TooLarge);
        }
        let victims = self.victims(tenant, num_blocks, heat).ok_or(NotTaken::ColderThanTheRest)?;
        Ok(victims.into_iter().filter_map(|unit| self.remove(unit)).collect())
    }

    /// Who goes for a newcomer: the tenant's own coldest while it is over its share, else the coldest of all; nobody
    /// who is hotter than the newcomer.
    fn victims(&self, tenant: TenantId, num_blocks: usize, heat: Heat) -> Option<Vec<UnitId>> {
        let mut own = num_blocks + self.tenants.get(&tenant).map_or(0, |own| own.num_blocks);
        let mut all = num_blocks + self.num_blocks;
        let mut victims = Vec::new();
        if own <= self.tenant_capacity && all <= self.capacity {
            return Some(victims);
        }
        let mut queues: HashMap<TenantId, _> =
            self.tenants.iter().map(|(&tenant, units)| (tenant, units.evictable.iter().peekable())).collect();
        while own > self.tenant_capacity || all > self.capacity {
            let from = if own > self.tenant_capacity {
                tenant
            } else {
                let coldest = queues.iter_mut().filter_map(|(&tenant, queue)| Some((**queue.peek()?, tenant)));
                coldest.min()?.1
            };
            let &(coldness, _, unit) = queues.get_mut(&from)?.next()?;
            if coldness > heat.ordered() {
                return None;
            }
            let freed = self.units[&unit].blocks.len();
            all -= freed;
            own -= if from == tenant { freed } else { 0 };
            victims.push(unit);
        }
        Some(victims)
    }

    fn make_evictable(&mut self, unit: UnitId) {
        let Some(found) = self.units.get(&unit) else { return };
        let entry = entry_of(unit, found);
        self.tenants.entry(found.blocks[0].tenant()).or_default().evictable.insert(entry);
    }

    fn make_unevictable(&mut self, unit: UnitId) -> bool {
        let Some(found) = self.units.get(&unit) else { return false };
        let entry = entry_of(unit, found);
        self.tenants.get_mut(&found.blocks[0].tenant()).is_some_and(|own| own.evictable.remove(&entry))
    }

    fn take(&mut self, unit: UnitId) -> Option<Removed> {
        let Unit { blocks, heat, .. } = self.units.remove(&unit)?;
        let tenant = blocks[0].tenant();
        self.num_blocks -= blocks.len();
        let own = self.tenants.get_mut(&tenant).expect("a unit's tenant is known: this is a bug");
        own.num_blocks -= blocks.len();
        if own.num_blocks == 0 {
            self.tenants.remove(&tenant);
        }
        Some(Removed { unit, blocks, heat })
    }
}

/// The place of a unit in its tenant's order of eviction.
fn entry_of(id: UnitId, unit: &Unit) -> (u64, usize, UnitId) {
    (unit.heat.ordered(), usize::MAX - unit.blocks[0].depth(), id)
}

impl TierIndex {
    /// Checks budgets, counts and the order of eviction. O(blocks).
    ///
    /// # Panics
    /// When any of it does not hold.
    pub(crate) fn check_invariants(&self, leases: &HashMap<UnitId, u32>) {
        let mut counts: HashMap<TenantId, usize> = HashMap::new();
        let mut findable = 0;
        for (id, unit) in &self.units {
            let tenant = unit.blocks[0].tenant();
            *counts.entry(tenant).or_default() += unit.blocks.len();
            let held = leases.get(id).copied().unwrap_or(0);
            let (is_findable, is_evictable) = match unit.state {
                State::Filling => (true, false),
                State::Ready { leases } => (true, leases == 0),
                State::Doomed { .. } => (false, false),
            };
            if let State::Ready { leases } | State::Doomed { leases } = unit.state {
                assert_eq!(leases, held, "leases on unit {id:?}");
            }
            let entry = entry_of(*id, unit);
            assert_eq!(self.tenants[&tenant].evictable.contains(&entry), is_evictable, "eviction of {id:?}");
            for (offset, info) in unit.blocks.iter().enumerate() {
                let place = self.index.get(&info.key());
                assert_eq!(place.is_some_and(|place| *place == Place { unit: *id, offset }), is_findable);
                findable += usize::from(is_findable);
            }
        }
        assert_eq!(findable, self.index.len());
        assert_eq!(counts.values().sum::<usize>(), self.num_blocks);
        assert!(self.num_blocks <= self.capacity, "{} blocks in a tier of {}", self.num_blocks, self.capacity);
        for (tenant, units) in &self.tenants {
            assert_eq!(counts.get(tenant), Some(&units.num_blocks), "{tenant}");
            assert!(units.num_blocks <= self.tenant_capacity, "{tenant} is over its share");
        }
    }
}
