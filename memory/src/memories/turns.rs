//! Turns of conversations that are to become memories: kept in the cube's outbox from the answer on until they are stored.
//!
//! What a turn told is enqueued durably before its answer is called complete, and written at once by whoever enqueued it.
//! When that fails, or the process dies in between, housekeeping writes it later. A turn is written once: its memories and
//! the end of its task are one transaction.

use serde::{Deserialize, Serialize};

use super::add::{AddOptions, Added, Contradictions, Duplicates};
use super::mounted::MountedCube;
use super::{MemoriesError, NUM_ADDED_MAX};
use crate::governance::{Action, Actor, GovernanceError, Identity, Role, TenantName};
use crate::item::NewItem;
use crate::store::{StoreError, Task};
use crate::{ItemId, Timestamp};

/// Kind of these tasks in the outbox.
const TASK_KIND: &str = "turn";
/// How long one attempt may take before another one is made: it may have to wait for an embedder.
const ATTEMPT_MS_MAX: i64 = 30_000;
/// The first wait after a failed attempt; each further one is twice as long…
const RETRY_MS_MIN: i64 = 1_000;
/// …up to an hour.
const RETRY_MS_MAX: i64 = 3_600_000;
/// Turns that one round of housekeeping writes.
const NUM_PER_ROUND: usize = 64;
/// The reason in the versions and in the audit log.
const REASON: &str = "told in a conversation";

/// What a finished turn of a conversation told.
#[derive(Debug, Clone, PartialEq)]
pub struct ToldTurn {
    /// The memories that it makes.
    pub items: Vec<NewItem>,
    /// The memories that were in its prompt. When one of them is erased before the turn is written, the turn goes with it:
    /// it may repeat what was erased.
    pub recalled: Vec<ItemId>,
}

/// A turn in the outbox of one cube.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnId(i64);

/// What housekeeping did with the turns that were due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TurnsWritten {
    /// They are memories now.
    pub num_written: usize,
    /// They are tried again later, or were given up.
    pub num_failed: usize,
}

/// A turn as the outbox has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    tenant: TenantName,
    role: Role,
    user: Option<String>,
    agent: Option<String>,
    items: Vec<NewItem>,
    recalled: Vec<ItemId>,
}

impl Payload {
    fn actor(&self) -> Result<Actor, GovernanceError> {
        let identity = Identity { tenant: self.tenant.clone(), role: self.role };
        Actor::new(identity, self.user.as_deref(), self.agent.as_deref())
    }
}

impl MountedCube {
    /// Keeps what a turn told until it is written. When this returns it is durable. The caller writes it next, with
    /// [`MountedCube::write_turn`]; for the first half a minute nobody else does.
    ///
    /// # Errors
    /// The actor may not write here or not in that scope, the turn is too large, the outbox is full, or the store fails.
    pub fn enqueue_turn(&self, actor: &Actor, turn: ToldTurn) -> Result<TurnId, MemoriesError> {
        if turn.items.len() > NUM_ADDED_MAX {
            return Err(MemoriesError::TooMany { what: "memories", found: turn.items.len(), limit: NUM_ADDED_MAX });
        }
        super::add::check_scopes(&self.permit(actor, Action::WriteItems)?, &turn.items)?;
        let payload = Payload {
            tenant: actor.tenant().clone(),
            role: actor.role(),
            user: actor.user().map(str::to_owned),
            agent: actor.agent().map(str::to_owned),
            items: self.redacted(turn.items),
            recalled: turn.recalled,
        };
        let payload = serde_json::to_value(&payload).map_err(StoreError::step)?;
        let mut task = 0;
        self.change_unrecorded(|tx| {
            task = tx.enqueue_taken(TASK_KIND, &payload, later(tx.now(), ATTEMPT_MS_MAX))?;
            Ok(Vec::new())
        })?;
        Ok(TurnId(task))
    }

