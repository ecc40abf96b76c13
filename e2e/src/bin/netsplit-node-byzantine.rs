//! A validator that betrays its peers, made of honest parts: two unchanged nodes with one key.
//!
//! It is one honest node until the file `$NETSPLIT_BETRAY` appears. Then that node is killed, its data are copied, and
//! both copies go on with the same keys: each knows the honest peers of one side only (`$NETSPLIT_SIDE_A`,
//! `$NETSPLIT_SIDE_B`, names with commas) and the same copy of each other traitor. The write-ahead log keeps a node from
//! signing twice; it cannot know of another machine with its key. Peers still find this node at its one address, where
//! each is led to its side's copy by where it comes from. Neither copy serves the node's API: what a traitor says of its
//! chain proves nothing.
//!
//! `$NETSPLIT_HONEST_NODE` is the program of a node. Signals come to the whole process group, so none is passed on here.

use std::{
    env, fs, io,
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use netsplit_config::NodeConfig;

/// How often the file and the children are looked at.
const POLL: Duration = Duration::from_millis(20);

/// One of the two faces after the betrayal.
struct Side {
    name: &'static str,
    honest: Vec<String>,
    /// Added to the ports of peers, API and HTTP.
    ports: u16,
}

fn main() -> ExitCode {
    match run() {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("netsplit-node-byzantine: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<std::convert::Infallible> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [flag, file] = arguments.as_slice() else { bail!("use --config FILE") };
    if flag != "--config" {
        bail!("use --config FILE, not {flag}");
    }
    let file = std::path::absolute(file)?;
    let config = NodeConfig::load(&file)?;
    let sides = [
        Side { name: "a", honest: names("NETSPLIT_SIDE_A")?, ports: 10 },
        Side { name: "b", honest: names("NETSPLIT_SIDE_B")?, ports: 20 },
    ];
    let betray = PathBuf::from(variable("NETSPLIT_BETRAY")?);

    let mut honest = node(&file)?;
    while !betray.try_exists().with_context(|| format!("cannot look for {}", betray.display()))? {
        go_on(&mut honest)?;
        thread::sleep(POLL);
    }
    // As a crash: what it had signed is in its log, and so in both copies.
    honest.kill().context("cannot kill the honest node")?;
    honest.wait().context("cannot wait for the honest node")?;

    let mut copies = Vec::new();
    for side in &sides {
        let own = side.config(&config)?;
        copy(&config.data_dir, &own.data_dir)
            .with_context(|| format!("cannot copy {} for side {}", config.data_dir.display(), side.name))?;
        let own_file = file.with_file_name(format!("node-{}.toml", side.name));
        fs::write(&own_file, own.to_toml())
            .with_context(|| format!("cannot write {}", own_file.display()))?;
        copies.push(node(&own_file)?);
    }
    let doors = doors(&config, &sides)?;
    let listener = TcpListener::bind(config.peer.listen)
        .with_context(|| format!("cannot listen on {}", config.peer.listen))?;
    thread::spawn(move || receive(&listener, &doors));
    loop {
        for copy in &mut copies {
            go_on(copy)?;
        }
        thread::sleep(POLL);
    }
}

fn variable(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("${name} is not set"))
}

fn names(name: &str) -> anyhow::Result<Vec<String>> {
    Ok(variable(name)?.split(',').map(str::to_owned).collect())
}

fn node(config: &Path) -> anyhow::Result<Child> {
    let program = variable("NETSPLIT_HONEST_NODE")?;
    let mut command = Command::new(&program);
    command.arg("--config").arg(config);
    command.spawn().with_context(|| format!("cannot start {program}"))
}

/// An error once the node has ended: none of them should.
fn go_on(node: &mut Child) -> anyhow::Result<()> {
    match node.try_wait().context("cannot wait for a node")? {
        Some(status) => bail!("a node ended: {status}"),
        None => Ok(()),
    }
}

impl Side {
    fn shift(&self, address: SocketAddr) -> SocketAddr {
        SocketAddr::new(address.ip(), address.port() + self.ports)
    }

    /// The node's configuration as this side's copy has it. Peers on neither side are the other traitors.
    fn config(&self, config: &NodeConfig) -> anyhow::Result<NodeConfig> {
        let mut own = config.clone();
        own.data_dir.set_file_name(format!("data-{}", self.name));
        for listen in [&mut own.peer.listen, &mut own.api.listen, &mut own.http.listen] {
            *listen = self.shift(*listen);
        }
        own.peer.peers.clear();
        for peer in &config.peer.peers {
            let mut peer = peer.clone();
            if !is_honest(&peer.name)? {
                peer.address = self.shift(resolve(&peer.address)?).to_string();
            } else if !self.honest.contains(&peer.name) {
                continue;
            }
            own.peer.peers.push(peer);
        }
        Ok(own)
    }
}

fn is_honest(peer: &str) -> anyhow::Result<bool> {
    let sides = [names("NETSPLIT_SIDE_A")?, names("NETSPLIT_SIDE_B")?];
    Ok(sides.iter().flatten().any(|name| name == peer))
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut found = address.to_socket_addrs().with_context(|| format!("cannot resolve {address}"))?;
    found.next().with_context(|| format!("{address} has no address"))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Where each honest peer is led.
fn doors(config: &NodeConfig, sides: &[Side]) -> anyhow::Result<Vec<(IpAddr, SocketAddr)>> {
    let mut doors = Vec::new();
    for peer in &config.peer.peers {
        for side in sides.iter().filter(|side| side.honest.contains(&peer.name)) {
            doors.push((resolve(&peer.address)?.ip(), side.shift(config.peer.listen)));
        }
    }
    Ok(doors)
}

/// Leads each connection to its side's copy, for ever. Whatever fails, the peer sees a closed connection and dials again.
fn receive(listener: &TcpListener, doors: &[(IpAddr, SocketAddr)]) {
    for peer in listener.incoming() {
        if let Err(error) = peer.and_then(|peer| lead(&peer, doors)) {
            eprintln!("netsplit-node-byzantine: a connection was not led on: {error}");
        }
    }
}

fn lead(peer: &TcpStream, doors: &[(IpAddr, SocketAddr)]) -> io::Result<()> {
    let from = peer.peer_addr()?.ip();
    let Some((_, door)) = doors.iter().find(|(address, _)| *address == from) else {
        return Err(io::Error::other(format!("{from} is on no side")));
    };
    let inner = TcpStream::connect(door)?;
    for (mut source, mut sink) in
        [(peer.try_clone()?, inner.try_clone()?), (inner.try_clone()?, peer.try_clone()?)]
    {
        source.set_nodelay(true)?;
        thread::spawn(move || {
            // However one direction ends, the session has: both are closed, and each end sees it.
            io::copy(&mut source, &mut sink).ok();
            source.shutdown(Shutdown::Both).ok();
            sink.shutdown(Shutdown::Both).ok();
        });
    }
    Ok(())
}
