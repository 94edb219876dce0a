//! Memory of a chat request: recalled before its prompt is made, reported with the answer, and told after it.
//!
//! A turn is told when its answer is complete. One that failed, or whose client went away before its end, is not: a client
//! that did not see the answer asks again, and what was said would be told twice or not as it was meant.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use memory::Clock;
use memory::cube::CubeName;
use memory::governance::{Actor, GovernanceError};
use memory::item::Scope;
use memory::memories::{AddEvent, Added, MemoriesError, MountedCube};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::auth::Caller;
use super::error::ApiError;
use super::fields::quoted;
use super::memory_options::{MemoryOptions, RecallMode, TraceReport, WriteMode};
use super::messages::Conversation;
use super::state::Shared;
use crate::recall::{
    self, MemoryWriting, NUM_MEMORIES_DEFAULT, Recall, RecallRequest, Recaller, Told, query_of, told_turn,
};

/// What a request recalled, and where its turn will be told.
pub struct ChatMemory {
    cubes: Vec<Arc<MountedCube>>,
    recall: Recall,
    /// Whether the memories were looked at as they are.
    is_use: bool,
    trace: TraceReport,
    told: Option<(Actor, Told)>,
}

/// What a request asks for, with the operator's defaults filled in.
struct Plan<'a> {
    cubes: Vec<CubeName>,
    options: Option<&'a MemoryOptions>,
    writes: bool,
}

impl ChatMemory {
    /// Recalls for a conversation; `None` where the request has no memory. At most `room_tokens` tokens are recalled.
    ///
    /// # Errors
    /// A cube is not there for this caller, or its memory failed.
    pub fn recall(
        app: &Shared,
        caller: &Caller,
        options: Option<&MemoryOptions>,
        conversation: &Conversation,
        room_tokens: usize,
    ) -> Result<Option<Self>, ApiError> {
        let actor = actor_of(caller, options)?;
        let Some(plan) = Plan::of(app, options)? else { return Ok(None) };
        let cubes = match plan.cubes(app, &actor) {
            Ok(cubes) => cubes,
            // The operator's cube is not offered to every tenant, and nobody asked for it.
            Err(MemoriesError::NotFound { .. }) if plan.options.is_none_or(|options| options.cubes.is_empty()) => {
                return match options {
                    None => Ok(None),
                    Some(_) => Err(ApiError::Missing { param: "memory.cubes".to_owned() }),
                };
            }
            Err(error) => return Err(ApiError::from(error)),
        };
        let turns = conversation.turns();
        let query = if plan.recalls() { query_of(&turns) } else { None };
        let request = query.map(|query| plan.request(app, query, room_tokens));
        let recall = match &request {
            Some(request) => recall_measured(app, &actor, &cubes, request)?,
            None => Recall::default(),
        };
        let scope = Scope {
            user: actor.user().map(str::to_owned),
            agent: actor.agent().map(str::to_owned),
            session: options.and_then(|options| options.session_id.clone()),
        };
        let told = Told { turns, scope, conversation: String::new(), said_at: Clock::system().now() };
        Ok(Some(Self {
            cubes,
            recall,
            is_use: request.as_ref().is_some_and(RecallRequest::is_of_the_present),
            trace: options.map_or(TraceReport::Omitted, |options| options.trace),
            told: plan.writes.then_some((actor, told)),
        }))
    }

    /// The block for the system turn, where there are memories.
    pub fn block(&self) -> Option<&str> {
        self.recall.block.as_deref()
    }

    /// Memories in the prompt.
    pub fn num_recalled(&self) -> usize {
        self.recall.memories.len()
    }

