//! A long run on all tiers with faults in every move: `cargo run --release -p scheduler --example tiered_soak -- [operations]
//! [first seed]`. It ends with a panic at the first row that would read a wrong byte, and at the first block that is lost.
#[path = "../tests/simulator/rng.rs"]
mod rng;
#[path = "../tests/tiered/world.rs"]
mod world;

use world::{Faults, World};

const OPERATIONS_PER_WORLD: usize = 5_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let num_operations = number(1_000_000) as usize;
    let first_seed = number(1_000);
    let faults = Faults { load: 15, write: 10, missing_barrier: false };
    let (mut loaded, mut failed) = (0, 0);
    for (world, seed) in (0..num_operations.div_ceil(OPERATIONS_PER_WORLD)).zip(first_seed..) {
        let num_left = num_operations - world * OPERATIONS_PER_WORLD;
        eprint!("\rseed {seed}");
        let exercised = World::new(seed, faults).run(num_left.min(OPERATIONS_PER_WORLD));
        loaded += exercised.host_tokens + exercised.disk_tokens;
        failed += exercised.failed_loads + exercised.failed_writes;
    }
    println!("\r{num_operations} operations from seed {first_seed}: {loaded} tokens loaded, {failed} moves failed");
}
