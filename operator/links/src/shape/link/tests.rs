use proptest::prelude::*;

use super::*;
use crate::shape::Share;

const MS: u64 = 1_000_000;

fn share() -> impl Strategy<Value = Share> {
    prop_oneof![Just(0), 0..=1_000_000u32].prop_map(Share::millionths)
}

fn states() -> impl Strategy<Value = LinkState> {
    let times = (0..200u64, 0..50u64);
    let rate = prop::option::of(100_000..1_000_000_000u64);
    (times, rate, share(), share(), share(), share()).prop_map(
        |((latency, jitter), rate, loss, duplicate, reorder, corrupt)| LinkState {
            latency: Duration::from_millis(latency),
            jitter: Duration::from_millis(jitter),
            loss,
            rate,
            duplicate,
            reorder,
            corrupt,
        },
    )
}

/// Gaps before packets, and their lengths.
fn traffic() -> impl Strategy<Value = Vec<(u64, usize)>> {
    prop::collection::vec((0..20 * MS, 40..65_000usize), 1..200)
}

/// Sends all, releasing what is due before each; the fates with the time each packet came.
fn run(link: &mut Link, packets: &[(u64, usize)]) -> Vec<(u64, Fate)> {
    let mut now = 0;
    let mut due = Vec::new();
    let mut fates = Vec::new();
    for (gap, length) in packets {
        now += gap;
        due.retain(|at| *at > now || !link.release(0));
        let fate = link.admit(Arrival::Traffic, *length, now);
        if let Fate::Leave { at, .. } = fate {
            due.push(at);
        }
        fates.push((now, fate));
    }
    fates
}

fn departures(fates: &[(u64, Fate)]) -> Vec<(u64, u64)> {
    let leaves = |(now, fate): &(u64, Fate)| match fate {
        Fate::Leave { at, .. } => Some((*now, *at)),
        Fate::Drop(_) => None,
    };
    fates.iter().filter_map(leaves).collect()
}

