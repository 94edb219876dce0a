//! What the control plane costs: block allocation, prefix lookup, hashing, and a scheduler step.
//!
//! `cargo bench -p memos-benches --bench scheduler`
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use scheduler::{
    BlockPool, EvictionPolicy, FillingBlock, KeyRoot, KvKey, Lease, NewSequence, PrefixReuse, Published, Sampled,
    Scheduler, SchedulerConfig, StepPlan, TenantId, Then, TierConfig, block_keys,
};

const BLOCK_SIZE: usize = 16;
const NUM_BLOCKS: usize = 32_768;

fn root() -> KvKey {
    let root = KeyRoot {
        model_fingerprint: [1; 32],
        kv_dtype: "bf16",
        kv_layout: "bench",
        block_size: BLOCK_SIZE as u32,
        rope_fingerprint: [2; 32],
        numerics_id: "bench",
        adapter: None,
        tenant_salt: [3; 32],
    };
    root.key()
}

fn tokens(seed: u32, num_tokens: usize) -> Vec<u32> {
    (0..num_tokens as u32).map(|position| position.wrapping_mul(2_654_435_761).wrapping_add(seed) % 32_000).collect()
}

fn keys(seed: u32, num_tokens: usize) -> Vec<KvKey> {
    block_keys(root(), &tokens(seed, num_tokens), BLOCK_SIZE)
}

fn take(pool: &mut BlockPool, num_blocks: usize) -> Vec<FillingBlock> {
    pool.allocate(num_blocks).expect("the pool is large enough").collect()
}

/// Makes all chains resident at the same time, one block of each in turn, so that no chain lies in one run.
fn publish_interleaved(pool: &mut BlockPool, chains: &[Vec<KvKey>]) -> Vec<Lease> {
    let mut leases: Vec<Option<Lease>> = chains.iter().map(|_| None).collect();
    let longest = chains.iter().map(Vec::len).max().unwrap_or(0);
    for position in 0..longest {
        for (chain, lease) in chains.iter().zip(&mut leases) {
            if let Some(&key) = chain.get(position) {
                let block = take(pool, 1).remove(0);
                let (Published::Indexed(next) | Published::Duplicate(next)) = pool.publish(block, lease.take(), key);
                *lease = Some(next);
            }
        }
    }
    leases.into_iter().flatten().collect()
}

