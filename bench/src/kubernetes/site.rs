//! A real Kubernetes with the operator installed, and testnets on it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::IpAddr,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use netsplit_e2e::{Cluster, process_of_pod};
use netsplit_proto::node::{StreamBlocksRequest, node_client::NodeClient};
use serde_json::Value;
use tokio::time::timeout;
use tonic::transport::Endpoint;

use crate::{lab::unix_ms, sleepers::Place};

/// Which of this machine's clusters is used: not the one that tests use.
pub const SLOT: u8 = 9;
const NAMESPACE: &str = "bench";
/// A node's API.
const API_PORT: u16 = 26601;
const PATIENCE: Duration = Duration::from_mins(3);

/// The operator is installed in it.
#[derive(Debug)]
pub struct Site {
    pub cluster: Cluster,
}

/// A testnet on it; deleted when dropped.
#[derive(Debug)]
pub struct Testnet<'a> {
    site: &'a Site,
    name: String,
    /// When `kubectl apply` was started, in milliseconds of the Unix epoch.
    pub applied_ms: u64,
}

impl Site {
    pub fn new() -> Result<Self> {
        let site = Self { cluster: bring_up()?.0 };
        site.kubectl(&["create", "namespace", NAMESPACE], None)?;
        finish(site.cluster.helm_chart("install", NAMESPACE, &[]), None)?;
        Ok(site)
    }

    /// Runs `kubectl` in the operator's namespace; gives what it printed.
    pub fn kubectl(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let mut command = self.cluster.kubectl(&["--namespace", NAMESPACE]);
        command.args(arguments);
        finish(command, input)
    }

    /// Applies a testnet of 4 validators and as many full nodes as are left, and waits until it is ready.
    /// Blocks come so seldom that links are what keeps the machine busy: thirty nodes with ten blocks a second would leave
    /// two processors to nobody else.
    pub fn testnet(&self, nodes: usize) -> Result<Testnet<'_>> {
        let name = format!("bench-{nodes}");
        let full = match nodes - 4 {
            0 => String::new(),
            full => format!("\n    - {{name: full, role: full, count: {full}}}"),
        };
        let text = format!(
            "apiVersion: netsplit.dev/v1alpha1\nkind: Testnet\nmetadata: {{name: {name}}}\nspec:\n  \
             consensus: {{bft: {{blockTime: 1s}}}}\n  nodes:\n    - {{name: validator, role: validator, count: 4}}{full}\n"
        );
        let testnet = Testnet { site: self, name, applied_ms: unix_ms() };
        self.kubectl(&["apply", "-f", "-"], Some(&text))?;
        let object = format!("testnet/{}", testnet.name);
        self.kubectl(&["wait", "--for=condition=Ready", &object, "--timeout=180s"], None)?;
        Ok(testnet)
    }

    /// What is asked of the API server by programs in pods, without leases, since the log had so many bytes; and its length now.
    pub fn requests(&self, since: usize) -> Result<(usize, usize)> {
        let file = self.cluster.audit_log();
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut seen = std::collections::BTreeSet::new();
        for line in text.get(since..).unwrap_or_default().lines() {
            let entry: Value = serde_json::from_str(line).context("a line of the audit log")?;
            if entry["objectRef"]["resource"] != "leases" {
                // A watch has two lines: its beginning and its end.
                seen.insert(entry["auditID"].to_string());
            }
        }
        Ok((seen.len(), text.len()))
    }
}

/// A new cluster, and how long it took to be ready, images included.
pub fn bring_up() -> Result<(Cluster, Duration)> {
    let started = Instant::now();
    let cluster = Cluster::up(SLOT).map_err(|why| anyhow!(why))?;
    Ok((cluster, started.elapsed()))
}

