//! The engine thread's loop: take submissions, drop cancelled clients, plan, compute, sample, commit, tell.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use kernels::{Device, KvPool};
use models::{Model, ModelError, Sampler, TokenLogprob, log_softmax_top};
use scheduler::{
    AddError, Decision, NewSequence, PlannedSequence, Sampled, Scheduler, SequenceId, StepPlan, Then, Tier, Yield,
};
use tokio::sync::{mpsc, oneshot};

use super::inputs::{LogitRows, PlannedRows, StepInputs};
use super::request::{Cached, EngineError, EngineEvent, FinishReason, GenerateRequest, PromptLogprobs, Reset};
use super::stats::EngineStats;
use super::tiers::TierBytes;

/// Advice in `Retry-After` when nothing has finished yet.
const RETRY_AFTER_DEFAULT_S: u64 = 1;
/// Longest advice in `Retry-After`.
const RETRY_AFTER_MAX_S: u64 = 60;

/// One sequence on its way in.
pub(super) struct Submission {
    pub request: GenerateRequest,
    pub sequence: NewSequence,
    pub events: mpsc::UnboundedSender<EngineEvent>,
}

/// What the rest of the process may ask of the thread.
pub(super) enum Command {
    Submit {
        submissions: Vec<Submission>,
        reply: oneshot::Sender<Result<(), EngineError>>,
    },
    ClearCache {
        reply: oneshot::Sender<usize>,
    },
    Reset {
        what: Reset,
        reply: oneshot::Sender<usize>,
    },
    /// Save everything, and answer when it is written.
    Flush {
        reply: oneshot::Sender<()>,
    },
    Decisions {
        reply: oneshot::Sender<Vec<Decision>>,
    },
    /// There is an event of the disk tier to pick up.
    Wake,
    Shutdown,
}

/// What the thread remembers of a sequence beside what the scheduler knows.
///
/// The event channel has no limit of its own: it holds at most `max_tokens + 2` events.
struct Stream {
    events: mpsc::UnboundedSender<EngineEvent>,
    sampler: Sampler,
    stop_tokens: Vec<u32>,
    num_logprobs: Option<usize>,
    prompt_len: usize,
    max_tokens: usize,
    num_generated: usize,
    /// Set when the sequence is first admitted; what it finds after a preemption is its own work.
    cached: Option<Cached>,
    prompt_logprobs: Option<PromptRows>,
}

/// Log-probabilities of a prompt, gathered over the steps that compute it.
struct PromptRows {
    num_top: usize,
    rows: Vec<Option<TokenLogprob>>,
}

/// What a sequence's last row led to.
enum Outcome {
    /// A token, and more to come.
    Next(u32),
    /// The last token.
    Last(u32, FinishReason),
    /// No token was asked for.
    PromptOnly,
    /// The logits were unusable.
    Failed(ModelError),
}

/// Whether the loop goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

/// Owner of scheduler, model and KV pool.
pub(super) struct EngineThread {
    device: Device,
    model: Model,
    pool: KvPool,
    scheduler: Scheduler,
    tiers: TierBytes,
    /// The last step had nothing to compute.
    is_stalled: bool,
    block_size: usize,
    commands: mpsc::Receiver<Command>,
    streams: HashMap<SequenceId, Stream>,
    inputs: StepInputs,
    stats: EngineStats,
    published: Arc<Mutex<EngineStats>>,
    started: Instant,
    num_finished: u64,
}

impl EngineThread {
    pub fn new(
        device: Device,
        model: Model,
        pool: KvPool,
        scheduler: Scheduler,
        tiers: TierBytes,
        commands: mpsc::Receiver<Command>,
        published: Arc<Mutex<EngineStats>>,
    ) -> Self {
        Self {
            block_size: pool.shape().block_size,
            device,
            model,
            pool,
            scheduler,
            tiers,
            is_stalled: false,
            commands,
            streams: HashMap::new(),
            inputs: StepInputs::default(),
            stats: EngineStats::default(),
            published,
            started: Instant::now(),
            num_finished: 0,
        }
    }

    /// Runs until it is told to stop or every handle is gone.
    pub fn run(mut self) {
        while self.take_commands() == Flow::Continue {
            self.drop_cancelled();
            self.tiers.advance(&mut self.pool, &mut self.scheduler, !self.is_stalled);
            self.step();
            self.publish();
        }
        self.tiers.flush(&self.pool, &mut self.scheduler);
        for stream in self.streams.into_values() {
            // A client that is gone needs no answer.
            let _ = stream.events.send(EngineEvent::Failed(EngineError::ShuttingDown));
        }
    }

