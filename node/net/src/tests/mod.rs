//! Real sessions over loopback, with well-behaved and hostile peers.

mod hostile;
mod sessions;

use std::time::{Duration, Instant};

use netsplit_core::{Hash, PublicKey, SecretKey};

use crate::{Class, Frame, Inbound, Limits, Net, NetConfig, NetEvent, NetHandle, StaticPeer, Timing};

const PATIENCE: Duration = Duration::from_secs(10);

/// Two keys, the smaller (which dials) first.
fn keys() -> (SecretKey, SecretKey) {
    let (a, b) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
    if a.public() < b.public() { (a, b) } else { (b, a) }
}

fn config(name: &str, key: &SecretKey, peers: &[(&str, PublicKey, String)]) -> NetConfig {
    let peer = |(name, key, address): &(&str, PublicKey, String)| StaticPeer {
        name: (*name).to_owned(),
        key: *key,
        address: address.clone(),
    };
    NetConfig {
        key: key.clone(),
        name: name.to_owned(),
        agent: "test/0".into(),
        chain_id: Hash::from_bytes([3; 32]),
        chain_name: "test".into(),
        listen: ([127, 0, 0, 1], 0).into(),
        peers: peers.iter().map(peer).collect(),
        limits: Limits::default(),
        timing: Timing {
            handshake_timeout: Duration::from_millis(500),
            retry_refused: Duration::from_millis(100)..Duration::from_millis(200),
            ..Timing::default()
        },
        seed: 7,
    }
}

struct Node {
    net: Net,
    inbound: Inbound,
}

impl Node {
    fn start(config: NetConfig) -> Self {
        let (net, inbound) = Net::start(config).expect("the network starts");
        Self { net, inbound }
    }

    fn handle(&self) -> NetHandle {
        self.net.handle()
    }

    fn address(&self) -> String {
        self.handle().local_address().to_string()
    }

    fn receiver(&mut self, class: Class) -> &mut tokio::sync::mpsc::Receiver<NetEvent> {
        match class {
            Class::Consensus => &mut self.inbound.consensus,
            Class::Relay => &mut self.inbound.relay,
            Class::Bulk => &mut self.inbound.bulk,
        }
    }

    async fn event(&mut self, class: Class) -> NetEvent {
        tokio::time::timeout(PATIENCE, self.receiver(class).recv())
            .await
            .expect("an event in time")
            .expect("the network runs")
    }

    async fn up(&mut self, peer: PublicKey) {
        for class in Class::ALL {
            match self.event(class).await {
                NetEvent::PeerUp(key) if key == peer => {}
                other => panic!("{class:?}: not up: {other:?}"),
            }
        }
    }

    async fn down(&mut self, peer: PublicKey) {
        for class in Class::ALL {
            loop {
                match self.event(class).await {
                    NetEvent::PeerDown(key) if key == peer => break,
                    NetEvent::Frame(_) => {}
                    other => panic!("{class:?}: not down: {other:?}"),
                }
            }
        }
    }

    async fn frame(&mut self, class: Class) -> Frame {
        match self.event(class).await {
            NetEvent::Frame(frame) => frame,
            other => panic!("not a frame: {other:?}"),
        }
    }

    async fn all_classes_up(&self, peer: PublicKey) {
        let handle = self.handle();
        until("three connections", || {
            handle.peers().iter().any(|status| status.key == peer && status.classes.len() == 3)
        })
        .await;
    }
}

/// A listener (the larger key) and a dialler (the smaller), with a session between them.
async fn pair() -> (Node, Node, PublicKey, PublicKey) {
    pair_with(|_| {}, |_| {}).await
}

async fn pair_with(
    change_dialler: impl FnOnce(&mut NetConfig),
    change_listener: impl FnOnce(&mut NetConfig),
) -> (Node, Node, PublicKey, PublicKey) {
    let (small, large) = keys();
    let mut config_large = config("large", &large, &[("small", small.public(), "127.0.0.1:1".into())]);
    change_listener(&mut config_large);
    let mut listener = Node::start(config_large);
    let mut config_small = config("small", &small, &[("large", large.public(), listener.address())]);
    change_dialler(&mut config_small);
    let mut dialler = Node::start(config_small);
    listener.up(small.public()).await;
    dialler.up(large.public()).await;
    (dialler, listener, small.public(), large.public())
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
