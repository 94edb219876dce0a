//! Hit rates of the eviction policies on synthetic traces, through the real scheduler, beside the offline optimum:
//! `cargo run --release -p scheduler --example eviction -- [blocks] [requests] [seed]`.
#[path = "../tests/simulator/rng.rs"]
mod rng;
#[path = "../tests/simulator/root.rs"]
mod root;

use std::collections::{BTreeSet, HashMap};

use rng::Rng;
use root::root_key;
use scheduler::{
    EvictionPolicy, KvKey, NewSequence, PrefillCost, PrefixReuse, Sampled, Scheduler, SchedulerConfig, TenantId, Then,
    TierConfig, Yield, block_keys,
};

const BLOCK_SIZE: usize = 16;

/// A workload: its name, and the prompts in order.
struct Trace {
    name: &'static str,
    prompts: Vec<Vec<u32>>,
}

/// Draws `0..weights.len()` with a probability that falls as one over the rank.
struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    fn new(num: usize) -> Zipf {
        let mut sum = 0.0;
        let cumulative = (1..=num).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Zipf { cumulative: cumulative.collect() }
    }

    fn draw(&self, rng: &mut Rng) -> usize {
        let at = rng.below(1 << 30) as f64 / f64::from(1 << 30) * self.cumulative[self.cumulative.len() - 1];
        self.cumulative.partition_point(|sum| *sum <= at)
    }
}

/// Tokens that nothing else begins with.
fn text(start: u64, len: usize) -> Vec<u32> {
    (0..len as u64).map(|position| (rng::mix(start.wrapping_mul(1 << 20) + position) >> 40) as u32).collect()
}

/// Many users talk in turns behind one system prompt; a talk ends after some rounds and begins anew.
fn chats(num_requests: usize, rng: &mut Rng) -> Trace {
    const NUM_USERS: usize = 300;
    let (system, users) = (text(1, 512), Zipf::new(NUM_USERS));
    let mut talks = vec![system.clone(); NUM_USERS];
    let prompts = (0..num_requests as u64).map(|request| {
        let user = users.draw(rng);
        let talk = &mut talks[user];
        if talk.len() > 3_000 {
            talk.clone_from(&system);
        }
        talk.extend(text(1_000 + request, 60 + rng.below(200)));
        talk.clone()
    });
    Trace { name: "chats of 300 users", prompts: prompts.collect() }
}

/// Questions about documents, some of which are asked about often, between prompts that never come again.
fn documents_and_scans(num_requests: usize, rng: &mut Rng) -> Trace {
    const NUM_DOCUMENTS: usize = 60;
    let documents: Vec<Vec<u32>> =
        (0..NUM_DOCUMENTS as u64).map(|document| text(2_000_000 + document, 2_000)).collect();
    let popular = Zipf::new(NUM_DOCUMENTS);
    let prompts = (0..num_requests as u64).map(|request| {
        if rng.chance(50) {
            return text(3_000_000 + request, 1_500);
        }
        [documents[popular.draw(rng)].as_slice(), &text(4_000_000 + request, 40)].concat()
    });
    Trace { name: "documents and scans", prompts: prompts.collect() }
}

/// Agents with long preambles of different lengths; the deep ones are costlier to compute again.
fn agents(num_requests: usize, rng: &mut Rng) -> Trace {
    const NUM_AGENTS: usize = 40;
    let popular = Zipf::new(NUM_AGENTS);
    let prompts = (0..num_requests as u64).map(|request| {
        let agent = popular.draw(rng) as u64;
        let preamble = text(5_000_000 + agent, 400 + 200 * (agent as usize % 12));
        [preamble.as_slice(), &text(6_000_000 + request, 300)].concat()
    });
    Trace { name: "agents with preambles", prompts: prompts.collect() }
}

