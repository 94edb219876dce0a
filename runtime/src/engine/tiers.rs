//! Carries out the scheduler's plans: copies between the device pool, host memory and the disk tier's threads.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::KvPool;
use scheduler::{BlockSource, Load, Measured, Scheduler, Tier, TransferPlan, UnitId};

use super::disk::{BlockBytes, DiskEvent, DiskTier};

/// Block buffers kept for reuse: a fresh one costs page faults.
const SPARE_BUFFERS_MAX: usize = 64;
/// How long copies may hold up sequences that could go on meanwhile.
const SLICE: Duration = Duration::from_millis(8);
/// Blocks copied out at a time to be saved in idle moments: a request that comes waits for no more.
const SAVE_SLICE_BLOCKS: usize = 16;
/// How long the end waits for one file to be written.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);
/// How long the end goes on saving: what is left then is only a cache.
const FLUSH_MAX: Duration = Duration::from_secs(30);

/// Host memory, and the way to disk.
pub(super) struct TierBytes {
    block_bytes: usize,
    host: HashMap<UnitId, BlockBytes>,
    spare: Vec<Vec<u8>>,
    disk: Option<DiskTier>,
    /// Loads whose bytes are at hand, or on their way from disk.
    loads: VecDeque<PendingLoad>,
    num_writes: usize,
}

/// A load until it is reported.
struct PendingLoad {
    load: Load,
    /// The blocks from disk among them, in order, when they have arrived.
    from_disk: Option<VecDeque<BlockBytes>>,
    num_done: usize,
    host: Measured,
    disk: Measured,
}

impl TierBytes {
    pub fn new(block_bytes: usize, disk: Option<DiskTier>) -> Self {
        Self { block_bytes, host: HashMap::new(), spare: Vec::new(), disk, loads: VecDeque::new(), num_writes: 0 }
    }

    /// Does what must happen before a step, and takes note of the loads.
    pub fn carry_out(&mut self, plan: TransferPlan, pool: &KvPool, scheduler: &mut Scheduler) {
        let TransferPlan { swap_outs, disk_writes, drops, loads } = plan;
        for swap_out in swap_outs {
            match self.copy_out(pool, swap_out.block.index()) {
                Some(bytes) => {
                    self.host.insert(swap_out.unit, bytes);
                }
                None => scheduler.fail_swap_out(swap_out.unit),
            }
        }
        for drop in &drops {
            if drop.tier == Tier::Disk
                && let Some(disk) = &self.disk
            {
                disk.remove(drop.unit);
            }
        }
        for write in disk_writes {
            let num_blocks = write.blocks.len();
            let bytes_of = |source: BlockSource, bytes: &mut Self| match source {
                BlockSource::Device(block) => bytes.copy_out(pool, block.index()),
                BlockSource::Host(unit) => bytes.host.get(&unit).cloned(),
            };
            let blocks: Option<Vec<_>> =
                write.blocks.into_iter().map(|(info, source)| Some((info, bytes_of(source, self)?))).collect();
            match (blocks, &self.disk) {
                (Some(blocks), Some(disk)) => {
                    disk.write(write.unit, blocks);
                    self.num_writes += 1;
                }
                _ => {
                    scheduler.end_disk_write(write.unit, num_blocks, false);
                }
            }
        }
        for drop in drops {
            if drop.tier == Tier::Host
                && let Some(bytes) = self.host.remove(&drop.unit)
            {
                self.recycle(bytes);
            }
        }
        loads.into_iter().for_each(|load| self.start(load));
    }

    /// Copies what has arrived into the device pool, and reports loads that are done. Not within a step. With `others`
    /// running, it stops after a slice of time.
    pub fn advance(&mut self, pool: &mut KvPool, scheduler: &mut Scheduler, others: bool) {
        self.take_events(scheduler);
        let start = Instant::now();
        let mut waiting = VecDeque::new();
        while let Some(mut load) = self.loads.pop_front() {
            if load.from_disk.is_none() {
                waiting.push_back(load);
                continue;
            }
            let ended = self.copy_in(&mut load, pool, || others && start.elapsed() > SLICE);
            if ended {
                let measured: Vec<Measured> =
                    [load.host, load.disk].into_iter().filter(|tier| tier.bytes > 0).collect();
                scheduler.end_load(load.load.id, load.num_done, &measured);
            } else {
                waiting.push_back(load);
                break;
            }
        }
        waiting.append(&mut self.loads);
        self.loads = waiting;
    }

    /// Removes damaged files that were set aside: they hold what was to be forgotten, too.
    pub fn clear_quarantine(&self) {
        if let Some(disk) = &self.disk {
            disk.clear_quarantine();
        }
    }

