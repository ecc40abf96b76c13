//! Several engines: steady blocks, partitions that heal, catching up, large blocks.

#![allow(clippy::unwrap_used, clippy::unchecked_time_subtraction)]

mod support;

use std::time::{Duration, Instant};

use netsplit_bft::{Message, limits};
use support::{Net, engines, peer};

const MS: Duration = Duration::from_millis(1);

#[test]
fn blocks_come_at_the_block_time() {
    let mut net = Net::mesh(engines(&[1, 1, 1, 1], 2, |_, _| {}), 20 * MS);
    net.run_until(60_000 * MS, |net| net.heights().iter().all(|height| *height >= 20));
    net.agree();
    let times: Vec<Duration> = net.decided.iter().filter(|d| d.0 == 0).map(|d| d.2).collect();
    for pair in times.windows(2) {
        let interval = pair[1] - pair[0];
        assert!((460 * MS..600 * MS).contains(&interval), "block after {interval:?}");
    }
    // A round trip and a half after the proposal: push, prevotes, precommits.
    assert!(times[0] <= 80 * MS, "first block after {:?}", times[0]);
    assert!(net.blamed.is_empty());
}

/// Halves that were apart finalise the next block at the speed of the network, wherever in a round the cut fell.
#[test]
fn halves_resume_within_300_ms_of_their_sessions() {
    for offset in 0..50 {
        let mut net = Net::mesh(engines(&[1, 1, 1, 1], 0, |_, _| {}), 20 * MS);
        net.run_to((3000 + 10 * offset) * MS);
        let side = |i| i < 2;
        net.connect(|i, j| side(i) == side(j));
        let before = net.heights().into_iter().max().unwrap();
        net.run_to(20_000 * MS);
        let stalled = net.heights().into_iter().max().unwrap();
        assert!(stalled <= before + 1, "finality without a quorum");
        net.connect(|_, _| true);
        let healed = net.now;
        net.run_until(healed + 300 * MS, |net| net.heights().iter().all(|height| *height > stalled));
        net.agree();
    }
}

#[test]
fn a_ring_heals_too() {
    for offset in 0..20 {
        let mut net = Net::ring(engines(&[1, 1, 1, 1, 1, 1], 0, |_, _| {}), 10 * MS);
        net.run_to((3000 + 25 * offset) * MS);
        let side = |i| i < 3;
        net.connect(|i, j| side(i) == side(j));
        net.run_to(15_000 * MS);
        let stalled = net.heights().into_iter().max().unwrap();
        net.connect(|_, _| true);
        let healed = net.now;
        net.run_until(healed + 1000 * MS, |net| net.heights().iter().all(|height| *height > stalled));
        net.agree();
    }
}

/// Blocks of many parts: every part goes from the proposer to each neighbour once, and to those behind it on request.
#[test]
fn large_blocks_travel_in_parts() {
    let large = |_: &mut netsplit_bft::EngineConfig, app: &mut support::ListApp| app.filling = 3_500_000;
    let mut net = Net::mesh(engines(&[1, 1, 1, 1], 0, large), 20 * MS);
    net.keep_sent = true;
    net.run_until(10_000 * MS, |net| net.heights().iter().all(|height| *height >= 3));
    let parts =
        net.sent.iter().filter(|(_, _, m)| matches!(m, Message::BlockPart(p) if p.height == 2)).count();
    assert_eq!(parts, 3 * 3_500_000usize.div_ceil(limits::PART_BYTES), "each part once for each neighbour");
    let mut ring = Net::ring(engines(&[1, 1, 1, 1, 1], 0, large), 20 * MS);
    ring.run_until(10_000 * MS, |net| net.heights().iter().all(|height| *height >= 3));
    ring.agree();
}

