//! The memories of a data directory: opened for the server and the command line, and kept in order between requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use memory::Clock;
use memory::cube::CubeName;
use memory::governance::quota::{Quota, QuotaBook};
use memory::governance::redaction::{RedactionConfig, Redactor, SensitiveKind};
use memory::governance::retention::RetentionRules;
use memory::governance::{Actor, AuditKey, GovernanceError, Identity, PolicyEngine, Role};
use memory::memories::{Embedder, Memories, MemoriesError, MemoriesParts, MountedCube, NUM_EMBEDDED_PER_ROUND};

use crate::data_dir::DataDir;

/// Time between two rounds of housekeeping.
const ROUND: Duration = Duration::from_secs(1);
/// How long a cube is left alone after its housekeeping failed: a full disk or an embedder that is away takes a while.
const PAUSE: Duration = Duration::from_secs(10);
/// Time between two lines about one cube's vectors.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// How memories are kept.
pub struct MemoryOptions {
    /// What is blacked out before it is stored; empty: nothing.
    pub redact: Vec<SensitiveKind>,
    /// What each tenant may keep.
    pub quota: Quota,
    /// Policies of the operator, in Cedar's language, beside the built-in ones.
    pub policy_text: Option<String>,
    /// What is archived or erased by age.
    pub retention: RetentionRules,
    /// Turns text into vectors.
    pub embedder: Option<Arc<dyn Embedder>>,
}

impl Default for MemoryOptions {
    /// Secrets and account numbers are blacked out: they are never what a memory is for. Addresses and phone numbers often are.
    fn default() -> Self {
        Self {
            redact: vec![SensitiveKind::Key, SensitiveKind::Card, SensitiveKind::Iban],
            quota: Quota::default(),
            policy_text: None,
            retention: RetentionRules::none(),
            embedder: None,
        }
    }
}

/// Opens the memories of a data directory, with no cube mounted.
///
/// # Errors
/// The policies of the operator cannot be used.
pub fn open(data_dir: &DataDir, options: MemoryOptions) -> Result<Memories, GovernanceError> {
    let policy = match &options.policy_text {
        None => PolicyEngine::builtin(),
        Some(text) => PolicyEngine::with_operator_policies(text)?,
    };
    let redactor = (!options.redact.is_empty()).then(|| Redactor::new(&RedactionConfig { kinds: options.redact }));
    Ok(Memories::new(MemoriesParts {
        folder: data_dir.cubes_folder(),
        heads_folder: data_dir.heads_folder(),
        clock: Clock::system(),
        policy,
        audit_key: AuditKey::from_seed(&data_dir.audit_seed()),
        quotas: QuotaBook::new(options.quota, HashMap::new()),
        redactor,
        retention: options.retention,
        embedder: options.embedder,
    }))
}

/// Whether a cube was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provision {
    /// It was.
    Found,
    /// It was made.
    Made,
}

/// Why a cube that is to be used by default is not.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// It is not there, and nobody in particular is to own it.
    #[error("there is no cube {name}: make it for the tenant that is to own it, or name another")]
    NoOwner {
        /// Its name.
        name: CubeName,
    },
    /// It cannot be mounted or made.
    #[error("the cube {name} cannot be used: {source}")]
    Memories {
        /// Its name.
        name: CubeName,
        /// Why.
        source: MemoriesError,
    },
}

/// Makes sure that a cube is mounted, and makes it for this tenant if it does not exist.
///
/// # Errors
/// It does not exist and there is no tenant to make it for, or it cannot be opened.
pub fn mounted_or_made(memories: &Memories, name: &CubeName, owner: Option<&str>) -> Result<Provision, ProvisionError> {
    if memories.cube(name).is_ok() {
        return Ok(Provision::Found);
    }
    let failed = |source| ProvisionError::Memories { name: name.clone(), source };
    let tenant =
        owner.and_then(|owner| owner.parse().ok()).ok_or_else(|| ProvisionError::NoOwner { name: name.clone() })?;
    let actor = Actor::of_tenant(Identity { tenant, role: Role::Admin });
    match memories.mount(&actor, name) {
        Ok(_mounted) => Ok(Provision::Found),
        Err(MemoriesError::NotFound { .. }) => {
            memories.create(&actor, name.clone()).map_err(failed)?;
            Ok(Provision::Made)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The thread that keeps all mounted cubes in order, until it is stopped.
pub struct Housekeeper {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Housekeeper {
    /// Starts it. `forget` is called after retention has erased memories: it drops what was computed over them.
    pub fn start(memories: Arc<Memories>, forget: impl Fn() + Send + 'static) -> Self {
        let (stop, stopped) = mpsc::channel();
        let keep = move || {
            let mut rounds = Rounds::default();
            let mut wait = ROUND;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                wait = rounds.next(&memories, &forget);
            }
        };
        Self { stop, thread: std::thread::spawn(keep) }
    }

    /// Ends it after the round that is under way.
    pub fn stop(self) {
        // A thread that is gone needs no message.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

/// What the housekeeper remembers from round to round.
#[derive(Default)]
struct Rounds {
    /// Cubes that failed, with when they are looked at again.
    failed: HashMap<CubeName, Instant>,
    /// Cubes whose memories are being embedded.
    embedding: HashMap<CubeName, Progress>,
}

struct Progress {
    num_done: usize,
    told: Instant,
}

impl Rounds {
    /// One round over all cubes; returns how long to wait for the next one.
    fn next(&mut self, memories: &Memories, forget: &dyn Fn()) -> Duration {
        let mut wait = ROUND;
        let mut num_erased = 0;
        for cube in memories.mounted() {
            let name = &cube.manifest().name;
            if self.failed.get(name).is_some_and(|until| Instant::now() < *until) {
                continue;
            }
            let kept = cube.housekeep();
            // A round that failed may have erased something before.
            num_erased += cube.take_erased_by_retention();
            match kept {
                Ok(done) => {
                    self.failed.remove(name);
                    self.tell_progress(&cube, done.num_embedded);
                    if done.turns.num_failed > 0 {
                        let num_turns = done.turns.num_failed;
                        tracing::warn!(cube = %name, num_turns, "turns of conversations could not be written; they are tried again");
                    }
                    if done.num_embedded >= NUM_EMBEDDED_PER_ROUND {
                        // There is more to embed, and whoever searches waits for it.
                        wait = Duration::ZERO;
                    }
                }
                Err(error) => {
                    tracing::error!(cube = %name, %error, "housekeeping failed; it is tried again in {} s", PAUSE.as_secs());
                    self.failed.insert(name.clone(), Instant::now() + PAUSE);
                }
            }
        }
        if num_erased > 0 {
            forget();
        }
        wait
    }

    /// Says every few seconds how far a cube's vectors are, and when they are complete.
    fn tell_progress(&mut self, cube: &MountedCube, num_embedded: usize) {
        let name = &cube.manifest().name;
        if num_embedded == 0 {
            if let Some(progress) = self.embedding.remove(name) {
                tracing::info!(cube = %name, memories = progress.num_done, "all memories have vectors");
            }
            return;
        }
        let begin = || Progress { num_done: 0, told: Instant::now() };
        let progress = self.embedding.entry(name.clone()).or_insert_with(begin);
        progress.num_done += num_embedded;
        if progress.told.elapsed() >= PROGRESS_INTERVAL {
            progress.told = Instant::now();
            let missing = cube.num_without_vector();
            tracing::info!(cube = %name, done = progress.num_done, missing, "memories are getting vectors");
        }
    }
}
