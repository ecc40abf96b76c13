//! Networks of real node processes on loopback addresses of their own, with the standard ports.

// Each test program uses its part of this.
#![allow(dead_code)]

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use netsplit_config::{
    API_PORT, ConsensusParams, Genesis, GenesisAccount, GenesisValidator, HTTP_PORT, NodeConfig, PEER_PORT,
};
use netsplit_core::{Action, Hash, PublicKey, SecretKey, SignedTransaction, TransactionBody};
use netsplit_proto::node as wire;
use netsplit_proto::node::node_client::NodeClient;
use netsplit_proto::node::submit_result::Outcome;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

pub const PATIENCE: Duration = Duration::from_mins(1);
pub const BALANCE: u64 = 1_000_000_000;

pub struct Network {
    pub folder: TempDir,
    pub genesis: Genesis,
    pub nodes: Vec<Node>,
}

pub struct Node {
    pub name: String,
    pub folder: PathBuf,
    pub ip: String,
    process: Option<Child>,
    starts: u32,
}

/// A key that every run of a test derives again.
pub fn key(kind: &str, index: usize) -> SecretKey {
    SecretKey::from_seed(
        *Hash::of(netsplit_core::Domain::Seed, format!("{kind}/{index}").as_bytes()).as_bytes(),
    )
}

/// 127.x.y.z, different for each process of tests and each network in it.
fn prefix() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let network = NEXT.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    // 127.0 and 127.1 are left to people.
    format!(
        "127.{}.{}.{}",
        2 + (pid >> 8) % 250,
        pid % 256,
        network.checked_mul(16).expect("fewer than 16 networks")
    )
}

fn address(prefix: &str, index: usize) -> String {
    let (start, last) = prefix.rsplit_once('.').expect("a dotted prefix");
    format!("{start}.{}", last.parse::<usize>().expect("a number") + index)
}

impl Network {
    /// Files for `validators` and `full` nodes in a full mesh, with `accounts` funded ones; nothing runs yet.
    pub fn new(validators: usize, full: usize, accounts: usize, block_time_ms: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let genesis = Genesis {
            chain_name: "test".into(),
            genesis_time_ms: 1_700_000_000_000,
            protocol_version: 1,
            activation_heights: std::collections::BTreeMap::default(),
            consensus: ConsensusParams { block_time_ms, ..ConsensusParams::default() },
            validators: (0..validators)
                .map(|index| GenesisValidator {
                    address: key("validator", index).public(),
                    power: 1,
                    name: format!("node-{index}"),
                })
                .collect(),
            accounts: (0..accounts)
                .map(|index| GenesisAccount { address: key("account", index).public(), balance: BALANCE })
                .collect(),
        };
        let prefix = prefix();
        let count = validators + full;
        let nodes = (0..count)
            .map(|index| Node {
                name: format!("node-{index}"),
                folder: folder.path().join(format!("node-{index}")),
                ip: address(&prefix, index),
                process: None,
                starts: 0,
            })
            .collect();
        let network = Self { folder, genesis, nodes };
        for index in 0..count {
            network.write(index, index < validators);
        }
        network
    }

    fn write(&self, index: usize, validates: bool) {
        let node = &self.nodes[index];
        std::fs::create_dir_all(&node.folder).expect("a node's folder");
        let write_file = |name: &str, text: String| std::fs::write(node.folder.join(name), text).expect(name);
        write_file("genesis.json", self.genesis.to_json());
        write_file("node.key", key("node", index).to_file_text());
        let mut text = format!(
            "name = \"{}\"\nroles = [\"{}\"]\ndata_dir = \"data\"\ngenesis_file = \"genesis.json\"\n\
             node_key_file = \"node.key\"\n",
            node.name,
            if validates { "validator" } else { "full" },
        );
        if validates {
            write_file("validator.key", key("validator", index).to_file_text());
            text += "validator_key_file = \"validator.key\"\n";
        }
        write!(
            text,
            "[peer]\nlisten = \"{0}:{PEER_PORT}\"\n[api]\nlisten = \"{0}:{API_PORT}\"\n[http]\nlisten = \"{0}:{HTTP_PORT}\"\n",
            node.ip
        )
        .expect("writing to a string");
        for (other, peer) in self.nodes.iter().enumerate() {
            if other != index {
                let key = key("node", other).public();
                write!(
                    text,
                    "[[peer.peers]]\nname = \"{}\"\nkey = \"{key}\"\naddress = \"{}:{PEER_PORT}\"\n",
                    peer.name, peer.ip
                )
                .expect("writing to a string");
            }
        }
        NodeConfig::from_toml(&text, Path::new("node.toml")).expect("a valid configuration");
        write_file("node.toml", text);
    }

