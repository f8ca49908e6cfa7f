//! The engine in a world that goes wrong: random definitions, several replicas with stale copies, a bus that drops,
//! duplicates and reorders, crashes between commit and effect, workers that fail, people who repeat themselves.
//!
//! Everything follows from a seed, which a failure prints. `WORKFLOW_SIMULATIONS` says how many worlds there are,
//! `WORKFLOW_SIMULATION_SEED` repeats one.

#![allow(
    clippy::needless_pass_by_value,
    reason = "events are made where they are handed over"
)]

mod expect;
mod random;
mod world;

use self::random::Random;
use self::world::World;

#[test]
fn worlds() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("WORKFLOW_SIMULATION_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("WORKFLOW_SIMULATIONS").unwrap_or(500),
    };
    let mut ends = std::collections::BTreeMap::<&str, usize>::new();
    for seed in seeds {
        let told = Told(seed);
        let mut random = Random::new(seed);
        let definitions = random::definitions(&mut random);
        // The same definitions and the same workers, but another order of things.
        let mut first = World::new(seed, &definitions, random.next());
        let mut second = World::new(seed, &definitions, random.next());
        let (one, two) = (first.run_to_the_end(), second.run_to_the_end());
        if !first.chaos {
            expect::check(seed, &definitions, &one);
            expect::check(seed, &definitions, &two);
        }
        *ends.entry(one.head.status.as_str()).or_default() += 1;
        // Only who does not come this far has something to tell.
        std::mem::forget(told);
    }
    // Were it only one kind of end, this would not test much.
    println!("{ends:?}");
}

/// Says which world it was if the test does not get past it.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        println!("WORKFLOW_SIMULATION_SEED={}", self.0);
    }
}
