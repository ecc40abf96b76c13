//! What link agents in pods must do: a namespace is a pod, the table server is in this process.
//!
//! The namespaces are those of a local testnet, whose own agent is never asked for anything. The server's socket is opened in
//! one of them, which is the operator's pod.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
    path::PathBuf,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use netsplit_backend::{
    Backend, CutEvidence, CutRect, CutRequest, CutState, ExecStdio, LinksRequest, Proof,
    kubernetes::{
        PodIdentity, ReviewError, TableHub, TablesTls, TokenReviewer,
        agent::{AgentOptions, run},
        tables::{Member, TestnetLinks},
    },
};
use netsplit_links::PeerPorts;
use nix::sched::{CloneFlags, setns};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};
use tonic::transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming};

use crate::lab::{Lab, exe, until};

const TABLES_PORT: u16 = 26610;
const STARTUP_PORT: u16 = 26605;
pub(crate) const LONG: Duration = Duration::from_secs(15);

/// A token is `pod uid`; every other one is refused.
#[derive(Debug)]
struct Reviewer;

#[async_trait]
impl TokenReviewer for Reviewer {
    async fn review(&self, token: &str) -> Result<PodIdentity, ReviewError> {
        let (pod, uid) =
            token.split_once(' ').ok_or_else(|| ReviewError::Refused("it is no token".into()))?;
        Ok(PodIdentity { namespace: "lab".into(), pod: pod.into(), uid: uid.into() })
    }
}

