//! A long run of the randomised test: `cargo run --release -p scheduler --example soak -- [operations] [first seed]`.
#[path = "../tests/simulator/mod.rs"]
mod simulator;

use simulator::{Outcomes, Simulation};

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
}
