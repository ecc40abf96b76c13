//! The inner process: owns the hub, the nodes' namespaces and processes, and the link agent.
//!
//! Its runtime has one thread, the process's first: programs started here end with their parent *thread*, so it must be one
//! that does not end.

use std::{
    collections::HashMap,
    net::SocketAddrV4,
    os::fd::OwnedFd,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use netsplit_links::frame::{self, Assembly, Frame};
use nix::sys::{
    prctl::set_pdeathsig,
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};
use tokio::{net::TcpStream, sync::Mutex, task::AbortHandle, time::timeout};
use tracing::warn;

use super::{
    LocalError,
    agents::Agents,
    chain, control_socket, doctor,
    holds::Holds,
    logs, namespaces,
    network::Network,
    process::{self, Nodes},
    rpc::Channel,
    topology,
    wire::{Failure, FromInner, Hello, NodeSpec, Request, Response, ToInner},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs the inner process on standard input until its supervisor stops it or is gone. Must be called before the program has
/// started any thread.
pub fn run_inner() -> Result<(), LocalError> {
    let control = control_socket()?;
    let entered = namespaces::enter_hub();
    // After the namespaces: a change of credentials takes the parent-death signal away.
    set_pdeathsig(Signal::SIGKILL)
        .map_err(|errno| LocalError::system("ask to end with the parent process")(errno.into()))?;
    let hello = match entered {
        Ok(rootless) => Hello::Ready { rootless },
        Err(sentence) => Hello::Refused(sentence),
    };
    let bytes = frame::encode(&hello).map_err(LocalError::Message)?;
    frame::send(std::os::fd::AsFd::as_fd(&control), &bytes, &[])
        .map_err(LocalError::system("greet the supervisor"))?;
    if matches!(hello, Hello::Refused(_)) {
        return Ok(());
    }
    raise_descriptor_limit();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LocalError::system("start the runtime"))?
        .block_on(serve(control))
}

/// A hundred nodes need some hundred descriptors; the soft limit is often 1,024.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        warn!(%errno, "cannot raise the limit of open files");
    }
}

struct Inner {
    nodes: Mutex<Nodes>,
    holds: Holds,
    agents: Agents,
    channel: Channel,
    /// Calls that can be cancelled while they run.
    running: StdMutex<HashMap<u64, AbortHandle>>,
    stopped: tokio::sync::Notify,
}

async fn serve(control: OwnedFd) -> Result<(), LocalError> {
    let channel = Channel::new(control).map_err(LocalError::system("use the control socket"))?;
    let inner = Arc::new(Inner {
        nodes: Mutex::default(),
        holds: Holds::default(),
        agents: Agents::start(),
        channel,
        running: StdMutex::default(),
        stopped: tokio::sync::Notify::new(),
    });
    let holds = Arc::clone(&inner);
    tokio::spawn(async move { holds.holds.keep().await });
    let mut assembly = Assembly::default();
    loop {
        let frame = tokio::select! {
            frame = inner.channel.receive(&mut assembly) => frame.map_err(LocalError::system("read the control socket"))?,
            () = inner.stopped.notified() => return Ok(()),
        };
        // Without a supervisor everything ends with this process, at once.
        let Some(Frame { bytes, fds }) = frame else { return Ok(()) };
        match frame::decode(&bytes).map_err(LocalError::Message)? {
            ToInner::Call { id, request } => {
                let handler = Arc::clone(&inner);
                let mut running = inner.running.lock().unwrap_or_else(PoisonError::into_inner);
                let task = tokio::spawn(async move { handler.call(id, request, fds).await });
                running.insert(id, task.abort_handle());
            }
            ToInner::Cancel { id } => {
                let task = inner.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                if let Some(task) = task {
                    task.abort();
                }
            }
        }
    }
}

