//! The rows, in the order of the table.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::cometbft::{self, Baseline};
use crate::cut;
use crate::kubernetes;
use crate::lab::{Lab, Testnet};
use crate::links;
use crate::report::{Goal, Row};

/// Offered when the most that the validators can commit is asked for; above what is to be reached.
const SATURATING: u32 = 12_000;
const STEADY: u32 = 2_000;
const NAMESPACES: usize = 100;
const SPLIT: Duration = Duration::from_secs(10);

/// Rows that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Up,
    Throughput,
    Latency,
    Cut,
    Heal,
    Links,
    Kubernetes,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    ups: usize,
    loads: usize,
    load_seconds: u64,
    heals: usize,
    links: links::Plan,
    kubernetes: kubernetes::Plan,
}

impl Plan {
    pub fn full() -> Self {
        Self {
            ups: 5,
            loads: 5,
            load_seconds: 15,
            heals: 20,
            links: links::Plan::FULL,
            kubernetes: kubernetes::Plan::FULL,
        }
    }

    pub fn quick() -> Self {
        Self {
            ups: 3,
            loads: 3,
            load_seconds: 8,
            heals: 3,
            links: links::Plan::QUICK,
            kubernetes: kubernetes::Plan::QUICK,
        }
    }
}

/// Measures the parts named in `only`, all if none is.
pub async fn all(lab: &Lab, plan: &Plan, only: &[Part], script: Option<&Path>) -> Vec<Row> {
    let wanted = |part| only.is_empty() || only.contains(&part);
    let mut rows = Vec::new();
    if wanted(Part::Up) {
        rows.push(up(lab, plan, 4, 1.5));
        rows.push(up(lab, plan, 20, 4.0));
    }
    if wanted(Part::Throughput) {
        let baseline = script.and_then(|script| baseline(script, plan, SATURATING));
        rows.extend(throughput(lab, plan, baseline));
    }
    if wanted(Part::Latency) {
        let baseline = script.and_then(|script| baseline(script, plan, STEADY));
        rows.extend(latency_and_memory(lab, plan, baseline));
    }
    if wanted(Part::Cut) {
        rows.extend(cuts().await);
    }
    if wanted(Part::Heal) {
        rows.push(heal(lab, plan).await);
    }
    if wanted(Part::Links) {
        rows.extend(links::rows(&plan.links).await);
    }
    if wanted(Part::Kubernetes) {
        rows.extend(kubernetes::rows(&plan.kubernetes).await);
    }
    rows
}

fn baseline(script: &Path, plan: &Plan, rate: u32) -> Option<Baseline> {
    progress(&format!("CometBFT, {rate} transactions/s offered"));
    match cometbft::run(script, plan.load_seconds, rate) {
        Ok(baseline) => Some(baseline),
        Err(error) => {
            eprintln!("NO BASELINE: {error:#}. It needs go, curl and jq; --no-baseline leaves it out.");
            None
        }
    }
}

fn up(lab: &Lab, plan: &Plan, nodes: usize, seconds: f64) -> Row {
    let name = format!("`up` to first block final, warm, {nodes} validators");
    progress(&name);
    let row = Row::new(&name, "s", Goal::AtMost, seconds);
    let measure = || -> Result<Vec<f64>> {
        // The first one warms the caches.
        drop(lab.up(nodes, 0)?);
        (0..plan.ups).map(|_| Ok(lab.up(nodes, 0)?.up.as_secs_f64())).collect()
    };
    match measure() {
        Ok(samples) => row.median_of(samples),
        Err(error) => row.failed(&error),
    }
}

fn throughput(lab: &Lab, plan: &Plan, baseline: Option<Baseline>) -> [Row; 2] {
    let mut rate = Row::new(
        &format!("transfers final, 4 validators, 1,000 accounts, {SATURATING}/s offered"),
        "/s",
        Goal::AtLeast,
        8000.0,
    );
    rate.baseline = baseline.map(|baseline| baseline.per_second);
    rate.beats_baseline = true;
    progress(&rate.measure);
    // Two cores have 2,000,000 us a second; 8,000 transfers may use 250 each, load included.
    let cost = Row::new("processor time of a transfer, 4 validators together", "us", Goal::AtMost, 200.0);
    let measure = || -> Result<(Vec<f64>, Vec<f64>)> {
        let testnet = lab.up(4, 0)?;
        testnet.load(STEADY, 2)?;
        let (mut rates, mut costs) = (Vec::new(), Vec::new());
        for _ in 0..plan.loads {
            let before = testnet.processor_seconds()?;
            let load = testnet.load(SATURATING, plan.load_seconds)?;
            let used = testnet.processor_seconds()? - before;
            rates.push(load.committed_per_second);
            costs.push(used * 1e6 / load.committed.max(1) as f64);
        }
        Ok((rates, costs))
    };
    match measure() {
        Ok((rates, costs)) => [rate.median_of(rates), cost.median_of(costs)],
        Err(error) => [rate.failed(&error), cost.failed(&error)],
    }
}