    /// The engine has taken the prompt: its memories are in use. From here on the answer has this id.
    pub fn submitted(self, app: &Arc<Shared>, answer_id: &str) -> MemoryReport {
        if self.is_use {
            recall::note_use(&self.cubes, &self.recall);
        }
        let recalled = recalled_json(&self.recall, self.trace);
        let cube = self.cubes.into_iter().next();
        let writer = self.told.zip(cube).map(|((actor, told), cube)| TurnWriter {
            app: Arc::clone(app),
            cube,
            actor,
            told: Told { conversation: answer_id.to_owned(), ..told },
            recall: self.recall,
        });
        MemoryReport { recalled, writer }
    }
}

impl<'a> Plan<'a> {
    /// `None`: nothing is recalled and nothing written.
    fn of(app: &Shared, options: Option<&'a MemoryOptions>) -> Result<Option<Self>, ApiError> {
        let defaults = &app.parts.memory_defaults;
        let Some(options) = options else {
            let writes = defaults.writing == MemoryWriting::On;
            return Ok(defaults.cube.clone().map(|cube| Self { cubes: vec![cube], options: None, writes }));
        };
        let writes = options.write == WriteMode::Fast;
        if options.mode == RecallMode::Off && !writes {
            return Ok(None);
        }
        let cubes: Vec<CubeName> = match &options.cubes[..] {
            [] => defaults.cube.iter().cloned().collect(),
            named => named.to_vec(),
        };
        if cubes.is_empty() {
            return Err(ApiError::Missing { param: "memory.cubes".to_owned() });
        }
        Ok(Some(Self { cubes, options: Some(options), writes }))
    }

    fn recalls(&self) -> bool {
        self.options.is_none_or(|options| options.mode == RecallMode::Recall)
    }

    /// The mounted cubes. One that the caller may not know of is as unknown as one that does not exist.
    fn cubes(&self, app: &Shared, actor: &Actor) -> Result<Vec<Arc<MountedCube>>, MemoriesError> {
        let cubes = recall::cubes_named(&app.parts.memories, &self.cubes)?;
        for cube in &cubes {
            if !cube.may_read(actor)? {
                return Err(MemoriesError::NotFound { what: "cube", id: cube.manifest().name.to_string() });
            }
        }
        Ok(cubes)
    }

    fn request(&self, app: &Shared, query: String, room_tokens: usize) -> RecallRequest {
        let defaults = &app.parts.memory_defaults;
        let budget_tokens = self.options.and_then(|options| options.budget_tokens).unwrap_or(defaults.budget_tokens);
        RecallRequest {
            query,
            limit: self.options.and_then(|options| options.limit).unwrap_or(NUM_MEMORIES_DEFAULT),
            budget_tokens: budget_tokens.min(room_tokens),
            as_of: self.options.and_then(|options| options.as_of),
            without: self.options.map(|options| options.without.clone()).unwrap_or_default(),
            instead: self.options.map(|options| options.instead.clone()).unwrap_or_default(),
        }
    }
}

fn actor_of(caller: &Caller, options: Option<&MemoryOptions>) -> Result<Actor, ApiError> {
    let user = options.and_then(|options| options.user_id.as_deref());
    let agent = options.and_then(|options| options.agent_id.as_deref());
    Actor::new(caller.identity.clone(), user, agent).map_err(|error| match error {
        GovernanceError::InvalidScopeName { what, name, max_len } => ApiError::OutOfRange {
            param: format!("memory.{what}_id"),
            allowed: format!("1 to {max_len} bytes without control or invisible characters"),
            got: format!("{:?}", quoted(&name)),
        },
        error => ApiError::from(MemoriesError::from(error)),
    })
}

fn recall_measured(
    app: &Shared,
    actor: &Actor,
    cubes: &[Arc<MountedCube>],
    request: &RecallRequest,
) -> Result<Recall, ApiError> {
    let began = Instant::now();
    let template = &app.parts.memory_defaults.template;
    let recaller = Recaller { actor, plain_text: &app.plain_text, template };
    let recall = recaller.recall(cubes, request).map_err(ApiError::from)?;
    app.metrics.memory.observe_recall(began.elapsed(), recall.memories.len());
    Ok(recall)
}