proptest! {
    #[test]
    fn the_same_seed_gives_the_same_fates(state in states(), packets in traffic(), seed: u64, number: u32) {
        let fates = |seed| run(&mut Link::new(state, Stream::new(seed, number)), &packets);
        prop_assert_eq!(fates(seed), fates(seed));
    }

    #[test]
    fn what_is_lost_depends_on_no_other_setting(state in states(), packets in traffic(), seed: u64) {
        let loss = Share::millionths(400_000);
        let lost = |state| -> Vec<bool> {
            let fates = run(&mut Link::new(state, Stream::new(seed, 1)), &packets);
            fates.iter().map(|(_, fate)| *fate == Fate::Drop(Dropped::Loss)).collect()
        };
        let alone = LinkState { loss, ..LinkState::default() };
        prop_assert_eq!(lost(LinkState { loss, ..state }), lost(alone));
    }

    #[test]
    fn the_order_is_kept_and_nothing_leaves_early(state in states(), packets in traffic(), seed: u64) {
        let state = LinkState { reorder: Share::NONE, ..state };
        let left = departures(&run(&mut Link::new(state, Stream::new(seed, 1)), &packets));
        prop_assert!(left.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        let soonest = state.latency.saturating_sub(state.jitter).as_nanos() as u64;
        prop_assert!(left.iter().all(|(now, at)| *at >= now + soonest));
    }

    #[test]
    fn without_a_rate_no_packet_is_later_than_latency_and_jitter(state in states(), packets in traffic(), seed: u64) {
        let state = LinkState { rate: None, ..state };
        let left = departures(&run(&mut Link::new(state, Stream::new(seed, 1)), &packets));
        let mut latest = 0;
        let longest = (state.latency + state.jitter).as_nanos() as u64;
        for (now, at) in left {
            // Or it waits for one before it, which itself was in time.
            latest = latest.max(now + longest);
            prop_assert!(at <= latest);
        }
    }

    #[test]
    fn the_rate_is_never_exceeded(packets in traffic(), rate in 100_000..1_000_000_000u64) {
        let state = LinkState { rate: Some(rate), ..LinkState::default() };
        let mut link = Link::new(state, Stream::new(1, 1));
        let fates = run(&mut link, &packets);
        let left: Vec<(u64, u64, usize)> = fates
            .iter()
            .zip(&packets)
            .filter_map(|((now, fate), (_, length))| match fate {
                Fate::Leave { at, .. } => Some((*now, *at, *length)),
                Fate::Drop(_) => None,
            })
            .collect();
        for pair in left.windows(2) {
            let bits = pair[1].2 as u64 * 8;
            // A nanosecond is lost to rounding.
            let time = u128::from(pair[1].1 - pair[0].1 + 1);
            prop_assert!(u128::from(bits) * 1_000_000_000 <= time * u128::from(rate) + u128::from(rate));
        }
        let one = 65_000 * 8 * 1_000_000_000 / rate;
        prop_assert!(left.iter().all(|(now, at, _)| at - now <= MAX_BACKLOG + one));
    }

    #[test]
    fn a_probe_has_the_luck_of_its_number_whatever_else_is_sent(
        state in states(), packets in traffic(), seed: u64, number: u64,
    ) {
        let state = LinkState { loss: Share::NONE, ..state };
        let stream = Stream::new(seed, 1);
        let mut link = Link::new(state, stream);
        let now = run(&mut link, &packets).last().unwrap().0;
        let jitter = stream.jitter(Purpose::ProbeJitter, number, state.jitter);
        let late = now + (state.latency.as_nanos() as u64).saturating_add_signed(jitter);
        let overtakes = stream.hits(Purpose::ProbeReorder, number, state.reorder);
        let Fate::Leave { at, duplicate, corrupt } = link.admit(Arrival::Probe(number), 100, now) else {
            return Err(TestCaseError::fail("nothing is lost"));
        };
        prop_assert_eq!(at, if overtakes { now } else { late });
        prop_assert_eq!(duplicate, stream.hits(Purpose::ProbeDuplicate, number, state.duplicate));
        prop_assert_eq!(corrupt.is_some(), stream.hits(Purpose::ProbeCorrupt, number, state.corrupt));
    }

    #[test]
    fn probes_change_nobodys_luck(state in states(), packets in traffic(), seed: u64) {
        let quiet = run(&mut Link::new(state, Stream::new(seed, 1)), &packets);
        let mut probed = Link::new(state, Stream::new(seed, 1));
        let mut now = 0;
        let mut due = Vec::new();
        for (number, (gap, length)) in packets.iter().enumerate() {
            now += gap;
            due.retain(|at| *at > now || !probed.release(0));
            if let Fate::Leave { .. } = probed.admit(Arrival::Probe(number as u64), 100, now) {
                prop_assert!(probed.release(0));
            }
            let fate = probed.admit(Arrival::Traffic, *length, now);
            if let Fate::Leave { at, .. } = fate {
                due.push(at);
            }
            prop_assert_eq!(fate, quiet[number].1);
        }
    }
}

#[test]
fn jitter_does_not_move_the_mean() {
    let state = LinkState {
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(10),
        ..LinkState::default()
    };
    let packets = vec![(MS, 100); 50_000];
    let left = departures(&run(&mut Link::new(state, Stream::new(1, 1)), &packets));
    let mean = left.iter().map(|(now, at)| at - now).sum::<u64>() / left.len() as u64;
    assert!(mean.abs_diff(20 * MS) < MS, "the mean of 20 +- 10 ms is {mean} ns");
}

#[test]
fn a_cut_drops_what_is_held_and_a_heal_brings_nothing_back() {
    let state = LinkState { latency: Duration::from_millis(20), ..LinkState::default() };
    let mut link = Link::new(state, Stream::new(1, 1));
    assert!(matches!(link.admit(Arrival::Traffic, 100, 0), Fate::Leave { .. }));
    let held = link.era();
    link.set_cut(true);
    assert_eq!(link.admit(Arrival::Traffic, 100, MS), Fate::Drop(Dropped::Cut));
    link.set_cut(false);
    assert!(!link.release(held));
    assert!(matches!(link.admit(Arrival::Traffic, 100, 2 * MS), Fate::Leave { .. }));
    assert!(link.release(link.era()));
    assert_eq!(link.counters().cut, 2);
}

#[test]
fn a_link_holds_no_more_than_its_share() {
    let state = LinkState { latency: Duration::from_secs(1), ..LinkState::default() };
    let mut link = Link::new(state, Stream::new(1, 1));
    for _ in 0..MAX_HELD {
        assert!(matches!(link.admit(Arrival::Traffic, 100, 0), Fate::Leave { .. }));
    }
    assert_eq!(link.admit(Arrival::Traffic, 100, 0), Fate::Drop(Dropped::Overflow));
    assert!(link.release(0));
    assert!(matches!(link.admit(Arrival::Traffic, 100, 0), Fate::Leave { .. }));
}

#[test]
fn reordered_packets_overtake() {
    let state = LinkState {
        latency: Duration::from_millis(20),
        reorder: Share::millionths(250_000),
        ..LinkState::default()
    };
    let mut link = Link::new(state, Stream::new(1, 1));
    let left = departures(&run(&mut link, &vec![(MS, 100); 4_000]));
    let overtook = left.iter().filter(|(now, at)| now == at).count();
    assert_eq!(overtook as u64, link.counters().reordered);
    assert!((800..1_200).contains(&overtook), "{overtook} of 4000 overtook");
}
