//! All tiers under random operations and faults; `cargo run --release -p scheduler --example soak` runs a million.
#[path = "../simulator/rng.rs"]
mod rng;
#[path = "../simulator/root.rs"]
mod root;
mod world;

use world::{Exercised, Faults, World};

fn run(faults: Faults, num_seeds: u64) -> Vec<Exercised> {
    (0..num_seeds).map(|seed| World::new(seed, faults).run(500)).collect()
}

fn sum(runs: &[Exercised], of: impl Fn(&Exercised) -> u64) -> u64 {
    runs.iter().map(of).sum()
}

#[test]
fn whatever_fails_or_comes_late_no_row_ever_reads_wrong_bytes_and_nothing_leaks() {
    let runs = run(Faults { load: 15, write: 10, missing_barrier: false }, 60);
    let exercised = [
        sum(&runs, |run| run.finished),
        sum(&runs, |run| run.cancelled),
        sum(&runs, |run| run.reverted),
        sum(&runs, |run| run.host_tokens),
        sum(&runs, |run| run.disk_tokens),
        sum(&runs, |run| run.failed_loads),
        sum(&runs, |run| run.orphaned_loads),
        sum(&runs, |run| run.failed_writes),
        sum(&runs, |run| run.preemptions),
        sum(&runs, |run| run.adopted),
        sum(&runs, |run| run.forgotten),
    ];
    println!("{exercised:?}");
    assert!(exercised.into_iter().all(|num| num > 10), "the runs exercise too little: {exercised:?}");
}

#[test]
#[should_panic(expected = "reads wrong bytes")]
fn a_step_that_computes_before_evicted_blocks_are_secured_is_noticed() {
    run(Faults { load: 0, write: 0, missing_barrier: true }, 60);
}