/// What the test program does as an agent: `pod-agent TABLES FOLDER POD UID ADDRESS LEASE_MS`.
pub(crate) fn agent(words: &[String]) {
    let folder = PathBuf::from(&words[1]);
    let address: Ipv4Addr = words[4].parse().unwrap();
    let options = AgentOptions {
        tables: words[0].clone(),
        ca: folder.join("ca.pem"),
        token: folder.join(format!("{}.token", words[3])),
        pod: words[2].clone(),
        uid: words[3].clone(),
        address,
        // The probes of the testnet that the namespaces are borrowed from have the usual ports.
        ports: PeerPorts { probe: 26613, control: 26614, ..PeerPorts::default() },
        timed: 26615,
        fault_lease: Duration::from_millis(words[5].parse().unwrap()),
        // Nothing is kept here.
        keeper: folder.join("keeper"),
        startup: (address, STARTUP_PORT).into(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    panic!("the agent ended: {}", runtime.block_on(run(options)).unwrap_err());
}

/// Namespaces 0, 1, ... are pods of nodes n0, n1, ...; the last one is the operator's.
pub(crate) struct Pods {
    pub(crate) lab: Arc<Lab>,
    folder: tempfile::TempDir,
    pub(crate) hub: Arc<TableHub>,
    server: JoinHandle<()>,
    agents: Vec<Option<JoinHandle<()>>>,
}

impl Pods {
    /// `None` on a machine where this process may not enter the namespaces.
    pub(crate) async fn new(pods: usize) -> Option<Self> {
        let lab = Arc::new(Lab::new(pods + 1).await);
        if lab.backend.is_rootless() {
            println!("rootless: entering the pods from outside was NOT RUN");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let tls = TablesTls::generate(&lab.address(pods).to_string()).unwrap();
        fs::write(folder.path().join("ca.pem"), &tls.ca_pem).unwrap();
        let hub = TableHub::new(Arc::new(Reviewer));
        hub.lead(1);
        let server = serve(&lab, pods, &hub, &tls).await;
        Some(Self { lab, folder, hub, server, agents: (0..pods).map(|_| None).collect() })
    }

    fn address(&self, pod: usize) -> Ipv4Addr {
        let IpAddr::V4(address) = self.lab.address(pod) else { panic!("pods have IPv4 addresses") };
        address
    }

    /// The pod of a node as the API server would show it. `place` is the namespace it is in.
    pub(crate) fn member(&self, node: usize, uid: &str, place: usize) -> Member {
        Member {
            node: format!("n{node}"),
            pod: format!("t-n{node}"),
            uid: Some(uid.to_owned()),
            address: Some(self.address(place)),
            running: true,
        }
    }

    pub(crate) fn members(&self, nodes: usize) -> Vec<Member> {
        (0..nodes).map(|node| self.member(node, &format!("uid-{node}"), node)).collect()
    }

    /// Starts the agent of a node's pod.
    pub(crate) fn start(&mut self, node: usize, uid: &str, place: usize, token: &str, lease: Duration) {
        fs::write(self.folder.path().join(format!("{uid}.token")), token).unwrap();
        let operator = self.lab.address(self.agents.len());
        let argv: Vec<String> = [
            &exe(),
            "pod-agent",
            &format!("{operator}:{TABLES_PORT}"),
            self.folder.path().to_str().unwrap(),
            &format!("t-n{node}"),
            uid,
            &self.address(place).to_string(),
            &lease.as_millis().to_string(),
        ]
        .map(str::to_owned)
        .to_vec();
        let lab = Arc::clone(&self.lab);
        self.agents[place] = Some(tokio::spawn(async move {
            let null = || fs::File::options().read(true).write(true).open("/dev/null").unwrap().into();
            let stderr = std::io::stderr().as_fd().try_clone_to_owned().unwrap();
            let stdio = ExecStdio { stdin: null(), stdout: null(), stderr, tty: false };
            lab.backend.exec(lab.name(place), argv, stdio).await.ok();
        }));
    }

    pub(crate) fn start_all(&mut self, nodes: usize, lease: Duration) {
        for node in 0..nodes {
            let uid = format!("uid-{node}");
            self.start(node, &uid, node, &format!("t-n{node} {uid}"), lease);
        }
    }

    /// The testnet, whose links are asked to do nothing, and whose nodes run.
    pub(crate) async fn testnet(&self) -> TestnetLinks {
        let links = self.hub.testnet("lab", "t").unwrap();
        links.set_links(LinksRequest::default()).await.unwrap();
        links.set_nodes(Vec::new(), LONG).await.unwrap();
        links
    }

    /// Ends the server.
    pub(crate) fn stop(&self) {
        self.server.abort();
    }

    /// The processes that are the agent of a pod: one that was killed may take a moment to be gone.
    pub(crate) fn agents_of(&self, uid: &str) -> Vec<u32> {
        let folder = self.folder.path().to_str().unwrap();
        let is_it = |pid: &u32| {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&str> = command.split('\0').collect();
            ["pod-agent", folder, uid].iter().all(|word| words.contains(word))
        };
        let pids = fs::read_dir("/proc").unwrap().flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_it).collect()
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self, place: usize) {
        let agent = self.agents[place].take().unwrap();
        agent.abort();
        agent.await.ok();
    }

    /// The kubelet's question.
    pub(crate) async fn may_start(&self, place: usize) -> bool {
        let Ok(mut stream) = self.lab.backend.connect(self.lab.name(place), STARTUP_PORT).await else {
            return false;
        };
        stream.write_all(b"GET /startup HTTP/1.1\r\nhost: pod\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_millis(300), stream.read_to_string(&mut answer)).await;
        read.is_ok() && answer.starts_with("HTTP/1.1 200")
    }

    pub(crate) async fn until_all_may_start(&self, places: usize) {
        for place in 0..places {
            until("the node may start", || self.may_start(place)).await;
        }
    }
}

/// Opens the server's socket in the operator's namespace.
async fn serve(lab: &Lab, place: usize, hub: &Arc<TableHub>, tls: &TablesTls) -> JoinHandle<()> {
    let pid = lab.backend.nodes().await.unwrap()[place].pid.unwrap();
    let listener = thread::spawn(move || {
        setns(fs::File::open(format!("/proc/{pid}/ns/net")).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, TABLES_PORT)).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    });
    let listener = tokio::net::TcpListener::from_std(listener.join().unwrap()).unwrap();
    let identity = Identity::from_pem(&tls.certificate_pem, &tls.key_pem);
    let server = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity))
        .unwrap()
        .add_service(hub.service())
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(async move { server.await.unwrap() })
}

pub(crate) fn cut(id: &str, rects: &[(&[usize], &[usize])], lease: Duration) -> CutRequest {
    let names = |nodes: &[usize]| nodes.iter().map(|node| format!("n{node}")).collect();
    let rects = rects.iter().map(|(from, to)| CutRect { from: names(from), to: names(to) }).collect();
    CutRequest { id: id.to_owned(), rects, lease }
}

pub(crate) fn evidence(links: &TestnetLinks, id: &str) -> CutEvidence {
    links.evidence().unwrap().into_iter().rfind(|evidence| evidence.id == id).expect("the cut is known")
}

