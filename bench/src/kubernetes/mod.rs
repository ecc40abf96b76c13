//! The rows about Kubernetes, on a real one that is brought up for them.

mod crossing;
mod site;

use std::{collections::BTreeMap, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

use self::{
    crossing::{Arrival, Crossing},
    site::{Follower, Site, Testnet, bring_up, finish},
};
use crate::{
    lab::unix_ms,
    report::{Goal, Row},
    sleepers::Place,
};

const SMALL: usize = 4;
const LARGE: usize = 30;
/// How long nothing happens while requests at rest are counted.
const REST: Duration = Duration::from_mins(2);
/// The longest that a heal is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before and after a fault: the probes must be seen to come, and to have stopped.
const LOOK: Duration = Duration::from_millis(500);
/// Chaos Mesh 2.8.3, the same partition on the same machine, in seconds: docs/kubernetes.md.
const CHAOS_MESH: ChaosMesh = ChaosMesh { all_cut: 4.10, window: 3.50, proven: 7.61, healed: 2.14 };

struct ChaosMesh {
    all_cut: f64,
    window: f64,
    proven: f64,
    healed: f64,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub ups: usize,
    pub starts: usize,
    pub faults: usize,
    pub rest: Duration,
}

impl Plan {
    pub const FULL: Self = Self { ups: 3, starts: 3, faults: 20, rest: REST };
    pub const QUICK: Self = Self { ups: 1, starts: 1, faults: 5, rest: Duration::from_mins(1) };
}

/// One partition of 15 against 15 pods and its heal, in seconds.
#[derive(Clone, Copy, Debug)]
struct Split {
    all_cut: f64,
    window: f64,
    proven: f64,
    healed: f64,
}

pub async fn rows(plan: &Plan) -> Vec<Row> {
    let mut rows = vec![cluster_up(plan)];
    crate::measures::progress("installing the operator on a cluster");
    match Site::new() {
        Ok(site) => {
            rows.extend(small(&site, plan).await);
            rows.extend(large(&site, plan).await);
        }
        Err(error) => rows.push(Row::new("testnets on Kubernetes", "s", Goal::AtMost, 0.0).failed(&error)),
    }
    rows
}

fn cluster_up(plan: &Plan) -> Row {
    let name = "test cluster `up` to Ready, programs cached";
    crate::measures::progress(name);
    let row = Row::new(name, "s", Goal::AtMost, 6.0);
    let measure = || -> Result<Vec<f64>> {
        // The first one makes the images.
        drop(bring_up()?);
        (0..plan.ups).map(|_| Ok(bring_up()?.1.as_secs_f64())).collect()
    };
    match measure() {
        Ok(samples) => row.median_of(samples),
        Err(error) => row.failed(&error),
    }
}

fn first_final(nodes: usize, seconds: f64) -> Row {
    let name = format!("Kubernetes: testnet applied to first block final, {nodes} nodes");
    crate::measures::progress(&name);
    Row::new(&name, "s", Goal::AtMost, seconds)
}

async fn start(site: &Site, nodes: usize) -> Result<(Testnet<'_>, f64)> {
    let testnet = site.testnet(nodes)?;
    let first = testnet.first_final_ms().await?;
    let took = first.saturating_sub(testnet.applied_ms) as f64 / 1e3;
    Ok((testnet, took))
}

async fn small(site: &Site, plan: &Plan) -> [Row; 1] {
    let row = first_final(SMALL, 6.0);
    let mut samples = Vec::new();
    for _ in 0..plan.starts {
        match start(site, SMALL).await {
            Ok((_, took)) => samples.push(took),
            Err(error) => return [row.failed(&error)],
        }
    }
    [row.median_of(samples)]
}

/// Everything that is measured on the large testnet, while it runs.
async fn large(site: &Site, plan: &Plan) -> Vec<Row> {
    let first = first_final(LARGE, 20.0);
    let asked = Row::new("Kubernetes: API requests of a node at the start, 30 nodes", "", Goal::AtMost, 10.0);
    let resting =
        Row::new("Kubernetes: API requests of a node in a minute at rest, no leases", "", Goal::AtMost, 0.2);
    match requests(site, plan).await {
        Ok((testnet, seen)) => {
            let mut rows = vec![
                first.median_of(vec![seen.first]),
                asked.median_of(vec![seen.at_start]),
                resting.median_of(vec![seen.at_rest]),
            ];
            rows.extend(partitions(site, plan, &testnet));
            rows
        }
        Err(error) => [first, asked, resting].map(|row| row.failed(&error)).into(),
    }
}

/// The start of the large testnet, and what it asks of the API server, for each node.
struct Requests {
    /// In seconds.
    first: f64,
    at_start: f64,
    /// In a minute.
    at_rest: f64,
}

async fn requests<'a>(site: &'a Site, plan: &Plan) -> Result<(Testnet<'a>, Requests)> {
    let (_, before) = site.requests(0)?;
    let (testnet, first) = start(site, LARGE).await?;
    let (at_start, after) = site.requests(before)?;
    crate::measures::progress("Kubernetes: API requests at rest");
    tokio::time::sleep(plan.rest).await;
    let (at_rest, _) = site.requests(after)?;
    let minutes = plan.rest.as_secs_f64() / 60.0;
    let requests = Requests {
        first,
        at_start: at_start as f64 / LARGE as f64,
        at_rest: at_rest as f64 / minutes / LARGE as f64,
    };
    Ok((testnet, requests))
}