/// The share of prompt tokens that the scheduler finds cached.
fn hit_rate(trace: &Trace, num_blocks: usize, eviction: EvictionPolicy) -> f64 {
    let tiers = TierConfig { prefill_cost: PrefillCost { attention_half_tokens: 8_192.0 }, ..TierConfig::OFF };
    let mut scheduler = Scheduler::new(SchedulerConfig {
        num_blocks,
        block_size: BLOCK_SIZE,
        max_batch_tokens: 8_192,
        max_running: 1,
        max_waiting: 1,
        max_waiting_per_tenant: 1,
        eviction,
        tiers,
    })
    .expect("the configuration is legal");
    for prompt in &trace.prompts {
        let block_keys = block_keys(root_key(0), prompt, BLOCK_SIZE);
        let (tenant, reuse) = (TenantId(0), PrefixReuse::Exact);
        let new =
            NewSequence { tenant, tokens: prompt.clone(), root: root_key(0), block_keys, max_new_tokens: 1, reuse };
        scheduler.add(new).expect("it fits");
        while !scheduler.is_idle() {
            let plan = scheduler.schedule();
            let yielding = plan.sequences.iter().filter(|planned| planned.yields_token == Yield::Token);
            let sampled: Vec<Sampled> =
                yielding.map(|planned| Sampled { id: planned.id, token: 0, then: Then::Finish }).collect();
            scheduler.commit(plan, &sampled);
        }
    }
    let stats = scheduler.stats();
    stats.prefix_hits_tokens as f64 / (stats.prefix_hits_tokens + stats.prefix_misses_tokens) as f64
}

/// What a policy that knows the future keeps (Belady): the block whose next use is farthest goes; among equals the
/// deepest, which is a leaf, as nobody uses a block without those before it.
fn optimum(trace: &Trace, num_blocks: usize) -> f64 {
    let chains: Vec<Vec<KvKey>> =
        trace.prompts.iter().map(|prompt| block_keys(root_key(0), prompt, BLOCK_SIZE)).collect();
    let mut uses: HashMap<KvKey, Vec<usize>> = HashMap::new();
    for (at, chain) in chains.iter().enumerate().rev() {
        chain.iter().for_each(|key| uses.entry(*key).or_default().push(at));
    }
    let mut order: BTreeSet<(usize, usize, KvKey)> = BTreeSet::new();
    let mut entries: HashMap<KvKey, (usize, usize)> = HashMap::new();
    let (mut hits, mut tokens) = (0, 0);
    for (prompt, chain) in trace.prompts.iter().zip(&chains) {
        tokens += prompt.len();
        let reusable = (prompt.len() - 1) / BLOCK_SIZE;
        hits += BLOCK_SIZE * chain[..reusable].iter().take_while(|key| entries.contains_key(key)).count();
        for (depth, key) in chain.iter().enumerate() {
            let later = uses.get_mut(key).expect("every use was noted");
            later.pop();
            let next = later.last().copied().unwrap_or(usize::MAX);
            if let Some((next, depth)) = entries.insert(*key, (next, depth)) {
                order.remove(&(next, depth, *key));
            }
            order.insert((next, depth, *key));
        }
        while order.len() > num_blocks {
            let (_, _, key) = order.pop_last().expect("it is not empty");
            entries.remove(&key);
        }
    }
    hits as f64 / tokens as f64
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (num_blocks, num_requests, seed) = (number(2_000), number(4_000), number(1));
    let mut rng = Rng::new(seed as u64);
    println!(
        "{num_requests} requests, {num_blocks} blocks of {BLOCK_SIZE} tokens, seed {seed}: share of prompt tokens found cached"
    );
    println!("{:<24} {:>8} {:>12} {:>9}", "trace", "LRU", "cost-aware", "optimum");
    for trace in
        [chats(num_requests, &mut rng), documents_and_scans(num_requests, &mut rng), agents(num_requests, &mut rng)]
    {
        let lru = hit_rate(&trace, num_blocks, EvictionPolicy::Lru);
        let cost_aware = hit_rate(&trace, num_blocks, EvictionPolicy::CostAware);
        let optimum = optimum(&trace, num_blocks);
        println!("{:<24} {lru:>8.3} {cost_aware:>12.3} {optimum:>9.3}", trace.name);
    }
}
