//! What a step contains: decodes, chunked prefill, prefix hits, and who waits for whom.
mod engine;

use engine::{BLOCK_SIZE, CONFIG, Engine, prompt, request};
use scheduler::{
    AddError, Admission, ConfigError, NewSequence, PrefixReuse, Scheduler, SchedulerConfig, TenantId, Yield,
};

#[test]
fn a_prompt_is_computed_in_parts_and_yields_a_token_with_the_last() {
    let mut engine = Engine::new(CONFIG);
    let id = engine.add(request(0, &prompt(1, 37), 3));
    let parts: Vec<_> = (0..3).map(|_| engine.step().remove(0)).collect();
    let ranges: Vec<_> = parts.iter().map(|part| (part.start, part.num_tokens)).collect();
    assert_eq!(ranges, [(0, 16), (16, 16), (32, 5)]);
    let yields: Vec<_> = parts.iter().map(|part| part.yields_token).collect();
    assert_eq!(yields, [Yield::Nothing, Yield::Nothing, Yield::Token]);
    let admissions: Vec<_> = parts.iter().map(|part| part.admitted).collect();
    assert_eq!(admissions, [Some(Admission { cached_tokens: 0 }), None, None]);
    let decode = engine.step().remove(0);
    assert_eq!((decode.id, decode.start, decode.num_tokens), (id, 37, 1));
    engine.run_until_idle();
    assert_eq!(engine.finished[0].1[37..], [37, 38, 39]);
}

#[test]
fn decodes_come_first_and_prefill_takes_the_rest_of_the_batch() {
    let mut engine = Engine::new(CONFIG);
    let short = engine.add(request(0, &prompt(1, 3), 9));
    engine.step();
    let long = engine.add(request(0, &prompt(2, 40), 1));
    let planned = engine.step();
    assert_eq!((planned[0].id, planned[0].num_tokens), (short, 1));
    assert_eq!((planned[1].id, planned[1].num_tokens), (long, 15));
}

#[test]
fn blocks_are_allocated_for_exactly_the_tokens_of_the_step() {
    let mut engine = Engine::new(CONFIG);
    let id = engine.add(request(0, &prompt(1, 23), 9));
    for num_blocks in [4, 6, 6, 7] {
        let plan = engine.scheduler.schedule();
        assert_eq!(engine.scheduler.sequence(id).expect("it runs").block_table().len(), num_blocks);
        engine.commit(plan);
    }
}

#[test]
fn a_hit_is_capped_so_that_the_last_token_is_computed() {
    let mut engine = Engine::new(CONFIG);
    for (num_tokens, cached_tokens) in [(12, 0), (12, 8), (13, 12), (5, 4), (4, 0)] {
        engine.add(request(0, &prompt(1, num_tokens), 1));
        let planned = engine.step().remove(0);
        assert_eq!(planned.admitted, Some(Admission { cached_tokens }));
        assert_eq!((planned.start, planned.num_tokens), (cached_tokens, num_tokens - cached_tokens));
        engine.run_until_idle();
    }
    // The twelve tokens' last block was computed again, and so was the four tokens' only one.
    assert_eq!(engine.scheduler.stats().deduplicated_blocks, 2);
}

#[test]
fn generated_tokens_are_hit_by_the_next_turn_of_a_chat() {
    let mut engine = Engine::new(CONFIG);
    engine.add(request(0, &prompt(1, 6), 8));
    engine.run_until_idle();
    let mut turn = engine.finished[0].1.clone();
    assert_eq!(turn.len(), 14);
    turn.extend([7, 7, 7]);
    engine.add(request(0, &turn, 1));
    // The 14th token was sampled and never computed: 13 tokens are three full blocks.
    assert_eq!(engine.step()[0].admitted, Some(Admission { cached_tokens: 12 }));
}

#[test]
fn another_tenant_never_hits() {
    let mut engine = Engine::new(CONFIG);
    for (tenant, cached_tokens) in [(1, 0), (2, 0), (1, 12), (2, 12)] {
        engine.add(request(tenant, &prompt(1, 14), 1));
        assert_eq!(engine.step()[0].admitted, Some(Admission { cached_tokens }));
        engine.run_until_idle();
    }
}