fn partitions(site: &Site, plan: &Plan, testnet: &Testnet<'_>) -> Vec<Row> {
    crate::measures::progress(&format!("Kubernetes: {} partitions of 15 pods against 15", plan.faults));
    let against = |what: &str, goal, chaos_mesh| {
        let name = format!("Kubernetes: 15 pods against 15, {what} (baseline: Chaos Mesh)");
        Row { baseline: Some(chaos_mesh), ..Row::new(&name, "s", Goal::AtMost, goal) }
    };
    let all_cut = against("apply to all pairs cut", 0.4, CHAOS_MESH.all_cut);
    let window = against("first to last pair cut", 0.05, CHAOS_MESH.window);
    let proven = against("apply to proven in the status", 1.0, CHAOS_MESH.proven);
    let healed = against("delete to all pairs open", 0.3, CHAOS_MESH.healed);
    let name = format!("Kubernetes: rules and sets left in the pods after {} faults", plan.faults);
    let left = Row::new(&name, "", Goal::AtMost, 0.0);
    let measure = || -> Result<(Vec<Split>, usize)> {
        let ends = testnet.ends()?;
        ensure!(ends.len() == LARGE, "{} pods run, not {LARGE}", ends.len());
        let before = objects_in(&ends)?;
        let splits = (0..plan.faults).map(|n| split(site, testnet, &ends, n)).collect::<Result<_>>()?;
        Ok((splits, objects_in(&ends)?.saturating_sub(before)))
    };
    match measure() {
        Ok((splits, more)) => {
            let samples = |of: fn(&Split) -> f64| splits.iter().map(of).collect();
            vec![
                all_cut.median_of(samples(|split| split.all_cut)),
                window.median_of(samples(|split| split.window)),
                proven.median_of(samples(|split| split.proven)),
                healed.median_of(samples(|split| split.healed)),
                left.median_of(vec![more as f64]),
            ]
        }
        Err(error) => [all_cut, window, proven, healed, left].map(|row| row.failed(&error)).into(),
    }
}

/// Splits the pods in two halves, waits until the status says that this is proven, and heals.
fn split(site: &Site, testnet: &Testnet<'_>, ends: &[(String, Place)], number: usize) -> Result<Split> {
    let names: Vec<String> = ends.iter().map(|(name, _)| name.clone()).collect();
    let name = format!("split-{number}");
    let object = testnet.partition(&name, names.split_at(names.len() / 2));
    let places: Vec<Place> = ends.iter().map(|(_, end)| *end).collect();
    let follower = Follower::start(site)?;
    let crossing = Crossing::start(&places)?;
    std::thread::sleep(LOOK);
    let applied_ms = unix_ms();
    site.kubectl(&["apply", "-f", "-"], Some(&object))?;
    let proven_ms = follower.wait_for(&name, "proven")?;
    std::thread::sleep(LOOK);
    let cut = crossing.end()?;

    let crossing = Crossing::start(&places)?;
    std::thread::sleep(LOOK);
    let deleted_ms = unix_ms();
    site.kubectl(&["delete", "experiment", &name], None)?;
    let pairs = places.len() * places.len() / 2;
    let all_open = crossing.until_open(pairs, PATIENCE);
    let open = crossing.end()?;
    ensure!(all_open, "not all pairs were open {} s after the heal", PATIENCE.as_secs());

    let last = by_pair(&cut, f64::max);
    ensure!(last.len() == pairs, "datagrams of {} pairs came before the cut, not of {pairs}", last.len());
    let first = by_pair(&open, f64::min);
    let since = |at_ms: f64, from_ms: u64| (at_ms - from_ms as f64) / 1e3;
    let latest = |of: &BTreeMap<_, f64>| of.values().copied().fold(f64::MIN, f64::max);
    // A pod is cut off in one transaction, so the last datagram from anyone tells when: each pair's own last one came up to one
    // round earlier.
    let mut by_pod: BTreeMap<u8, f64> = BTreeMap::new();
    for ((_, to), at_ms) in &last {
        let latest = by_pod.entry(*to).or_insert(*at_ms);
        *latest = latest.max(*at_ms);
    }
    let earliest = by_pod.values().copied().fold(f64::MAX, f64::min);
    ensure!(
        first.values().all(|at_ms| *at_ms >= deleted_ms as f64),
        "a datagram crossed the cut before it was healed"
    );
    Ok(Split {
        all_cut: since(latest(&last), applied_ms),
        window: (latest(&last) - earliest) / 1e3,
        proven: proven_ms.saturating_sub(applied_ms) as f64 / 1e3,
        healed: since(latest(&first), deleted_ms),
    })
}

fn by_pair(arrivals: &[Arrival], choose: fn(f64, f64) -> f64) -> BTreeMap<(u8, u8), f64> {
    let mut chosen = BTreeMap::new();
    for arrival in arrivals {
        let kept = chosen.entry(arrival.pair).or_insert(arrival.at_ms);
        *kept = choose(*kept, arrival.at_ms);
    }
    chosen
}

/// Chains, sets and rules that nf_tables holds in these pods.
fn objects_in(ends: &[(String, Place)]) -> Result<usize> {
    let mut count = 0;
    for (name, end) in ends {
        let mut nft = Command::new("nsenter");
        nft.arg(format!("--net=/proc/{}/ns/net", end.pid)).args(["nft", "--json", "list", "ruleset"]);
        let printed = finish(nft, None).with_context(|| format!("the rules of {name}"))?;
        let all: serde_json::Value = serde_json::from_str(&printed).context("what nft prints")?;
        let kinds = ["chain", "set", "rule"];
        let objects = all["nftables"].as_array().context("what nft prints")?;
        count += objects.iter().filter(|object| kinds.iter().any(|kind| object.get(kind).is_some())).count();
    }
    Ok(count)
}
