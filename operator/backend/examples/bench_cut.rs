//! How long a hundred namespaces take to set up, and a half/half cut to apply, prove and heal.
//!
//! `cargo run --release -p netsplit-backend --example bench_cut [NODES]`

#![allow(clippy::unwrap_used, reason = "a measurement that fails has nothing to report")]

use std::time::{Duration, Instant};

use netsplit_backend::{
    Backend, CutRect, CutRequest, CutState, NodeArtifacts,
    local::{AGENT_COMMAND, INNER_COMMAND, LocalBackend, LocalConfig, run_agent, run_inner},
};

fn main() {
    let word = std::env::args().nth(1).unwrap_or_default();
    match word.as_str() {
        INNER_COMMAND => run_inner().unwrap(),
        AGENT_COMMAND => run_agent().unwrap(),
        nodes => tokio::runtime::Runtime::new().unwrap().block_on(bench(nodes.parse().unwrap_or(100))),
    }
}

async fn bench(nodes: usize) {
    let directory = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..nodes).map(|index| format!("n{index}")).collect();
    let started = Instant::now();
    let backend = LocalBackend::launch(LocalConfig::new(directory.path().into()).unwrap()).await.unwrap();
    println!("inner process in its namespace after {:?}", started.elapsed());
    let started = Instant::now();
    let command = || vec!["sleep".to_owned(), "600".to_owned()];
    let artifacts =
        names.iter().map(|name| NodeArtifacts { node: name.clone(), files: Vec::new(), command: command() });
    backend.start(artifacts.collect()).await.unwrap();
    println!("{nodes} nodes: namespaces and processes after {:?}", started.elapsed());

    let (left, right) = names.split_at(nodes / 2);
    let rect = |from: &[String], to: &[String]| CutRect { from: from.to_vec(), to: to.to_vec() };
    let split = || CutRequest {
        id: "half".to_owned(),
        rects: vec![rect(left, right), rect(right, left)],
        lease: Duration::from_secs(15),
    };
    let (mut applied, mut renewed, mut healed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..21 {
        let times = [(&mut applied, true), (&mut renewed, true), (&mut healed, false)];
        for (list, cut) in times {
            let before = Instant::now();
            backend.set_cuts(if cut { vec![split()] } else { Vec::new() }).await.unwrap();
            list.push(before.elapsed());
        }
    }
    for (what, mut times) in [("apply", applied), ("renew", renewed), ("heal", healed)] {
        times.sort_unstable();
        println!(
            "{what}: median {:?}, worst {:?} of {}",
            times[times.len() / 2],
            times[times.len() - 1],
            times.len()
        );
    }

    let before = Instant::now();
    backend.set_cuts(vec![split()]).await.unwrap();
    let evidence = loop {
        let evidence = backend.evidence().await.unwrap().pop().unwrap();
        if evidence.proof.is_proven() {
            break evidence;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    println!(
        "proven after {:?} on {} links, {} drops",
        before.elapsed(),
        evidence.pairs.len(),
        evidence.drops
    );
    let before = Instant::now();
    backend.set_cuts(Vec::new()).await.unwrap();
    while backend.evidence().await.unwrap().pop().unwrap().state != CutState::Open {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("confirmed open after {:?}", before.elapsed());
    let before = Instant::now();
    backend.stop().await.unwrap();
    println!("stopped in {:?}", before.elapsed());
}
