//! The nf_tables objects this crate makes, as netlink messages: table, chains, rules, sets with timed elements.

use std::{net::Ipv4Addr, time::Duration};

use crate::{
    model::PeerPorts,
    netlink::{Attributes, Batch, NLM_F_APPEND, NLM_F_CREATE, NetlinkError, Socket, attribute, attributes},
};

pub(crate) const TABLE: &str = "netsplit";
/// Hooked at PREROUTING before the later queue at -250: a cut packet is never held first.
const HOOK_CHAIN: &str = "prerouting";
const HOOK_PRIORITY: i32 = -300;
/// Peer traffic is sent here; it holds the rules of the cuts.
const CUTS_CHAIN: &str = "cuts";
/// Guards the way out of the hub.
const FORWARD_CHAIN: &str = "forward";
/// Set by every cut that covers a packet, so that overlapping cuts all count it; the last rule drops what carries it.
/// A packet loses its mark when it crosses into another namespace, so none arrives with one.
const MARK: u32 = 0x6e73_0001;

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENTS: u16 = 12;
const GET_ELEMENTS: u16 = 13;

const KEY_NAME: u16 = 1;
pub(crate) const HOOK_PREROUTING: u32 = 0;
const HOOK_FORWARD: u32 = 2;
const ACCEPT: u32 = 1;
const SET_WITH_TIMEOUT: u32 = 0x10;
/// What `nft list` shows the keys as: an IPv4 address.
const KEY_TYPE_IPV4: u32 = 7;
/// Elements in one message: its size is a 16-bit number.
const ELEMENTS_PER_MESSAGE: usize = 1_000;

/// `cmp` and `lookup` the other way round.
pub(crate) const NOT_EQUAL: u32 = 1;
const INVERTED: u32 = 1;

pub(crate) const META_MARK: u32 = 3;
const META_OUTPUT_NAME: u32 = 7;
pub(crate) const META_NFPROTO: u32 = 15;
pub(crate) const META_L4PROTO: u32 = 16;
pub(crate) const NFPROTO_IPV4: u8 = 2;
pub(crate) const NETWORK: u32 = 1;
pub(crate) const TRANSPORT: u32 = 2;
pub(crate) const SOURCE_ADDRESS: u32 = 12;
const DESTINATION_ADDRESS: u32 = 16;
pub(crate) const SOURCE_PORT: u32 = 0;
pub(crate) const DESTINATION_PORT: u32 = 2;
const TCP_FLAGS: u32 = 13;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Bytes of an interface's name as the kernel compares it, zeros at the end.
const INTERFACE_NAME: usize = 16;
const VERDICT_REGISTER: u32 = 0;
const REGISTER: u32 = 1;
const DROP: i32 = 0;
pub(crate) const JUMP: i32 = -3;
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// Names a rule of ours in the kernel (its user data): the generation and rectangle of a cut, or one of the fixed rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RuleKey {
    pub(crate) generation: u32,
    pub(crate) index: u32,
}

impl RuleKey {
    /// Generation 0 are the fixed rules; cuts count from 1.
    pub(crate) const FIXED: u32 = 0;

    fn to_bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.generation.to_be_bytes());
        bytes[4..].copy_from_slice(&self.index.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (generation, index) = bytes.split_at_checked(4)?;
        Some(Self {
            generation: u32::from_be_bytes(generation.try_into().ok()?),
            index: u32::from_be_bytes(index.try_into().ok()?),
        })
    }
}

/// A rule of ours as the kernel lists it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListedRule {
    pub(crate) key: RuleKey,
    pub(crate) handle: u64,
    pub(crate) packets: u64,
}

/// How many rules the table has beside those of cuts.
pub(crate) const FIXED_RULES: usize = 8;

