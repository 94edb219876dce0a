//! The memories of a data directory: opened for the server and the command line, and kept in order between requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use memory::Clock;
use memory::governance::quota::{Quota, QuotaBook};
use memory::governance::redaction::{RedactionConfig, Redactor, SensitiveKind};
use memory::governance::retention::RetentionRules;
use memory::governance::{AuditKey, GovernanceError, PolicyEngine};
use memory::memories::{Embedder, Memories, MemoriesParts};

use crate::data_dir::DataDir;

/// Time between two rounds of housekeeping.
const ROUND: Duration = Duration::from_secs(1);

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

/// The thread that keeps all mounted cubes in order, until it is stopped.
pub struct Housekeeper {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Housekeeper {
    /// Starts it.
    pub fn start(memories: Arc<Memories>) -> Self {
        let (stop, stopped) = mpsc::channel();
        let keep = move || {
            while stopped.recv_timeout(ROUND) == Err(RecvTimeoutError::Timeout) {
                for cube in memories.mounted() {
                    if let Err(error) = cube.housekeep() {
                        tracing::error!(cube = %cube.manifest().name, %error, "housekeeping failed; it is tried again");
                    }
                }
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
