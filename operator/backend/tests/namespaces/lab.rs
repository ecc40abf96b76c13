//! A testnet of small helper nodes, and the questions that scenarios ask it.

use std::{
    fs,
    future::Future,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use netsplit_backend::{
    Backend, CutEvidence, CutRect, CutRequest, ExecStdio, NodeArtifacts, NodeFile, NodePlace, NodeState,
    local::{LocalBackend, LocalConfig},
};

/// How long anything that must happen may take on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Lab {
    pub(crate) backend: LocalBackend,
    pub(crate) places: Vec<NodePlace>,
    pub(crate) directory: Option<tempfile::TempDir>,
}

pub(crate) fn exe() -> String {
    std::env::current_exe().unwrap().to_str().unwrap().to_owned()
}

pub(crate) fn config(directory: PathBuf) -> LocalConfig {
    LocalConfig { grace: Duration::from_secs(2), ..LocalConfig::new(directory).unwrap() }
}

impl Lab {
    pub(crate) async fn new(nodes: usize) -> Self {
        Self::with(nodes, &["node"]).await
    }

    pub(crate) async fn with(nodes: usize, command: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut lab = Self::at(directory.path().to_path_buf(), nodes, command).await;
        lab.directory = Some(directory);
        lab
    }

    pub(crate) async fn at(directory: PathBuf, nodes: usize, command: &[&str]) -> Self {
        let backend = LocalBackend::launch(config(directory)).await.expect("this machine runs no testnet");
        let names: Vec<String> = (0..nodes).map(|index| format!("n{index}")).collect();
        let places = backend.places(&names).unwrap();
        let artifacts = names.iter().map(|name| artifacts(name, command)).collect();
        backend.start(artifacts).await.unwrap();
        let lab = Self { backend, places, directory: None };
        if command == ["node"] {
            for node in 0..nodes {
                until("the node is ready", async || lab.log(node).contains("ready")).await;
            }
        }
        lab
    }

    pub(crate) fn log(&self, node: usize) -> String {
        fs::read_to_string(self.backend.log_path(&self.places[node].name)).unwrap_or_default()
    }

    pub(crate) fn name(&self, node: usize) -> &str {
        &self.places[node].name
    }

    pub(crate) fn address(&self, node: usize) -> IpAddr {
        self.places[node].address
    }

    /// Runs a subcommand of this program beside a node.
    pub(crate) async fn run(&self, node: usize, arguments: &[&str]) -> Option<i32> {
        let null = || fs::File::options().read(true).write(true).open("/dev/null").unwrap().into();
        let stdio = ExecStdio {
            stdin: null(),
            stdout: null(),
            stderr: std::os::fd::AsFd::as_fd(&std::io::stderr()).try_clone_to_owned().unwrap(),
            tty: false,
        };
        let mut argv = vec![exe()];
        argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self.backend.exec(self.name(node), argv, stdio).await.unwrap().code
    }

    /// Whether a TCP connection from one node to another's port carries data.
    pub(crate) async fn tcp(&self, from: usize, to: usize, port: u16) -> bool {
        self.run(from, &["tcp", &format!("{}:{port}", self.address(to))]).await == Some(0)
    }

    /// Whether a datagram from one node reaches another's peer port. One to the API port, which is never cut, is sent after
    /// it on the same path: when that has arrived, the first has, or never will.
    pub(crate) async fn udp(&self, from: usize, to: usize) -> bool {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let token = format!("token-{}.", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        for port in [26600, 26601] {
            self.run(from, &["udp", &format!("{}:{port}", self.address(to)), &token]).await;
        }
        until("the datagram to the API port arrives", async || {
            self.log(to).contains(&format!("udp 26601 {token}"))
        })
        .await;
        // Two threads write the log: the first one may be behind by a line.
        let grace = Instant::now() + Duration::from_millis(100);
        while Instant::now() < grace {
            if self.log(to).contains(&format!("udp 26600 {token}")) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    pub(crate) fn cut(&self, id: &str, rects: &[(&[usize], &[usize])], lease: Duration) -> CutRequest {
        let names = |nodes: &[usize]| nodes.iter().map(|node| self.name(*node).to_owned()).collect();
        let rects = rects.iter().map(|(from, to)| CutRect { from: names(from), to: names(to) }).collect();
        CutRequest { id: id.to_owned(), rects, lease }
    }

    /// The latest evidence of a cut.
    pub(crate) async fn evidence(&self, id: &str) -> CutEvidence {
        let all = self.backend.evidence().await.unwrap();
        all.into_iter().rfind(|evidence| evidence.id == id).expect("the cut is known")
    }

    pub(crate) async fn until_proven(&self, id: &str) -> CutEvidence {
        until("the cut is proven", async || {
            self.backend.renew().await.unwrap();
            self.evidence(id).await.proof.is_proven()
        })
        .await;
        self.evidence(id).await
    }

    pub(crate) async fn state(&self, node: usize) -> NodeState {
        self.backend.nodes().await.unwrap()[node].state.clone()
    }
}

pub(crate) fn artifacts(name: &str, command: &[&str]) -> NodeArtifacts {
    let mut argv = vec![exe()];
    argv.extend(command.iter().map(|word| (*word).to_owned()));
    NodeArtifacts {
        node: name.to_owned(),
        files: vec![NodeFile { path: "keys/node.key".into(), contents: b"secret".to_vec(), mode: 0o600 }],
        command: argv,
        environment: Vec::new(),
    }
}

/// Waits for a condition.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A supervisor that does nothing but hold a testnet; says which processes it has.
pub(crate) fn outer(directory: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let lab = Lab::at(directory.into(), 2, &["node"]).await;
        let agent = lab.backend.agent_pid().await.unwrap().unwrap();
        let mut pids = vec![lab.backend.inner_pid(), agent];
        pids.extend(lab.backend.nodes().await.unwrap().iter().filter_map(|node| node.pid));
        let words: Vec<String> = pids.iter().map(ToString::to_string).collect();
        println!("{}", words.join(" "));
        std::future::pending::<()>().await;
    });
}

/// The inode that names a process's network namespace.
pub(crate) fn network(pid: u32) -> Option<String> {
    Some(fs::read_link(format!("/proc/{pid}/ns/net")).ok()?.to_str()?.to_owned())
}

/// Everything that keeps one of the network namespaces alive: processes, open descriptors, mounts.
pub(crate) fn holders(networks: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let name = process.file_name().to_string_lossy().into_owned();
        let Ok(pid) = name.parse::<u32>() else { continue };
        let held = |link: PathBuf| {
            fs::read_link(link)
                .is_ok_and(|target| networks.iter().any(|network| target.as_os_str() == network.as_str()))
        };
        if held(process.path().join("ns/net")) {
            found.push(format!("process {pid}"));
        }
        for fd in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            if held(fd.path()) {
                found.push(format!("descriptor of {pid}"));
            }
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(networks.iter().filter(|network| mounts.contains(network.as_str())).cloned());
    found
}

/// Whether a process is there and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