    /// A load could go on now.
    pub fn can_advance(&self) -> bool {
        self.loads.iter().any(|load| load.from_disk.is_some())
    }

    /// Has some computed blocks saved; false when there is nothing to do, or the way to disk is full.
    pub fn save_some(&mut self, pool: &KvPool, scheduler: &mut Scheduler) -> bool {
        if self.disk.is_none() || scheduler.num_unsaved() == 0 {
            return false;
        }
        let before = scheduler.num_unsaved();
        let plan = scheduler.save(SAVE_SLICE_BLOCKS);
        self.carry_out(plan, pool, scheduler);
        scheduler.num_unsaved() < before
    }

    /// Saves everything and waits until it is written.
    pub fn flush(&mut self, pool: &KvPool, scheduler: &mut Scheduler) {
        let end = Instant::now() + FLUSH_MAX;
        loop {
            while Instant::now() < end && self.save_some(pool, scheduler) {}
            let Some(disk) = self.disk.as_ref().filter(|_| self.num_writes > 0) else { return };
            match disk.wait_event(FLUSH_PATIENCE) {
                Some(event) => self.note(event, scheduler),
                None => return tracing::warn!(num_files = self.num_writes, "KV was not written before the end"),
            }
        }
    }

    fn take_events(&mut self, scheduler: &mut Scheduler) {
        while let Some(event) = self.disk.as_ref().and_then(DiskTier::take_event) {
            self.note(event, scheduler);
        }
    }

    fn note(&mut self, event: DiskEvent, scheduler: &mut Scheduler) {
        match event {
            DiskEvent::Written { unit, num_blocks, ok } => {
                self.num_writes -= 1;
                if !scheduler.end_disk_write(unit, num_blocks, ok)
                    && let Some(disk) = &self.disk
                {
                    disk.remove(unit);
                }
            }
            DiskEvent::Read { load, blocks, seconds } => {
                if let Some(pending) = self.loads.iter_mut().find(|pending| pending.load.id == load) {
                    pending.disk.seconds = seconds;
                    pending.from_disk = Some(blocks.into());
                }
            }
        }
    }

    fn start(&mut self, load: Load) {
        let from_disk: Vec<(UnitId, u32)> = load
            .blocks
            .iter()
            .filter(|block| block.tier == Tier::Disk)
            .map(|block| (block.place.unit, block.place.offset as u32))
            .collect();
        let measured = |tier| Measured { tier, bytes: 0, seconds: 0.0 };
        let mut pending = PendingLoad {
            from_disk: Some(VecDeque::new()),
            num_done: 0,
            host: measured(Tier::Host),
            disk: measured(Tier::Disk),
            load,
        };
        if let Some(disk) = self.disk.as_ref().filter(|_| !from_disk.is_empty()) {
            disk.read(pending.load.id, from_disk);
            pending.from_disk = None;
        }
        self.loads.push_back(pending);
    }

    /// Copies blocks in until the load ends (true) or `pause` says so.
    fn copy_in(&mut self, pending: &mut PendingLoad, pool: &mut KvPool, pause: impl Fn() -> bool) -> bool {
        while let Some(block) = pending.load.blocks.get(pending.num_done) {
            if pause() {
                return false;
            }
            let bytes = match block.tier {
                Tier::Host => self.host.get(&block.place.unit).cloned(),
                Tier::Disk => pending.from_disk.as_mut().and_then(VecDeque::pop_front),
                Tier::Device => None,
            };
            let start = Instant::now();
            let Some(bytes) = bytes.filter(|bytes| pool.import_block(block.to.index(), bytes).is_ok()) else {
                return true;
            };
            let measured = if block.tier == Tier::Host { &mut pending.host } else { &mut pending.disk };
            measured.bytes += self.block_bytes as u64;
            measured.seconds += start.elapsed().as_secs_f64();
            pending.num_done += 1;
            self.recycle(bytes);
        }
        true
    }

    fn copy_out(&mut self, pool: &KvPool, block: u32) -> Option<BlockBytes> {
        let mut bytes = self.spare.pop().unwrap_or_else(|| vec![0; self.block_bytes]);
        pool.export_block(block, &mut bytes).ok()?;
        Some(Arc::new(bytes))
    }

    fn recycle(&mut self, bytes: BlockBytes) {
        if let Some(bytes) = Arc::into_inner(bytes)
            && self.spare.len() < SPARE_BUFFERS_MAX
        {
            self.spare.push(bytes);
        }
    }
}
