//! A half/half cut of many namespaces, made through the backend as the command line makes it.

use std::time::{Duration, Instant};

use anyhow::Result;
use netsplit_backend::local::{LocalBackend, LocalConfig};
use netsplit_backend::{Backend, CutRect, CutRequest, NodeArtifacts};

/// Applied, renewed and healed so often; the medians count.
const ROUNDS: usize = 21;

/// In milliseconds.
#[derive(Debug, Default)]
pub struct CutTimes {
    pub set_up: f64,
    pub apply: Vec<f64>,
    pub heal: Vec<f64>,
}

/// Nodes that only sleep, so that nothing but the links is measured.
pub async fn half_half(nodes: usize) -> Result<CutTimes> {
    let folder = tempfile::tempdir()?;
    let names: Vec<String> = (0..nodes).map(|index| format!("n{index}")).collect();
    let artifacts = names
        .iter()
        .map(|name| NodeArtifacts {
            node: name.clone(),
            files: Vec::new(),
            command: vec!["sleep".to_owned(), "600".to_owned()],
        })
        .collect();
    let started = Instant::now();
    let backend = LocalBackend::launch(LocalConfig::new(folder.path().into())?).await?;
    backend.start(artifacts).await?;
    let mut times = CutTimes { set_up: ms(started), ..CutTimes::default() };
    let (left, right) = names.split_at(nodes / 2);
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
    backend.stop().await?;
    Ok(times)
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
