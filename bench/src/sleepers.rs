//! Nodes that only sleep, so that nothing but their links is measured.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use netsplit_backend::{
    Backend as _, NodeArtifacts,
    local::{LocalBackend, LocalConfig},
};
use tempfile::TempDir;

#[derive(Debug)]
pub struct Sleepers {
    pub backend: LocalBackend,
    /// `n0`, `n1`, ...
    pub names: Vec<String>,
    _folder: TempDir,
}

/// Where a node is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub pid: u32,
    pub address: IpAddr,
}

impl Sleepers {
    pub async fn start(nodes: usize) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder for the nodes")?;
        let names: Vec<String> = (0..nodes).map(|index| format!("n{index}")).collect();
        let backend = LocalBackend::launch(LocalConfig::new(folder.path().into())?).await?;
        let artifacts = |name: &String| NodeArtifacts {
            node: name.clone(),
            files: Vec::new(),
            command: vec!["sleep".to_owned(), "3600".to_owned()],
            environment: Vec::new(),
        };
        backend.start(names.iter().map(artifacts).collect()).await?;
        Ok(Self { backend, names, _folder: folder })
    }

    pub async fn places(&self) -> Result<Vec<Place>> {
        let nodes = self.backend.nodes().await?;
        let place = |node: netsplit_backend::NodeStatus| {
            let pid = node.pid.with_context(|| format!("{} does not run", node.name))?;
            Ok(Place { pid, address: node.address })
        };
        nodes.into_iter().map(place).collect()
    }
}