    /// Sleeps while there is nothing to do; between steps only takes what is already there.
    fn take_commands(&mut self) -> Flow {
        let is_idle = self.scheduler.is_idle();
        let waits_for_loads = self.is_stalled && self.scheduler.is_loading() && !self.tiers.can_advance();
        let saves = is_idle && self.tiers.save_some(&self.pool, &mut self.scheduler);
        if !saves && ((is_idle && !self.scheduler.is_loading()) || waits_for_loads) {
            self.publish();
            match self.commands.blocking_recv() {
                Some(command) => {
                    if self.obey(command) == Flow::Stop {
                        return Flow::Stop;
                    }
                }
                None => return Flow::Stop,
            }
        }
        loop {
            match self.commands.try_recv() {
                Ok(command) => {
                    if self.obey(command) == Flow::Stop {
                        return Flow::Stop;
                    }
                }
                Err(mpsc::error::TryRecvError::Empty) => return Flow::Continue,
                Err(mpsc::error::TryRecvError::Disconnected) => return Flow::Stop,
            }
        }
    }

    fn obey(&mut self, command: Command) -> Flow {
        match command {
            Command::Submit { submissions, reply } => {
                let result = self.accept(submissions);
                // A caller that stopped waiting has dropped its generations too: they are cancelled before the step.
                let _ = reply.send(result);
                Flow::Continue
            }
            Command::ClearCache { reply } => {
                let num_blocks = self.scheduler.clear_cache(None);
                self.tiers.clear_quarantine();
                self.carry_out_rest();
                // Whoever asked may have gone; the blocks are free all the same.
                let _ = reply.send(num_blocks);
                Flow::Continue
            }
            Command::Reset { what, reply } => {
                let num_blocks = match what {
                    Reset::ForgetDevice => self.scheduler.clear_device(),
                    Reset::ForgetMemory => {
                        let num_blocks = self.scheduler.clear_device() + self.scheduler.clear_host();
                        self.carry_out_rest();
                        num_blocks
                    }
                    Reset::SwapOut => {
                        let (num_blocks, plan) = self.scheduler.evict_device();
                        self.tiers.carry_out(plan, &self.pool, &mut self.scheduler);
                        num_blocks
                    }
                };
                let _ = reply.send(num_blocks);
                Flow::Continue
            }
            Command::Flush { reply } => {
                self.tiers.flush(&self.pool, &mut self.scheduler);
                let _ = reply.send(());
                Flow::Continue
            }
            Command::Decisions { reply } => {
                let _ = reply.send(self.scheduler.decisions().copied().collect());
                Flow::Continue
            }
            Command::Wake => Flow::Continue,
            Command::Shutdown => Flow::Stop,
        }
    }

    /// Carries out what came up outside of a step.
    fn carry_out_rest(&mut self) {
        let plan = self.scheduler.take_transfers();
        self.tiers.carry_out(plan, &self.pool, &mut self.scheduler);
    }

    /// Queues all of them or none.
    fn accept(&mut self, submissions: Vec<Submission>) -> Result<(), EngineError> {
        let mut accepted = Vec::with_capacity(submissions.len());
        for submission in submissions {
            let Submission { request, sequence, events } = submission;
            let sampler = match Sampler::new(request.sampling.clone(), &request.prompt, self.model.config().vocab_size)
            {
                Ok(sampler) => sampler,
                Err(error) => {
                    self.take_back(&accepted);
                    return Err(EngineError::StepFailed { reason: error.to_string() });
                }
            };
            match self.scheduler.add(sequence) {
                Ok(id) => {
                    self.streams.insert(id, Stream::new(request, sampler, events));
                    accepted.push(id);
                }
                Err(error) => {
                    self.take_back(&accepted);
                    return Err(self.refusal(&error, &request));
                }
            }
        }
        Ok(())
    }

    fn take_back(&mut self, accepted: &[SequenceId]) {
        for id in accepted {
            self.scheduler.cancel(*id);
            self.streams.remove(id);
        }
    }

    fn refusal(&self, error: &AddError, request: &GenerateRequest) -> EngineError {
        match *error {
            AddError::QueueFull { max_waiting: limit }
            | AddError::TenantQueueFull { max_waiting_per_tenant: limit, .. } => {
                EngineError::QueueFull { limit, retry_after_s: self.retry_after_s() }
            }
            AddError::TooLong { num_blocks, .. } => EngineError::TooLong {
                prompt_tokens: request.prompt.len(),
                max_tokens: request.max_tokens,
                limit: num_blocks * self.block_size,
            },
            AddError::EmptyPrompt => EngineError::EmptyPrompt,
            AddError::WrongKeyCount { .. } => unreachable!("the handle hashes every full block: this is a bug"),
        }
    }

