//! The disk tier's threads: one writes and removes files, one reads them. The engine thread only hands over and picks up.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use scheduler::{BlockInfo, KvKey, LoadId, Scheduler, TenantId, UnitId, block_keys};
use tokio::sync::mpsc;

use super::thread::Command;
use crate::kv_store::{
    Exactness, KvIdentity, KvReadError, KvStore, KvStoreError, KvStoreOptions, Lineage, NewSegment, SegmentFile,
    SegmentId, TenantTag, check_identity,
};

/// The bytes of one block.
pub(super) type BlockBytes = Arc<Vec<u8>>;

/// Where the disk tier is, and whose blocks it may hold.
#[derive(Debug, Clone)]
pub struct DiskOptions {
    /// The cache directory.
    pub folder: std::path::PathBuf,
    /// Budget, and the key that files are encrypted with.
    pub store: KvStoreOptions,
    /// The tenants that are known, by their salt: blocks of others are removed at the start.
    pub tenants: Vec<([u8; 32], TenantId)>,
}

/// What happened on disk.
pub(super) enum DiskEvent {
    Written { unit: UnitId, num_blocks: usize, ok: bool },
    Read { load: LoadId, blocks: Vec<BlockBytes>, seconds: f64 },
}

enum WriteJob {
    Write { unit: UnitId, blocks: Vec<(Arc<BlockInfo>, BlockBytes)> },
    Remove(UnitId),
    ClearQuarantine,
}

struct ReadJob {
    load: LoadId,
    /// Units and offsets, in the order of the load.
    blocks: Vec<(UnitId, u32)>,
}

/// The engine's side of the disk tier.
pub(super) struct DiskTier {
    writes: Option<Sender<WriteJob>>,
    reads: Option<Sender<ReadJob>>,
    events: Receiver<DiskEvent>,
    threads: Vec<JoinHandle<()>>,
}

/// What both threads need.
struct Files {
    store: KvStore,
    identity: KvIdentity,
    segments: Mutex<HashMap<UnitId, SegmentId>>,
}

/// How a thread tells the engine that there is something to pick up.
#[derive(Clone)]
struct Bell {
    events: Sender<DiskEvent>,
    commands: mpsc::WeakSender<Command>,
}

impl Bell {
    fn tell(&self, event: DiskEvent) {
        if self.events.send(event).is_err() {
            return;
        }
        if let Some(commands) = self.commands.upgrade() {
            // A full queue means that the engine is awake: it looks for events between two steps.
            let _ = commands.try_send(Command::Wake);
        }
    }
}

impl DiskTier {
    /// Opens the directory, gives the scheduler what is in it, and starts the threads.
    ///
    /// # Errors
    /// The directory is in use or cannot be read, or no thread can be had. What is wrong with a file is no error.
    pub fn start(
        options: DiskOptions,
        identity: KvIdentity,
        scheduler: &mut Scheduler,
        commands: mpsc::WeakSender<Command>,
    ) -> Result<Self, KvStoreError> {
        let opened = KvStore::open(&options.folder, options.store)?;
        for refused in &opened.refused {
            tracing::warn!(file = ?refused.file_name, reason = %refused.fault, "a KV segment cannot be used");
        }
        let files = Arc::new(Files { store: opened.store, identity, segments: Mutex::default() });
        let roots = options.tenants.iter().map(|&(salt, tenant)| (files.identity.root_key(salt), tenant)).collect();
        files.adopt(opened.segments, &roots, scheduler);
        let (events, receiver) = channel();
        let bell = Bell { events, commands };
        let (writes, write_jobs) = channel();
        let (reads, read_jobs) = channel();
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).spawn(body).map_err(|source| KvStoreError::Io {
                action: "start a thread for",
                path: options.folder.clone(),
                source,
            })
        };
        let (writer, writer_bell) = (Arc::clone(&files), bell.clone());
        let threads = vec![
            spawn("memos-kv-write", Box::new(move || writer.write_all(&write_jobs, &writer_bell)))?,
            spawn("memos-kv-read", Box::new(move || files.read_all(&read_jobs, &bell)))?,
        ];
        Ok(Self { writes: Some(writes), reads: Some(reads), events: receiver, threads })
    }

    /// Has blocks written.
    pub fn write(&self, unit: UnitId, blocks: Vec<(Arc<BlockInfo>, BlockBytes)>) {
        self.send_write(WriteJob::Write { unit, blocks });
    }

    /// Has a unit's file removed, after what was to be written before.
    pub fn remove(&self, unit: UnitId) {
        self.send_write(WriteJob::Remove(unit));
    }

    /// Has the files removed that were set aside.
    pub fn clear_quarantine(&self) {
        self.send_write(WriteJob::ClearQuarantine);
    }

    /// Has blocks read; the answer may have fewer than asked for.
    pub fn read(&self, load: LoadId, blocks: Vec<(UnitId, u32)>) {
        if let Some(reads) = &self.reads {
            // A thread that is gone answers no load: the engine would wait for it. It only goes when this is dropped.
            let _ = reads.send(ReadJob { load, blocks });
        }
    }

    /// What happened since the last call.
    pub fn take_event(&self) -> Option<DiskEvent> {
        self.events.try_recv().ok()
    }

    /// Waits for the next event, for a time.
    pub fn wait_event(&self, timeout: std::time::Duration) -> Option<DiskEvent> {
        self.events.recv_timeout(timeout).ok()
    }

    fn send_write(&self, job: WriteJob) {
        if let Some(writes) = &self.writes {
            let _ = writes.send(job);
        }
    }
}

