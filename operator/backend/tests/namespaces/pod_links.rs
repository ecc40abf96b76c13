//! What link agents in pods must do to packets that arrive, and what they together must know of it.

use std::time::Duration;

use netsplit_backend::{
    CutState, LinkEvidence, LinkRequest, LinkState, LinksRequest, Share, kubernetes::tables::TestnetLinks,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    lab::{Lab, until},
    links::{SLACK_MS, faulted, link},
    pods::{LONG, Pods, cut, evidence, until_proven},
};

/// `None` where this process may not enter the namespaces.
async fn running(count: usize, lease: Duration) -> Option<(Pods, TestnetLinks)> {
    running_in(count, count, lease).await
}

async fn running_in(places: usize, count: usize, lease: Duration) -> Option<(Pods, TestnetLinks)> {
    let mut pods = Pods::new(places).await?;
    let links = pods.testnet().await;
    links.set_members(pods.members(count)).unwrap();
    pods.start_all(count, lease);
    links.set_cuts(Vec::new()).await.unwrap();
    pods.until_all_may_start(count).await;
    Some((pods, links))
}

fn seen(links: &TestnetLinks, from: usize, to: usize) -> Option<LinkEvidence> {
    let all = links.links().unwrap().links;
    all.into_iter().find(|link| link.from == format!("n{from}") && link.to == format!("n{to}"))
}

/// Waits until the receiver's clock says what one link does, within a tolerance that leaves room for other tests.
async fn until_measured(links: &TestnetLinks, from: usize, to: usize, ms: i64) -> LinkEvidence {
    until(&format!("the link from n{from} to n{to} is measured at {ms} ms"), async || {
        links.renew().unwrap();
        let measured = seen(links, from, to).filter(|link| link.samples >= 25);
        measured.and_then(|link| link.latency_us).is_some_and(|us| (us - ms * 1_000).abs() < 3_000)
    })
    .await;
    seen(links, from, to).unwrap()
}

async fn until_takes(lab: &Lab, from: usize, to: usize, ms: i32) {
    until(&format!("a connection from n{from} to n{to} takes {ms} ms"), || lab.takes(from, to, ms)).await;
}

async fn until_fast(lab: &Lab, from: usize, to: usize) {
    until("nothing is slow", async || lab.connect_ms(from, to).await < SLACK_MS).await;
}

pub(crate) async fn links_of_pods_are_as_slow_as_asked_each_way() {
    let Some((pods, links)) = running(3, LONG).await else { return };
    let lab = &pods.lab;
    links.set_links(faulted(vec![link(0, 1, 60), link(1, 0, 20), link(0, 2, 40)])).await.unwrap();
    // A connection takes one packet each way.
    for (from, to, ms) in [(0, 1, 80), (1, 0, 80), (0, 2, 40), (2, 0, 40)] {
        until_takes(lab, from, to, ms).await;
    }
    assert!(lab.connect_ms(1, 2).await < SLACK_MS, "a link that nobody named");
    assert!(lab.tcp(0, 1, 26601).await, "the API");
    for (from, to, ms) in [(0, 1, 60), (1, 0, 20), (0, 2, 40)] {
        let measured = until_measured(&links, from, to, ms).await;
        assert!(measured.sent <= measured.received + 1, "{measured:?}");
    }
    let known = links.links().unwrap();
    assert!(known.faults.is_empty() && !known.lease_ended && known.links.len() == 3, "{known:?}");
    assert!(seen(&links, 0, 1).unwrap().counters.packets > 0);

    // A cut of a shaped link is a cut, and after the heal the link is as slow as before.
    links.set_cuts(vec![cut("cut", &[(&[0], &[1])], LONG)]).await.unwrap();
    assert!(!lab.udp(0, 1).await, "the cut leaks");
    until_proven(&links, "cut").await;
    links.set_cuts(Vec::new()).await.unwrap();
    until("the link is seen open", async || evidence(&links, "cut").state == CutState::Open).await;
    until_takes(lab, 0, 1, 80).await;

    let half = Share::millionths(500_000);
    let lossy = LinkRequest { state: LinkState { loss: half, ..LinkState::default() }, ..link(0, 1, 0) };
    let mut overtaking = link(0, 2, 40);
    overtaking.state.reorder = half;
    let mut narrow = link(2, 0, 10);
    narrow.state.rate = Some(1_000_000);
    links.set_links(faulted(vec![lossy, overtaking, narrow, link(1, 0, 90)])).await.unwrap();
    until_measured(&links, 1, 0, 90).await;
    until("both ends tell the loss, and the receiver who overtook", async || {
        links.renew().unwrap();
        let (lossy, overtaking) = (seen(&links, 0, 1).unwrap(), seen(&links, 0, 2).unwrap());
        let is_half = |count: u64, of: u64| (0.25..0.75).contains(&(count as f64 / of.max(1) as f64));
        let enough = lossy.sent >= 60 && overtaking.sent >= 60;
        enough && is_half(lossy.received, lossy.sent) && is_half(overtaking.reordered, overtaking.received)
    })
    .await;
    until_measured(&links, 0, 2, 40).await;
    until("trains of probes measure the rate", async || {
        links.renew().unwrap();
        seen(&links, 2, 0).unwrap().rate.is_some_and(|rate| rate.abs_diff(1_000_000) < 200_000)
    })
    .await;
    links.set_links(LinksRequest::default()).await.unwrap();
    until_fast(lab, 0, 1).await;
    assert!(links.links().unwrap().links.is_empty());
    pods.stop();
}

