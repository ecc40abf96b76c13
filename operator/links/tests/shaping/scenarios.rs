//! What must hold of shaped packets.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use netsplit_links::{
    Rect,
    shape::{LinkState, LinkTable, Purpose, Share, Stream},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::lab::{A, B, C, Came, Meter, entry, latency, median, shaper, spawn_agent, table, until};

pub(crate) type Scenario = fn();

pub(crate) const ALL: [(&str, Scenario); 11] = [
    ("a_link_delays_one_way_only", delay),
    ("directions_differ", directions),
    ("loss_is_the_loss_that_the_seed_says", loss),
    ("the_rate_holds_and_the_backlog_is_bounded", rate),
    ("copies_come_twice_and_corrupt_ones_never", duplicate_and_corrupt),
    ("some_overtake", reorder),
    ("a_change_leaves_no_gap", changes),
    ("a_cut_drops_what_is_held", cut),
    ("faults_end_with_their_lease", lease),
    ("a_dead_agent_lets_packets_flow", death),
    ("a_hung_agent_lets_packets_flow", hang),
];

const MS: Duration = Duration::from_millis(1);

fn share(percent: u32) -> Share {
    Share::millionths(percent * 10_000)
}

/// Never early, and the soonest not late: what the machine itself adds to the others is not the link's.
fn assert_delay(came: &[Came], asked: Duration) {
    let soonest = came.iter().map(|came| came.took).min().unwrap();
    let middle = median(came);
    println!("    asked {asked:?}: soonest {soonest:?}, median {middle:?}");
    assert!(soonest + MS / 10 >= asked && soonest <= asked + 2 * MS);
}

fn delay() {
    let shaper = shaper(table(vec![entry(A, B, latency(20))]));
    let (mut there, mut back) = (Meter::new(A, B), Meter::new(B, A));
    there.pace(300, 2 * MS, 64);
    assert_delay(&there.wait_for(300), 20 * MS);
    back.pace(100, 2 * MS, 64);
    assert!(back.wait_for(100).iter().any(|came| came.took < MS));
    let report = shaper.report().unwrap();
    assert_eq!(report.links[0].counters.packets, 300);
    assert_eq!((report.held, report.faults()), (0, vec![]));
}

fn directions() {
    let _shaper =
        shaper(table(vec![entry(A, B, latency(30)), entry(B, A, latency(8)), entry(A, C, latency(50))]));
    for (from, to, asked) in [(A, B, 30), (B, A, 8), (A, C, 50)] {
        let mut meter = Meter::new(from, to);
        meter.pace(100, 2 * MS, 64);
        assert_delay(&meter.wait_for(100), asked * MS);
    }
}

fn loss() {
    const PACKETS: u32 = 10_000;
    let link = entry(A, B, LinkState { loss: share(5), ..LinkState::default() });
    let stream = Stream::new(7, link.number);
    let expected: BTreeSet<u32> =
        (0..PACKETS).filter(|n| !stream.hits(Purpose::Loss, u64::from(*n) + 1, share(5))).collect();
    let lost = PACKETS as usize - expected.len();
    assert!((400..600).contains(&lost), "{lost} of {PACKETS}");
    let shaper = shaper(table(vec![link]));
    let mut meter = Meter::new(A, B);
    meter.pace(PACKETS, MS / 10, 64);
    let came: BTreeSet<u32> = meter.wait_for(expected.len()).iter().map(|came| came.number).collect();
    let report = shaper.report().unwrap();
    println!("    {lost} of {PACKETS} lost: {:?}", report.links[0].counters);
    assert_eq!(report.faults(), Vec::<String>::new());
    assert_eq!(report.links[0].counters.lost, lost as u64);
    assert_eq!(came, expected);
}

fn rate() {
    let limited = LinkState { rate: Some(1_000_000), ..LinkState::default() };
    let shaper = shaper(table(vec![entry(A, B, limited)]));
    let (mut slow, mut other) = (Meter::new(A, B), Meter::new(A, C));
    let started = Instant::now();
    // Three times what the link carries: 972 bytes and their headers are 8,000 bits.
    slow.pace(600, MS * 8 / 3, 972);
    let took = started.elapsed();
    until("the link is empty", || shaper.report().unwrap().held == 0);
    let report = shaper.report().unwrap();
    let came = slow.wait_for(600 - report.links[0].counters.overflowed as usize);
    let most = (took + 120 * MS).as_millis() as usize / 8;
    println!("    {} of at most {most} came in {took:?}", came.len());
    assert!(came.len() <= most && came.len() * 10 >= most * 8);
    assert!(came.iter().all(|came| came.took < Duration::from_secs(2)));
    other.pace(50, MS, 972);
    assert!(median(&other.wait_for(50)) < 50 * MS, "one full link holds up another");
}

