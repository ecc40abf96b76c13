//! A thousand histories without a fault, and the defects that the simulator has to find.

use std::time::Instant;

use netsplit_sim::{Mutation, Outcome, SECOND, run, run_many};

const SEEDS: u64 = 1000;

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Each seed twice, with equal traces. About 30 heights each.
#[test]
fn a_thousand_seeds() {
    let start = Instant::now();
    let outcomes = run_many(0..SEEDS, None, true, threads());
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.failure.is_some()).collect();
    for outcome in failed.iter().take(5) {
        println!("seed {}: {}", outcome.seed, outcome.failure.as_deref().unwrap_or_default());
    }
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    println!("{SEEDS} seeds in {:?}, {} crashes", start.elapsed(), sum(|o| o.crashes));
    assert!(failed.is_empty(), "{} seeds failed; run `netsplit-sim 1 --from SEED`", failed.len());
    // The faults really happen.
    assert!(sum(|o| o.heights) >= 30 * SEEDS);
    assert!(sum(|o| o.crashes) > SEEDS, "crashes");
    assert!(sum(|o| o.crashes_in_boot) > SEEDS / 50, "crashes while booting");
    assert!(sum(|o| o.forged) > 10 * SEEDS, "forgeries");
    assert!(sum(|o| o.evidence) > SEEDS, "double votes are proven");
    assert!(outcomes.iter().any(|o| o.max_round >= 4), "rounds");
    let recovery = sum(|o| o.recovery) / SEEDS;
    assert!(recovery < 3 * SECOND, "mean recovery {recovery} us");
}

/// Runs seeds until one fails; says why it did.
fn caught(mutation: Mutation, within: u64) -> String {
    let failure = |seed| run(seed, Some(mutation)).failure.map(|failure| (seed, failure));
    // The same seeds pass without the defect: see above.
    let (seed, failure) =
        (0..within).find_map(failure).unwrap_or_else(|| panic!("{mutation:?} was not caught"));
    println!("{mutation:?}: seed {seed}: {failure}");
    failure
}

#[test]
fn a_disk_that_lies_about_syncs_is_caught() {
    let failure = caught(Mutation::NoFsync, 100);
    assert!(
        ["lost a decision", "double sign", "voted twice", "older than the store"]
            .iter()
            .any(|kind| failure.contains(kind)),
        "{failure}"
    );
}

#[test]
fn believing_certificates_is_caught() {
    caught(Mutation::NoCertificateCheck, 50);
}

#[test]
fn not_replaying_the_log_is_caught() {
    let failure = caught(Mutation::NoReplay, 100);
    assert!(["double sign", "voted twice"].iter().any(|kind| failure.contains(kind)), "{failure}");
}

#[test]
fn deduplication_without_reexchange_is_caught() {
    let failure = caught(Mutation::NoReexchange, 100);
    assert!(failure.contains("stall"), "{failure}");
}