    /// Writes a turn that was enqueued: what it told is durable and searchable when this returns. Near duplicates of
    /// what is known are left out, and what is contradicted ceases to be valid. `None`: it was written already, or it
    /// was erased together with a memory that it was told with.
    ///
    /// # Errors
    /// Those of [`MountedCube::add`]. The turn is tried again by housekeeping, unless it is refused for good.
    pub fn write_turn(&self, turn: TurnId) -> Result<Option<Vec<Added>>, MemoriesError> {
        match self.read(|reader| Ok(reader.task(turn.0)?))? {
            Some(task) => self.write_task(task),
            None => Ok(None),
        }
    }

    /// Writes the turns that an earlier failure or a crash left behind.
    ///
    /// # Errors
    /// The outbox cannot be read or written. What goes wrong with one turn is noted with that turn.
    pub(super) fn write_due_turns(&self) -> Result<TurnsWritten, MemoriesError> {
        let mut done = TurnsWritten::default();
        let now = self.now();
        // Most rounds find nothing: they only read.
        if !self.read(|reader| Ok(reader.has_due_task(TASK_KIND, now)?))? {
            return Ok(done);
        }
        let mut tasks = Vec::new();
        self.change_unrecorded(|tx| {
            tasks = tx.take_tasks(TASK_KIND, now, later(now, ATTEMPT_MS_MAX), NUM_PER_ROUND)?;
            Ok(Vec::new())
        })?;
        for task in tasks {
            match self.write_task(task) {
                Ok(_written) => done.num_written += 1,
                Err(_noted) => done.num_failed += 1,
            }
        }
        Ok(done)
    }

    fn write_task(&self, task: Task) -> Result<Option<Vec<Added>>, MemoriesError> {
        let (id, num_attempts) = (task.id, task.num_attempts);
        match self.add_turn(task) {
            Ok(added) => Ok(added),
            Err(error) => {
                // The attempt was counted when it was taken: where its failure cannot be noted, it is made again all the same.
                let _ = self.note_failure(id, num_attempts, &error);
                Err(error)
            }
        }
    }