/// Makes the table anew, without a moment in which neither the old nor the new one is there.
pub(crate) fn replace_table(batch: &mut Batch, table: &str, ports: PeerPorts) {
    clear_table(batch, table);
    new_table(batch, table);
    batch.push(NEW_CHAIN, NLM_F_CREATE, |a| {
        a.text(1, table).text(3, CUTS_CHAIN);
    });
    hook_chain(batch, table, HOOK_CHAIN, HOOK_PREROUTING, HOOK_PRIORITY);
    let peer_traffic = [
        (TCP, Some((SOURCE_PORT, ports.peer))),
        (TCP, Some((DESTINATION_PORT, ports.peer))),
        (UDP, Some((SOURCE_PORT, ports.peer))),
        (UDP, Some((DESTINATION_PORT, ports.peer))),
        (UDP, Some((SOURCE_PORT, ports.probe))),
        (UDP, Some((DESTINATION_PORT, ports.probe))),
        (ICMP, None),
    ];
    for (index, (protocol, port)) in peer_traffic.into_iter().enumerate() {
        rule(batch, table, HOOK_CHAIN, fixed(index), |e| {
            meta(e, META_NFPROTO);
            equals(e, &[NFPROTO_IPV4]);
            meta(e, META_L4PROTO);
            equals(e, &[protocol]);
            if let Some((offset, port)) = port {
                payload(e, TRANSPORT, offset, 2);
                equals(e, &port.to_be_bytes());
            }
            verdict(e, JUMP, Some(CUTS_CHAIN));
        });
    }
    rule(batch, table, HOOK_CHAIN, fixed(peer_traffic.len()), |e| {
        meta(e, META_MARK);
        equals(e, &MARK.to_ne_bytes());
        verdict(e, DROP, None);
    });
}

fn fixed(index: usize) -> RuleKey {
    RuleKey { generation: RuleKey::FIXED, index: index as u32 }
}

pub(crate) fn hook_chain(batch: &mut Batch, table: &str, chain: &str, hook: u32, priority: i32) {
    batch.push(NEW_CHAIN, NLM_F_CREATE, |a| {
        a.text(1, table).text(3, chain);
        a.nest(4, |data| {
            data.u32(1, hook).u32(2, priority as u32);
        });
        a.u32(5, ACCEPT).text(7, "filter");
    });
}

fn new_table(batch: &mut Batch, table: &str) {
    batch.push(NEW_TABLE, NLM_F_CREATE, |a| {
        a.text(KEY_NAME, table);
    });
}

/// Forwards nothing out of `link` but answers: no TCP packet that begins a connection, no UDP. Replaces the table.
pub(crate) fn uplink_table(batch: &mut Batch, table: &str, link: &str) {
    clear_table(batch, table);
    new_table(batch, table);
    hook_chain(batch, table, FORWARD_CHAIN, HOOK_FORWARD, 0);
    let mut name = [0; INTERFACE_NAME];
    name[..link.len()].copy_from_slice(link.as_bytes());
    let mut next = 0;
    let mut forward = |fill: &dyn Fn(&mut Attributes)| {
        rule(batch, table, FORWARD_CHAIN, fixed(next), |e| {
            meta(e, META_OUTPUT_NAME);
            equals(e, &name);
            fill(e);
        });
        next += 1;
    };
    forward(&|e| {
        meta(e, META_L4PROTO);
        equals(e, &[TCP]);
        payload(e, TRANSPORT, TCP_FLAGS, 1);
        masked(e, SYN | ACK);
        equals(e, &[SYN]);
        verdict(e, DROP, None);
    });
    for protocol in [TCP, ICMP] {
        forward(&|e| {
            meta(e, META_L4PROTO);
            equals(e, &[protocol]);
            verdict(e, ACCEPT as i32, None);
        });
    }
    forward(&|e| verdict(e, DROP, None));
}

/// Removes the table, when there is one.
pub(crate) fn clear_table(batch: &mut Batch, table: &str) {
    // Deleting needs a table to delete: creating one that exists changes nothing.
    new_table(batch, table);
    delete_table(batch, table);
}

pub(crate) fn delete_table(batch: &mut Batch, table: &str) {
    batch.push(DELETE_TABLE, 0, |a| {
        a.text(KEY_NAME, table);
    });
}

/// Adds a rule that marks and counts what goes from one set to the other.
pub(crate) fn cut_rule(batch: &mut Batch, table: &str, key: RuleKey, from: &str, to: &str) {
    rule(batch, table, CUTS_CHAIN, key, |e| {
        payload(e, NETWORK, SOURCE_ADDRESS, 4);
        lookup(e, from, 0);
        payload(e, NETWORK, DESTINATION_ADDRESS, 4);
        lookup(e, to, 0);
        count_and_mark(e);
    });
}