#[test]
fn identical_prompts_are_computed_once() {
    let mut engine = Engine::new(SchedulerConfig { max_batch_tokens: 8, ..CONFIG });
    let ids: Vec<_> = (0..4).map(|_| engine.add(request(0, &prompt(1, 18), 3))).collect();
    let mut num_rows = 0;
    while engine.scheduler.stats().num_waiting > 0 {
        num_rows += engine.step().iter().map(|planned| planned.num_tokens).sum::<usize>();
    }
    // 18 tokens of the first, the last 2 tokens of the others, and at most two decodes of the first meanwhile.
    assert!((24..=26).contains(&num_rows), "{num_rows} rows");
    engine.run_until_idle();
    let stats = engine.scheduler.stats();
    assert_eq!((stats.prefix_hits_tokens, stats.prefix_misses_tokens), (3 * 16, 18 + 3 * 2));
    assert_eq!(engine.finished.len(), ids.len());
}

#[test]
fn a_follower_goes_ahead_itself_when_its_leader_is_cancelled() {
    let mut engine = Engine::new(CONFIG);
    let leader = engine.add(request(0, &prompt(1, 40), 3));
    let follower = engine.add(request(0, &prompt(1, 40), 3));
    let planned = engine.step();
    assert!(planned.iter().all(|planned| planned.id == leader));
    assert!(engine.scheduler.cancel(leader));
    let planned = engine.step();
    assert_eq!((planned[0].id, planned[0].start), (follower, 16));
    engine.run_until_idle();
}

#[test]
fn a_follower_is_passed_by_those_who_need_not_wait() {
    let mut engine = Engine::new(SchedulerConfig { max_batch_tokens: 24, ..CONFIG });
    let leader = engine.add(request(0, &prompt(1, 20), 3));
    let follower = engine.add(request(0, &prompt(1, 20), 3));
    let other = engine.add(request(0, &prompt(2, 4), 3));
    let planned: Vec<_> = engine.step().iter().map(|planned| planned.id).collect();
    assert_eq!(planned, [leader, other]);
    let planned = engine.step();
    assert!(planned.iter().any(|planned| planned.id == follower && planned.start == 16));
}

#[test]
fn a_follower_goes_on_as_soon_as_all_that_it_shares_is_computed() {
    let mut engine = Engine::new(SchedulerConfig { max_batch_tokens: 24, ..CONFIG });
    let shared = prompt(1, 16);
    engine.add(request(0, &shared, 9));
    let follower = engine.add(request(0, &[shared, prompt(3, 4)].concat(), 3));
    engine.step();
    let planned = engine.step().into_iter().find(|planned| planned.id == follower);
    assert_eq!(planned.expect("it is admitted").start, 16);
}

#[test]
fn a_bypassing_sequence_neither_hits_nor_waits() {
    let mut engine = Engine::new(SchedulerConfig { max_batch_tokens: 64, ..CONFIG });
    let bypass = || NewSequence { reuse: PrefixReuse::Bypass, ..request(0, &prompt(1, 20), 1) };
    engine.add(request(0, &prompt(1, 20), 1));
    engine.add(bypass());
    let planned = engine.step();
    assert_eq!(planned.iter().map(|planned| (planned.start, planned.num_tokens)).collect::<Vec<_>>(), [(0, 20); 2]);
    engine.add(bypass());
    assert_eq!(engine.step()[0].start, 0);
    let stats = engine.scheduler.stats();
    assert_eq!((stats.prefix_hits_tokens, stats.prefix_misses_tokens), (0, 20));
    assert_eq!((stats.deduplicated_blocks, stats.blocks.cached), (10, 5));
}

#[test]
fn a_bypassing_sequence_publishes_for_others() {
    let mut engine = Engine::new(CONFIG);
    engine.add(NewSequence { reuse: PrefixReuse::Bypass, ..request(0, &prompt(1, 9), 1) });
    engine.run_until_idle();
    engine.add(request(0, &prompt(1, 9), 1));
    assert_eq!(engine.step()[0].start, 8);
}