    fn add_turn(&self, task: Task) -> Result<Option<Vec<Added>>, MemoriesError> {
        let payload: Payload = serde_json::from_value(task.payload).map_err(|error| {
            MemoriesError::Store(StoreError::Damaged {
                reason: format!("the turn in task {} is not one: {error}", task.id),
            })
        })?;
        let actor = payload.actor()?;
        let options = AddOptions {
            duplicates: Duplicates::SkipNear,
            contradictions: Contradictions::Supersede,
            reason: Some(REASON),
        };
        let gone = || MemoriesError::NotFound { what: "turn", id: task.id.to_string() };
        let added = self.add_and("item.add", &actor, payload.items, options, |tx| {
            // Whoever else wrote or erased it did so in one transaction, too.
            tx.task(task.id)?.ok_or_else(gone)?;
            Ok(tx.complete_task(task.id)?)
        });
        match added {
            Ok(added) => Ok(Some(added)),
            Err(MemoriesError::NotFound { what: "turn", .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn note_failure(&self, task: i64, num_attempts: u32, error: &MemoriesError) -> Result<(), MemoriesError> {
        let message = error.to_string();
        self.change_unrecorded(|tx| {
            if error.is_lasting() {
                // What may not be written is not kept either.
                tx.complete_task(task)?;
            } else if tx.task(task)?.is_some() {
                tx.fail_task(task, &message, later(tx.now(), wait_ms(num_attempts)))?;
            }
            Ok(Vec::new())
        })
    }
}

impl MemoriesError {
    /// Whether another attempt to write the same turn would fail in the same way.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::NotFound { .. } | Self::TooMany { .. } => true,
            Self::Governance(error) => matches!(
                error,
                GovernanceError::Forbidden { .. }
                    | GovernanceError::NotFound { .. }
                    | GovernanceError::InvalidScopeName { .. }
            ),
            Self::Store(error) => matches!(
                error,
                StoreError::Damaged { .. }
                    | StoreError::Empty { .. }
                    | StoreError::TooLong { .. }
                    | StoreError::ControlCharacter { .. }
            ),
            _ => false,
        }
    }
}

/// The wait after this many attempts.
fn wait_ms(num_attempts: u32) -> i64 {
    RETRY_MS_MIN.saturating_mul(1 << num_attempts.saturating_sub(1).min(20)).min(RETRY_MS_MAX)
}

/// A moment this much later; the moment itself at the end of time.
fn later(moment: Timestamp, ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(moment.unix_ms().saturating_add(ms)).unwrap_or(moment)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
    use std::sync::{Arc, LazyLock};

    use super::*;
    use crate::Clock;
    use crate::governance::quota::{Quota, QuotaBook};
    use crate::governance::retention::RetentionRules;
    use crate::governance::{AuditKey, PolicyEngine};
    use crate::memories::{EmbedError, Embedder, Memories, MemoriesParts, Purpose, SearchRequest};
    use crate::search::vectors::EmbedderId;

    static SPACE: LazyLock<EmbedderId> = LazyLock::new(|| EmbedderId::new("constant").expect("a name"));

    /// Fails until it is told not to.
    struct Flaky(AtomicBool);

    impl Embedder for Flaky {
        fn id(&self) -> &EmbedderId {
            &SPACE
        }

        fn dim(&self) -> usize {
            2
        }

        fn embed(&self, texts: &[&str], _purpose: Purpose) -> Result<Vec<Vec<f32>>, EmbedError> {
            if self.0.load(Ordering::Relaxed) {
                return Err(EmbedError("it is not there".to_owned()));
            }
            Ok(texts.iter().map(|_| vec![1.0, 0.0]).collect())
        }
    }

    struct Bench {
        folder: tempfile::TempDir,
        now_ms: Arc<AtomicI64>,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("temporary folder");
            for name in ["cubes", "heads"] {
                std::fs::create_dir(folder.path().join(name)).expect("a folder");
            }
            Self { folder, now_ms: Arc::new(AtomicI64::new(1_800_000_000_000)) }
        }

        fn memories(&self, embedder: Option<Arc<dyn Embedder>>) -> Memories {
            let now = Arc::clone(&self.now_ms);
            let at = |name: &str| Path::new(self.folder.path()).join(name);
            Memories::new(MemoriesParts {
                folder: at("cubes"),
                heads_folder: at("heads"),
                clock: Clock::from_fn(move || {
                    Timestamp::from_unix_ms(now.fetch_add(1, Ordering::Relaxed)).expect("a moment")
                }),
                policy: PolicyEngine::builtin(),
                audit_key: AuditKey::from_seed(&[7; 32]),
                quotas: QuotaBook::new(Quota::default(), HashMap::new()),
                redactor: None,
                retention: RetentionRules::none(),
                embedder,
            })
        }

        fn wait(&self, ms: i64) {
            self.now_ms.fetch_add(ms, Ordering::Relaxed);
        }
    }

    fn ann() -> Actor {
        Actor::of_tenant(Identity { tenant: "acme".parse().expect("a tenant"), role: Role::Admin })
    }

    fn turn(text: &str, recalled: Vec<ItemId>) -> ToldTurn {
        ToldTurn { items: vec![NewItem::fact(text)], recalled }
    }

    fn found(cube: &MountedCube, query: &str) -> Vec<String> {
        let answer = cube.search(&ann(), &SearchRequest::new(query, 10)).expect("searched");
        answer.results.into_iter().map(|found| found.item.text).collect()
    }

    #[test]
    fn a_turn_is_written_once_and_supersedes() {
        let bench = Bench::new();
        let memories = bench.memories(None);
        let cube = memories.create(&ann(), "chat".parse().expect("a name")).expect("made");
        for text in ["Zorvan lives in Oslo", "Zorvan lives in Bergen"] {
            let id = cube.enqueue_turn(&ann(), turn(text, Vec::new())).expect("kept");
            let added = cube.write_turn(id).expect("written").expect("news");
            assert_eq!(added[0].item.text, text);
            assert_eq!(cube.write_turn(id).expect("no error"), None);
        }
        assert_eq!(found(&cube, "Where does Zorvan live?"), ["Zorvan lives in Bergen"]);
        assert_eq!(cube.inspect(&ann()).expect("facts").counts.num_tasks, 0);
    }

    #[test]
    fn what_a_crash_left_in_the_outbox_is_written_after_the_restart() {
        let bench = Bench::new();
        let memories = bench.memories(None);
        let name = "chat".parse().expect("a name");
        let cube = memories.create(&ann(), name).expect("made");
        cube.enqueue_turn(&ann(), turn("The lab code is 4417", Vec::new())).expect("kept");
        // The process ends here.
        drop((cube, memories));
        let memories = bench.memories(None);
        assert!(memories.mount_all().expect("mounted").is_empty());
        let cube = memories.mounted().pop().expect("one");
        assert!(found(&cube, "lab code").is_empty());
        assert_eq!(cube.write_due_turns().expect("nothing is due"), TurnsWritten::default());
        bench.wait(ATTEMPT_MS_MAX);
        assert_eq!(cube.housekeep().expect("kept").turns.num_written, 1);
        assert_eq!(found(&cube, "lab code"), ["The lab code is 4417"]);
        assert_eq!(cube.housekeep().expect("kept").turns.num_written, 0);
    }

    #[test]
    fn a_failed_turn_is_tried_again_until_it_succeeds() {
        let bench = Bench::new();
        let embedder = Arc::new(Flaky(AtomicBool::new(true)));
        let memories = bench.memories(Some(Arc::clone(&embedder) as Arc<dyn Embedder>));
        let cube = memories.create(&ann(), "chat".parse().expect("a name")).expect("made");
        let id = cube.enqueue_turn(&ann(), turn("The lab code is 4417", Vec::new())).expect("kept");
        assert!(matches!(cube.write_turn(id), Err(MemoriesError::Embedder { .. })));
        bench.wait(RETRY_MS_MIN);
        assert_eq!(cube.write_due_turns().expect("tried"), TurnsWritten { num_written: 0, num_failed: 1 });
        embedder.0.store(false, Ordering::Relaxed);
        assert_eq!(cube.write_due_turns().expect("nothing is due"), TurnsWritten::default());
        bench.wait(2 * RETRY_MS_MIN);
        assert_eq!(cube.write_due_turns().expect("tried"), TurnsWritten { num_written: 1, num_failed: 0 });
        assert_eq!(found(&cube, "lab code"), ["The lab code is 4417"]);
    }

    #[test]
    fn a_turn_goes_with_an_erased_memory_that_it_was_told_with() {
        let bench = Bench::new();
        let memories = bench.memories(None);
        let cube = memories.create(&ann(), "chat".parse().expect("a name")).expect("made");
        let old = cube.add(&ann(), vec![NewItem::fact("The lab code is 4417")], AddOptions::default()).expect("added");
        let old = old[0].item.id;
        let id = cube.enqueue_turn(&ann(), turn("The lab code is 4417 still", vec![old])).expect("kept");
        cube.erase(&ann(), &[old], None).expect("erased");
        assert_eq!(cube.write_turn(id).expect("no error"), None);
        assert!(found(&cube, "lab code").is_empty());
    }

    #[test]
    fn nobody_enqueues_where_they_may_not_write() {
        let bench = Bench::new();
        let memories = bench.memories(None);
        let cube = memories.create(&ann(), "chat".parse().expect("a name")).expect("made");
        let eve = Actor::of_tenant(Identity { tenant: "evil".parse().expect("a tenant"), role: Role::Admin });
        assert!(cube.enqueue_turn(&eve, turn("x is y", Vec::new())).is_err());
        assert_eq!(cube.inspect(&ann()).expect("facts").counts.num_tasks, 0);
    }

    #[test]
    fn waits_double_up_to_an_hour() {
        assert_eq!([1, 2, 3].map(wait_ms), [1_000, 2_000, 4_000]);
        assert_eq!(wait_ms(u32::MAX), RETRY_MS_MAX);
    }
}