fn latency_and_memory(lab: &Lab, plan: &Plan, baseline: Option<Baseline>) -> Vec<Row> {
    let name = |what: &str| format!("{what} at {STEADY} transfers/s");
    let mut p50 = Row::new(&name("submit to final, p50 (baseline: mean)"), "ms", Goal::AtMost, 150.0);
    let mut p99 = Row::new(&name("submit to final, p99 (baseline: worst)"), "ms", Goal::AtMost, 400.0);
    let mut idle = Row::new("memory (PSS) of the largest node, idle", "MiB", Goal::AtMost, 16.0);
    let mut after = Row::new("memory (PSS) of the largest node, after that load", "MiB", Goal::AtMost, 64.0);
    if let Some(baseline) = baseline {
        p50.baseline = Some(baseline.latency_mean);
        p99.baseline = Some(baseline.latency_worst);
        idle.baseline = Some(baseline.idle_mib);
        after.baseline = Some(baseline.loaded_mib);
    }
    progress(&name("latency and memory"));
    let measure = || -> Result<[Vec<f64>; 4]> {
        let testnet = lab.up(4, 0)?;
        let resting = vec![largest(&testnet)?];
        let (mut middle, mut worst) = (Vec::new(), Vec::new());
        for _ in 0..plan.loads {
            let load = testnet.load(STEADY, plan.load_seconds)?;
            middle.push(load.latency_ms.p50);
            worst.push(load.latency_ms.p99);
        }
        Ok([middle, worst, resting, vec![largest(&testnet)?]])
    };
    match measure() {
        Ok([middle, worst, resting, loaded]) => vec![
            p50.median_of(middle),
            p99.median_of(worst),
            idle.median_of(resting),
            after.median_of(loaded),
        ],
        Err(error) => [p50, p99, idle, after].map(|row| row.failed(&error)).into(),
    }
}

fn largest(testnet: &Testnet<'_>) -> Result<f64> {
    Ok(testnet.memory_mib()?.into_iter().fold(0.0, f64::max))
}

async fn cuts() -> Vec<Row> {
    let name = |what: &str| format!("half/half cut of {NAMESPACES} namespaces: {what}");
    let set_up = Row::new(&name("set-up"), "ms", Goal::AtMost, 1000.0);
    let apply = Row::new(&name("apply"), "ms", Goal::AtMost, 20.0);
    let heal = Row::new(&name("heal"), "ms", Goal::AtMost, 20.0);
    let proven = Row::new(&name("proven on every crossing link"), "ms", Goal::AtMost, 1000.0);
    progress(&name("set-up, apply, heal, proof"));
    match cut::half_half(NAMESPACES).await {
        Ok(times) => vec![
            set_up.median_of(vec![times.set_up]),
            apply.median_of(times.apply),
            heal.median_of(times.heal),
            proven.median_of(vec![times.proven]),
        ],
        Err(error) => [set_up, apply, heal, proven].map(|row| row.failed(&error)).into(),
    }
}

async fn heal(lab: &Lab, plan: &Plan) -> Row {
    let name = format!("heal of a {} s split to the next block final, p95", SPLIT.as_secs());
    progress(&name);
    let row = Row::new(&name, "s", Goal::AtMost, 1.5);
    match heals(lab, plan.heals).await {
        Ok(samples) => row.quantile_of(samples, 0.95),
        Err(error) => row.failed(&error),
    }
}

async fn heals(lab: &Lab, count: usize) -> Result<Vec<f64>> {
    let testnet = lab.up(4, 0)?;
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        samples.push(testnet.heal_to_final(SPLIT).await?.as_secs_f64());
    }
    Ok(samples)
}

/// What is measured now, for the person who waits; the figures go to the standard output.
pub fn progress(what: &str) {
    eprintln!("measuring: {what}");
}