#[test]
fn a_reverted_step_leaves_everything_to_be_computed_again() {
    let mut engine = Engine::new(SchedulerConfig { max_batch_tokens: 24, ..CONFIG });
    let running = engine.add(request(0, &prompt(1, 6), 9));
    engine.step();
    engine.add(request(1, &prompt(2, 9), 2));
    engine.add(request(2, &prompt(3, 30), 2));
    let before = engine.scheduler.stats();
    let plan = engine.scheduler.schedule();
    let planned = plan.sequences.clone();
    assert_eq!(planned.len(), 3);
    engine.scheduler.revert(plan);
    engine.scheduler.check_invariants();
    assert_eq!(engine.scheduler.stats(), before);
    assert_eq!(engine.scheduler.sequence(running).expect("it runs").num_computed(), 6);
    assert_eq!(engine.step(), planned);
    engine.run_until_idle();
}

#[test]
fn cancelling_keeps_full_blocks_cached_and_frees_the_rest() {
    let mut engine = Engine::new(CONFIG);
    let id = engine.add(request(0, &prompt(1, 15), 9));
    let waiting = engine.add(request(0, &prompt(1, 15), 9));
    engine.step();
    assert!(engine.scheduler.cancel(waiting));
    assert!(engine.scheduler.cancel(id));
    assert!(!engine.scheduler.cancel(id));
    engine.scheduler.check_invariants();
    assert!(engine.scheduler.is_idle());
    let counts = engine.scheduler.stats().blocks;
    assert_eq!((counts.cached, counts.free), (3, CONFIG.num_blocks - 3));
    engine.scheduler.clear_cache(None);
    engine.scheduler.check_invariants();
    assert_eq!(engine.scheduler.stats().blocks.free, CONFIG.num_blocks);
}

#[test]
fn refusals_name_the_limit_and_change_nothing() {
    let mut engine = Engine::new(SchedulerConfig { max_waiting: 3, max_waiting_per_tenant: 2, ..CONFIG });
    let num_blocks = CONFIG.num_blocks;
    let limit = num_blocks * BLOCK_SIZE;
    let too_long = AddError::TooLong { needed_blocks: num_blocks + 1, num_blocks };
    assert_eq!(engine.try_add(request(0, &prompt(1, 10), limit - 9)), Err(too_long));
    let endless = engine.try_add(request(0, &prompt(1, 10), usize::MAX));
    assert!(matches!(endless, Err(AddError::TooLong { .. })));
    assert_eq!(engine.try_add(request(0, &[], 1)), Err(AddError::EmptyPrompt));
    let keyless = NewSequence { block_keys: Vec::new(), ..request(0, &prompt(1, 10), 1) };
    assert_eq!(engine.try_add(keyless), Err(AddError::WrongKeyCount { expected: 2, got: 0 }));
    assert!(engine.scheduler.is_idle());

    engine.add(request(0, &prompt(1, 10), limit - 10));
    engine.add(request(0, &prompt(2, 10), 1));
    let tenant_full = AddError::TenantQueueFull { tenant: TenantId(0), max_waiting_per_tenant: 2 };
    assert_eq!(engine.try_add(request(0, &prompt(3, 10), 1)), Err(tenant_full));
    engine.add(request(1, &prompt(4, 10), 1));
    assert_eq!(engine.try_add(request(2, &prompt(5, 10), 1)), Err(AddError::QueueFull { max_waiting: 3 }));
    assert_eq!(engine.scheduler.stats().num_waiting, 3);
    engine.run_until_idle();
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let refused = |config| Scheduler::new(config).err();
    assert_eq!(refused(SchedulerConfig { block_size: 0, ..CONFIG }), Some(ConfigError::Zero { name: "block_size" }));
    let narrow = SchedulerConfig { max_batch_tokens: 7, ..CONFIG };
    assert_eq!(refused(narrow), Some(ConfigError::BatchBelowRunning { max_batch_tokens: 7, max_running: 8 }));
    let huge = SchedulerConfig { num_blocks: usize::MAX, ..CONFIG };
    assert!(matches!(refused(huge), Some(ConfigError::TooManyBlocks { num_blocks: usize::MAX, .. })));
}
