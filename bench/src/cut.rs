//! A half/half cut of many namespaces, made through the backend as the command line makes it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use netsplit_backend::{Backend as _, CutRect, CutRequest, Proof};

use crate::{report::ms, sleepers::Sleepers};

/// Applied, renewed and healed so often; the medians count.
const ROUNDS: usize = 21;
/// The longest that a proof is waited for.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// In milliseconds.
#[derive(Debug, Default)]
pub struct CutTimes {
    pub set_up: f64,
    pub apply: Vec<f64>,
    pub heal: Vec<f64>,
    /// From the request to the proof of every crossing link.
    pub proven: f64,
}

pub async fn half_half(nodes: usize) -> Result<CutTimes> {
    let started = Instant::now();
    let sleepers = Sleepers::start(nodes).await?;
    let mut times = CutTimes { set_up: ms(started), ..CutTimes::default() };
    let backend = &sleepers.backend;
    let (left, right) = sleepers.names.split_at(nodes / 2);
    let rect = |from: &[String], to: &[String]| CutRect { from: from.to_vec(), to: to.to_vec() };
    let cut = CutRequest {
        id: "half".to_owned(),
        rects: vec![rect(left, right), rect(right, left)],
        lease: Duration::from_secs(15),
    };
    for _ in 0..ROUNDS {
        let started = Instant::now();
        backend.set_cuts(vec![cut.clone()]).await?;
        times.apply.push(ms(started));
        let started = Instant::now();
        backend.set_cuts(Vec::new()).await?;
        times.heal.push(ms(started));
    }
    let started = Instant::now();
    backend.set_cuts(vec![CutRequest { id: "proven".to_owned(), lease: PATIENCE, ..cut }]).await?;
    loop {
        let evidence = backend.evidence().await?;
        if evidence.iter().any(|cut| cut.id == "proven" && cut.proof == Proof::Proven) {
            break;
        }
        ensure!(started.elapsed() < PATIENCE, "the cut was not proven");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    times.proven = ms(started);
    backend.stop().await?;
    Ok(times)
}