    /// How long the queue takes at the average rate since start.
    fn retry_after_s(&self) -> u64 {
        let waiting = self.scheduler.stats().num_waiting as f64;
        if self.num_finished == 0 {
            return RETRY_AFTER_DEFAULT_S;
        }
        let per_request_s = self.started.elapsed().as_secs_f64() / self.num_finished as f64;
        ((waiting * per_request_s).ceil() as u64).clamp(RETRY_AFTER_DEFAULT_S, RETRY_AFTER_MAX_S)
    }

    /// A client that went away dropped its receiver.
    fn drop_cancelled(&mut self) {
        let gone: Vec<SequenceId> =
            self.streams.iter().filter(|(_id, stream)| stream.events.is_closed()).map(|(id, _stream)| *id).collect();
        for id in gone {
            self.scheduler.cancel(id);
            self.streams.remove(&id);
            self.stats.cancelled += 1;
        }
    }

    fn step(&mut self) {
        let mut plan = self.scheduler.schedule();
        let transfers = std::mem::take(&mut plan.transfers);
        if !transfers.is_empty() {
            self.tiers.carry_out(transfers, &self.pool, &mut self.scheduler);
        }
        self.is_stalled = plan.is_empty();
        if plan.is_empty() {
            self.scheduler.revert(plan);
            return;
        }
        let logits_of = self.fill_inputs(&plan);
        let start = Instant::now();
        let result = self.model.forward(&self.device, &self.inputs.as_batch(), &mut self.pool);
        let forward_s = start.elapsed().as_secs_f64();
        self.stats.forward_s += forward_s;
        self.stats.num_steps += 1;
        let logits = match result {
            Ok(logits) => logits,
            Err(error) => {
                let reason = error.to_string();
                return self.fail_step(plan, &reason);
            }
        };
        self.scheduler.observe_step(&plan, forward_s);
        self.stats.num_rows += self.inputs.num_rows() as u64;
        let mut outcomes = Vec::with_capacity(plan.sequences.len());
        for (planned, rows) in plan.sequences.iter().zip(logits_of) {
            let Some(stream) = self.streams.get_mut(&planned.id) else { continue };
            let Some(sequence) = self.scheduler.sequence(planned.id) else { continue };
            stream.note(planned, sequence.tokens(), logits, rows.clone());
            if planned.yields_token == Yield::Nothing {
                continue;
            }
            let outcome = stream.advance(logits.row(rows.end - 1));
            self.stats.generated_tokens += u64::from(matches!(outcome, Outcome::Next(_) | Outcome::Last(..)));
            outcomes.push((planned.id, outcome));
        }
        self.finish_step(plan, outcomes);
    }

    fn fill_inputs(&mut self, plan: &StepPlan) -> Vec<std::ops::Range<usize>> {
        self.inputs.clear();
        let mut logits_of = Vec::with_capacity(plan.sequences.len());
        for planned in &plan.sequences {
            let sequence = self.scheduler.sequence(planned.id).expect("a planned sequence is known: this is a bug");
            let stream = self.streams.get_mut(&planned.id).expect("a planned sequence has a stream: this is a bug");
            if let Some(admission) = &planned.admitted {
                stream.cached.get_or_insert(Cached::of(*admission, planned.loaded));
            }
            let rows = PlannedRows {
                tokens: sequence.tokens(),
                range: planned.start..planned.start + planned.num_tokens,
                block_table: sequence.block_table(),
                logit_rows: stream.logit_rows(planned),
            };
            logits_of.push(self.inputs.push(&rows, self.block_size));
        }
        logits_of
    }

    fn finish_step(&mut self, plan: StepPlan, outcomes: Vec<(SequenceId, Outcome)>) {
        // A sequence that ends is never computed again, so what stands behind its last row does not matter.
        let sampled = |(id, outcome): &(SequenceId, Outcome)| match *outcome {
            Outcome::Next(token) => Sampled { id: *id, token, then: Then::Continue },
            Outcome::Last(token, _reason) => Sampled { id: *id, token, then: Then::Finish },
            Outcome::PromptOnly | Outcome::Failed(_) => Sampled { id: *id, token: 0, then: Then::Finish },
        };
        self.scheduler.commit(plan, &outcomes.iter().map(sampled).collect::<Vec<_>>());
        for (id, outcome) in outcomes {
            match outcome {
                Outcome::Next(_token) => continue,
                Outcome::Last(_token, reason) => self.end(id, EngineEvent::Finished { reason }),
                Outcome::PromptOnly => self.end(id, EngineEvent::Finished { reason: FinishReason::Length }),
                Outcome::Failed(error) => {
                    let reason = error.to_string();
                    self.end(id, EngineEvent::Failed(EngineError::StepFailed { reason }));
                }
            }
            self.num_finished += 1;
        }
    }

