//! A long run of the randomised tests: `cargo run --release -p scheduler --example soak -- [operations] [first seed]`. As many
//! operations on the device alone, against a naive model, as on all tiers, with faults in every move; it panics at the first
//! wrong byte or lost block.
#[path = "../tests/simulator/rng.rs"]
mod rng;
#[path = "../tests/simulator/root.rs"]
mod root;
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
    let faults = Faults { load: 15, write: 10, missing_barrier: false };
    let (mut total, mut loaded, mut failed) = (Outcomes::default(), 0, 0);
    for (world, seed) in (0..num_operations.div_ceil(OPERATIONS_PER_WORLD)).zip(first_seed..) {
        let num_left = (num_operations - world * OPERATIONS_PER_WORLD).min(OPERATIONS_PER_WORLD);
        eprint!("\rseed {seed}");
        total.add(&Simulation::new(seed).run(num_left));
        let exercised = World::new(seed, faults).run(num_left);
        loaded += exercised.host_tokens + exercised.disk_tokens;
        failed += exercised.failed_loads + exercised.failed_writes;
    }
    println!("\r{num_operations} operations from seed {first_seed}: {total:?}");
    println!("{num_operations} operations on all tiers: {loaded} tokens loaded, {failed} moves failed");
}
