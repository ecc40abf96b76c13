//! The rules that send packets of shaped links to the queues.
//!
//! The table is owned by this socket: nobody else can change it, and it goes with it. What it holds are two sets of links,
//! one a kind of queue, and a gate: a set with one element that ends unless it is renewed. Without it no packet is queued.

use std::{collections::HashSet, ops::Range, time::Duration};

use super::table::Pair;
use crate::{
    model::PeerPorts,
    netlink::{Attributes, Batch, NLM_F_CREATE, NetlinkError, Socket},
    nft::{self, RuleKey},
};

const TABLE: &str = "netsplit-links";
const HOOK_CHAIN: &str = "prerouting";
/// After the cuts, before connection tracking: held packets of new connections clash there.
const HOOK_PRIORITY: i32 = -250;
const LINKS_CHAIN: &str = "links";
const GATE: &str = "gate";
const OWNED: u32 = 2;

const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;
/// What `nft list` shows a key as: two IPv4 addresses, a family of protocols.
const KEY_PAIR: u32 = 7 << 6 | 7;
const KEY_FAMILY: u32 = 2;
const WITH_TIMEOUT: u32 = 0x10;
/// Elements in one transaction: what fits a rootless send buffer.
const ELEMENTS_PER_BATCH: usize = 3_000;
const ELEMENTS_PER_MESSAGE: usize = 1_000;
/// Where no agent listens, packets pass.
const BYPASS: u16 = 1;
/// Of what this crate sends itself: a second copy of a packet, which has met the link already.
pub(super) const COPY_MARK: u32 = 0x6e73_0002;

/// Which queues the packets of a link go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Bursts stay whole.
    Gso,
    /// Every packet by itself.
    Exact,
}

impl Way {
    const ALL: [Self; 2] = [Self::Exact, Self::Gso];

    fn set(self) -> &'static str {
        match self {
            Self::Gso => "gso",
            Self::Exact => "exact",
        }
    }
}

/// What is sent to the queues, beside peer traffic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) peer: PeerPorts,
    /// UDP port that probes of links are sent to.
    pub(super) timed: u16,
}

#[derive(Debug)]
pub(super) struct Rules {
    socket: Socket,
    /// What is in the kernel's sets.
    links: [HashSet<Pair>; 2],
}

impl Rules {
    /// Makes the table of this network namespace, with the gate closed to nobody: no packet is queued yet.
    pub(super) fn open(ports: Ports, gso: &Range<u16>, exact: &Range<u16>) -> Result<Self, NetlinkError> {
        let mut socket = Socket::open()?;
        // Kernels without the expression have its older twin more often than not.
        let first = socket.commit(table(ports, gso, exact, queue));
        match first {
            Err(NetlinkError::Refused(_)) => socket.commit(table(ports, gso, exact, queue_target))?,
            result => result?,
        }
        Ok(Self { socket, links: Default::default() })
    }

    /// Queues these links, or lets them pass. One that is queued before and after is so in between: everything is added
    /// first, and of a link in both sets the exact rule decides.
    pub(super) fn set(&mut self, links: &[(Pair, Option<Way>)]) -> Result<(), NetlinkError> {
        for way in Way::ALL {
            let has = &self.links[way as usize];
            let added = links.iter().filter(|(pair, wanted)| *wanted == Some(way) && !has.contains(pair));
            let added: Vec<Pair> = added.map(|(pair, _)| *pair).collect();
            self.change(NEW_ELEMENTS, way, &added)?;
        }
        for way in Way::ALL {
            let has = &self.links[way as usize];
            let removed = links.iter().filter(|(pair, wanted)| *wanted != Some(way) && has.contains(pair));
            let removed: Vec<Pair> = removed.map(|(pair, _)| *pair).collect();
            self.change(DELETE_ELEMENTS, way, &removed)?;
        }
        Ok(())
    }

    fn change(&mut self, kind: u16, way: Way, pairs: &[Pair]) -> Result<(), NetlinkError> {
        for part in pairs.chunks(ELEMENTS_PER_BATCH) {
            let mut batch = Batch::new();
            for chunk in part.chunks(ELEMENTS_PER_MESSAGE) {
                let flags = if kind == NEW_ELEMENTS { NLM_F_CREATE } else { 0 };
                batch.push(kind, flags, |a| {
                    a.text(1, TABLE).text(2, way.set()).nest(3, |list| {
                        for (from, to) in chunk {
                            list.nest(1, |element| {
                                element.nest(1, |key| {
                                    key.bytes(1, &[from.octets(), to.octets()].concat());
                                });
                            });
                        }
                    });
                });
            }
            self.socket.commit(batch)?;
            let set = &mut self.links[way as usize];
            for pair in part {
                if kind == NEW_ELEMENTS {
                    set.insert(*pair);
                } else {
                    set.remove(pair);
                }
            }
        }
        Ok(())
    }

