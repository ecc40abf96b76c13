//! The side of the local backend that lives in the outer process: a client of the inner one.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv4Addr},
    os::fd::OwnedFd,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use netsplit_links::{
    frame::{self, Assembly},
    shape::{LinkEntry, LinkUpdate},
};
use tokio::{
    net::TcpStream,
    sync::{oneshot, watch},
    task::AbortHandle,
    time::timeout,
};

use super::{
    INNER_COMMAND, chain,
    client::{Client, io_error, locked, unexpected},
    network::{MAX_NODES, Network},
    rpc::Channel,
    uplink,
    wire::{Hello, NodeSpec, Request, Response},
};
use crate::backend::{
    Backend, BackendError, CutEvidence, CutRequest, ExecExit, ExecStdio, LinkRequest, LinksEvidence,
    LinksRequest, NodeArtifacts, NodeHold, NodePlace, NodeSignal, NodeStatus, NodeStream,
};
use crate::translate::{Names, cut_evidence, links_evidence};

/// How long the inner process may take to enter its namespaces.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// What a local testnet needs.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Node directories (`nodes/NAME`) and logs (`logs/NAME.log`) go here. Made when missing.
    pub state_dir: PathBuf,
    /// This program: run again with [`INNER_COMMAND`].
    pub exe: PathBuf,
    /// Where a node's program without `/` is looked for before `PATH`.
    pub program_dirs: Vec<PathBuf>,
    /// How long a node has from SIGTERM to SIGKILL.
    pub grace: Duration,
}

impl LocalConfig {
    /// The running program, its directory for node programs, and 5 s of grace.
    pub fn new(state_dir: PathBuf) -> io::Result<Self> {
        let exe = std::env::current_exe()?;
        let program_dirs = exe.parent().map(Path::to_path_buf).into_iter().collect();
        Ok(Self { state_dir, exe, program_dirs, grace: Duration::from_secs(5) })
    }

    /// Where a program without `/` is: in the program directories, then on the `PATH`.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories = self.program_dirs.iter().cloned().chain(std::env::split_paths(&path));
        directories.map(|directory| directory.join(name)).find(|file| is_program(file))
    }
}

/// As it was asked for, and as it was told.
type ToldBase = (Arc<[LinkRequest]>, Arc<[LinkEntry]>);

/// A testnet on this machine.
#[derive(Debug)]
pub struct LocalBackend {
    config: LocalConfig,
    client: Arc<Client>,
    reader: AbortHandle,
    inner_pid: u32,
    rootless: bool,
    network: Network,
    /// The nodes' addresses answer from this machine, or why not.
    uplink: Result<(), String>,
    places: Mutex<Names>,
    /// The shaped links without faults, as they were told last.
    told_base: tokio::sync::Mutex<Option<ToldBase>>,
}

impl LocalBackend {
    /// Starts the inner process and waits until it has its namespaces.
    pub async fn launch(config: LocalConfig) -> Result<Self, BackendError> {
        let logs = config.state_dir.join("logs");
        for directory in [&config.state_dir, &logs, &config.state_dir.join("nodes")] {
            fs::create_dir_all(directory).map_err(io_error(format!("create {}", directory.display())))?;
        }
        let log = logs.join("netsplit.log");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(io_error(format!("open {}", log.display())))?;
        let (ours, theirs) = frame::pair().map_err(io_error("create the control socket"))?;
        let (inner_pid, gone) = start_inner(&config.exe, theirs, log).await?;
        let channel = Channel::new(ours).map_err(io_error("use the control socket"))?;
        let mut assembly = Assembly::default();
        let hello = timeout(HELLO_TIMEOUT, channel.receive(&mut assembly))
            .await
            .map_err(|_| BackendError::Gone("the inner process did not answer".to_owned()))?
            .map_err(io_error("read from the inner process"))?;
        let hello = hello.ok_or_else(|| {
            BackendError::Gone(format!(
                "the inner process ended at once; see {}",
                logs.join("netsplit.log").display()
            ))
        })?;
        let hello = frame::decode(&hello.bytes).map_err(|error| {
            BackendError::Failed(format!("the inner process's greeting is not understood: {error}"))
        })?;
        let rootless = match hello {
            Hello::Ready { rootless } => rootless,
            Hello::Refused(sentence) => return Err(BackendError::Refused(sentence)),
        };
        let uplink = join(inner_pid, rootless).await;
        let client = Arc::new(Client::new(channel, gone));
        let reader = tokio::spawn(Arc::clone(&client).read(assembly)).abort_handle();
        Ok(Self {
            config,
            client,
            reader,
            inner_pid,
            rootless,
            network: *uplink.as_ref().unwrap_or(&Network::PRIVATE),
            uplink: uplink.map(drop),
            places: Mutex::default(),
            told_base: tokio::sync::Mutex::default(),
        })
    }

