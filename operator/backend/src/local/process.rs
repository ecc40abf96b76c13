//! The nodes' processes: start, signal, end, restart.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, OwnedFd},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{sync::watch, time::timeout};

use super::{
    spawn::{Group, confine},
    wire::{Failure, NodeSpec},
};
use crate::backend::{ExecExit, Hold, NodeSignal, NodeState, NodeStatus};

/// From SIGKILL to the end of a process.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// One node: its place in the network, and the process that runs there now.
#[derive(Debug)]
pub(super) struct Node {
    spec: NodeSpec,
    namespace: OwnedFd,
    current: Mutex<Current>,
    /// One restart or stop at a time.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Current {
    pid: Option<u32>,
    restarts: u32,
    /// What faults hold it in.
    held: Option<Hold>,
    /// A hold has ended its process: it runs again after it.
    is_owed: bool,
    state: watch::Sender<NodeState>,
}

impl Node {
    fn current(&self) -> MutexGuard<'_, Current> {
        // Nothing panics while it holds the lock.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.spec.address
    }

    pub(super) fn namespace(&self) -> &OwnedFd {
        &self.namespace
    }

    pub(super) fn log(&self) -> &Path {
        &self.spec.log
    }

    fn status(&self) -> NodeStatus {
        let current = self.current();
        NodeStatus {
            name: self.spec.name.clone(),
            state: current.state.borrow().clone(),
            pid: current.pid,
            address: IpAddr::V4(self.spec.address),
            restarts: current.restarts,
            paused: current.running().is_some_and(is_stopped),
            held: current.held,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.spec.name
    }

    pub(super) fn is_held(&self) -> bool {
        self.current().held.is_some()
    }

    /// The process that is paused, or is about to be.
    pub(super) fn paused_pid(&self) -> Option<u32> {
        let current = self.current();
        current.running().filter(|_| current.held == Some(Hold::Paused))
    }

    /// Says what it is to be held in, for [`settle`]; whether that is something new.
    pub(super) fn hold(&self, hold: Option<Hold>) -> bool {
        std::mem::replace(&mut self.current().held, hold) != hold
    }

    /// Starts the program. A failure becomes the node's state, too.
    fn spawn(self: &Arc<Self>) -> Result<(), String> {
        let result = self.try_spawn();
        if let Err(reason) = &result {
            self.current().state.send_replace(NodeState::Failed { reason: reason.clone() });
        }
        result
    }

    fn try_spawn(self: &Arc<Self>) -> Result<(), String> {
        let spec = &self.spec;
        let cannot =
            |what: &str, error: &dyn std::fmt::Display| format!("cannot {what} for {}: {error}", spec.name);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(&spec.log)
            .map_err(|error| cannot(&format!("open {}", spec.log.display()), &error))?;
        let errors = log.try_clone().map_err(|error| cannot("share the log", &error))?;
        let mut command = self.command(&spec.command)?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let namespace = self.namespace.try_clone().map_err(|error| cannot("share the namespace", &error))?;
        confine(&mut command, namespace, Group::Own);
        let mut child = tokio::process::Command::from(command)
            .spawn()
            .map_err(|error| cannot(&format!("start {:?}", spec.command[0]), &error))?;
        {
            let mut current = self.current();
            // With the count, or a node that was asked to run again would be told for a moment as one that never went.
            current.restarts += u32::from(current.pid.is_some());
            current.pid = child.id();
            current.state.send_replace(NodeState::Running);
        }
        let node = Arc::clone(self);
        tokio::spawn(async move {
            let state = match child.wait().await {
                Ok(status) => {
                    let ExecExit { code, signal } = exit(status);
                    NodeState::Exited { code, signal }
                }
                Err(error) => NodeState::Failed { reason: format!("cannot wait for the process: {error}") },
            };
            node.current().state.send_replace(state);
        });
        Ok(())
    }

    /// A command with the node's directory and environment.
    fn command(&self, argv: &[String]) -> Result<Command, String> {
        let (program, arguments) = argv.split_first().ok_or("an empty command")?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.spec.directory).env("NETSPLIT_NODE", &self.spec.name);
        command.envs(self.spec.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    pub(super) fn is_running(&self) -> bool {
        *self.current().state.borrow() == NodeState::Running
    }

    /// Sends a signal to the program and the children in its group; `false` when there is none to get it.
    fn kill(&self, signal: Signal) -> Result<bool, String> {
        let current = self.current();
        let Some(pid) = current.running() else { return Ok(false) };
        match killpg(Pid::from_raw(pid.cast_signed()), signal) {
            Ok(()) => Ok(true),
            Err(nix::errno::Errno::ESRCH) => Ok(false),
            Err(errno) => Err(format!("cannot send {signal} to {}: {errno}", self.spec.name)),
        }
    }

    /// Ends the process: SIGTERM, and SIGKILL after the grace.
    async fn end(&self, grace: Duration) -> Result<(), String> {
        let mut state = self.current().state.subscribe();
        if !self.is_running() {
            return Ok(());
        }
        let ended = |state: &NodeState| *state != NodeState::Running;
        self.kill(Signal::SIGTERM)?;
        // A paused process gets the signal only when it goes on.
        self.kill(Signal::SIGCONT)?;
        if timeout(grace, state.wait_for(ended)).await.is_err() {
            self.crash().await?;
        }
        Ok(())
    }

    /// Ends the process at once: SIGKILL.
    async fn crash(&self) -> Result<(), String> {
        let mut state = self.current().state.subscribe();
        if !self.kill(Signal::SIGKILL)? {
            return Ok(());
        }
        timeout(KILL_LIMIT, state.wait_for(|state| *state != NodeState::Running))
            .await
            .map_err(|_| format!("{} did not end within 5 s of SIGKILL", self.spec.name))?
            .map(drop)
            .map_err(|_| format!("nobody watches {}", self.spec.name))
    }
}

impl Current {
    /// The pid of the process that runs. It may be used again after the exit was seen, never before.
    fn running(&self) -> Option<u32> {
        self.pid.filter(|_| *self.state.borrow() == NodeState::Running)
    }
}

/// Whether the kernel has stopped a process.
fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may hold anything, a `)` too.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

fn exit(status: ExitStatus) -> ExecExit {
    ExecExit { code: status.code(), signal: status.signal() }
}

/// All nodes, by name.
#[derive(Debug, Default)]
pub(super) struct Nodes(BTreeMap<String, Arc<Node>>);

impl Nodes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, spec: NodeSpec, namespace: OwnedFd) {
        let node = Node {
            namespace,
            current: Mutex::new(Current {
                pid: None,
                restarts: 0,
                held: None,
                is_owed: false,
                state: watch::Sender::new(NodeState::Starting),
            }),
            changing: tokio::sync::Mutex::default(),
            spec,
        };
        self.0.insert(node.spec.name.clone(), Arc::new(node));
    }

    pub(super) fn get(&self, name: &str) -> Result<Arc<Node>, Failure> {
        self.0.get(name).cloned().ok_or_else(|| Failure::UnknownNode(name.to_owned()))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.0.values()
    }

    pub(super) fn spawn_all(&self) -> Result<(), Failure> {
        self.iter().try_for_each(|node| node.spawn().map_err(Failure::Failed))
    }

    pub(super) fn statuses(&self) -> Vec<NodeStatus> {
        self.iter().map(|node| node.status()).collect()
    }

    /// Ends all processes at the same time.
    pub(super) async fn end_all(&self, grace: Duration) -> Result<(), Failure> {
        let ends = futures::future::join_all(self.iter().map(|node| node.end(grace))).await;
        ends.into_iter().collect::<Result<Vec<_>, _>>().map(drop).map_err(Failure::Failed)
    }
}