fn recalled_json(recall: &Recall, report: TraceReport) -> Value {
    let with_trace = |mut entry: Value, trace: &memory::search::trace::ResultTrace| {
        if report == TraceReport::Included {
            entry["trace"] = json!(trace);
        }
        entry
    };
    let recalled: Vec<Value> = recall
        .memories
        .iter()
        .map(|memory| {
            let (id, text) = (memory.item.id, &memory.item.text);
            with_trace(json!({"id": id, "cube": memory.cube, "text": text, "score": memory.score}), &memory.trace)
        })
        .collect();
    let dropped: Vec<Value> = recall
        .dropped
        .iter()
        .map(|dropped| {
            let (id, reason) = (dropped.id, dropped.reason.as_str());
            with_trace(json!({"id": id, "cube": dropped.cube, "reason": reason}), &dropped.trace)
        })
        .collect();
    json!({"recalled": recalled, "dropped": dropped, "num_tokens": recall.num_tokens})
}

/// What the answer says about memory.
pub struct MemoryReport {
    recalled: Value,
    writer: Option<TurnWriter>,
}

impl MemoryReport {
    /// What was recalled.
    pub fn recalled(&self) -> Value {
        self.recalled.clone()
    }

    /// The answer is complete: its turn is told, whoever waits for that. `None` where nothing is to be told.
    pub fn begin_writing(&mut self) -> Option<Writing> {
        let writer = self.writer.take()?;
        Some(Writing(tokio::task::spawn_blocking(move || writer.write())))
    }
}

/// A turn that is being told.
pub struct Writing(JoinHandle<Value>);

impl Writing {
    /// What became of it.
    pub async fn outcome(self) -> Value {
        let died = |_panicked| failed("failed", &ApiError::Task { task: "writing to memory" });
        self.0.await.unwrap_or_else(died)
    }
}

struct TurnWriter {
    app: Arc<Shared>,
    cube: Arc<MountedCube>,
    actor: Actor,
    told: Told,
    recall: Recall,
}

impl TurnWriter {
    /// Tells the turn: kept durably, then written; what fails from then on is tried again by housekeeping.
    fn write(self) -> Value {
        let app = Arc::clone(&self.app);
        let name = self.cube.manifest().name.clone();
        let mut outcome = self.try_write().unwrap_or_else(|error| failed("failed", &ApiError::from(error)));
        let metrics = &app.metrics.memory;
        let counter = match outcome["status"].as_str() {
            Some("written") => &metrics.written,
            Some("nothing") => &metrics.nothing,
            Some("queued") => &metrics.queued,
            _ => &metrics.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        outcome["cube"] = json!(name);
        outcome
    }

    fn try_write(self) -> Result<Value, MemoriesError> {
        let turn = told_turn(self.told, &self.recall)?;
        if turn.items.is_empty() {
            return Ok(json!({"status": "nothing"}));
        }
        let id = self.cube.enqueue_turn(&self.actor, turn)?;
        match self.cube.write_turn(id) {
            Ok(added) => {
                Ok(json!({"status": "written", "items": added.iter().flatten().map(added_json).collect::<Vec<_>>()}))
            }
            Err(error) if error.is_lasting() => Err(error),
            Err(error) => Ok(failed("queued", &ApiError::from(error))),
        }
    }
}

fn added_json(added: &Added) -> Value {
    let (event, superseded) = match &added.event {
        AddEvent::Added => ("added", &[][..]),
        AddEvent::Superseded(old) => ("superseded", old.as_slice()),
        AddEvent::Duplicate => ("duplicate", &[][..]),
    };
    json!({"id": added.item.id, "text": added.item.text, "event": event, "superseded": superseded})
}

fn failed(status: &str, error: &ApiError) -> Value {
    json!({"status": status, "error": error.to_json()["error"]})
}