    /// Whether the nodes' addresses answer from this machine's own network; the error says why not.
    pub fn answers_host(&self) -> Result<(), &str> {
        self.uplink.as_ref().copied().map_err(String::as_str)
    }

    /// Whether the testnet lives in a user namespace.
    pub fn is_rootless(&self) -> bool {
        self.rootless
    }

    /// The process that everything of the testnet ends with.
    pub fn inner_pid(&self) -> u32 {
        self.inner_pid
    }

    /// The link agent's process, when one runs.
    pub async fn agent_pid(&self) -> Result<Option<u32>, BackendError> {
        match self.client.call(Request::AgentPid, Vec::new()).await?.0 {
            Response::Pid(pid) => Ok(pid),
            other => Err(unexpected(&other)),
        }
    }

    /// What a node has written to its standard output and error, over all restarts.
    pub fn log_path(&self, node: &str) -> PathBuf {
        self.config.state_dir.join("logs").join(format!("{node}.log"))
    }

    /// Completes when the inner process has ended, with how it ended.
    pub async fn gone(&self) -> String {
        let mut gone = self.client.gone();
        let reason = gone.wait_for(Option::is_some).await.map(|reason| reason.clone());
        reason.ok().flatten().unwrap_or_else(|| "nobody watches the inner process".to_owned())
    }

    pub(super) async fn call(&self, request: Request) -> Result<Response, BackendError> {
        Ok(self.client.call(request, Vec::new()).await?.0)
    }

