//! The way to disk: evicted blocks that were used before, and in idle time everything that is not there yet.
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::decision::DecisionKind;
use super::plan::{BlockSource, DiskWrite};
use super::rates::Weighed;
use super::{Drop, Tier, Tiers};
use crate::block_info::BlockInfo;
use crate::block_pool::BlockPool;
use crate::heat::Heat;
use crate::ids::UnitId;
use crate::key::{BuildKeyHasher, KvKey};

/// Blocks in one file: enough that opening and syncing it does not count, and few enough to be given up together.
const UNIT_BLOCKS_MAX: usize = 32;
const UNWEIGHED: Weighed = Weighed { num_blocks: 0, load_s: None, compute_s: None };

/// A block that could go to disk.
pub(super) struct Candidate {
    pub(super) info: Arc<BlockInfo>,
    pub(super) heat: Heat,
    pub(super) source: BlockSource,
}

impl Tiers {
    /// Notes a computed block as not saved yet.
    pub(crate) fn note_unsaved(&mut self, info: &Arc<BlockInfo>, unsaved_max: usize) {
        if self.disk.is_off() || self.disk.contains(&info.key()) {
            return;
        }
        if self.unsaved.len() >= unsaved_max {
            self.unsaved.pop_front();
        }
        self.unsaved.push_back(Arc::clone(info));
    }

    pub(crate) fn num_unsaved(&self) -> usize {
        self.unsaved.len()
    }

    /// Plans to save up to `max_blocks` computed blocks that are still in a tier above the disk.
    pub(crate) fn save(&mut self, pool: &BlockPool, max_blocks: usize) {
        let room = max_blocks.min(self.config.max_disk_writes.saturating_sub(self.num_disk_writes));
        let mut candidates = Vec::new();
        while candidates.len() < room
            && let Some(info) = self.unsaved.pop_front()
        {
            let key = info.key();
            if self.disk.contains(&key) {
                continue;
            }
            let on_device = pool.find(&key).map(|block| (BlockSource::Device(block), pool.heat(block)));
            let in_host = || {
                let place = self.host.find(&key)?;
                Some((BlockSource::Host(place.unit), Heat::use_at(pool.half_lives(), 0.0)))
            };
            if let Some((source, heat)) = on_device.or_else(in_host) {
                candidates.push(Candidate { info, heat, source });
            }
        }
        let num_blocks = self.write(candidates);
        if num_blocks > 0 {
            self.decisions.note(DecisionKind::Save, num_blocks, UNWEIGHED);
        }
    }

    /// Plans the writing of evicted blocks, as far as the way to the disk has room.
    pub(super) fn spill_candidates(&mut self) {
        let mut candidates = std::mem::take(&mut self.candidates);
        if candidates.is_empty() || self.disk.is_off() {
            return;
        }
        candidates.retain(|candidate| !self.disk.contains(&candidate.info.key()));
        let room = self.config.max_disk_writes.saturating_sub(self.num_disk_writes);
        if candidates.len() > room {
            // The hottest are kept; they come in the order of eviction, coldest first.
            let num_refused = candidates.len() - room;
            candidates.drain(..num_refused);
            self.decisions.note(DecisionKind::SpillRefused, num_refused, UNWEIGHED);
        }
        let num_blocks = self.write(candidates);
        if num_blocks > 0 {
            self.decisions.note(DecisionKind::Spill, num_blocks, UNWEIGHED);
        }
    }

    /// Plans files for candidates, and says how many blocks they have together.
    fn write(&mut self, mut candidates: Vec<Candidate>) -> usize {
        // The same block can have been evicted from two tiers in one step.
        let mut seen: HashSet<KvKey, BuildKeyHasher> = HashSet::default();
        candidates.retain(|candidate| seen.insert(candidate.info.key()));
        let mut num_blocks = 0;
        for run in runs(candidates) {
            let heat = run
                .iter()
                .map(|candidate| candidate.heat)
                .fold(Heat::COLD, |hottest, heat| if heat > hottest { heat } else { hottest });
            let infos = run.iter().map(|candidate| Arc::clone(&candidate.info)).collect();
            // What is colder than everything on a full disk is not written.
            let Ok((unit, removed)) = self.disk.insert(infos, heat) else { continue };
            for removed in removed {
                self.stats_mut(Tier::Disk).evicted_blocks += removed.blocks.len() as u64;
                self.plan.drops.push(Drop { tier: Tier::Disk, unit: removed.unit });
            }
            num_blocks += run.len();
            self.num_disk_writes += run.len();
            let blocks = run.into_iter().map(|candidate| (candidate.info, candidate.source)).collect();
            self.plan.disk_writes.push(DiskWrite { unit, blocks });
        }
        num_blocks
    }

    /// Ends a write. False when the unit was given up meanwhile or the write failed: its file, if any, has to go.
    pub(crate) fn end_disk_write(&mut self, unit: UnitId, num_blocks: usize, ok: bool) -> bool {
        self.num_disk_writes -= num_blocks.min(self.num_disk_writes);
        let is_known = !self.disk.blocks(unit).is_empty();
        if is_known && ok {
            self.disk.make_ready(unit);
            self.stats_mut(Tier::Disk).stored_blocks += num_blocks as u64;
        } else if is_known {
            self.stats_mut(Tier::Disk).failed_blocks += num_blocks as u64;
            self.disk.remove(unit);
        }
        is_known && ok
    }

    /// Takes over what is on disk from before. `None` when there is no room for it, or it is known already.
    pub(crate) fn adopt(&mut self, blocks: Vec<Arc<BlockInfo>>, heat: Heat) -> Option<UnitId> {
        if blocks.is_empty() || blocks.iter().any(|info| self.disk.contains(&info.key())) {
            return None;
        }
        let (unit, removed) = self.disk.insert(blocks, heat).ok()?;
        removed.into_iter().for_each(|removed| self.plan.drops.push(Drop { tier: Tier::Disk, unit: removed.unit }));
        self.disk.make_ready(unit);
        Some(unit)
    }
}

/// Sorts candidates into runs of consecutive blocks, none longer than a file; in the order in which the first block of
/// each came.
fn runs(candidates: Vec<Candidate>) -> Vec<Vec<Candidate>> {
    let keys: HashSet<KvKey, BuildKeyHasher> = candidates.iter().map(|candidate| candidate.info.key()).collect();
    let mut followers: HashMap<KvKey, VecDeque<Candidate>, BuildKeyHasher> = HashMap::default();
    let mut heads = Vec::new();
    for candidate in candidates {
        match candidate.info.parent().map(|parent| parent.key()).filter(|parent| keys.contains(parent)) {
            Some(parent) => followers.entry(parent).or_default().push_back(candidate),
            None => heads.push(candidate),
        }
    }
    let mut runs = Vec::new();
    let mut heads = VecDeque::from(heads);
    while let Some(head) = heads.pop_front() {
        let mut run = vec![head];
        while let Some(mut next) = followers.remove(&run[run.len() - 1].info.key()) {
            let first = next.pop_front().expect("no empty list is kept: this is a bug");
            // Where a chain branches, the other branches begin runs of their own.
            heads.extend(next);
            if run.len() == UNIT_BLOCKS_MAX {
                heads.push_front(first);
                break;
            }
            run.push(first);
        }
        runs.push(run);
    }
    runs
}
