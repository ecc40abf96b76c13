//! Keeps a link agent running and tells each new one what the last one knew.
//!
//! One task owns the agent. The desired cuts and the ends of their leases are kept here: an agent that comes back is given
//! what is left of each lease and never more, so that nothing but the outer process prolongs a fault.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    process::Stdio,
    time::{Duration, Instant},
};

use netsplit_links::{
    Cut, CutEvidence, CutState, Proof,
    agent::{Request, Response},
    emulator::LinksEvidence,
    frame::{self, Assembly},
    shape::{LinkTable, LinkUpdate},
};
use tokio::{
    process::{Child, Command},
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tracing::warn;

use super::{AGENT_COMMAND, rpc::Channel};

/// An agent that does not answer for so long hangs and is replaced.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The first pause before a new agent is started; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// An agent that lived for so long was a good one.
const PROVEN_LIFE: Duration = Duration::from_secs(10);
const QUEUE: usize = 64;
/// Namespaces sent in one message.
const NODES_PER_MESSAGE: usize = 64;
/// How often a command is given to a new agent when the last one died over it.
const ATTEMPTS: u32 = 3;

#[derive(Debug)]
enum Order {
    AddNodes(Vec<(Ipv4Addr, OwnedFd)>),
    SetCuts(Vec<Cut>),
    SetLinks(LinkUpdate),
    Renew,
    Evidence,
    Links,
    Pid,
}

#[derive(Debug)]
enum Answer {
    Done,
    Evidence(Vec<CutEvidence>),
    Links(LinksEvidence),
    Pid(Option<u32>),
}

type Reply = oneshot::Sender<Result<Answer, String>>;

/// Hands commands to the task that owns the agent.
#[derive(Debug, Clone)]
pub(super) struct Agents {
    commands: mpsc::Sender<(Order, Reply)>,
}

impl Agents {
    pub(super) fn start() -> Self {
        let (commands, queue) = mpsc::channel(QUEUE);
        let supervisor = Supervisor {
            nodes: Vec::new(),
            desired: Vec::new(),
            links: None,
            notes: BTreeMap::new(),
            lost: 0,
        };
        tokio::spawn(supervisor.run(queue));
        Self { commands }
    }

    pub(super) async fn add_nodes(&self, nodes: Vec<(Ipv4Addr, OwnedFd)>) -> Result<(), String> {
        self.ask(Order::AddNodes(nodes)).await.map(drop)
    }

    pub(super) async fn set_cuts(&self, cuts: Vec<Cut>) -> Result<(), String> {
        self.ask(Order::SetCuts(cuts)).await.map(drop)
    }

    pub(super) async fn set_links(&self, update: LinkUpdate) -> Result<(), String> {
        self.ask(Order::SetLinks(update)).await.map(drop)
    }

    pub(super) async fn links(&self) -> Result<LinksEvidence, String> {
        match self.ask(Order::Links).await? {
            Answer::Links(evidence) => Ok(evidence),
            other => Err(format!("the link agent answered {other:?}")),
        }
    }

    pub(super) async fn renew(&self) -> Result<(), String> {
        self.ask(Order::Renew).await.map(drop)
    }

    pub(super) async fn evidence(&self) -> Result<Vec<CutEvidence>, String> {
        match self.ask(Order::Evidence).await? {
            Answer::Evidence(evidence) => Ok(evidence),
            other => Err(format!("the link agent answered {other:?}")),
        }
    }

    pub(super) async fn pid(&self) -> Result<Option<u32>, String> {
        match self.ask(Order::Pid).await? {
            Answer::Pid(pid) => Ok(pid),
            other => Err(format!("the link agent answered {other:?}")),
        }
    }

    async fn ask(&self, command: Order) -> Result<Answer, String> {
        const GONE: &str = "the link agent's supervisor is gone";
        let (reply, answer) = oneshot::channel();
        self.commands.send((command, reply)).await.map_err(|_| GONE.to_owned())?;
        answer.await.map_err(|_| GONE.to_owned())?
    }
}

struct Desired {
    cut: Cut,
    deadline: Instant,
}

struct DesiredLinks {
    table: LinkTable,
    /// When the faulted ones go back to their base.
    deadline: Instant,
}

struct Supervisor {
    nodes: Vec<(Ipv4Addr, OwnedFd)>,
    desired: Vec<Desired>,
    /// None until links were set.
    links: Option<DesiredLinks>,
    /// What the agent cannot know about a cut, because it happened to the agent.
    notes: BTreeMap<String, Vec<String>>,
    /// Agents that were lost while they shaped links.
    lost: u32,
}

struct Running {
    child: Child,
    channel: Channel,
    assembly: Assembly,
}

impl Running {
    fn start() -> io::Result<Self> {
        let (ours, theirs) = frame::pair()?;
        // The running program itself, also when its file has been replaced in the meantime.
        let child = Command::new("/proc/self/exe")
            .arg0("netsplit")
            .arg(AGENT_COMMAND)
            .stdin(Stdio::from(theirs))
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { child, channel: Channel::new(ours)?, assembly: Assembly::default() })
    }

    async fn call(&mut self, request: &Request, fds: &[OwnedFd]) -> Result<Response, String> {
        let exchange = async {
            let bytes = frame::encode(request).map_err(|error| error.to_string())?;
            self.channel.send(&bytes, fds).await.map_err(|error| error.to_string())?;
            let frame = self.channel.receive(&mut self.assembly).await.map_err(|error| error.to_string())?;
            let frame = frame.ok_or("it ended")?;
            frame::decode(&frame.bytes).map_err(|error| error.to_string())
        };
        match timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(format!("the link agent did not answer: {error}")),
            Err(_) => Err(format!("the link agent did not answer within {} s", ANSWER_TIMEOUT.as_secs())),
        }
    }
}

