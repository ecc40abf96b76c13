//! What each agent is told: its table, composed of the desired state and of the addresses that the nodes have now.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Instant};

use netsplit_links::{
    Cut, Rect,
    pod::{Inbound, Table, Version},
    probe::{PAIRS_PER_WATCH, sample},
};
use netsplit_proto::agent as wire;

use super::{super::wire as convert, Desired, TestnetState, shaped::Part};
use crate::backend::{CutRequest, Hold};

/// Everything of a table but versions and times: when that is the same, nothing needs to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    peers: Arc<[(String, Ipv4Addr)]>,
    cuts: Vec<(u64, Vec<Ipv4Addr>)>,
    probes: Vec<(u64, bool)>,
    expected: Vec<(u64, bool)>,
    /// The faults' epoch where there are any, and the links.
    shaping: (Option<u64>, Arc<Part>),
    hold: Option<Hold>,
}

impl TestnetState {
    /// The cut over the addresses that its nodes have now.
    pub(super) fn links_cut(&self, request: &CutRequest) -> Cut {
        let addresses = |names: &[String]| -> Vec<Ipv4Addr> {
            names.iter().filter_map(|name| self.nodes.get(name)?.address()).collect()
        };
        let rects = request
            .rects
            .iter()
            .map(|rect| Rect { from: addresses(&rect.from), to: addresses(&rect.to) })
            .filter(|rect| !rect.from.is_empty() && !rect.to.is_empty())
            .collect();
        Cut { id: request.id.clone(), rects, lease: request.lease }
    }

    /// Nodes have come, gone or moved: the probes follow.
    pub(super) fn follow_addresses(&mut self) {
        let agents = self.nodes.values().filter_map(|node| node.agent.as_ref());
        self.pairs.set_agents(agents.map(|agent| agent.address).collect());
        for desired in &self.desired {
            let cut = self.links_cut(&desired.request);
            if let Some(watch) = self.tracker.moved(&cut) {
                self.pairs.retarget(watch, sample(&cut, PAIRS_PER_WATCH));
            }
        }
        self.place_links();
    }

    /// Gives every agent its table, when it differs from what the agent was told or when leases are renewed.
    pub(super) fn publish(&mut self, now: Instant, renew: bool) {
        let (Some(shaped), Some(holds), true) = (&self.shaped, &self.holds, self.opened) else { return };
        let peers: Arc<[(String, Ipv4Addr)]> =
            self.nodes.iter().filter_map(|(name, node)| Some((name.clone(), node.address()?))).collect();
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for name in names {
            let Some(agent) = self.nodes[&name].agent.as_ref() else { continue };
            let (probes, expected) = self.pairs.ends_at(agent.address, now);
            let cuts = self.inbound(&name, now);
            let part = shaped.part(&name);
            let told = Told {
                peers: Arc::clone(&peers),
                cuts: cuts.iter().map(|cut| (cut.id, cut.from.clone())).collect(),
                probes: probes.iter().map(|end| (end.pair, end.lasts.is_some())).collect(),
                expected: expected.iter().map(|end| (end.pair, end.lasts.is_some())).collect(),
                shaping: (part.is_leased().then(|| shaped.epoch()), Arc::clone(&part)),
                hold: holds.of(&name),
            };
            let is_leased = !cuts.is_empty() || !probes.is_empty() || part.is_leased() || told.hold.is_some();
            if agent.told.as_ref() == Some(&told) && !(renew && is_leased) {
                continue;
            }
            self.sequence += 1;
            let version = Version { term: self.term, sequence: self.sequence };
            let known = peers.iter().map(|(_, address)| *address).collect();
            let shaping = shaped.shaping(&part, now);
            let table = Table { version, session: self.session, known, cuts, probes, expected, shaping };
            let peers = peers.iter().map(|(node, address)| wire::Peer {
                node: node.clone(),
                addresses: vec![address.to_string()],
            });
            let message = wire::LinkTable {
                hold: holds.message(&name, now),
                ..convert::table(&table, &name, peers.collect())
            };
            if let Some(agent) = self.nodes.get_mut(&name).and_then(|node| node.agent.as_mut()) {
                agent.told = Some(told);
                agent.sent = Some(version);
                // Kept also while the agent is away: the stream it opens next begins with it.
                agent.tables.send_replace(Some(message));
            }
        }
    }

    /// What may not reach a node now.
    fn inbound(&self, node: &str, now: Instant) -> Vec<Inbound> {
        let cut = |desired: &Desired| {
            let left = desired.deadline.checked_duration_since(now).filter(|left| !left.is_zero())?;
            let into = desired.request.rects.iter().filter(|rect| rect.to.iter().any(|to| to == node));
            let others: BTreeSet<&String> =
                into.flat_map(|rect| &rect.from).filter(|from| *from != node).collect();
            // Also without any address, while the pods of all of them are being replaced: strangers must stay out.
            (!others.is_empty()).then(|| Inbound {
                id: desired.instance,
                from: others
                    .into_iter()
                    .filter_map(|from| self.nodes.get(from)?.address())
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect(),
                // The kernel takes no shorter lease; a fault that lasts half a second too long does no harm.
                lease: left.max(Cut::MIN_LEASE),
            })
        };
        self.desired.iter().filter_map(cut).collect()
    }
}