    /// The forward pass failed: nothing was computed, and every request of the step is answered with the reason.
    fn fail_step(&mut self, plan: StepPlan, reason: &str) {
        self.stats.failed_steps += 1;
        let ids: Vec<SequenceId> = plan.sequences.iter().map(|planned| planned.id).collect();
        self.scheduler.revert(plan);
        for id in ids {
            self.scheduler.cancel(id);
            self.end(id, EngineEvent::Failed(EngineError::StepFailed { reason: reason.to_owned() }));
        }
    }

    fn end(&mut self, id: SequenceId, event: EngineEvent) {
        if let Some(stream) = self.streams.remove(&id) {
            // A client that is gone needs no answer.
            let _ = stream.events.send(event);
        }
    }

    fn publish(&mut self) {
        self.stats.scheduler = self.scheduler.stats();
        self.stats.host = self.scheduler.tier_stats(Tier::Host);
        self.stats.disk = self.scheduler.tier_stats(Tier::Disk);
        *self.published.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = self.stats.clone();
    }
}

impl Stream {
    fn new(request: GenerateRequest, sampler: Sampler, events: mpsc::UnboundedSender<EngineEvent>) -> Self {
        let prompt_logprobs = match request.prompt_logprobs {
            PromptLogprobs::Skip => None,
            PromptLogprobs::Return { num_top } => {
                // The first token has no predecessor and so no probability.
                Some(PromptRows { num_top, rows: vec![None; request.prompt.len()] })
            }
        };
        Self {
            events,
            sampler,
            stop_tokens: request.stop_tokens,
            num_logprobs: request.num_logprobs,
            prompt_len: request.prompt.len(),
            max_tokens: request.max_tokens,
            num_generated: 0,
            cached: None,
            prompt_logprobs,
        }
    }

    fn logit_rows(&self, planned: &PlannedSequence) -> LogitRows {
        let in_prompt = planned.start < self.prompt_len;
        match (&self.prompt_logprobs, planned.yields_token) {
            (Some(_rows), _) if in_prompt => LogitRows::All,
            (_, Yield::Token) => LogitRows::Last,
            (_, Yield::Nothing) => LogitRows::Nothing,
        }
    }

    /// Keeps the log-probabilities of prompt tokens that follow the rows just computed.
    fn note(
        &mut self,
        planned: &PlannedSequence,
        tokens: &[u32],
        logits: &kernels::Tensor,
        rows: std::ops::Range<usize>,
    ) {
        let Some(prompt) = &mut self.prompt_logprobs else { return };
        if planned.start >= self.prompt_len {
            return;
        }
        for (offset, row) in rows.enumerate() {
            let next = planned.start + offset + 1;
            if next < self.prompt_len {
                prompt.rows[next] = Some(log_softmax_top(logits.row(row), tokens[next], prompt.num_top));
            }
        }
    }

    /// Samples from the last row and tells the client.
    fn advance(&mut self, logits: &[f32]) -> Outcome {
        if self.num_generated == 0 {
            let logprobs = self.prompt_logprobs.take().map(|prompt| prompt.rows);
            // A client that is gone is noticed before the next step; so are the ones below.
            let _ = self.events.send(EngineEvent::Prompt { cached: self.cached.unwrap_or_default(), logprobs });
        }
        if self.max_tokens == 0 {
            return Outcome::PromptOnly;
        }
        let token = match self.sampler.sample(logits) {
            Ok(token) => token,
            Err(error) => return Outcome::Failed(error),
        };
        let logprob = self.num_logprobs.map(|num_top| log_softmax_top(logits, token, num_top));
        self.num_generated += 1;
        let _ = self.events.send(EngineEvent::Token { token, logprob });
        if self.stop_tokens.contains(&token) {
            Outcome::Last(token, FinishReason::Stop)
        } else if self.num_generated == self.max_tokens {
            Outcome::Last(token, FinishReason::Length)
        } else {
            Outcome::Next(token)
        }
    }
}