/// Why a command has no answer.
enum Broken {
    /// The agent refused; it is well.
    Refused(String),
    /// The agent must be replaced.
    Agent(String),
}

impl Supervisor {
    async fn run(mut self, mut queue: mpsc::Receiver<(Order, Reply)>) {
        let mut pause = FIRST_PAUSE;
        let mut waiting: Option<(Order, Reply, u32)> = None;
        loop {
            let started = Instant::now();
            match self.start().await {
                Ok(mut agent) => {
                    let end = self.serve(&mut agent, &mut queue, &mut waiting).await;
                    // Hung or dead: SIGKILL ends both, and `wait` leaves no zombie.
                    agent.child.kill().await.ok();
                    let Some(reason) = end else { return };
                    self.note(&reason);
                    warn!(%reason, "starting a new link agent");
                }
                Err(error) => {
                    warn!(%error, "cannot start a link agent");
                    if let Some((_, reply, _)) = waiting.take() {
                        reply.send(Err(error)).ok();
                    }
                }
            }
            if started.elapsed() >= PROVEN_LIFE {
                pause = FIRST_PAUSE;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Starts an agent and tells it the nodes and what is left of the cuts.
    async fn start(&mut self) -> Result<Running, String> {
        let mut agent = Running::start().map_err(|error| format!("cannot start the link agent: {error}"))?;
        for nodes in self.nodes.chunks(NODES_PER_MESSAGE) {
            let nodes: Vec<_> = nodes
                .iter()
                .map(|(address, namespace)| Ok((*address, namespace.try_clone()?)))
                .collect::<io::Result<_>>()
                .map_err(|error| format!("cannot share a namespace: {error}"))?;
            done(introduce(&mut agent, nodes).await?)?;
        }
        let now = Instant::now();
        let cuts: Vec<Cut> = self
            .desired
            .iter()
            .map(|desired| Cut {
                lease: desired.deadline.saturating_duration_since(now),
                ..desired.cut.clone()
            })
            .filter(|cut| cut.lease >= Cut::MIN_LEASE)
            .collect();
        if !self.desired.is_empty() {
            done(agent.call(&Request::SetCuts { cuts }, &[]).await?)?;
        }
        if let Some(DesiredLinks { table, deadline }) = &self.links {
            let left = table.clone().with_lease(deadline.saturating_duration_since(now));
            let update = LinkUpdate::of(left, false);
            done(agent.call(&Request::SetLinks { update }, &[]).await?)?;
        }
        Ok(agent)
    }

    /// Serves commands until the agent must be replaced (the reason) or nobody is left to ask (`None`).
    async fn serve(
        &mut self,
        agent: &mut Running,
        queue: &mut mpsc::Receiver<(Order, Reply)>,
        waiting: &mut Option<(Order, Reply, u32)>,
    ) -> Option<String> {
        loop {
            let (mut command, reply, attempt) = if let Some(again) = waiting.take() {
                again
            } else {
                tokio::select! {
                    asked = queue.recv() => {
                        let (command, reply) = asked?;
                        (command, reply, 1)
                    }
                    ended = agent.child.wait() => return Some(match ended {
                        Ok(status) => format!("the link agent ended ({status})"),
                        Err(error) => format!("the link agent cannot be waited for: {error}"),
                    }),
                }
            };
            match self.perform(agent, &mut command).await {
                // Whoever asked may have stopped waiting.
                Ok(answer) => drop(reply.send(Ok(answer))),
                Err(Broken::Refused(sentence)) => drop(reply.send(Err(sentence))),
                Err(Broken::Agent(reason)) => {
                    if attempt < ATTEMPTS {
                        *waiting = Some((command, reply, attempt + 1));
                    } else {
                        drop(reply.send(Err(reason.clone())));
                    }
                    return Some(reason);
                }
            }
        }
    }

    async fn perform(&mut self, agent: &mut Running, command: &mut Order) -> Result<Answer, Broken> {
        match command {
            Order::AddNodes(nodes) => {
                // From now on every new agent is told; this one gets copies.
                let copies: io::Result<Vec<_>> =
                    nodes.iter().map(|(address, namespace)| Ok((*address, namespace.try_clone()?))).collect();
                let copies =
                    copies.map_err(|error| Broken::Refused(format!("cannot share a namespace: {error}")))?;
                self.nodes.append(nodes);
                let mut copies = copies.into_iter().peekable();
                while copies.peek().is_some() {
                    let chunk = copies.by_ref().take(NODES_PER_MESSAGE).collect();
                    let response = introduce(agent, chunk).await.map_err(Broken::Agent)?;
                    done(response).map_err(Broken::Refused)?;
                }
                Ok(Answer::Done)
            }
            Order::SetCuts(cuts) => {
                let cuts = cuts.clone();
                self.set(agent, cuts).await
            }
            Order::SetLinks(update) => {
                // As for the cuts: before the agent's own clock starts.
                let deadline = Instant::now() + update.lease();
                // What stays of the base, this agent has been told: by an earlier order, or when it was started.
                let request = Request::SetLinks { update: update.clone() };
                let response = agent.call(&request, &[]).await.map_err(Broken::Agent)?;
                done(response).map_err(Broken::Refused)?;
                let before = self.links.take().map(|links| links.table).unwrap_or_default();
                self.links = Some(DesiredLinks { table: update.clone().onto(&before), deadline });
                Ok(Answer::Done)
            }
            Order::Renew => {
                self.renew_links(agent).await?;
                let now = Instant::now();
                let (live, ended): (Vec<_>, Vec<_>) =
                    self.desired.iter().partition(|desired| desired.deadline > now);
                let ended: Vec<_> = ended.iter().map(|desired| desired.cut.id.clone()).collect();
                let live = live.iter().map(|desired| desired.cut.clone()).collect();
                self.set(agent, live).await?;
                if ended.is_empty() {
                    Ok(Answer::Done)
                } else {
                    Err(Broken::Refused(format!("not renewed, the lease had ended: {}", ended.join(", "))))
                }
            }
            Order::Evidence => match agent.call(&Request::Evidence, &[]).await.map_err(Broken::Agent)? {
                Response::Evidence(evidence) => Ok(Answer::Evidence(self.complete(evidence))),
                other => Err(Broken::Agent(format!("the link agent answered {other:?}"))),
            },
            Order::Links => match agent.call(&Request::Links, &[]).await.map_err(Broken::Agent)? {
                Response::Links(mut evidence) => {
                    if self.lost > 0 {
                        evidence.faults.push(format!(
                            "the link agent was started again ({}): until it had its table packets passed unshaped",
                            self.lost
                        ));
                    }
                    Ok(Answer::Links(evidence))
                }
                Response::Failed(sentence) => Err(Broken::Refused(sentence)),
                other => Err(Broken::Agent(format!("the link agent answered {other:?}"))),
            },
            Order::Pid => Ok(Answer::Pid(agent.child.id())),
        }
    }

    async fn set(&mut self, agent: &mut Running, cuts: Vec<Cut>) -> Result<Answer, Broken> {
        // Taken before the kernel's own clock starts, so that what is left is never more than there.
        let now = Instant::now();
        let response =
            agent.call(&Request::SetCuts { cuts: cuts.clone() }, &[]).await.map_err(Broken::Agent)?;
        done(response).map_err(Broken::Refused)?;
        self.notes.retain(|id, _| cuts.iter().any(|cut| cut.id == *id));
        self.desired = cuts.into_iter().map(|cut| Desired { deadline: now + cut.lease, cut }).collect();
        Ok(Answer::Done)
    }

    /// One that has ended stays so, also with a new agent.
    async fn renew_links(&mut self, agent: &mut Running) -> Result<(), Broken> {
        let now = Instant::now();
        let Some(links) = self.links.as_mut().filter(|links| !links.table.faulted().is_empty()) else {
            return Ok(());
        };
        if links.deadline <= now {
            return Err(Broken::Refused("not renewed, the lease of the faulted links had ended".to_owned()));
        }
        let lease = links.table.lease();
        let response = agent.call(&Request::RenewLinks { lease }, &[]).await.map_err(Broken::Agent)?;
        links.deadline = now + lease;
        done(response).map_err(Broken::Refused)
    }

    /// Adds what only this side knows: restarts of the agent, and cuts that ended while there was none.
    fn complete(&self, mut evidence: Vec<CutEvidence>) -> Vec<CutEvidence> {
        for desired in &self.desired {
            let notes = self.notes.get(&desired.cut.id).map(Vec::as_slice).unwrap_or_default();
            // The last one is the current one: an id may be used again after its cut has ended.
            match evidence.iter_mut().rfind(|known| known.id == desired.cut.id) {
                Some(known) => known.problems.extend(notes.iter().cloned()),
                None => evidence.push(CutEvidence {
                    id: desired.cut.id.clone(),
                    state: CutState::LeaseEnded,
                    drops: 0,
                    lease_left_ms: 0,
                    pairs: Vec::new(),
                    proof: Proof::Unproven("its lease ended while the link agent was down".to_owned()),
                    problems: notes.to_vec(),
                }),
            }
        }
        evidence
    }

    fn note(&mut self, reason: &str) {
        self.lost += u32::from(self.links.as_ref().is_some_and(|links| !links.table.is_empty()));
        for desired in &self.desired {
            let notes = self.notes.entry(desired.cut.id.clone()).or_default();
            if notes.len() < 8 {
                notes.push(format!("{reason}; what it had measured is lost"));
            }
        }
    }
}

async fn introduce(agent: &mut Running, nodes: Vec<(Ipv4Addr, OwnedFd)>) -> Result<Response, String> {
    let (addresses, namespaces): (Vec<_>, Vec<_>) = nodes.into_iter().unzip();
    agent.call(&Request::AddNodes { addresses }, &namespaces).await
}

fn done(response: Response) -> Result<(), String> {
    match response {
        Response::Done => Ok(()),
        Response::Failed(sentence) => Err(sentence),
        Response::Evidence(_) | Response::Links(_) => {
            Err("the link agent answered another question".to_owned())
        }
    }
}