/// Faults end when no operator renews them; the base holds for as long as the agents live.
pub(crate) async fn faulted_links_of_pods_end_with_their_lease() {
    let lease = Duration::from_secs(2);
    let Some((pods, links)) = running(2, lease).await else { return };
    let request = LinksRequest { base: [link(0, 1, 40)].into(), lease, ..faulted(vec![link(0, 1, 120)]) };
    links.set_links(request.clone()).await.unwrap();
    for _ in 0..10 {
        assert!(pods.lab.connect_ms(0, 1).await >= 120, "renewed, and still it ended");
        links.renew().unwrap();
    }
    // Nobody renews it.
    until_takes(&pods.lab, 0, 1, 40).await;
    assert!(links.links().unwrap().lease_ended);
    links.renew().unwrap_err();
    assert!(pods.lab.connect_ms(0, 1).await < 120, "what had ended was renewed");
    until("the base is measured", async || {
        let us = seen(&links, 0, 1).filter(|link| link.samples >= 25).and_then(|link| link.latency_us);
        us.is_some_and(|us| (us - 40_000).abs() < 3_000)
    })
    .await;
    links.set_links(request).await.unwrap();
    assert!(!links.links().unwrap().lease_ended);
    assert!(pods.lab.connect_ms(0, 1).await >= 120, "asked for again");
    // The operator goes away.
    drop(links);
    pods.hub.resign();
    pods.stop();
    until_takes(&pods.lab, 0, 1, 40).await;
}

pub(crate) async fn agents_of_pods_that_die_or_hang_leave_links_free_and_are_told_of() {
    let Some((mut pods, links)) = running(2, LONG).await else { return };
    links
        .set_links(LinksRequest { base: [link(1, 0, 30)].into(), ..faulted(vec![link(0, 1, 60)]) })
        .await
        .unwrap();
    until_measured(&links, 0, 1, 60).await;
    pods.kill(1).await;
    until_takes(&pods.lab, 0, 1, 30).await;
    pods.start(1, "uid-1", 1, "t-n1 uid-1", LONG);
    until("it is there again", async || links.links().is_ok()).await;
    until_measured(&links, 0, 1, 60).await;
    until_takes(&pods.lab, 0, 1, 90).await;
    let faults = links.links().unwrap().faults;
    assert!(faults.len() == 1 && faults[0].contains("n1 was started again (1)"), "{faults:?}");

    until("one process is the agent", async || pods.agents_of("uid-1").len() == 1).await;
    let agent = Pid::from_raw(pods.agents_of("uid-1")[0].cast_signed());
    links.renew().unwrap();
    kill(agent, Signal::SIGSTOP).unwrap();
    until_takes(&pods.lab, 0, 1, 30).await;
    until("nobody knows the links", async || {
        links.links().is_err_and(|error| error.to_string().contains("n1 has not answered for"))
    })
    .await;
    kill(agent, Signal::SIGCONT).unwrap();
    until_takes(&pods.lab, 0, 1, 90).await;
    until("it says that it hung", async || {
        let faults = links.links().map(|known| known.faults).unwrap_or_default();
        faults.iter().any(|fault| fault.contains("stood still 1 times") && fault.contains("pod of n1"))
    })
    .await;
    pods.stop();
}

pub(crate) async fn shaped_links_outlive_their_operator_and_follow_a_pod() {
    // A third namespace is free for the pod to come.
    let Some((mut pods, links)) = running_in(3, 2, LONG).await else { return };
    let request =
        LinksRequest { base: [link(0, 1, 40), link(1, 0, 40)].into(), ..faulted(vec![link(0, 1, 90)]) };
    links.set_links(request.clone()).await.unwrap();
    until_takes(&pods.lab, 0, 1, 130).await;
    pods.hub.lead(3);
    links.set_links(LinksRequest::default()).await.unwrap_err();
    let links = pods.hub.testnet("lab", "t").unwrap();
    links.set_members(pods.members(2)).unwrap();
    until("the agents follow the new leader", async || links.agents().unwrap().iter().all(|a| a.connected))
        .await;
    // It has not heard of the links yet, also when it knows of the cuts and nodes, and leaves them as they are.
    links.set_cuts(Vec::new()).await.unwrap();
    links.set_nodes(Vec::new(), LONG).await.unwrap();
    for _ in 0..5 {
        assert!(pods.lab.connect_ms(0, 1).await >= 130, "the links were open in between");
    }
    links.set_links(request).await.unwrap();
    assert!(pods.lab.connect_ms(0, 1).await >= 130);
    until_measured(&links, 0, 1, 90).await;
    assert_eq!(links.links().unwrap().faults, Vec::<String>::new());

    // Node 1 comes back in another pod, at another address: its first packets are as slow as its last.
    pods.kill(1).await;
    links.set_members(vec![pods.member(0, "uid-0", 0), pods.member(1, "uid-new", 2)]).unwrap();
    pods.start(1, "uid-new", 2, "t-n1 uid-new", LONG);
    until("the node may start", || pods.may_start(2)).await;
    assert!(pods.lab.connect_ms(0, 2).await >= 130 && pods.lab.connect_ms(2, 0).await >= 130);
    until_measured(&links, 0, 1, 90).await;
    until_measured(&links, 1, 0, 40).await;
    assert_eq!(links.links().unwrap().faults, Vec::<String>::new(), "another pod's agent is no second start");
    pods.stop();
}
