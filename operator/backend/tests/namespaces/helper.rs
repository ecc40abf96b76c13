//! What the test program does when it is run again: inner process, agent, node, or a small tool.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use netsplit_backend::local;
use netsplit_links::{
    Cut, PeerPorts, Rect,
    cuts::{CutTable, Renewal},
};

/// Runs a subcommand; `None` when there is none and the tests are to be run.
pub(crate) fn run(arguments: &[String]) -> Option<ExitCode> {
    let word = |index: usize| arguments.get(index).map_or("", String::as_str);
    match word(1) {
        local::INNER_COMMAND => local::run_inner().unwrap(),
        local::AGENT_COMMAND => local::run_agent().unwrap(),
        local::WATCHDOG_COMMAND => local::run_watchdog().unwrap(),
        "node" => node(),
        "chatter" => chatter(),
        "exit" => return Some(ExitCode::from(word(2).parse::<u8>().unwrap())),
        "tcp" => return Some(tcp(word(2).parse().unwrap())),
        "connect" => return Some(connect(word(2).parse().unwrap())),
        "udp" => udp(word(2).parse().unwrap(), word(3)),
        "echo" => echo(),
        "clear" => clear(word(2)),
        "renewals" => renewals(),
        "tables" => super::pods::tables(),
        "pod-agent" => super::pods::agent(&arguments[2..]),
        "outer" => super::lab::outer(word(2)),
        "rootless" => super::scenarios::rootless_child(word(2)),
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}

/// A node: answers TCP on the peer and API ports, and logs every datagram to them as `udp PORT TEXT`.
fn node() {
    println!("started");
    for port in [26600, 26601] {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                stream.unwrap().write_all(b"hello").unwrap();
            }
        });
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 1500];
            loop {
                let length = socket.recv(&mut buffer).unwrap();
                println!("udp {port} {}", String::from_utf8_lossy(&buffer[..length]));
            }
        });
    }
    println!("ready");
    loop {
        thread::park();
    }
}

/// Writes more than a log may hold, and goes on writing a little.
fn chatter() {
    let line = "x".repeat(999);
    for _ in 0..9_000 {
        println!("{line}");
    }
    loop {
        println!("the end");
        thread::sleep(Duration::from_millis(100));
    }
}

fn tcp(address: SocketAddr) -> ExitCode {
    let mut text = String::new();
    let timeout = Duration::from_millis(700);
    let read = TcpStream::connect_timeout(&address, timeout).and_then(|mut stream| {
        stream.set_read_timeout(Some(timeout))?;
        stream.read_to_string(&mut text)
    });
    if read.is_ok() && text == "hello" { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Exits with the milliseconds that the connection took; 255 if there was none.
fn connect(address: SocketAddr) -> ExitCode {
    let started = Instant::now();
    let connected = TcpStream::connect_timeout(&address, Duration::from_millis(900));
    let took = u8::try_from(started.elapsed().as_millis()).unwrap_or(u8::MAX);
    ExitCode::from(if connected.is_ok() { took.min(254) } else { u8::MAX })
}

fn udp(address: SocketAddr, text: &str) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.send_to(text.as_bytes(), address).unwrap();
}

fn echo() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    print!("{text}{text}");
    eprint!("{}", std::env::var("NETSPLIT_NODE").unwrap());
}

/// Removes the cuts behind everybody's back, from the network namespace of a process.
fn clear(pid: &str) {
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    CutTable::open(PeerPorts::default(), None).unwrap().clear().unwrap();
}

/// Both ways to renew a lease, in the namespace this is run in, which has no other traffic: loopback is cut from itself.
fn renewals() {
    let (from, to) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
    let receiver = UdpSocket::bind((to, 26600)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let sender = UdpSocket::bind((from, 0)).unwrap();
    let arrives = || {
        sender.send_to(b"x", receiver.local_addr().unwrap()).unwrap();
        receiver.recv(&mut [0; 8]).is_ok()
    };
    for renewal in [Renewal::InPlace, Renewal::Replace] {
        let cut = |lease| Cut {
            id: "c".into(),
            rects: vec![Rect { from: vec![from], to: vec![to] }],
            lease: Duration::from_millis(lease),
        };
        let mut table = CutTable::open(PeerPorts::default(), Some(renewal)).unwrap();
        assert!(arrives());
        table.set(&[cut(600)]).unwrap();
        let started = Instant::now();
        let mut sent = 0;
        // Six times the lease, renewed every sixth of it.
        while started.elapsed() < Duration::from_millis(3_600) {
            let changed = table.set(&[cut(600)]).unwrap();
            // A machine that stops this process for so long shows nothing about renewal.
            if !changed.lapsed.is_empty() {
                println!("{renewal:?}: stopped for too long, {changed:?}");
                break;
            }
            assert!(!arrives(), "{renewal:?} left the link open after {:?}", started.elapsed());
            sent += 1;
        }
        let seen = table.observe().unwrap();
        assert_eq!((seen[0].drops, seen[0].rule_missing), (sent, false), "{renewal:?}");
        let ends = Instant::now() + Duration::from_secs(2);
        while !arrives() {
            assert!(Instant::now() < ends, "{renewal:?}: the cut outlives its lease");
        }
        table.set(&[]).unwrap();
        assert!(table.observe().unwrap().is_empty());
    }
}
