//! The real consensus engine, log and ledger of many nodes in one thread, under virtual time: lossy and partitioned
//! links, nodes that crash at any effect and forget what was not synced, and one Byzantine validator. A seed fixes all of
//! it, so that a failure can be run again.
//!
//! ```text
//! seed -> Scenario -> World: events in the order of virtual time -> Engine::step -> outputs -> network -> events
//!                       after each event: Checker (no double vote, no fork, nothing lost); at the end: progress
//! ```

mod app;
mod byzantine;
mod checker;
mod fuse;
mod network;
mod node;
mod rng;
mod scenario;
mod storage;
mod verifier;
mod world;

use std::sync::Arc;

use netsplit_bft::Verifier;

pub use scenario::{Mutation, Scenario, Topology};
pub use world::Outcome;

/// Virtual microseconds.
pub type Micros = u64;

/// One second of virtual time.
pub const SECOND: Micros = 1_000_000;

/// Runs one seed.
pub fn run(seed: u64, mutation: Option<Mutation>) -> Outcome {
    run_with(seed, mutation, &verifier::Remembering::shared())
}

fn run_with(seed: u64, mutation: Option<Mutation>, verifier: &Arc<dyn Verifier>) -> Outcome {
    world::World::new(Scenario::of(seed, mutation), Arc::clone(verifier)).run()
}

/// Runs one seed twice; a difference is a failure, too.
pub fn run_twice(seed: u64, mutation: Option<Mutation>) -> Outcome {
    // Whether a signature is good does not depend on the run.
    let verifier = verifier::Remembering::shared();
    let (mut first, second) = (run_with(seed, mutation, &verifier), run_with(seed, mutation, &verifier));
    if first.failure.is_none() && first.trace != second.trace {
        first.failure = Some(format!("not deterministic: traces {:x} and {:x}", first.trace, second.trace));
    }
    first
}

/// Runs seeds on `threads` threads; outcomes in the order of seeds. A panic is an outcome, too.
pub fn run_many(
    seeds: std::ops::Range<u64>,
    mutation: Option<Mutation>,
    twice: bool,
    threads: usize,
) -> Vec<Outcome> {
    use std::sync::atomic::{AtomicU64, Ordering};
    let next = AtomicU64::new(seeds.start);
    let one = |seed| {
        let run = || if twice { run_twice(seed, mutation) } else { run(seed, mutation) };
        std::panic::catch_unwind(run).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text =
                text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
            Outcome { seed, failure: Some(format!("panic: {text}")), ..Outcome::default() }
        })
    };
    let work = || {
        let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds.end);
        std::iter::from_fn(take).map(one).collect::<Vec<_>>()
    };
    let mut outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("seeds that panic are outcomes")).collect()
    });
    outcomes.sort_by_key(|outcome| outcome.seed);
    outcomes
}
