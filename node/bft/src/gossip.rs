//! Neighbours, what each of them is known to have, and the outbox that is emptied once a step is durable.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use netsplit_core::{Address, Height};

use crate::io::{Output, PeerId};
use crate::message::Message;

/// Sessions at most.
pub(crate) const MAX_PEERS: usize = 128;
/// Status messages answered at once, and the time after which one more is.
const STATUS_BURST: u32 = 8;
const STATUS_REFILL: Duration = Duration::from_millis(100);
/// Bytes of blocks served to one peer in one second.
const SERVED_BYTES: usize = 48 * 1024 * 1024;

/// Names a message for deduplication: its height, and a hash of what it says.
type Key = (Height, [u8; 16]);

/// What is remembered of a session.
#[derive(Debug)]
pub(crate) struct Peer {
    known: HashSet<Key>,
    /// The height that it says it is deciding.
    pub height: Height,
    /// The validator that it says it is. A hint.
    pub validator: Option<Address>,
    status_tokens: u32,
    status_at: Duration,
    served: usize,
}

#[derive(Debug)]
enum To {
    One(PeerId),
    AllBut(Option<PeerId>),
}

#[derive(Debug, Default)]
pub(crate) struct Gossip {
    peers: BTreeMap<PeerId, Peer>,
    outbox: Vec<(To, Message)>,
    no_reexchange: bool,
}

fn key(message: &Message) -> Option<Key> {
    let hash = |parts: &[&[u8]]| {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        let mut short = [0; 16];
        hasher.finalize_xof().fill(&mut short);
        short
    };
    Some(match message {
        Message::Vote(v) => (v.height, hash(&[b"vote", &message.to_bytes()])),
        Message::Proposal(p) => (p.height, hash(&[b"proposal", &message.to_bytes()])),
        Message::BlockPart(p) => (p.height, hash(&[b"part", p.id.as_ref(), &[p.index]])),
        // A certificate is known by what it proves and not by its signers: else one bad peer could make any number of
        // "new" ones to relay.
        Message::PolkaCertificate(c) => {
            (c.height, hash(&[b"polka", &c.round.to_be_bytes(), c.block.as_ref()]))
        }
        Message::RoundCertificate(c) => {
            (c.height, hash(&[b"round", &c.round.to_be_bytes(), &[u8::from(c.precommits)]]))
        }
        Message::Have { height, id } => (*height, hash(&[b"have", id.as_ref()])),
        Message::Status(_)
        | Message::Want { .. }
        | Message::SyncRequest { .. }
        | Message::SyncResponse(_) => return None,
    })
}

impl Gossip {
    /// `no_reexchange` is a mutation: deduplication stops what a status asked for, too.
    pub fn new(no_reexchange: bool) -> Self {
        Self { no_reexchange, ..Self::default() }
    }

    /// False if there are too many sessions.
    pub fn up(&mut self, peer: PeerId, now: Duration) -> bool {
        if !self.peers.contains_key(&peer) && self.peers.len() >= MAX_PEERS {
            return false;
        }
        let fresh = Peer {
            known: HashSet::new(),
            height: 0,
            validator: None,
            status_tokens: STATUS_BURST,
            status_at: now,
            served: 0,
        };
        self.peers.insert(peer, fresh);
        true
    }

    pub fn down(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    pub fn get(&self, peer: &PeerId) -> Option<&Peer> {
        self.peers.get(peer)
    }

    pub fn get_mut(&mut self, peer: &PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(peer)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&PeerId, &Peer)> {
        self.peers.iter()
    }

    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// The neighbour that says it is this validator.
    pub fn neighbour_of(&self, validator: &Address) -> Option<PeerId> {
        self.peers.iter().find(|(_, peer)| peer.validator == Some(*validator)).map(|(id, _)| *id)
    }

    /// Notes that `peer` has a message, which was verified: unverified ones must not fill the memory.
    pub fn mark(&mut self, peer: &PeerId, message: &Message) {
        if let (Some(peer), Some(key)) = (self.peers.get_mut(peer), key(message)) {
            peer.known.insert(key);
        }
    }

    /// To every neighbour that is not known to have it, when the step is durable.
    pub fn spread(&mut self, message: Message, except: Option<PeerId>) {
        self.outbox.push((To::AllBut(except), message));
    }

    /// To one neighbour, whatever it is known to have: after a heal the same bytes must flow again.
    pub fn direct(&mut self, to: PeerId, message: Message) {
        self.outbox.push((To::One(to), message));
    }

    pub fn release(&mut self, outputs: &mut Vec<Output>) {
        for (to, message) in std::mem::take(&mut self.outbox) {
            let key = key(&message);
            match to {
                To::One(to) => {
                    let Some(peer) = self.peers.get_mut(&to) else { continue };
                    let fresh = key.is_none_or(|key| peer.known.insert(key));
                    if fresh || !self.no_reexchange {
                        outputs.push(Output::Send { to, message });
                    }
                }
                To::AllBut(except) => {
                    for (id, peer) in &mut self.peers {
                        if Some(*id) != except && key.is_none_or(|key| peer.known.insert(key)) {
                            outputs.push(Output::Send { to: *id, message: message.clone() });
                        }
                    }
                }
            }
        }
    }

    /// Forgets heights below `height`.
    pub fn prune(&mut self, height: Height) {
        for peer in self.peers.values_mut() {
            peer.known.retain(|key| key.0 >= height);
        }
    }

    /// Once each second.
    pub fn tick(&mut self) {
        self.peers.values_mut().for_each(|peer| peer.served = 0);
    }
}

impl Peer {
    /// An answer to a status can be a thousand times its size, so answers are rationed.
    pub fn may_ask(&mut self, now: Duration) -> bool {
        let refill = (now.saturating_sub(self.status_at).as_millis() / STATUS_REFILL.as_millis()) as u32;
        if refill > 0 {
            self.status_tokens = self.status_tokens.saturating_add(refill).min(STATUS_BURST);
            self.status_at = now;
        }
        let may = self.status_tokens > 0;
        self.status_tokens = self.status_tokens.saturating_sub(1);
        may
    }

    /// Whether this many more bytes of blocks may be served to the peer in this second.
    pub fn may_serve(&mut self, bytes: usize) -> bool {
        self.served = self.served.saturating_add(bytes);
        self.served <= SERVED_BYTES
    }
}
