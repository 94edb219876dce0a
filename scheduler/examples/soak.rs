//! A long run of the randomised tests: `cargo run --release -p scheduler --example soak -- [operations] [first seed]`.
//! Half of the operations are on the device alone, against a naive model; half on all tiers, with faults in every move.
#[path = "../tests/simulator/rng.rs"]
mod rng;
#[path = "../tests/simulator/mod.rs"]
mod simulator;
#[path = "../tests/tiered/world.rs"]
mod world;

use simulator::{Outcomes, Simulation};
use world::{Faults, World};

const OPERATIONS_PER_WORLD: usize = 5_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let num_operations = number(1_000_000) as usize;
    let first_seed = number(1_000);
    let mut total = Outcomes::default();
    for (world, seed) in (0..num_operations.div_ceil(OPERATIONS_PER_WORLD)).zip(first_seed..) {
        let num_left = num_operations - world * OPERATIONS_PER_WORLD;
        eprint!("\rseed {seed}");
        total.add(&Simulation::new(seed).run(num_left.min(OPERATIONS_PER_WORLD)));
    }
    println!("\r{num_operations} operations from seed {first_seed}: {total:?}");
    let faults = Faults { load: 15, write: 10, missing_barrier: false };
    let (mut loaded, mut failed) = (0, 0);
    for (world, seed) in (0..num_operations.div_ceil(OPERATIONS_PER_WORLD)).zip(first_seed..) {
        let num_left = num_operations - world * OPERATIONS_PER_WORLD;
        eprint!("\rseed {seed}");
        let exercised = World::new(seed, faults).run(num_left.min(OPERATIONS_PER_WORLD));
        loaded += exercised.host_tokens + exercised.disk_tokens;
        failed += exercised.failed_loads + exercised.failed_writes;
    }
    println!(
        "\r{num_operations} operations on all tiers: {loaded} tokens loaded, {failed} moves failed, nothing wrong or lost"
    );
}
