//! A testnet under measurement, driven through the command line as a person drives it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use netsplit_proto::node::StreamBlocksRequest;
use netsplit_proto::node::node_client::NodeClient;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::transport::Endpoint;

/// No block for so long after a heal is no heal.
const HEAL_LIMIT: Duration = Duration::from_mins(1);

/// Where testnets run: a folder of their own, so that those of the user are left alone.
#[derive(Debug)]
pub struct Lab {
    folder: TempDir,
    netsplit: PathBuf,
}

/// One running testnet; taken down when dropped.
#[derive(Debug)]
pub struct Testnet<'a> {
    lab: &'a Lab,
    name: String,
    /// From the start of `netsplit up` to its end: the first block is final then.
    pub up: Duration,
}

#[derive(Debug, Deserialize)]
struct Status {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    pid: u32,
    api: String,
}

/// What `netsplit load --json` tells.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    pub committed: u64,
    pub committed_per_second: f64,
    pub latency_ms: Latency,
}

#[derive(Debug, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
}

impl Lab {
    /// `programs` holds `netsplit` and `netsplit-node`.
    pub fn new(programs: &Path) -> Result<Self> {
        let netsplit = programs.join("netsplit");
        ensure!(netsplit.is_file(), "there is no {}: build it first, or give --programs", netsplit.display());
        let folder = tempfile::tempdir().context("cannot make a folder for the testnets")?;
        Ok(Self { folder, netsplit })
    }

    /// Launches a testnet of `validators` and `full` nodes, meshed, blockTime 100 ms, links as they are.
    pub fn up(&self, validators: usize, full: usize) -> Result<Testnet<'_>> {
        let name = format!("bench-{validators}-{full}");
        let mut text = format!(
            "apiVersion: netsplit.dev/v1alpha1\nkind: Testnet\nmetadata: {{name: {name}}}\nspec:\n  \
             consensus: {{bft: {{blockTime: 100ms}}}}\n  nodes:\n    \
             - {{name: validator, role: validator, count: {validators}}}\n"
        );
        if full > 0 {
            writeln!(text, "    - {{name: full, role: full, count: {full}}}")?;
        }
        let file = self.folder.path().join(format!("{name}.yaml"));
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let started = Instant::now();
        let mut testnet = Testnet { lab: self, name, up: Duration::ZERO };
        let file = file.to_str().context("the temporary folder's name is not UTF-8")?;
        self.run(&["up", "-f", file, "--detach"])?;
        testnet.up = started.elapsed();
        Ok(testnet)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let output = Command::new(&self.netsplit)
            .args(arguments)
            .env("NETSPLIT_STATE_DIR", self.folder.path().join("state"))
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.netsplit.display()))?;
        ensure!(
            output.status.success(),
            "`netsplit {}` ended with {}: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(output)
    }
}

impl Testnet<'_> {
    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let all = [arguments, &["-t", &self.name]].concat();
        self.lab.run(&all)
    }

    fn nodes(&self) -> Result<Vec<Node>> {
        let output = self.run(&["status", "--json"])?;
        let status: Status = serde_json::from_slice(&output.stdout).context("the status cannot be read")?;
        Ok(status.nodes)
    }

    /// Signed transfers from the testnet's 1,000 accounts.
    pub fn load(&self, rate: u32, seconds: u64) -> Result<Load> {
        let output =
            self.run(&["load", "--rate", &format!("{rate}/s"), "--for", &format!("{seconds}s"), "--json"])?;
        serde_json::from_slice(&output.stdout).context("the load's figures cannot be read")
    }

    /// Memory of each node in MiB, shared pages in proportion.
    pub fn memory_mib(&self) -> Result<Vec<f64>> {
        self.nodes()?.iter().map(|node| pss_mib(node.pid)).collect()
    }

    /// Processor time of all nodes so far, in seconds.
    pub fn processor_seconds(&self) -> Result<f64> {
        self.nodes()?.iter().map(|node| processor_seconds(node.pid)).sum()
    }

    /// Splits the four validators in two halves, heals after `lasts`, and tells how long after the command to heal the
    /// next block was final on the first validator.
    pub async fn heal_to_final(&self, lasts: Duration) -> Result<Duration> {
        let api = self.nodes()?.first().context("the testnet has no nodes")?.api.clone();
        self.run(&["split", "validator-0,validator-1", "validator-2,validator-3"])?;
        tokio::time::sleep(lasts).await;
        let mut node = NodeClient::connect(Endpoint::from_shared(format!("http://{api}"))?).await?;
        // Opened while nothing becomes final: the first block it tells is the first after the heal.
        let request = StreamBlocksRequest { from_height: 0, include_transactions: false };
        let mut blocks = node.stream_blocks(request).await?.into_inner();
        let early = timeout(Duration::from_millis(300), blocks.message()).await;
        ensure!(early.is_err(), "a block became final while the validators were split");
        let healed_at = unix_ms();
        self.run(&["heal"])?;
        let block =
            timeout(HEAL_LIMIT, blocks.message()).await.context("no block was final after the heal")??;
        let block = block.context("the node ended its stream of blocks")?;
        Ok(Duration::from_millis(block.final_at_ms.saturating_sub(healed_at)))
    }
}

impl Drop for Testnet<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["down"]) {
            eprintln!("cannot take down {}: {error:#}", self.name);
        }
    }
}

pub fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

fn pss_mib(pid: u32) -> Result<f64> {
    let file = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .with_context(|| format!("no Pss in {file}"))?;
    let kib: f64 =
        line.trim().trim_end_matches(" kB").trim().parse().with_context(|| format!("Pss in {file}"))?;
    Ok(kib / 1024.0)
}

/// Used by all threads of a process so far.
pub fn processor_seconds(pid: u32) -> Result<f64> {
    /// Of `/proc/PID/stat`, fixed by the kernel's interface (`USER_HZ`).
    const TICKS_A_SECOND: f64 = 100.0;
    let file = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    // The command's name in parentheses may hold anything; user and system time are the 12th and 13th field after it.
    let (_, fields) = text.rsplit_once(')').with_context(|| format!("{file} has no name"))?;
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).filter_map(|word| word.parse().ok()).collect();
    ensure!(ticks.len() == 2, "{file} has no times");
    Ok(ticks.iter().sum::<f64>() / TICKS_A_SECOND)
}