fn duplicate_and_corrupt() {
    let twice = LinkState { duplicate: Share::ALL, ..LinkState::default() };
    let broken = LinkState { corrupt: Share::ALL, ..LinkState::default() };
    let shaper = shaper(table(vec![entry(A, B, twice), entry(A, C, broken)]));
    let (mut doubled, mut corrupted) = (Meter::new(A, B), Meter::new(A, C));
    corrupted.pace(200, MS, 64);
    doubled.pace(200, MS, 64);
    let came = doubled.wait_for(400);
    assert!((0..200).all(|number| came.iter().filter(|came| came.number == number).count() == 2));
    // A bit of the ports or of the length sends it elsewhere, any other is found by the checksum.
    assert_eq!(corrupted.came().len(), 0);
    let report = shaper.report().unwrap();
    let corrupted = report.links.iter().map(|link| link.counters.corrupted).sum::<u64>();
    assert_eq!((corrupted, report.faults()), (200, vec![]));
}

fn reorder() {
    let state = LinkState { reorder: share(25), ..latency(20) };
    let _shaper = shaper(table(vec![entry(A, B, state)]));
    let mut meter = Meter::new(A, B);
    meter.pace(400, MS, 64);
    let came = meter.wait_for(400);
    let early = came.iter().filter(|came| came.took < 15 * MS).count();
    assert!((60..=140).contains(&early), "{early} of 400 skipped the latency");
    assert!(came.windows(2).any(|pair| pair[0].number > pair[1].number));
}

fn changes() {
    let shaper = shaper(table(vec![entry(A, B, latency(20))]));
    let mut meter = Meter::new(A, B);
    let started = Instant::now();
    let mut longest = Duration::ZERO;
    let mut sent = 0;
    while started.elapsed() < Duration::from_secs(2) {
        // To the exact queue and back, with other links coming and going.
        let exact = LinkState { loss: Share::millionths(1), ..latency(20) };
        for links in [vec![entry(A, B, exact), entry(B, A, latency(1))], vec![entry(A, B, latency(20))]] {
            let began = Instant::now();
            shaper.set(table(links)).unwrap();
            longest = longest.max(began.elapsed());
            meter.pace(5, MS / 2, 64);
            sent += 5;
        }
    }
    let came = meter.wait_for(sent);
    println!("    {sent} packets over {} changes, the slowest took {longest:?}", sent / 5);
    assert!(came.iter().all(|came| came.took + MS / 10 >= 20 * MS));
}

fn cut() {
    let shaper = shaper(table(vec![entry(A, B, latency(300)), entry(A, C, latency(300))]));
    let (mut doomed, mut other) = (Meter::new(A, B), Meter::new(A, C));
    doomed.pace(20, MS, 64);
    other.pace(20, MS, 64);
    shaper.cut(vec![Rect { from: vec![A], to: vec![B] }]).unwrap();
    shaper.cut(vec![]).unwrap();
    // What was held is gone, what comes after the heal is not.
    doomed.send(64);
    let last = doomed.wait_for(1);
    assert_eq!(last.iter().map(|came| came.number).collect::<Vec<_>>(), [20]);
    assert_eq!(other.wait_for(20).len(), 20);
    assert_eq!(shaper.report().unwrap().links[0].counters.cut, 20);
}

fn lease() {
    let (base, faulted) = (vec![entry(A, B, latency(20))], vec![entry(A, B, latency(80))]);
    let shaper = shaper(LinkTable::new(7, base, faulted, 800 * MS));
    let mut meter = Meter::new(A, B);
    for _ in 0..4 {
        shaper.renew(800 * MS).unwrap();
        meter.pace(50, 4 * MS, 64);
    }
    let faulted = meter.wait_for(200);
    assert!(!shaper.report().unwrap().lease_ended);
    assert_delay(&faulted, 80 * MS);
    until("the lease ends", || shaper.report().unwrap().lease_ended);
    shaper.renew(800 * MS).unwrap();
    drop(meter);
    let mut meter = Meter::new(A, B);
    meter.pace(50, 4 * MS, 64);
    assert_delay(&meter.wait_for(50), 20 * MS);
    assert!(shaper.report().unwrap().lease_ended, "an ended fault was renewed");
}

fn death() {
    flows_after(Signal::SIGKILL);
}

fn hang() {
    flows_after(Signal::SIGSTOP);
}

/// Whether packets flow within the gate's time of the signal.
fn flows_after(signal: Signal) {
    let gate = 500 * MS;
    for _ in 0..3 {
        let mut agent = spawn_agent(gate);
        let mut meter = Meter::new(A, B);
        meter.pace(20, MS, 64);
        assert!(meter.wait_for(20).iter().all(|came| came.took >= 100 * MS));
        kill(Pid::from_raw(agent.id() as i32), signal).unwrap();
        let began = Instant::now();
        let is_free = || {
            meter.send(64);
            std::thread::sleep(2 * MS);
            meter.came().last().is_some_and(|came| came.number >= 20 && came.took < 50 * MS)
        };
        until("packets flow", is_free);
        let took = began.elapsed();
        println!("    {signal}: free after {took:?}");
        // The rest is the machine's.
        assert!(took < gate + 300 * MS, "{took:?}");
        agent.kill().unwrap();
        agent.wait().unwrap();
    }
}