fn block_allocation(c: &mut Criterion) {
    let mut group = c.benchmark_group("block_allocation");
    let num_blocks = 1_024;
    group.throughput(Throughput::Elements(num_blocks as u64));
    group.bench_function("allocate and discard, one at a time", |bencher| {
        let mut pool = BlockPool::new(NUM_BLOCKS);
        let mut held = Vec::with_capacity(num_blocks);
        bencher.iter(|| {
            for _ in 0..num_blocks {
                held.extend(pool.allocate(1).expect("the pool is large enough"));
            }
            held.drain(..).for_each(|block| pool.discard(block));
        });
    });
    // A cache full of old chains: every block comes from evicting one.
    let num_cached = 8_192;
    let chains: Vec<Vec<KvKey>> = (0..8).map(|seed| keys(seed, num_cached / 8 * BLOCK_SIZE)).collect();
    let full_pool = || {
        let mut pool = BlockPool::new(num_cached);
        for chain in chains.chunks(1) {
            publish_interleaved(&mut pool, chain).into_iter().for_each(|lease| pool.release(lease));
        }
        (pool, Vec::with_capacity(num_blocks))
    };
    group.bench_function("allocate by eviction, one at a time", |bencher| {
        bencher.iter_batched_ref(
            full_pool,
            |(pool, held)| {
                for _ in 0..num_blocks {
                    held.extend(pool.allocate(1).expect("the cache is evictable"));
                }
            },
            BatchSize::LargeInput,
        );
    });
    let new_chain = keys(8, num_blocks * BLOCK_SIZE);
    group.bench_function("allocate by eviction, publish, release", |bencher| {
        bencher.iter_batched_ref(
            full_pool,
            |(pool, _)| {
                let leases = publish_interleaved(pool, std::slice::from_ref(&new_chain));
                leases.into_iter().for_each(|lease| pool.release(lease));
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn prefix_lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("prefix_lookup");
    for num_tokens in [2_048, 8_192, 32_768] {
        let num_chains = NUM_BLOCKS / (num_tokens / BLOCK_SIZE);
        for (layout, step) in [("runs", 1), ("scattered", num_chains)] {
            let mut pool = BlockPool::new(NUM_BLOCKS);
            let chains: Vec<Vec<KvKey>> = (0..num_chains as u32).map(|seed| keys(seed, num_tokens)).collect();
            for chains in chains.chunks(step) {
                let leases = publish_interleaved(&mut pool, chains);
                leases.into_iter().for_each(|lease| pool.release(lease));
            }
            bench_lookup(&mut group, &mut pool, &chains, layout);
        }
    }
    group.finish();
}

/// Looks another chain up each time, so that the pool's memory is as cold as its size makes it. The release belongs
/// to the end of a sequence, so it is timed on its own.
fn bench_lookup(group: &mut BenchmarkGroup<'_, WallTime>, pool: &mut BlockPool, chains: &[Vec<KvKey>], layout: &str) {
    let num_blocks = chains[0].len();
    let mut table = Vec::with_capacity(num_blocks);
    let mut next = 0;
    let mut lease_next = |pool: &mut BlockPool| {
        next = (next + 7) % chains.len();
        table.clear();
        let start = Instant::now();
        let prefix = pool.find_prefix(black_box(&chains[next])).expect("it is resident");
        let lease = pool.lease(prefix, &mut table);
        let elapsed = start.elapsed();
        assert_eq!(black_box(&table).len(), num_blocks);
        (lease, elapsed)
    };
    let num_tokens = num_blocks * BLOCK_SIZE;
    group.bench_function(BenchmarkId::new(format!("find, lease, table ({layout})"), num_tokens), |bencher| {
        bencher.iter_custom(|iterations| {
            let timed = (0..iterations).map(|_| {
                let (lease, elapsed) = lease_next(pool);
                pool.release(lease);
                elapsed
            });
            timed.sum()
        });
    });
    group.bench_function(BenchmarkId::new(format!("release ({layout})"), num_tokens), |bencher| {
        bencher.iter_custom(|iterations| {
            let timed = (0..iterations).map(|_| {
                let (lease, _) = lease_next(pool);
                let start = Instant::now();
                pool.release(lease);
                start.elapsed()
            });
            timed.sum()
        });
    });
}

fn hashing(c: &mut Criterion) {
    let mut group = c.benchmark_group("hashing");
    let num_tokens = 32_768;
    let prompt = tokens(0, num_tokens);
    group.throughput(Throughput::Elements(num_tokens as u64));
    group.bench_function(BenchmarkId::new("block_keys", num_tokens), |bencher| {
        bencher.iter(|| block_keys(root(), black_box(&prompt), BLOCK_SIZE));
    });
    group.finish();
}

/// A scheduler in which `num_sequences` of several tenants are decoding at a context of about 1,000 tokens.
fn decoding(num_sequences: usize) -> Scheduler {
    let config = SchedulerConfig {
        num_blocks: NUM_BLOCKS,
        block_size: BLOCK_SIZE,
        max_batch_tokens: 8_192,
        max_running: num_sequences,
        max_waiting: 1_024,
        max_waiting_per_tenant: 1_024,
        eviction: EvictionPolicy::CostAware,
        tiers: TierConfig::OFF,
    };
    let mut scheduler = Scheduler::new(config).expect("the configuration is legal");
    for seed in 0..num_sequences as u32 {
        let tokens = tokens(seed, 1_000 + seed as usize);
        let block_keys = block_keys(root(), &tokens, BLOCK_SIZE);
        let tenant = TenantId(u64::from(seed % 4));
        let (root, reuse, max_new_tokens) = (root(), PrefixReuse::Exact, 256_000 / num_sequences);
        let new = NewSequence { tenant, tokens, root, block_keys, max_new_tokens, reuse };
        scheduler.add(new).expect("the queue is long enough");
    }
    while scheduler.stats().num_waiting > 0 {
        step(&mut scheduler);
    }
    step(&mut scheduler);
    scheduler
}

fn answers(plan: &StepPlan) -> Vec<Sampled> {
    let yielding = plan.sequences.iter().filter(|planned| planned.yields_token == scheduler::Yield::Token);
    yielding.map(|planned| Sampled { id: planned.id, token: 7, then: Then::Continue }).collect()
}

fn step(scheduler: &mut Scheduler) {
    let plan = scheduler.schedule();
    let sampled = answers(&plan);
    scheduler.commit(plan, &sampled);
}

fn scheduler_step(c: &mut Criterion) {
    let mut group = c.benchmark_group("scheduler_step");
    for num_sequences in [1, 64] {
        group.bench_function(BenchmarkId::new("schedule and commit, decoding", num_sequences), |bencher| {
            // Sequences may grow to the size of the pool only, so a fresh scheduler takes over now and then.
            let steps_max = 3_000;
            bencher.iter_custom(|iterations| {
                let mut elapsed = Duration::ZERO;
                let mut num_left = iterations;
                while num_left > 0 {
                    let num_steps = num_left.min(steps_max);
                    let mut scheduler = decoding(num_sequences);
                    let start = Instant::now();
                    (0..num_steps).for_each(|_| step(&mut scheduler));
                    elapsed += start.elapsed();
                    num_left -= num_steps;
                }
                elapsed
            });
        });
    }
    group.finish();
}

criterion_group!(benches, block_allocation, prefix_lookup, hashing, scheduler_step);
criterion_main!(benches);