/// One node is away for 600 blocks. What it missed it fetches ahead; here the network is free, so this measures
/// the engine: hundreds of blocks a second, far more than the chain makes.
#[test]
fn an_absent_node_catches_up_fast() {
    let mut net = Net::mesh(engines(&[1, 1, 1, 1], 0, |config, _| config.block_time = 100 * MS), 5 * MS);
    net.connect(|i, j| i != 3 && j != 3);
    net.run_until(400_000 * MS, |net| net.heights()[0] >= 600);
    assert_eq!(net.heights()[3], 0);
    net.connect(|_, _| true);
    let (healed, start) = (net.now, Instant::now());
    net.run_until(healed + 1500 * MS, |net| net.heights()[3] >= 600);
    println!("600 blocks in {:?} of virtual and {:?} of real time", net.now - healed, start.elapsed());
    net.agree();
    assert!(net.blamed.is_empty());
}

#[test]
fn unequal_powers_decide_by_power() {
    // Nodes 1 to 3 have less than a third together: node 0 and one of them are a quorum.
    let mut net = Net::mesh(engines(&[9, 2, 1, 1], 0, |_, _| {}), 10 * MS);
    net.connect(|i, j| i < 2 && j < 2);
    net.run_until(60_000 * MS, |net| net.heights()[0] >= 10);
    assert_eq!(net.heights()[2..], [0, 0]);
    net.connect(|_, _| true);
    let goal = net.heights()[0] + 3;
    net.run_until(net.now + 10_000 * MS, |net| net.heights().iter().all(|height| *height >= goal));
    net.agree();
}

/// What a stranger or a bad signature says is dropped, blamed on who relayed it, and never reaches others.
#[test]
fn forged_votes_are_blamed_and_not_relayed() {
    use netsplit_bft::{Input, Vote, VoteKind};
    use netsplit_core::Signature;
    let mut net = Net::mesh(engines(&[1, 1, 1, 1], 0, |_, _| {}), 10 * MS);
    net.keep_sent = true;
    let vote = Vote {
        kind: VoteKind::Prevote,
        height: 1,
        round: 0,
        block: None,
        validator: support::validator_key(2).public(),
        signature: Signature::from_bytes([7; 64]),
    };
    net.input(0, Input::Received { from: peer(1), message: Message::Vote(vote) });
    assert_eq!(net.blamed, [(0, peer(1))]);
    assert!(!net.sent.iter().any(|(_, _, m)| *m == Message::Vote(vote)));
}

/// A block that breaks a rule is voted down, and the next round's proposer goes on.
#[test]
fn an_invalid_block_costs_a_round() {
    use bytes::Bytes;
    use netsplit_bft::{BlockPart, Input, Proposal, context::proposer_index};
    use netsplit_core::{Commit, Hash, Signature};
    let set = support::validators(&[1, 1, 1, 1]);
    let bad = (0..4)
        .find(|i| support::validator_key(*i).public() == set.as_slice()[proposer_index(&set, 1, 0)].address);
    let bad = bad.unwrap();
    let mut net = Net::mesh(engines(&[1, 1, 1, 1], 0, |_, _| {}), 10 * MS);
    net.engines[bad] = None;
    let mut block = support::ListApp::new(set, bad).build(bad, Commit::genesis(support::chain_id()), 1);
    block.header.state_root = Hash::from_bytes([1; 32]);
    let (id, bytes): (Hash, Bytes) = (block.id(), block.to_bytes());
    let mut proposal = Proposal {
        height: 1,
        round: 0,
        block: id,
        pol_round: None,
        proposer: support::validator_key(bad).public(),
        signature: Signature::from_bytes([0; 64]),
    };
    proposal.signature = support::validator_key(bad).sign(&proposal.sign_bytes(&support::chain_id()));
    for to in (0..4).filter(|i| *i != bad) {
        net.input(to, Input::Received { from: peer(bad), message: Message::Proposal(proposal) });
        let part = BlockPart { height: 1, id, index: 0, total: 1, bytes: bytes.clone() };
        net.input(to, Input::Received { from: peer(bad), message: Message::BlockPart(part) });
    }
    net.run_until(2_000 * MS, |net| net.heights().iter().all(|height| *height >= 1));
    assert!(net.engines.iter().flatten().all(|engine| engine.app().id(1) != id));
    assert!(net.blamed.is_empty(), "relaying an invalid proposal is not a fault");
}