pub(crate) async fn until_proven(links: &TestnetLinks, id: &str) -> CutEvidence {
    until("the cut is proven", async || {
        links.renew().unwrap();
        evidence(links, id).proof.is_proven()
    })
    .await;
    evidence(links, id)
}

pub(crate) async fn pods_are_cut_proven_and_healed() {
    let Some(mut pods) = Pods::new(4).await else { return };
    let links = pods.testnet().await;
    links.set_members(pods.members(3)).unwrap();
    pods.start_all(3, LONG);
    until("all agents follow", async || links.agents().unwrap().iter().all(|agent| agent.connected)).await;
    // Nothing is known of the cuts yet: no node may start.
    assert!(!pods.may_start(0).await);
    links.set_cuts(Vec::new()).await.unwrap();
    pods.until_all_may_start(3).await;
    // The fourth pod is none of this testnet's.
    assert!(pods.lab.udp(0, 1).await && pods.lab.udp(3, 0).await);

    let split = cut("split", &[(&[0], &[1, 2]), (&[1, 2], &[0])], LONG);
    links.set_cuts(vec![split.clone()]).await.unwrap();
    for (from, to) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
        assert!(!pods.lab.udp(from, to).await, "{from} -> {to} is open");
    }
    assert!(pods.lab.udp(1, 2).await && pods.lab.udp(2, 1).await, "a link inside a side is cut");
    assert!(!pods.lab.udp(3, 0).await && !pods.lab.udp(3, 1).await, "a stranger gets in");
    assert!(!pods.lab.tcp(0, 1, 26600).await && pods.lab.tcp(0, 1, 26601).await);
    let proven = until_proven(&links, "split").await;
    let mut pairs: Vec<_> = proven.pairs.iter().map(|pair| (pair.from.as_str(), pair.to.as_str())).collect();
    pairs.sort_unstable();
    assert_eq!(pairs, [("n0", "n1"), ("n0", "n2"), ("n1", "n0"), ("n2", "n0")]);
    assert!(proven.drops > 0 && proven.problems.is_empty(), "{proven:?}");

    links.set_cuts(Vec::new()).await.unwrap();
    until("the links are seen open", async || evidence(&links, "split").state == CutState::Open).await;
    for (from, to) in [(0, 1), (2, 0), (3, 0)] {
        assert!(pods.lab.udp(from, to).await, "{from} -> {to} is still cut");
    }
    pods.server.abort();
}

pub(crate) async fn cuts_of_pods_end_with_their_lease() {
    let Some(mut pods) = Pods::new(2).await else { return };
    let lease = Duration::from_secs(2);
    let links = pods.testnet().await;
    links.set_members(pods.members(2)).unwrap();
    pods.start_all(2, lease);
    links.set_cuts(Vec::new()).await.unwrap();
    pods.until_all_may_start(2).await;
    let started = Instant::now();
    links.set_cuts(vec![cut("short", &[(&[0], &[1]), (&[1], &[0])], lease)]).await.unwrap();
    // The operator goes away, and one agent dies.
    drop(links);
    pods.hub.resign();
    pods.server.abort();
    pods.kill(1).await;
    assert!(!pods.lab.udp(0, 1).await || started.elapsed() > lease, "the cut ended with its agent");
    for (from, to) in [(0, 1), (1, 0)] {
        until("the link is free", || pods.lab.udp(from, to)).await;
    }
    assert!(started.elapsed() >= lease, "the cut ended before its lease");
}