    /// Keeps the gate for `lease` from now on. Replacing its element is one transaction: there is always one.
    pub(super) fn renew(&mut self, lease: Duration) -> Result<(), NetlinkError> {
        let lease = lease.as_millis() as u64;
        let mut batch = Batch::new();
        batch.push(DELETE_ELEMENTS, 0, |a| {
            a.text(1, TABLE).text(2, GATE);
        });
        batch.push(NEW_ELEMENTS, NLM_F_CREATE, |a| {
            a.text(1, TABLE).text(2, GATE).nest(3, |list| {
                list.nest(1, |element| {
                    element.nest(1, |key| {
                        key.bytes(1, &[nft::NFPROTO_IPV4]);
                    });
                    element.u64(4, lease).u64(5, lease);
                });
            });
        });
        self.socket.commit(batch)
    }

    /// Whether all rules are in the kernel.
    pub(super) fn are_intact(&mut self) -> Result<bool, NetlinkError> {
        Ok(nft::list_rules(&mut self.socket, TABLE)?.len() == RULES)
    }
}

/// Adds an expression that queues, given the queues' numbers.
type QueueExpression = fn(&mut Attributes, &Range<u16>);

/// Peer traffic and probes jump (6 and ICMP), two rules queue.
const RULES: usize = 8;

fn table(ports: Ports, gso: &Range<u16>, exact: &Range<u16>, expression: QueueExpression) -> Batch {
    let mut batch = Batch::new();
    batch.push(NEW_TABLE, NLM_F_CREATE, |a| {
        a.text(1, TABLE).u32(2, OWNED);
    });
    new_set(&mut batch, GATE, KEY_FAMILY, 1, 1, WITH_TIMEOUT);
    new_set(&mut batch, Way::Gso.set(), KEY_PAIR, 8, 2, 0);
    new_set(&mut batch, Way::Exact.set(), KEY_PAIR, 8, 3, 0);
    batch.push(NEW_CHAIN, NLM_F_CREATE, |a| {
        a.text(1, TABLE).text(3, LINKS_CHAIN);
    });
    nft::hook_chain(&mut batch, TABLE, HOOK_CHAIN, nft::HOOK_PREROUTING, HOOK_PRIORITY);
    let mut index = 0;
    let mut next = || {
        index += 1;
        RuleKey { generation: RuleKey::FIXED, index }
    };
    let shaped = [
        (nft::TCP, Some((nft::SOURCE_PORT, ports.peer.peer))),
        (nft::TCP, Some((nft::DESTINATION_PORT, ports.peer.peer))),
        (nft::UDP, Some((nft::SOURCE_PORT, ports.peer.peer))),
        (nft::UDP, Some((nft::DESTINATION_PORT, ports.peer.peer))),
        (nft::UDP, Some((nft::DESTINATION_PORT, ports.timed))),
        (nft::ICMP, None),
    ];
    for (protocol, port) in shaped {
        nft::rule(&mut batch, TABLE, HOOK_CHAIN, next(), |e| {
            nft::meta(e, nft::META_NFPROTO);
            nft::equals(e, &[nft::NFPROTO_IPV4]);
            nft::meta(e, nft::META_L4PROTO);
            nft::equals(e, &[protocol]);
            if let Some((offset, port)) = port {
                nft::payload(e, nft::TRANSPORT, offset, 2);
                nft::equals(e, &port.to_be_bytes());
            }
            nft::verdict(e, nft::JUMP, Some(LINKS_CHAIN));
        });
    }
    for way in Way::ALL {
        let numbers = if way == Way::Gso { gso } else { exact };
        nft::rule(&mut batch, TABLE, LINKS_CHAIN, next(), |e| {
            nft::meta(e, nft::META_MARK);
            nft::compare(e, nft::NOT_EQUAL, &COPY_MARK.to_ne_bytes());
            nft::meta(e, nft::META_NFPROTO);
            nft::lookup(e, GATE, 0);
            // Both addresses at once: they stand side by side in the header.
            nft::payload(e, nft::NETWORK, nft::SOURCE_ADDRESS, 8);
            nft::lookup(e, way.set(), 0);
            expression(e, numbers);
        });
    }
    batch
}

fn new_set(batch: &mut Batch, name: &str, key: u32, length: u32, id: u32, flags: u32) {
    batch.push(NEW_SET, NLM_F_CREATE, |a| {
        a.text(1, TABLE).text(2, name).u32(3, flags).u32(4, key).u32(5, length).u32(10, id);
    });
}

fn queue(list: &mut Attributes, numbers: &Range<u16>) {
    nft::expression(list, "queue", |data| {
        data.bytes(1, &numbers.start.to_be_bytes());
        data.bytes(2, &(numbers.len() as u16).to_be_bytes());
        data.bytes(3, &BYPASS.to_be_bytes());
    });
}

/// The same by the target of iptables, revision 3, whose structure is in the machine's byte order.
fn queue_target(list: &mut Attributes, numbers: &Range<u16>) {
    nft::expression(list, "target", |data| {
        let words = [numbers.start, numbers.len() as u16, BYPASS, 0];
        data.text(1, "NFQUEUE").u32(2, 3).bytes(3, &words.map(u16::to_ne_bytes).concat());
    });
}