/// Adds a rule that marks what comes from outside one set and goes to another. ICMP passes: routers, which are nobody's
/// peers, tell of packet sizes and lost routes by it.
pub(crate) fn guard_rule(batch: &mut Batch, table: &str, key: RuleKey, known: &str, to: &str) {
    rule(batch, table, CUTS_CHAIN, key, |e| {
        meta(e, META_L4PROTO);
        compare(e, NOT_EQUAL, &[ICMP]);
        payload(e, NETWORK, SOURCE_ADDRESS, 4);
        lookup(e, known, INVERTED);
        payload(e, NETWORK, DESTINATION_ADDRESS, 4);
        lookup(e, to, 0);
        count_and_mark(e);
    });
}

pub(crate) fn delete_rule(batch: &mut Batch, table: &str, handle: u64) {
    batch.push(DELETE_RULE, 0, |a| {
        a.text(1, table).text(2, CUTS_CHAIN).u64(3, handle);
    });
}

/// Makes a set of IPv4 addresses whose elements end by themselves. `id` is unique in the batch.
pub(crate) fn new_set(batch: &mut Batch, table: &str, name: &str, id: u32) {
    add_set(batch, table, name, id, SET_WITH_TIMEOUT);
}

/// Makes a set of exactly these IPv4 addresses, which stay. `id` is unique in the batch.
pub(crate) fn lasting_set(batch: &mut Batch, table: &str, name: &str, id: u32, addresses: &[Ipv4Addr]) {
    add_set(batch, table, name, id, 0);
    add_elements(batch, table, name, addresses, None);
}

fn add_set(batch: &mut Batch, table: &str, name: &str, id: u32, flags: u32) {
    batch.push(NEW_SET, NLM_F_CREATE, |a| {
        a.text(1, table).text(2, name).u32(3, flags).u32(4, KEY_TYPE_IPV4).u32(5, 4).u32(10, id);
    });
}

pub(crate) fn delete_set(batch: &mut Batch, table: &str, name: &str) {
    batch.push(DELETE_SET, 0, |a| {
        a.text(1, table).text(2, name);
    });
}

/// Adds elements that end after `lease`; one that is there already ends then, too, where the kernel can refresh in place.
pub(crate) fn put_elements(
    batch: &mut Batch,
    table: &str,
    set: &str,
    addresses: &[Ipv4Addr],
    lease: Duration,
) {
    add_elements(batch, table, set, addresses, Some(lease));
}

fn add_elements(batch: &mut Batch, table: &str, set: &str, addresses: &[Ipv4Addr], lease: Option<Duration>) {
    for chunk in addresses.chunks(ELEMENTS_PER_MESSAGE) {
        batch.push(NEW_ELEMENTS, NLM_F_CREATE, |a| {
            a.text(1, table).text(2, set).nest(3, |list| {
                for address in chunk {
                    list.nest(1, |element| {
                        element.nest(1, |key| {
                            key.bytes(1, &address.octets());
                        });
                        if let Some(lease) = lease {
                            let lease = lease.as_millis() as u64;
                            element.u64(4, lease).u64(5, lease);
                        }
                    });
                }
            });
        });
    }
}

/// Lists the rules of ours that are in the kernel; none when the table is gone.
pub(crate) fn list_rules(socket: &mut Socket, table: &str) -> Result<Vec<ListedRule>, NetlinkError> {
    let mut rules = Vec::new();
    let result = socket.dump(
        GET_RULE,
        |a| {
            a.text(1, table);
        },
        |bytes| {
            let handle = attribute(bytes, 3).and_then(|value| value.try_into().ok()).map(u64::from_be_bytes);
            let key = attribute(bytes, 7).and_then(RuleKey::from_bytes);
            if let (Some(handle), Some(key)) = (handle, key) {
                let packets = attribute(bytes, 4).and_then(counted_packets).unwrap_or(0);
                rules.push(ListedRule { key, handle, packets });
            }
        },
    );
    match result {
        Err(error) if error.errno() == Some(nix::libc::ENOENT) => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(()) => Ok(rules),
    }
}