pub(super) async fn restart(node: &Arc<Node>, grace: Duration) -> Result<(), Failure> {
    let _changing = node.changing.lock().await;
    free(node)?;
    node.end(grace).await.map_err(Failure::Failed)?;
    node.spawn().map_err(Failure::Failed)
}

/// What a fault does to a node is undone by its heal alone.
fn free(node: &Node) -> Result<(), Failure> {
    if node.is_held() {
        return Err(Failure::Invalid(format!("a fault holds {}: heal it first", node.spec.name)));
    }
    Ok(())
}

pub(super) fn signal(node: &Node, signal: NodeSignal) -> Result<(), Failure> {
    free(node)?;
    let sent = match signal {
        NodeSignal::Terminate => node.kill(Signal::SIGTERM),
        NodeSignal::Kill => node.kill(Signal::SIGKILL),
        NodeSignal::Pause => node.kill(Signal::SIGSTOP),
        NodeSignal::Resume => node.kill(Signal::SIGCONT),
    };
    if !sent.map_err(Failure::Failed)? {
        return Err(Failure::Invalid(format!("{} has no running process", node.spec.name)));
    }
    Ok(())
}

/// Brings the process into the state that it is held in, or has it go on if it is not. Whoever comes first acts for all
/// that is wanted by then.
pub(super) async fn settle(node: &Arc<Node>, grace: Duration) -> Result<(), Failure> {
    let _changing = node.changing.lock().await;
    let hold = node.current().held;
    if hold.is_some_and(Hold::is_down) {
        if node.is_running() {
            node.current().is_owed = true;
        }
        let ended = if hold == Some(Hold::Killed) { node.crash().await } else { node.end(grace).await };
        return ended.map_err(Failure::Failed);
    }
    // A process that ended by itself meanwhile stays away, as it would without a fault.
    if std::mem::take(&mut node.current().is_owed) {
        node.spawn().map_err(Failure::Failed)?;
    }
    let signal = if hold == Some(Hold::Paused) { Signal::SIGSTOP } else { Signal::SIGCONT };
    node.kill(signal).map(drop).map_err(Failure::Failed)
}

/// Runs a command in the node's network with the given standard streams. Dropping the future kills it.
pub(super) async fn exec(
    node: &Node,
    argv: &[String],
    stdio: [OwnedFd; 3],
    tty: bool,
) -> Result<ExecExit, Failure> {
    let mut command = node.command(argv).map_err(Failure::Invalid)?;
    let [stdin, stdout, stderr] = stdio;
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    let namespace = node.namespace.as_fd().try_clone_to_owned();
    let namespace =
        namespace.map_err(|error| Failure::Failed(format!("cannot share the namespace: {error}")))?;
    confine(&mut command, namespace, if tty { Group::Terminal } else { Group::Own });
    let mut command = tokio::process::Command::from(command);
    let mut child = command
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Failure::Failed(format!("cannot start {:?}: {error}", argv[0])))?;
    // The command still holds our copies of the streams: a reader at their other end waits for them to close.
    drop(command);
    let group = Reap(child.id());
    let status = child
        .wait()
        .await
        .map_err(|error| Failure::Failed(format!("cannot wait for {:?}: {error}", argv[0])))?;
    drop(group);
    Ok(exit(status))
}

/// Ends what a command has left in its process group, also when the command itself is dropped.
struct Reap(Option<u32>);

impl Drop for Reap {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Nobody left in the group is the usual case.
            killpg(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).ok();
        }
    }
}