impl Inner {
    async fn call(self: Arc<Self>, id: u64, request: Request, fds: Vec<OwnedFd>) {
        let stops = matches!(request, Request::Stop { .. });
        let (result, fds) = match self.perform(request, fds).await {
            Ok((response, fds)) => (Ok(response), fds),
            Err(failure) => (Err(failure), Vec::new()),
        };
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let inner = Arc::clone(&self);
        // In a task of its own: a cancel must not tear the message.
        let sent = tokio::spawn(async move {
            let answer = FromInner { id, result };
            let bytes = frame::encode(&answer)?;
            inner.channel.send(&bytes, &fds).await
        });
        match sent.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "cannot answer"),
            Err(error) => warn!(%error, "the answer was lost"),
        }
        if stops {
            self.stopped.notify_one();
        }
    }

    async fn perform(
        &self,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(Response, Vec<OwnedFd>), Failure> {
        let response = match request {
            Request::Start { network, uplink, nodes } => {
                self.start(network, uplink, nodes).await.map(|()| Response::Done)?
            }
            Request::Nodes => Response::Nodes(self.nodes.lock().await.statuses()),
            Request::Connect { address, port } => {
                return connect(SocketAddrV4::new(address, port))
                    .await
                    .map(|fd| (Response::Connected, vec![fd]));
            }
            Request::SetCuts { cuts } => {
                self.agents.set_cuts(cuts).await.map(|()| Response::Done).map_err(Failure::Failed)?
            }
            Request::SetLinks { update } => {
                self.agents.set_links(update).await.map(|()| Response::Done).map_err(Failure::Failed)?
            }
            Request::Links => self.agents.links().await.map(Response::Links).map_err(Failure::Failed)?,
            Request::SetNodes { holds, lease, grace } => {
                let changed = self.holds.take(&*self.nodes.lock().await, holds, lease, grace)?;
                self.holds.settle(changed, grace).await.map(|()| Response::Done)?
            }
            Request::Renew => {
                // First: the link agent may take its time. One that fails must not keep the other from being renewed.
                let holds = self.holds.renew();
                self.agents.renew().await.map_err(Failure::Failed)?;
                holds.map(|()| Response::Done)?
            }
            Request::Evidence => {
                self.agents.evidence().await.map(Response::Evidence).map_err(Failure::Failed)?
            }
            Request::Exec { node, argv, tty } => {
                let node = self.nodes.lock().await.get(&node)?;
                let stdio = fds
                    .try_into()
                    .map_err(|_| Failure::Invalid("a command needs three standard streams".to_owned()))?;
                Response::Exited(process::exec(&node, &argv, stdio, tty).await?)
            }
            Request::Signal { node, signal } => {
                let node = self.nodes.lock().await.get(&node)?;
                process::signal(&node, signal).map(|()| Response::Done)?
            }
            Request::Restart { node, grace } => {
                let node = self.nodes.lock().await.get(&node)?;
                process::restart(&node, grace).await.map(|()| Response::Done)?
            }
            Request::Stop { grace } => {
                self.nodes.lock().await.end_all(grace).await.map(|()| Response::Done)?
            }
            Request::Doctor => Response::Checks(doctor::checks_in_hub().await),
            Request::AgentPid => self.agents.pid().await.map(Response::Pid).map_err(Failure::Failed)?,
        };
        Ok((response, Vec::new()))
    }

    async fn start(&self, network: Network, uplink: bool, specs: Vec<NodeSpec>) -> Result<(), Failure> {
        let mut nodes = self.nodes.lock().await;
        if !nodes.is_empty() {
            return Err(Failure::Invalid("the testnet was started already".to_owned()));
        }
        let failed = |error: topology::TopologyError| Failure::Failed(chain(&error));
        let hub = topology::build_hub(network).await.map_err(failed)?;
        if uplink {
            topology::join_host(&hub, network).await.map_err(failed)?;
        }
        let mut shared = Vec::with_capacity(specs.len());
        let mut built = Nodes::default();
        for (index, spec) in specs.into_iter().enumerate() {
            let namespace = topology::build_node(&hub, network, index, &spec.name).await.map_err(failed)?;
            built.add(spec, namespace);
        }
        for node in built.iter() {
            let namespace = node.namespace().try_clone();
            let namespace =
                namespace.map_err(|error| Failure::Failed(format!("cannot share a namespace: {error}")))?;
            shared.push((node.address(), namespace));
        }
        self.agents.add_nodes(shared).await.map_err(Failure::Failed)?;
        tokio::spawn(logs::keep(built.iter().map(|node| node.log().to_owned()).collect()));
        *nodes = built;
        nodes.spawn_all()
    }
}

/// Connects from the hub, whose traffic no cut touches.
async fn connect(address: SocketAddrV4) -> Result<OwnedFd, Failure> {
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let socket = connected.unwrap_or_else(|_| Err(std::io::Error::from_raw_os_error(libc::ETIMEDOUT)));
    let failure = |error: std::io::Error| Failure::Connect(error.raw_os_error().unwrap_or(libc::EIO));
    Ok(socket.and_then(TcpStream::into_std).map_err(failure)?.into())
}