pub(crate) async fn a_later_leader_takes_over_and_an_earlier_one_is_refused() {
    let Some(mut pods) = Pods::new(2).await else { return };
    let links = pods.testnet().await;
    links.set_members(pods.members(2)).unwrap();
    pods.start_all(2, LONG);
    links.set_cuts(Vec::new()).await.unwrap();
    pods.until_all_may_start(2).await;
    let kept = cut("kept", &[(&[0], &[1])], LONG);
    links.set_cuts(vec![kept.clone()]).await.unwrap();

    pods.hub.lead(3);
    assert!(links.set_cuts(Vec::new()).await.is_err(), "a former leader's handle still works");
    let links = pods.testnet().await;
    links.set_members(pods.members(2)).unwrap();
    until("the agents follow the new leader", async || links.agents().unwrap().iter().all(|a| a.connected))
        .await;
    // It has not heard of the cut yet, and does not heal it.
    assert!(!pods.lab.udp(0, 1).await);
    links.set_cuts(vec![kept.clone()]).await.unwrap();
    assert!(!pods.lab.udp(0, 1).await);
    let proven = until_proven(&links, "kept").await;
    assert!(proven.problems.is_empty(), "{proven:?}");

    // A leader of an earlier term comes back: nobody follows it.
    pods.hub.lead(2);
    let stale = pods.testnet().await;
    stale.set_members(pods.members(2)).unwrap();
    stale.set_cuts(Vec::new()).await.unwrap();
    let error = stale.set_cuts(vec![cut("other", &[(&[1], &[0])], LONG)]).await.unwrap_err().to_string();
    assert!(error.contains("n0"), "{error}");
    assert!(!pods.lab.udp(0, 1).await && pods.lab.udp(1, 0).await);
    pods.server.abort();
}

pub(crate) async fn rules_flushed_in_a_pod_are_noticed() {
    let Some(mut pods) = Pods::new(2).await else { return };
    let links = pods.testnet().await;
    links.set_members(pods.members(2)).unwrap();
    pods.start_all(2, LONG);
    links.set_cuts(Vec::new()).await.unwrap();
    pods.until_all_may_start(2).await;
    links.set_cuts(vec![cut("cleared", &[(&[0], &[1])], LONG)]).await.unwrap();
    until_proven(&links, "cleared").await;
    let pid = pods.lab.backend.nodes().await.unwrap()[1].pid.unwrap();
    assert!(Command::new(exe()).args(["clear", &pid.to_string()]).status().unwrap().success());
    let violated = async || matches!(evidence(&links, "cleared").proof, Proof::Violated(_));
    until("the violation is seen", violated).await;
    // A renewal cuts again and does not make it unseen.
    links.renew().unwrap();
    until("the link is cut again", async || !pods.lab.udp(0, 1).await).await;
    assert!(violated().await);
    pods.server.abort();
}

/// The newest table of a node is in force.
fn is_current(links: &TestnetLinks, node: &str) -> bool {
    links.agents().unwrap().iter().any(|agent| agent.node == node && agent.current)
}

pub(crate) async fn a_replaced_pod_is_cut_before_its_first_packet() {
    let Some(mut pods) = Pods::new(3).await else { return };
    let links = pods.testnet().await;
    links.set_members(pods.members(2)).unwrap();
    pods.start_all(2, LONG);
    links.set_cuts(Vec::new()).await.unwrap();
    pods.until_all_may_start(2).await;
    links.set_cuts(vec![cut("split", &[(&[0], &[1]), (&[1], &[0])], LONG)]).await.unwrap();
    until_proven(&links, "split").await;

    // Node 1 comes back in the third namespace, at another address. Nobody knows it yet: it reaches nobody.
    pods.kill(1).await;
    assert!(!pods.lab.udp(2, 0).await, "an unknown address crosses the cut");
    // The pod is gone and has no successor: what it has sent may still be on its way.
    let gone = Member { uid: None, address: None, running: false, ..pods.member(1, "", 1) };
    links.set_members(vec![pods.member(0, "uid-0", 0), gone]).unwrap();
    until("the other agent knows", async || is_current(&links, "n0")).await;
    assert!(!pods.lab.udp(1, 0).await, "the pod that went crosses the cut");
    assert!(!pods.lab.udp(2, 0).await, "an unknown address crosses the cut of a pod that went");
    links.set_members(vec![pods.member(0, "uid-0", 0), pods.member(1, "uid-new", 2)]).unwrap();
    assert!(!pods.lab.udp(2, 0).await);
    pods.start(1, "uid-new", 2, "t-n1 uid-new", LONG);
    until("the node may start", || pods.may_start(2)).await;
    assert!(!pods.lab.udp(2, 0).await && !pods.lab.udp(0, 2).await, "a replaced pod crosses the cut");
    let proven = until_proven(&links, "split").await;
    assert_eq!(proven.pairs.len(), 2, "{proven:?}");
    links.set_cuts(Vec::new()).await.unwrap();
    until("the links are seen open", async || evidence(&links, "split").state == CutState::Open).await;
    assert!(pods.lab.udp(2, 0).await && pods.lab.udp(0, 2).await);
    pods.server.abort();
}