impl Drop for DiskTier {
    fn drop(&mut self) {
        self.writes = None;
        self.reads = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the disk tier ended with a panic");
            }
        }
    }
}

impl Files {
    /// Files what is there from before, chains first by their start. What belongs to nobody who is known, or to another
    /// model, is removed.
    fn adopt(&self, mut segments: Vec<SegmentFile>, roots: &HashMap<KvKey, TenantId>, scheduler: &mut Scheduler) {
        segments.sort_by_key(|segment| (segment.header.first_block, segment.header.created_ms));
        let mut known: HashMap<KvKey, Arc<BlockInfo>> = HashMap::new();
        let mut useless = Vec::new();
        for segment in segments {
            let header = &segment.header;
            let is_exact = check_identity(header, &self.identity) == Ok(Exactness::Exact);
            let root = header.keys.as_ref().map(|keys| keys.root);
            let tenant = root.and_then(|root| roots.get(&root).copied()).filter(|_| is_exact);
            let infos = tenant.and_then(|tenant| self.infos_of(&segment, tenant, &mut known));
            match infos.and_then(|infos| scheduler.adopt_from_disk(infos)) {
                Some(unit) => {
                    self.segments().insert(unit, header.id);
                }
                None => useless.push(header.id),
            }
        }
        if let Err(error) = self.store.remove(&useless) {
            tracing::warn!(%error, "KV segments of no use could not be removed");
        }
    }

    fn infos_of(
        &self,
        segment: &SegmentFile,
        tenant: TenantId,
        known: &mut HashMap<KvKey, Arc<BlockInfo>>,
    ) -> Option<Vec<Arc<BlockInfo>>> {
        let header = &segment.header;
        let root = header.keys.as_ref()?.root;
        let tokens = self.store.tokens(header.id).ok()?;
        let block_size = self.identity.block_size as usize;
        let mut last: Option<Arc<BlockInfo>> = None;
        let mut infos = Vec::new();
        for (position, (key, tokens)) in
            block_keys(root, &tokens, block_size).iter().zip(tokens.chunks_exact(block_size)).enumerate()
        {
            let info = known.entry(*key).or_insert_with(|| BlockInfo::new(last.as_ref(), root, tenant, *key, tokens));
            last = Some(Arc::clone(info));
            if position >= header.first_block as usize {
                infos.push(Arc::clone(info));
            }
        }
        Some(infos)
    }

    fn write_all(&self, jobs: &Receiver<WriteJob>, bell: &Bell) {
        for job in jobs {
            match job {
                WriteJob::Write { unit, blocks } => {
                    let ok = match self.write(&blocks) {
                        Ok(segment) => {
                            self.segments().insert(unit, segment);
                            true
                        }
                        Err(error) => {
                            tracing::warn!(%error, "KV blocks were not written");
                            false
                        }
                    };
                    bell.tell(DiskEvent::Written { unit, num_blocks: blocks.len(), ok });
                }
                WriteJob::ClearQuarantine => {
                    if let Err(error) = self.store.clear_quarantine() {
                        tracing::warn!(%error, "damaged KV segments could not be removed");
                    }
                }
                WriteJob::Remove(unit) => {
                    let segment = self.segments().remove(&unit);
                    if let Some(segment) = segment
                        && let Err(error) = self.store.remove(&[segment])
                    {
                        tracing::warn!(%error, "a KV segment could not be removed");
                    }
                }
            }
        }
    }

    fn write(&self, blocks: &[(Arc<BlockInfo>, BlockBytes)]) -> Result<SegmentId, KvStoreError> {
        let (first, last) = (&blocks[0].0, &blocks[blocks.len() - 1].0);
        let tokens = last.chain_tokens();
        let new = NewSegment {
            identity: &self.identity,
            // The root holds the tenant's salt, so the tag changes with it.
            tenant: TenantTag::of_salt(first.root().as_bytes()),
            root: first.root(),
            first_block: first.depth() as u32,
            tokens: &tokens,
            lineage: &Lineage::Unknown,
            created_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis() as u64),
        };
        let bytes: Vec<&[u8]> = blocks.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        self.store.write(&new, &bytes).map(|written| written.header.id)
    }

    fn read_all(&self, jobs: &Receiver<ReadJob>, bell: &Bell) {
        for ReadJob { load, blocks } in jobs {
            let start = Instant::now();
            let blocks = self.read(&blocks);
            bell.tell(DiskEvent::Read { load, blocks, seconds: start.elapsed().as_secs_f64() });
        }
    }

    /// The blocks up to the first that cannot be had.
    fn read(&self, wanted: &[(UnitId, u32)]) -> Vec<BlockBytes> {
        let mut blocks = Vec::with_capacity(wanted.len());
        for &(unit, offset) in wanted {
            let Some(segment) = self.segments().get(&unit).copied() else { break };
            let mut buffer = [vec![0; self.identity.block_bytes]];
            if let Err(error) = self.store.read_blocks(segment, offset..offset + 1, &mut buffer) {
                tracing::warn!(%error, "KV blocks are computed instead of loaded");
                if let KvReadError::File { id, fault } = &error
                    && fault.is_damage()
                {
                    self.store.quarantine(*id, fault);
                }
                break;
            }
            blocks.extend(buffer.map(Arc::new));
        }
        blocks
    }

    fn segments(&self) -> std::sync::MutexGuard<'_, HashMap<UnitId, SegmentId>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