fn counted_packets(expressions: &[u8]) -> Option<u64> {
    attributes(expressions).find_map(|(_, expression)| {
        let name = attribute(expression, 1)?;
        let data = (name == b"counter\0").then(|| attribute(expression, 2))??;
        Some(u64::from_be_bytes(attribute(data, 2)?.try_into().ok()?))
    })
}

/// Lists how long the elements of a set will live.
pub(crate) fn list_expirations(
    socket: &mut Socket,
    table: &str,
    set: &str,
) -> Result<Vec<Duration>, NetlinkError> {
    let mut found = Vec::new();
    socket.dump(
        GET_ELEMENTS,
        |a| {
            a.text(1, table).text(2, set);
        },
        |bytes| {
            for (_, element) in attributes(attribute(bytes, 3).unwrap_or_default()) {
                let left =
                    attribute(element, 5).and_then(|value| value.try_into().ok()).map(u64::from_be_bytes);
                found.extend(left.map(Duration::from_millis));
            }
        },
    )?;
    Ok(found)
}

/// A table with one timed set and nothing hooked: what a kernel can do is tried on it.
pub(crate) fn scratch_table(batch: &mut Batch, table: &str, set: &str) {
    new_table(batch, table);
    new_set(batch, table, set, 1);
}

// === expressions ===

pub(crate) fn rule(
    batch: &mut Batch,
    table: &str,
    chain: &str,
    key: RuleKey,
    fill: impl FnOnce(&mut Attributes),
) {
    batch.push(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, |a| {
        a.text(1, table).text(2, chain).nest(4, fill).bytes(7, &key.to_bytes());
    });
}

pub(crate) fn expression(list: &mut Attributes, name: &str, fill: impl FnOnce(&mut Attributes)) {
    list.nest(1, |e| {
        e.text(1, name).nest(2, fill);
    });
}

pub(crate) fn meta(list: &mut Attributes, key: u32) {
    expression(list, "meta", |data| {
        data.u32(1, REGISTER).u32(2, key);
    });
}

pub(crate) fn payload(list: &mut Attributes, base: u32, offset: u32, length: u32) {
    expression(list, "payload", |data| {
        data.u32(1, REGISTER).u32(2, base).u32(3, offset).u32(4, length);
    });
}

/// Keeps of the register's first byte only the bits of `mask`.
fn masked(list: &mut Attributes, mask: u8) {
    expression(list, "bitwise", |data| {
        data.u32(1, REGISTER).u32(2, REGISTER).u32(3, 1);
        for (kind, value) in [(4, mask), (5, 0)] {
            data.nest(kind, |bits| {
                bits.bytes(1, &[value]);
            });
        }
    });
}

pub(crate) fn equals(list: &mut Attributes, value: &[u8]) {
    compare(list, 0, value);
}

pub(crate) fn compare(list: &mut Attributes, operation: u32, value: &[u8]) {
    expression(list, "cmp", |data| {
        data.u32(1, REGISTER).u32(2, operation).nest(3, |v| {
            v.bytes(1, value);
        });
    });
}

pub(crate) fn lookup(list: &mut Attributes, set: &str, flags: u32) {
    expression(list, "lookup", |data| {
        data.text(1, set).u32(2, REGISTER);
        if flags != 0 {
            data.u32(5, flags);
        }
    });
}

fn count_and_mark(list: &mut Attributes) {
    expression(list, "counter", |data| {
        data.u64(1, 0).u64(2, 0);
    });
    expression(list, "immediate", |data| {
        data.u32(1, REGISTER).nest(2, |value| {
            value.bytes(1, &MARK.to_ne_bytes());
        });
    });
    expression(list, "meta", |data| {
        data.u32(2, META_MARK).u32(3, REGISTER);
    });
}

pub(crate) fn verdict(list: &mut Attributes, code: i32, chain: Option<&str>) {
    expression(list, "immediate", |data| {
        data.u32(1, VERDICT_REGISTER).nest(2, |value| {
            value.nest(2, |v| {
                v.u32(1, code as u32);
                if let Some(chain) = chain {
                    v.text(2, chain);
                }
            });
        });
    });
}