pub(crate) async fn a_cut_that_an_agent_does_not_confirm_is_taken_back() {
    let Some(mut pods) = Pods::new(3).await else { return };
    let links = pods.testnet().await;
    links.set_members(pods.members(3)).unwrap();
    pods.start_all(2, LONG);
    // The third one shows the token of another pod, and after a whole lease its node starts all the same.
    let lease = Duration::from_secs(2);
    let started = Instant::now();
    pods.start(2, "uid-2", 2, "t-n0 uid-0", lease);
    links.set_cuts(Vec::new()).await.unwrap();
    pods.until_all_may_start(2).await;
    let split = cut("split", &[(&[0], &[1, 2]), (&[1, 2], &[0])], LONG);
    let error = links.set_cuts(vec![split]).await.unwrap_err().to_string();
    assert!(error.contains("n2") && error.contains("not connected"), "{error}");
    until("the link is open again", || pods.lab.udp(0, 1)).await;
    pods.until_all_may_start(3).await;
    assert!(started.elapsed() >= lease);
    assert!(!links.agents().unwrap()[2].connected);
    pods.server.abort();
}

/// Run in a namespace with the peer port free: what one agent does with tables, without a server.
pub(crate) fn tables() {
    use netsplit_links::{
        frame,
        pod::{Inbound, Options, PodAgent, Request, Response, Shaping, Table, Version},
    };
    let own = Ipv4Addr::new(127, 0, 0, 3);
    let (ours, theirs) = frame::pair().unwrap();
    let options = Options { address: own, ports: PeerPorts::default(), timed: 26615, renewal: None };
    let agent = thread::spawn(move || PodAgent::open(options).unwrap().run(&theirs).unwrap());
    let ask = |request: &Request| -> Response {
        frame::send(ours.as_fd(), &frame::encode(request).unwrap(), &[]).unwrap();
        frame::decode(&frame::receive(&ours).unwrap().unwrap().bytes).unwrap()
    };
    let receiver = std::net::UdpSocket::bind((own, 26600)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let arrives = |from: u8| {
        let sender = std::net::UdpSocket::bind((Ipv4Addr::new(127, 0, 0, from), 0)).unwrap();
        sender.send_to(b"x", receiver.local_addr().unwrap()).unwrap();
        receiver.recv(&mut [0; 8]).is_ok()
    };
    let table = |term, sequence, cut: &[u8]| {
        let address = |host: &u8| Ipv4Addr::new(127, 0, 0, *host);
        let inbound = |from: Vec<Ipv4Addr>| Inbound { id: 1, from, lease: LONG };
        let cuts = Some(cut.iter().map(address).collect::<Vec<_>>()).filter(|from| !from.is_empty());
        Request::Apply(Box::new(Table {
            version: Version { term, sequence },
            session: 1,
            known: vec![address(&2), address(&4)],
            cuts: cuts.map(inbound).into_iter().collect(),
            probes: Vec::new(),
            expected: Vec::new(),
            shaping: Shaping::default(),
        }))
    };
    let applied =
        |response: &Response| matches!(response, Response::Report(report) if report.applied.is_some());
    assert!(arrives(2) && arrives(5));
    assert!(applied(&ask(&table(2, 5, &[2]))));
    // 5 is a stranger, the pod itself is none.
    assert!(!arrives(2) && arrives(4) && !arrives(5) && arrives(3));
    for (term, sequence) in [(2, 4), (1, 9), (2, 5)] {
        let response = ask(&table(term, sequence, &[]));
        assert!(
            matches!(&response, Response::Refused(why) if why.contains("not newer than 2.5")),
            "{response:?}"
        );
        assert!(!arrives(2), "an older table healed the cut");
    }
    // The same cut over other addresses goes on counting.
    let Response::Report(report) = ask(&table(2, 6, &[4])) else { panic!("refused") };
    assert_eq!(report.cuts[0].drops, 4);
    assert!(arrives(2) && !arrives(4));
    let Response::Report(report) = ask(&Request::Report { shaped: false }) else { panic!("refused") };
    assert_eq!((report.cuts[0].drops, &report.cuts[0].interrupted), (5, &None));
    assert!(applied(&ask(&table(3, 1, &[]))));
    assert!(arrives(4) && arrives(5));
    drop(ours);
    agent.join().unwrap();
}