    async fn done(&self, request: Request) -> Result<(), BackendError> {
        match self.call(request).await? {
            Response::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn spec(&self, artifacts: &NodeArtifacts, address: Ipv4Addr) -> Result<NodeSpec, BackendError> {
        let name = &artifacts.node;
        let (program, arguments) = artifacts
            .command
            .split_first()
            .ok_or_else(|| BackendError::Invalid(format!("{name} has no command")))?;
        let mut command = vec![self.find_program(program)?];
        command.extend(arguments.iter().cloned());
        let directory = self.directory(name)?;
        let environment = artifacts.environment.clone();
        Ok(NodeSpec {
            name: name.clone(),
            address,
            directory,
            log: self.log_path(name),
            command,
            environment,
        })
    }

    fn directory(&self, node: &str) -> Result<PathBuf, BackendError> {
        let absolute = std::path::absolute(&self.config.state_dir)
            .map_err(io_error(format!("resolve {}", self.config.state_dir.display())))?;
        Ok(absolute.join("nodes").join(node))
    }

    fn find_program(&self, program: &str) -> Result<String, BackendError> {
        if program.contains('/') {
            return Ok(program.to_owned());
        }
        let found = self.config.program(program);
        found.and_then(|file| file.to_str().map(str::to_owned)).ok_or_else(|| {
            let looked: Vec<_> =
                self.config.program_dirs.iter().map(|dir| dir.display().to_string()).collect();
            BackendError::Invalid(format!("no program {program} in {} or in PATH", looked.join(", ")))
        })
    }
}

/// Whether a file can be run, at least by someone.
pub fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A testnet works without; its nodes are then reached through the supervisor alone.
async fn join(inner_pid: u32, rootless: bool) -> Result<Network, String> {
    if rootless {
        return Err("only root can join a testnet's network to the host's".to_owned());
    }
    uplink::open(inner_pid).await.map_err(|error| {
        let reason = chain(&error);
        tracing::warn!("node addresses will not answer from this machine: {reason}");
        reason
    })
}

/// Only a plain relative path may name a node's file.
fn write_files(directory: &Path, artifacts: &NodeArtifacts) -> Result<(), BackendError> {
    fs::create_dir_all(directory).map_err(io_error(format!("create {}", directory.display())))?;
    for file in &artifacts.files {
        let plain = file.path.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || file.path.as_os_str().is_empty() {
            return Err(BackendError::Invalid(format!(
                "{} is not a path below the directory of {}",
                file.path.display(),
                artifacts.node
            )));
        }
        let target = directory.join(&file.path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(io_error(format!("create {}", parent.display())))?;
        }
        let write = || -> io::Result<()> {
            // Made anew: the mode counts only for a file that is created, and a key is never readable in between.
            match fs::remove_file(&target) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut opened =
                fs::File::options().write(true).create_new(true).mode(file.mode & 0o777).open(&target)?;
            io::Write::write_all(&mut opened, &file.contents)
        };
        write().map_err(io_error(format!("write {}", target.display())))?;
    }
    Ok(())
}

impl Drop for LocalBackend {
    /// Closes the control socket, with which the inner process and everything in it ends.
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Starts the inner process on a thread that lives until it ends: it dies with its parent's thread.
async fn start_inner(
    exe: &Path,
    control: OwnedFd,
    log: fs::File,
) -> Result<(u32, watch::Receiver<Option<String>>), BackendError> {
    let (started, pid) = oneshot::channel();
    let (ended, gone) = watch::channel(None);
    let exe = exe.to_path_buf();
    let parent = move || {
        let spawn = || {
            let output = log.try_clone()?;
            Command::new(&exe)
                .arg(INNER_COMMAND)
                .stdin(Stdio::from(control))
                .stdout(output)
                .stderr(log)
                .spawn()
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", exe.display())))
        };
        match spawn() {
            Ok(mut child) => {
                // Whoever launched may be gone; then the closed socket ends the child.
                drop(started.send(Ok(child.id())));
                let how = match child.wait() {
                    Ok(status) => format!("the inner process ended ({status})"),
                    Err(error) => format!("the inner process cannot be waited for: {error}"),
                };
                ended.send_replace(Some(how));
            }
            Err(error) => drop(started.send(Err(error))),
        }
    };
    std::thread::Builder::new()
        .name("inner-parent".to_owned())
        .spawn(parent)
        .map_err(io_error("start a thread"))?;
    let pid = pid.await.map_err(|_| BackendError::Gone("its thread ended".to_owned()))?;
    Ok((pid.map_err(io_error("start the inner process"))?, gone))
}

#[async_trait]
impl Backend for LocalBackend {
    fn places(&self, nodes: &[String]) -> Result<Vec<NodePlace>, BackendError> {
        let distinct: BTreeSet<&String> = nodes.iter().collect();
        if distinct.len() != nodes.len() || nodes.is_empty() || nodes.len() > MAX_NODES {
            return Err(BackendError::Invalid(format!(
                "a local testnet has 1 to {MAX_NODES} nodes with different names, not {}",
                nodes.len()
            )));
        }
        if let Some(bad) = nodes.iter().find(|name| !is_file_name(name)) {
            return Err(BackendError::Invalid(format!("{bad:?} cannot name a node: it is no file name")));
        }
        let places = nodes
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let address = IpAddr::V4(self.network.node(index));
                Ok(NodePlace { name: name.clone(), address, directory: self.directory(name)? })
            })
            .collect::<Result<Vec<_>, BackendError>>()?;
        *locked(&self.places) =
            Names::new(nodes.iter().cloned().zip((0..nodes.len()).map(|index| self.network.node(index))));
        Ok(places)
    }

    async fn start(&self, nodes: Vec<NodeArtifacts>) -> Result<(), BackendError> {
        let names: Vec<String> = nodes.iter().map(|artifacts| artifacts.node.clone()).collect();
        let placed = locked(&self.places).len();
        if placed == 0 {
            self.places(&names)?;
        } else if placed != names.len() {
            return Err(BackendError::Invalid(format!(
                "{placed} nodes were placed and {} are started",
                names.len()
            )));
        }
        let specs = nodes
            .iter()
            .map(|artifacts| {
                let address = locked(&self.places).address(&artifacts.node)?;
                let spec = self.spec(artifacts, address)?;
                write_files(&spec.directory, artifacts)?;
                Ok(spec)
            })
            .collect::<Result<Vec<_>, BackendError>>()?;
        self.done(Request::Start { network: self.network, uplink: self.uplink.is_ok(), nodes: specs }).await
    }

    async fn nodes(&self) -> Result<Vec<NodeStatus>, BackendError> {
        match self.call(Request::Nodes).await? {
            Response::Nodes(nodes) => Ok(nodes),
            other => Err(unexpected(&other)),
        }
    }

    async fn connect(&self, node: &str, port: u16) -> Result<NodeStream, BackendError> {
        let connect = |source| BackendError::Connect { node: node.to_owned(), port, source };
        // At the address that faults are made at: who answers there says who it is.
        let address = locked(&self.places).address(node)?;
        let request = Request::Connect { address, port };
        let (_, fds) = self.client.call(request, Vec::new()).await.map_err(|error| match error {
            BackendError::Io { source, .. } => connect(source),
            other => other,
        })?;
        let fd = fds.into_iter().next();
        let fd = fd.ok_or_else(|| BackendError::Failed("a connection came without its socket".to_owned()))?;
        let stream = TcpStream::from_std(std::net::TcpStream::from(fd)).map_err(connect)?;
        stream.set_nodelay(true).map_err(io_error(format!("set up the connection to {node}")))?;
        Ok(Box::new(stream))
    }

    async fn set_cuts(&self, cuts: Vec<CutRequest>) -> Result<(), BackendError> {
        let cuts = {
            let names = locked(&self.places);
            cuts.iter().map(|cut| names.cut(cut)).collect::<Result<Vec<_>, _>>()?
        };
        self.done(Request::SetCuts { cuts }).await
    }

    async fn set_links(&self, links: LinksRequest) -> Result<(), BackendError> {
        // Held until it is done: of two calls the later one is told last.
        let mut told = self.told_base.lock().await;
        // Unknown again until it is done.
        let known = told.take().filter(|(asked, _)| *asked == links.base).map(|(_, base)| base);
        let is_known = known.is_some();
        let table = locked(&self.places).link_table(&links, known)?;
        let base = Arc::clone(table.base());
        self.done(Request::SetLinks { update: LinkUpdate::of(table, is_known) }).await?;
        *told = Some((links.base, base));
        Ok(())
    }

    async fn links(&self) -> Result<LinksEvidence, BackendError> {
        match self.call(Request::Links).await? {
            Response::Links(evidence) => Ok(links_evidence(evidence, &locked(&self.places))),
            other => Err(unexpected(&other)),
        }
    }

    async fn set_nodes(&self, holds: Vec<NodeHold>, lease: Duration) -> Result<(), BackendError> {
        self.done(Request::SetNodes { holds, lease, grace: self.config.grace }).await
    }

    async fn renew(&self) -> Result<(), BackendError> {
        self.done(Request::Renew).await
    }

    async fn evidence(&self) -> Result<Vec<CutEvidence>, BackendError> {
        match self.call(Request::Evidence).await? {
            Response::Evidence(evidence) => {
                let names = locked(&self.places);
                Ok(evidence.into_iter().map(|evidence| cut_evidence(evidence, &names)).collect())
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn exec(&self, node: &str, argv: Vec<String>, stdio: ExecStdio) -> Result<ExecExit, BackendError> {
        let request = Request::Exec { node: node.to_owned(), argv, tty: stdio.tty };
        match self.client.call(request, vec![stdio.stdin, stdio.stdout, stdio.stderr]).await?.0 {
            Response::Exited(exit) => Ok(exit),
            other => Err(unexpected(&other)),
        }
    }

    async fn signal(&self, node: &str, signal: NodeSignal) -> Result<(), BackendError> {
        self.done(Request::Signal { node: node.to_owned(), signal }).await
    }

    async fn restart(&self, node: &str) -> Result<(), BackendError> {
        self.done(Request::Restart { node: node.to_owned(), grace: self.config.grace }).await
    }

    async fn stop(&self) -> Result<(), BackendError> {
        self.done(Request::Stop { grace: self.config.grace }).await?;
        timeout(HELLO_TIMEOUT, self.gone())
            .await
            .map(drop)
            .map_err(|_| BackendError::Failed("the inner process did not end".to_owned()))
    }
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().eq([Component::Normal(name.as_ref())])
}
