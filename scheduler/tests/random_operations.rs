//! Random operations against a naive model, a few seconds' worth; `cargo run --release -p scheduler --example soak`
//! runs a million.
#[path = "simulator/rng.rs"]
mod rng;
#[path = "simulator/root.rs"]
mod root;
mod simulator;

use simulator::{Outcomes, Simulation};

#[test]
fn twenty_thousand_random_operations_agree_with_a_naive_model() {
    let mut total = Outcomes::default();
    for seed in 0..40 {
        println!("seed {seed}");
        total.add(&Simulation::new(seed).run(500));
    }
    println!("{total:?}");
    let exercised = [total.finished, total.preemptions, total.evictions, total.deduplicated, total.hits_tokens];
    assert!(exercised.into_iter().all(|num| num > 100), "the runs exercise too little: {total:?}");
}