impl Testnet<'_> {
    /// When the first node had its first block final, in milliseconds of the Unix epoch.
    pub async fn first_final_ms(&self) -> Result<u64> {
        let mut first = u64::MAX;
        for address in self.pods()?.into_iter().map(|(_, address, _)| address) {
            let endpoint = Endpoint::from_shared(format!("http://{address}:{API_PORT}"))?;
            let mut node = NodeClient::connect(endpoint).await?;
            let request = StreamBlocksRequest { from_height: 1, include_transactions: false };
            let mut blocks = node.stream_blocks(request).await?.into_inner();
            let block = timeout(PATIENCE, blocks.message()).await.context("no first block")??;
            first = first.min(block.context("the node ended its stream of blocks")?.final_at_ms);
        }
        ensure!(first < u64::MAX, "{} has no pods", self.name);
        Ok(first)
    }

    /// Name, address and UID of each.
    fn pods(&self) -> Result<Vec<(String, IpAddr, String)>> {
        let path = "{range .items[*]}{.metadata.name} {.status.podIP} {.metadata.uid}{\"\\n\"}{end}";
        let selector = format!("--selector=netsplit.dev/testnet={}", self.name);
        let printed =
            self.site.kubectl(&["get", "pods", &selector, &format!("--output=jsonpath={path}")], None)?;
        let line = |line: &str| -> Result<_> {
            let words: Vec<&str> = line.split(' ').collect();
            let [name, address, uid] = words.as_slice() else { bail!("a pod without address: {line:?}") };
            Ok(((*name).to_owned(), address.parse()?, (*uid).to_owned()))
        };
        printed.lines().map(line).collect()
    }

    /// The nodes and where their pods are, in the order of their names.
    pub fn ends(&self) -> Result<Vec<(String, Place)>> {
        let prefix = format!("{}-", self.name);
        let pods = self.pods()?.into_iter();
        pods.map(|(name, address, uid)| {
            let pid =
                process_of_pod(&uid, "netsplit-node").with_context(|| format!("{name} does not run"))?;
            Ok((name.strip_prefix(&prefix).unwrap_or(&name).to_owned(), Place { pid, address }))
        })
        .collect()
    }

    /// A partition of these two halves that lasts until it is deleted, as an object.
    pub fn partition(&self, name: &str, halves: (&[String], &[String])) -> String {
        format!(
            "apiVersion: netsplit.dev/v1alpha1\nkind: Experiment\nmetadata: {{name: {name}}}\nspec:\n  testnet: {}\n  \
             faults: [{{at: 0s, for: 1h, partition: [[{}], [{}]]}}]\n",
            self.name,
            halves.0.join(", "),
            halves.1.join(", ")
        )
    }
}

impl Drop for Testnet<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "testnet", &self.name, "--cascade=foreground"];
        if let Err(error) = self.site.kubectl(&delete, None) {
            eprintln!("cannot delete {}: {error:#}", self.name);
        }
    }
}

/// Follows the states of the faults of all experiments from now on.
#[derive(Debug)]
pub struct Follower {
    kubectl: Child,
    lines: Receiver<(u64, String)>,
}

impl Follower {
    pub fn start(site: &Site) -> Result<Self> {
        let path = "{.metadata.name} {.status.faults[*].state}{\"\\n\"}";
        let mut kubectl = site
            .cluster
            .kubectl(&["--namespace", NAMESPACE, "get", "experiments", "--watch"])
            .arg(format!("--output=jsonpath={path}"))
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start kubectl")?;
        let printed = BufReader::new(kubectl.stdout.take().context("its output is a pipe")?);
        let (told, lines) = channel();
        thread::spawn(move || {
            for line in printed.lines().map_while(Result::ok) {
                if told.send((unix_ms(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { kubectl, lines })
    }

    /// When the status said so, in milliseconds of the Unix epoch.
    pub fn wait_for(&self, experiment: &str, state: &str) -> Result<u64> {
        let wanted = format!("{experiment} {state}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((at_ms, line)) if line == wanted => return Ok(at_ms),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => bail!("the status never said {wanted:?}"),
                Err(RecvTimeoutError::Disconnected) => bail!("kubectl no longer tells of experiments"),
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let ended = self.kubectl.kill().and_then(|()| self.kubectl.wait());
        if let Err(error) = ended {
            eprintln!("cannot end kubectl: {error}");
        }
    }
}

/// Runs a command that must succeed; gives what it printed.
pub fn finish(mut command: Command, input: Option<&str>) -> Result<String> {
    let what = format!("{:?}", command.get_args().collect::<Vec<_>>());
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {what}"))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).with_context(|| format!("{what} does not read"))?;
    }
    let ended = child.wait_with_output().with_context(|| format!("cannot wait for {what}"))?;
    ensure!(
        ended.status.success(),
        "{what} ended with {}: {}",
        ended.status,
        String::from_utf8_lossy(&ended.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}
