//! What shaped links must do to the packets of real nodes.

use std::time::Duration;

use netsplit_backend::{
    Backend, LinkEvidence, LinkRequest, LinkState, LinksRequest, Share, local::LocalBackend,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::lab::{Lab, artifacts, config, until};

const LONG: Duration = Duration::from_secs(15);
/// What a loaded machine may add to a packet's way.
pub(crate) const SLACK_MS: i32 = 30;

pub(crate) fn link(from: usize, to: usize, latency_ms: u64) -> LinkRequest {
    let state = LinkState { latency: Duration::from_millis(latency_ms), ..LinkState::default() };
    LinkRequest { from: format!("n{from}"), to: format!("n{to}"), number: (from * 100 + to) as u32, state }
}

pub(crate) fn faulted(links: Vec<LinkRequest>) -> LinksRequest {
    LinksRequest { seed: 7, faulted: links, lease: LONG, ..LinksRequest::default() }
}

impl Lab {
    /// How long a TCP connection to another node's peer port takes to come about, in milliseconds.
    pub(crate) async fn connect_ms(&self, from: usize, to: usize) -> i32 {
        self.run(from, &["connect", &format!("{}:26600", self.address(to))]).await.unwrap()
    }

    pub(crate) async fn takes(&self, from: usize, to: usize, ms: i32) -> bool {
        (ms..ms + SLACK_MS).contains(&self.connect_ms(from, to).await)
    }

    async fn link(&self, from: usize, to: usize) -> Option<LinkEvidence> {
        let all = self.backend.links().await.unwrap();
        let told = |fault: &String| fault.starts_with("the link agent was started again (1)");
        assert!(all.faults.iter().all(told), "{:?}", all.faults);
        all.links.into_iter().find(|link| link.from == self.name(from) && link.to == self.name(to))
    }

    /// Waits until the probes say what one link does, within a tolerance that leaves room for other tests.
    async fn until_measured(&self, from: usize, to: usize, ms: i64) {
        until("the probes measure the link", async || {
            self.backend.renew().await.unwrap();
            let measured = self.link(from, to).await.filter(|link| link.samples >= 25);
            measured.and_then(|link| link.latency_us).is_some_and(|us| (us - ms * 1_000).abs() < 3_000)
        })
        .await;
    }
}

/// A connection takes one packet each way.
pub(crate) async fn links_are_as_slow_as_asked_each_way() {
    let lab = Lab::new(3).await;
    assert!(lab.connect_ms(0, 1).await < SLACK_MS);
    lab.backend.set_links(faulted(vec![link(0, 1, 60), link(1, 0, 20), link(0, 2, 40)])).await.unwrap();
    until("both ways count", async || lab.takes(0, 1, 80).await && lab.takes(1, 0, 80).await).await;
    until("one way counts", async || lab.takes(0, 2, 40).await && lab.takes(2, 0, 40).await).await;
    assert!(lab.connect_ms(1, 2).await < SLACK_MS, "a link that nobody named");
    for (from, to, ms) in [(0, 1, 60), (1, 0, 20), (0, 2, 40)] {
        lab.until_measured(from, to, ms).await;
    }
    let counted = lab.link(0, 1).await.unwrap().counters;
    assert!(counted.packets > 0 && counted.lost == 0, "{counted:?}");
    lab.backend.set_links(faulted(vec![link(0, 1, 90)])).await.unwrap();
    until("the change holds", async || lab.takes(0, 1, 90).await).await;
    assert_eq!(lab.link(1, 0).await, None, "a link that is not shaped is not measured");
    lab.backend.set_links(LinksRequest::default()).await.unwrap();
    until("nothing is slow", async || lab.connect_ms(0, 1).await < SLACK_MS).await;
    lab.backend.stop().await.unwrap();
}

/// What was asked for before there was any node.
pub(crate) async fn links_are_slow_from_the_first_packet() {
    let directory = tempfile::tempdir().unwrap();
    let backend = LocalBackend::launch(config(directory.path().to_path_buf())).await.unwrap();
    let names = ["n0", "n1"].map(str::to_owned);
    let places = backend.places(&names).unwrap();
    backend.set_links(LinksRequest { base: [link(0, 1, 80)].into(), ..faulted(Vec::new()) }).await.unwrap();
    backend.start(names.iter().map(|name| artifacts(name, &["node"])).collect()).await.unwrap();
    let lab = Lab { backend, places, directory: Some(directory) };
    until("the node listens", async || {
        let took = lab.connect_ms(0, 1).await;
        assert!(took >= 80, "a connection took {took} ms");
        took < 255
    })
    .await;
    lab.until_measured(0, 1, 80).await;
    lab.backend.stop().await.unwrap();
}

pub(crate) async fn lost_packets_are_counted_and_measured() {
    let lab = Lab::new(2).await;
    let half = LinkState { loss: Share::millionths(500_000), ..LinkState::default() };
    let lossy = LinkRequest { state: half, ..link(0, 1, 0) };
    lab.backend.set_links(faulted(vec![lossy])).await.unwrap();
    until("the probes measure the loss", async || {
        lab.backend.renew().await.unwrap();
        let measured = lab.link(0, 1).await.unwrap();
        let share = measured.received as f64 / measured.sent.max(1) as f64;
        measured.sent >= 60 && (0.25..0.75).contains(&share)
    })
    .await;
    lab.backend.stop().await.unwrap();
}

/// Half of the probes come twice, overtake others, or are damaged and so lost; each as often as half says.
pub(crate) async fn shares_of_packets_are_measured() {
    let lab = Lab::new(4).await;
    let half = Share::millionths(500_000);
    let slow = LinkState { latency: Duration::from_millis(40), ..LinkState::default() };
    let to = |to, state| LinkRequest { state, ..link(0, to, 0) };
    let links = vec![
        to(1, LinkState { duplicate: half, ..slow }),
        to(2, LinkState { reorder: half, ..slow }),
        to(3, LinkState { corrupt: half, ..slow }),
    ];
    lab.backend.set_links(faulted(links)).await.unwrap();
    let expected = [(1, [0.0, 0.5, 0.0]), (2, [0.0, 0.0, 0.5]), (3, [0.5, 0.0, 0.0])];
    until("the probes measure the shares", async || {
        lab.backend.renew().await.unwrap();
        for (node, expected) in expected {
            let seen = lab.link(0, node).await.unwrap();
            let lost = seen.sent.saturating_sub(seen.received);
            let counts =
                [(lost, seen.sent), (seen.duplicated, seen.received), (seen.reordered, seen.received)];
            let shares = counts.map(|(count, of)| count as f64 / of.max(1) as f64);
            let is_near = |(found, expected): (f64, f64)| (found - expected).abs() < 0.25;
            if seen.sent < 60 || !shares.into_iter().zip(expected).all(is_near) {
                return false;
            }
        }
        true
    })
    .await;
    for node in [1, 2, 3] {
        lab.until_measured(0, node, 40).await;
    }
    lab.backend.stop().await.unwrap();
}

/// What goes through is as much as was asked for, from a modem to what a thread can still measure.
pub(crate) async fn rates_are_measured() {
    let lab = Lab::new(4).await;
    let rates = [(1, 64_000), (2, 2_000_000), (3, 100_000_000)];
    let links = rates.map(|(to, rate)| {
        let asked = link(0, to, 10);
        LinkRequest { state: LinkState { rate: Some(rate), ..asked.state }, ..asked }
    });
    lab.backend.set_links(faulted(links.to_vec())).await.unwrap();
    until("trains of probes measure the rates", async || {
        lab.backend.renew().await.unwrap();
        for (to, rate) in rates {
            let measured = lab.link(0, to).await.unwrap().rate.unwrap_or_default();
            if measured.abs_diff(rate) > rate / 5 {
                return false;
            }
        }
        true
    })
    .await;
    lab.backend.stop().await.unwrap();
}

/// Faulted links go back to their base when nobody renews them, and stay there.
pub(crate) async fn faulted_links_end_with_their_lease() {
    let lab = Lab::new(2).await;
    let lease = Duration::from_secs(1);
    let request = LinksRequest { base: [link(0, 1, 40)].into(), lease, ..faulted(vec![link(0, 1, 120)]) };
    lab.backend.set_links(request).await.unwrap();
    for _ in 0..5 {
        assert!(lab.connect_ms(0, 1).await >= 120, "renewed, and still it ended");
        lab.backend.renew().await.unwrap();
    }
    until("the lease ends", async || lab.backend.links().await.unwrap().lease_ended).await;
    until("the base holds", async || lab.takes(0, 1, 40).await).await;
    lab.backend.renew().await.unwrap_err();
    assert!((40..120).contains(&lab.connect_ms(0, 1).await), "what had ended was renewed");
    lab.until_base_measured().await;
    lab.backend.stop().await.unwrap();
}

impl Lab {
    async fn until_base_measured(&self) {
        until("the base is measured", async || {
            let measured = self.link(0, 1).await.filter(|link| link.samples >= 25);
            measured.and_then(|link| link.latency_us).is_some_and(|us| (us - 40_000).abs() < 3_000)
        })
        .await;
    }
}

pub(crate) async fn a_new_agent_is_told_the_links() {
    let lab = Lab::new(2).await;
    let request = LinksRequest { base: [link(1, 0, 30)].into(), ..faulted(vec![link(0, 1, 60)]) };
    lab.backend.set_links(request).await.unwrap();
    let first = lab.backend.agent_pid().await.unwrap().unwrap();
    kill(Pid::from_raw(first.cast_signed()), Signal::SIGKILL).unwrap();
    until("there is a new agent", async || {
        lab.backend.agent_pid().await.unwrap().is_some_and(|pid| pid != first)
    })
    .await;
    until("the links are as they were", async || lab.takes(0, 1, 90).await).await;
    lab.until_measured(0, 1, 60).await;
    assert_eq!(lab.backend.links().await.unwrap().faults.len(), 1, "packets passed unshaped meanwhile");
    lab.backend.stop().await.unwrap();
}

/// A cut of a shaped link is a cut: nothing that was held crosses it, and after the heal the link is as slow as before.
pub(crate) async fn a_shaped_link_can_be_cut() {
    let lab = Lab::new(2).await;
    lab.backend.set_links(faulted(vec![link(0, 1, 50)])).await.unwrap();
    lab.backend.set_cuts(vec![lab.cut("cut", &[(&[0], &[1])], LONG)]).await.unwrap();
    assert!(!lab.udp(0, 1).await, "the cut leaks");
    lab.until_proven("cut").await;
    lab.backend.set_cuts(Vec::new()).await.unwrap();
    until("the link is slow again", async || lab.takes(0, 1, 50).await).await;
    lab.backend.stop().await.unwrap();
}