    pub fn start_all(&mut self) {
        for node in &mut self.nodes {
            node.start();
        }
    }

    pub fn chain_id(&self) -> Hash {
        self.genesis.hash()
    }

    pub fn transfer(&self, from: usize, to: &PublicKey, nonce: u64, amount: u64) -> SignedTransaction {
        let action = Action::Transfer { to: *to, amount };
        let body = TransactionBody { chain_id: self.chain_id(), nonce, fee: 1, gas_limit: 0, action };
        SignedTransaction::sign(&body, &key("account", from))
    }

    /// Waits until every node has a final block at `height` or above.
    pub async fn all_reach(&self, height: u64) {
        for node in &self.nodes {
            node.reach(height).await;
        }
    }

    /// Fails unless all nodes hold the same block at `height`; returns its parent's state root.
    pub async fn agree_at(&self, height: u64) -> Vec<u8> {
        let mut first: Option<wire::FinalBlock> = None;
        for node in &self.nodes {
            let block = node.block(height).await.block.expect("a block");
            if let Some(first) = &first {
                assert_eq!(
                    (&block.id, &block.state_root),
                    (&first.id, &first.state_root),
                    "{} at {height}",
                    node.name
                );
            } else {
                first = Some(block);
            }
        }
        first.expect("a network has nodes").state_root.to_vec()
    }
}

impl Node {
    pub fn start(&mut self) {
        self.start_with(Command::new(env!("CARGO_BIN_EXE_netsplit-node")));
    }

    /// Starts through a wrapping command, to which `--config FILE` is appended.
    pub fn start_with(&mut self, mut command: Command) {
        assert!(self.process.is_none(), "{} runs", self.name);
        self.starts += 1;
        let log = File::create(self.log_file()).expect("a log file");
        command.arg("--config").arg(self.folder.join("node.toml"));
        self.process = Some(command.stdin(Stdio::null()).stderr(log).spawn().expect("the node starts"));
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join(format!("log-{}", self.starts))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the node runs").id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the node runs");
        process.kill().expect("the node can be killed");
        process.wait().expect("the node ends");
    }

    /// SIGTERM, and the end.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        self.wait()
    }

    pub fn wait(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the node runs");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = process.try_wait().expect("the node can be waited for") {
                return status;
            }
            if Instant::now() > deadline {
                process.kill().expect("the node can be killed");
                panic!("{} did not end; its log:\n{}", self.name, self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn api_address(&self) -> String {
        format!("{}:{API_PORT}", self.ip)
    }

    pub fn http_address(&self) -> String {
        format!("{}:{HTTP_PORT}", self.ip)
    }

    pub async fn client(&self) -> NodeClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.api_address())).expect("an address");
        let deadline = Instant::now() + PATIENCE;
        loop {
            match endpoint.connect().await {
                Ok(channel) => return NodeClient::new(channel).max_decoding_message_size(64 << 20),
                Err(error) => {
                    assert!(Instant::now() < deadline, "{}: {error:?}; its log:\n{}", self.name, self.log());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    pub async fn status(&self) -> wire::Status {
        let mut client = self.client().await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match client.get_status(wire::GetStatusRequest {}).await {
                Ok(status) => return status.into_inner(),
                Err(status) => assert!(Instant::now() < deadline, "{}: {status}", self.name),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn reach(&self, height: u64) -> wire::Status {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await;
            if status.final_height >= height {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} is at {} and not at {height}; its log:\n{}",
                self.name,
                status.final_height,
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn block(&self, height: u64) -> wire::GetBlockResponse {
        self.client().await.get_block(wire::GetBlockRequest { height }).await.expect("the block").into_inner()
    }

    pub async fn account(&self, address: &PublicKey) -> wire::Account {
        let request = wire::GetAccountRequest { address: address.to_string() };
        self.client().await.get_account(request).await.expect("the account").into_inner()
    }

    pub async fn submit(&self, transactions: &[SignedTransaction]) -> Vec<Outcome> {
        let transactions = transactions.iter().map(SignedTransaction::to_bytes).collect();
        let request = wire::SubmitTransactionsRequest { transactions };
        let response = self.client().await.submit_transactions(request).await.expect("an answer");
        response.into_inner().results.into_iter().map(|result| result.outcome.expect("an outcome")).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended by itself.
            process.kill().ok();
            process.wait().ok();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "--- last lines of {}:\n{}",
                self.name,
                lines[lines.len().saturating_sub(15)..].join("\n")
            );
        }
    }
}

/// Waits for a condition with a deadline.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
