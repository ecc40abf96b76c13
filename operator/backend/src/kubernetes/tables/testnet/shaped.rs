//! The shaped links of a testnet: what is asked of them, each agent's part of that, and what both ends tell.
//!
//! A link is shaped and timed by the agent of its receiving node, on that one's clock; the agent of the sending node says
//! how many probes must have come by now. Put together here they say how slow a link is and how many it loses.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
    sync::Arc,
    time::Instant,
};

use netsplit_links::{
    pod::{LinkReceived, Probed, ShapedLink, ShapedReport, Shaping},
    shape::patience,
};

use super::{Awaited, FRESH, TestnetState, bad_lease};
use crate::backend::{BackendError, LinkEvidence, LinkRequest, LinksEvidence, LinksRequest};

/// What one agent has to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    base: Vec<ShapedLink>,
    faulted: Vec<ShapedLink>,
    probed: Vec<Probed>,
}

impl Part {
    pub(super) fn is_leased(&self) -> bool {
        !self.faulted.is_empty()
    }
}

/// What both ends have told of a link.
#[derive(Debug, Clone, Copy)]
struct Seen {
    received: LinkReceived,
    /// Of the probes that the receiver counts, those that must have come.
    sent: u64,
}

/// Where the nodes are, and who of them cannot shape.
type Places = BTreeMap<String, (Ipv4Addr, bool)>;

#[derive(Debug)]
pub(super) struct Shaped {
    request: LinksRequest,
    /// Tells these faults from earlier ones.
    epoch: u64,
    deadline: Instant,
    /// Somebody has let the faults go.
    ended: bool,
    places: Places,
    parts: BTreeMap<String, Arc<Part>>,
    /// From and to, by the link's number.
    ends: HashMap<u32, (String, String)>,
    seen: HashMap<u32, Seen>,
    /// The last probe of each link that must have come, as its sender told.
    settled: HashMap<u32, u64>,
}

impl Shaped {
    fn new(request: LinksRequest, epoch: u64, now: Instant) -> Self {
        let deadline = now + request.lease;
        let all = request.base.iter().chain(&request.faulted);
        let ends = all.map(|link| (link.number, (link.from.clone(), link.to.clone()))).collect();
        Self {
            request,
            epoch,
            deadline,
            ended: false,
            places: Places::new(),
            parts: BTreeMap::new(),
            ends,
            seen: HashMap::new(),
            settled: HashMap::new(),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    fn faulted(&self) -> &[LinkRequest] {
        if self.ended { &[] } else { &self.request.faulted }
    }

    /// Each link as it is asked for now.
    fn links(&self) -> impl Iterator<Item = &LinkRequest> {
        // A fault's state is the whole state.
        let all = self.request.base.iter().chain(self.faulted());
        all.map(|link| ((&link.from, &link.to), link)).collect::<BTreeMap<_, _>>().into_values()
    }

    pub(super) fn part(&self, node: &str) -> Arc<Part> {
        self.parts.get(node).cloned().unwrap_or_default()
    }

    /// Whether packets to a node are held.
    pub(super) fn is_shaped(&self, node: &str) -> bool {
        self.links().any(|link| link.to == node && !link.state.is_clear())
    }

    pub(super) fn shaping(&self, part: &Part, now: Instant) -> Shaping {
        let left = self.deadline.saturating_duration_since(now);
        Shaping {
            epoch: self.epoch,
            seed: self.request.seed,
            base: part.base.clone(),
            // Too late to be told of: they have ended.
            faulted: if left.is_zero() { Vec::new() } else { part.faulted.clone() },
            lease: left,
            probed: part.probed.clone(),
        }
    }

    /// Splits the links among the agents, over the addresses that the nodes have now.
    fn place(&mut self, places: Places) {
        let address = |node: &String| places.get(node).map(|(address, _)| *address);
        let mut parts: BTreeMap<&String, Part> = BTreeMap::new();
        // An agent that cannot shape is told of no link: it can still cut them.
        let can_shape = |node: &String| places.get(node).is_some_and(|(_, cannot_shape)| !cannot_shape);
        let inbound = |link: &LinkRequest| {
            let shaped = ShapedLink { from: address(&link.from)?, number: link.number, state: link.state };
            can_shape(&link.to).then_some(shaped)
        };
        for link in self.request.base.iter() {
            if let Some(shaped) = inbound(link) {
                parts.entry(&link.to).or_default().base.push(shaped);
            }
        }
        for link in self.faulted() {
            if let Some(shaped) = inbound(link) {
                parts.entry(&link.to).or_default().faulted.push(shaped);
            }
        }
        for link in self.links().filter(|link| can_shape(&link.to)) {
            if let Some(to) = address(&link.to) {
                parts.entry(&link.from).or_default().probed.push(Probed {
                    link: link.number,
                    to,
                    patience: patience(&link.state),
                    wanted: link.state.probes_wanted(),
                    rate: link.state.rate,
                });
            }
        }
        let parts = parts.into_iter().map(|(node, part)| (node.clone(), Arc::new(part))).collect();
        self.parts = parts;
        self.places = places;
    }

    /// Forgets what is known of links that are asked to be something else than `before`.
    fn inherit(&mut self, before: Self) {
        let same: BTreeSet<u32> = {
            let old: HashMap<u32, &LinkRequest> = before.links().map(|link| (link.number, link)).collect();
            let is_same = |link: &&LinkRequest| old.get(&link.number) == Some(link);
            let all = self.links().filter(is_same).map(|link| link.number);
            all.filter(|_| before.request.seed == self.request.seed).collect()
        };
        self.seen = before.seen.into_iter().filter(|(number, _)| same.contains(number)).collect();
        self.settled = before.settled;
        self.settled.retain(|number, _| self.ends.contains_key(number));
    }

    /// Takes what the agent of a node tells; what it says of other nodes' ends is not believed.
    fn see(&mut self, node: &str, report: &ShapedReport) {
        for sent in &report.sent {
            if self.ends.get(&sent.link).is_some_and(|(from, _)| from == node) {
                self.settled.insert(sent.link, sent.last);
            }
        }
        for received in &report.received {
            if self.ends.get(&received.link).is_some_and(|(_, to)| to == node) {
                let settled = self.settled.get(&received.link).copied().unwrap_or_default();
                let seen = Seen { received: *received, sent: sent(received, settled) };
                self.seen.insert(received.link, seen);
            }
        }
    }
}

/// Those of a link's probes that must have come, when the sender says that all up to `settled` must have.
fn sent(received: &LinkReceived, settled: u64) -> u64 {
    let LinkReceived { first, last, .. } = *received;
    let counted = last - first.min(last);
    // Without a first one nobody knows where to count from.
    if first == 0 || settled == 0 {
        return counted;
    }
    // The upper half of a number is the sender's own, drawn at its start: one that was started again counts anew.
    let since =
        if settled >> 32 == last >> 32 { settled.saturating_sub(last) } else { settled & 0xffff_ffff };
    counted + since
}

impl TestnetState {
    /// Makes exactly these links shaped, the faulted ones for their lease from now on. Gives what was asked for before,
    /// unless this is the first to be known, and who must confirm.
    pub(in super::super) fn set_links(
        &mut self,
        request: LinksRequest,
        now: Instant,
    ) -> Result<(Option<LinksRequest>, Awaited), BackendError> {
        self.check_links(&request)?;
        let before = self.shaped.take();
        let parts = before.as_ref().map(|before| before.parts.clone());
        let asked_before = before.as_ref().map(|before| before.request.clone());
        let is_same = |before: &Shaped| before.request == request && !before.ended && now < before.deadline;
        let shaped = match before {
            // Only its lease begins anew.
            Some(before) if is_same(&before) => Shaped { deadline: now + request.lease, ..before },
            before => {
                let mut shaped = Shaped::new(request, self.next_instance, now);
                self.next_instance += 1;
                if let Some(before) = before {
                    shaped.inherit(before);
                }
                shaped.place(self.places());
                // What agents said of the end of a lease was said of other faults.
                let agents = self.nodes.values_mut().filter_map(|node| node.agent.as_mut());
                agents.for_each(|agent| agent.shaped.lease_ended = false);
                shaped
            }
        };
        self.shaped = Some(shaped);
        self.publish(now, true);
        let awaited = if self.is_known() { self.awaited_links(parts.as_ref()) } else { Awaited::default() };
        Ok((asked_before, awaited))
    }

    /// Whose part is another one than before; all, if there was none before.
    fn awaited_links(&self, before: Option<&BTreeMap<String, Arc<Part>>>) -> Awaited {
        let Some(shaped) = &self.shaped else { return Awaited::default() };
        let shaping = shaped.links().filter(|link| !link.state.is_clear());
        let shape: BTreeSet<String> = shaping.map(|link| link.to.clone()).collect();
        let waits = |node: &super::Node| {
            let name = &node.member.node;
            let is_other = before.is_none_or(|before| before.get(name) != shaped.parts.get(name));
            // Who cannot shape has no part, and is asked all the same.
            let cannot = node.agent.as_ref().is_some_and(|agent| agent.cannot_shape.is_some());
            is_other || (cannot && shape.contains(name))
        };
        Awaited { tables: self.newest(waits), shape, ..Awaited::default() }
    }

    fn check_links(&self, request: &LinksRequest) -> Result<(), BackendError> {
        if let Some(problem) = bad_lease(request.lease).filter(|_| !request.faulted.is_empty()) {
            return Err(BackendError::Invalid(problem));
        }
        for link in request.base.iter().chain(&request.faulted) {
            for name in [&link.from, &link.to] {
                if !self.nodes.contains_key(name) {
                    return Err(BackendError::UnknownNode(name.clone()));
                }
            }
        }
        Ok(())
    }

    fn places(&self) -> Places {
        let place = |(name, node): (&String, &super::Node)| {
            let cannot_shape = node.agent.as_ref().is_some_and(|agent| agent.cannot_shape.is_some());
            Some((name.clone(), (node.address()?, cannot_shape)))
        };
        self.nodes.iter().filter_map(place).collect()
    }

    /// Nodes have come, gone or moved: the links follow.
    pub(super) fn place_links(&mut self) {
        let places = self.places();
        if let Some(shaped) = self.shaped.as_mut().filter(|shaped| shaped.places != places) {
            shaped.place(places);
        }
    }

    /// Renews the faulted links, unless their lease has ended; gives what is to be said of those whose has.
    pub(super) fn renew_links(&mut self, now: Instant) -> Option<String> {
        self.end_links(now);
        let shaped = self.shaped.as_mut().filter(|shaped| !shaped.request.faulted.is_empty())?;
        if shaped.ended {
            return Some("the faulted links".to_owned());
        }
        shaped.deadline = now + shaped.request.lease;
        None
    }

    /// Once the faults have ended anywhere, they have ended everywhere.
    fn end_links(&mut self, now: Instant) {
        let Some(shaped) = self.shaped.as_mut().filter(|shaped| !shaped.ended) else { return };
        let agents = self.nodes.values().filter_map(|node| node.agent.as_ref());
        // Only who holds the newest table speaks of these faults.
        let mut current = agents.filter(|agent| agent.sent.is_some() && agent.applied >= agent.sent);
        let is_over = now >= shaped.deadline || current.any(|agent| agent.shaped.lease_ended);
        if is_over && !shaped.request.faulted.is_empty() {
            shaped.ended = true;
            let places = std::mem::take(&mut shaped.places);
            shaped.place(places);
        }
    }

    /// Takes what an agent tells of its links.
    pub(super) fn see_links(&mut self, node: &str, report: ShapedReport) {
        let Some(agent) = self.nodes.get_mut(node).and_then(|node| node.agent.as_mut()) else { return };
        // What was measured under an older table may be of links that have changed since.
        if let Some(shaped) =
            self.shaped.as_mut().filter(|_| agent.sent.is_some() && agent.applied >= agent.sent)
        {
            shaped.see(node, &report);
            agent.shaped = report;
        }
    }

    /// What is known of all shaped links; fails when somebody who should know does not answer.
    pub(in super::super) fn links(&mut self, now: Instant) -> Result<LinksEvidence, BackendError> {
        self.end_links(now);
        self.publish(now, false);
        let Some(shaped) = &self.shaped else { return Ok(LinksEvidence::default()) };
        if let Some(silent) = self.silent(shaped, now) {
            return Err(BackendError::Failed(silent));
        }
        let has_agent = |name: &String| self.nodes.get(name).is_some_and(|node| node.agent.is_some());
        let measured = shaped.links().filter(|link| has_agent(&link.from) && has_agent(&link.to));
        let links = measured.map(|link| evidence(link, shaped.seen.get(&link.number))).collect();
        let restarts = self.restarts.iter().map(|(node, times)| {
            format!("the link agent of {node} was started again ({times}): until it had its table packets passed unshaped")
        });
        let of_agents = self.nodes.values().flat_map(|node| {
            let faults = node.agent.iter().flat_map(|agent| &agent.shaped.faults);
            faults.map(|fault| format!("{fault} (in the pod of {})", node.member.node))
        });
        Ok(LinksEvidence {
            links,
            faults: restarts.chain(of_agents).collect(),
            lease_ended: shaped.ended && !shaped.request.faulted.is_empty(),
        })
    }

    /// Who of those that shape or probe a link does not answer, as a sentence. A pod that is being replaced has no links.
    fn silent(&self, shaped: &Shaped, now: Instant) -> Option<String> {
        let names: BTreeSet<&String> = shaped.links().flat_map(|link| [&link.from, &link.to]).collect();
        names.into_iter().find_map(|name| {
            let node = self.nodes.get(name)?;
            let Some(agent) = &node.agent else {
                return node.member.running.then(|| format!("the link agent of {name} is not connected"));
            };
            if let Some(why) = agent.cannot_shape.as_ref().filter(|_| shaped.is_shaped(name)) {
                return Some(format!("the link agent of {name} cannot shape links: {why}"));
            }
            let age = now.saturating_duration_since(agent.heard_at);
            let silent =
                || format!("the link agent of {name} has not answered for {:.1} s", age.as_secs_f64());
            (age > FRESH && node.member.running).then(silent)
        })
    }
}

fn evidence(link: &LinkRequest, seen: Option<&Seen>) -> LinkEvidence {
    let received = seen.map(|seen| seen.received);
    LinkEvidence {
        from: link.from.clone(),
        to: link.to.clone(),
        sent: seen.map_or(0, |seen| seen.sent),
        received: received.map_or(0, |received| received.received),
        duplicated: received.map_or(0, |received| received.duplicated),
        reordered: received.map_or(0, |received| received.reordered),
        latency_us: received.and_then(|received| received.latency_us),
        samples: received.map_or(0, |received| received.samples),
        rate: received.and_then(|received| received.rate),
        counters: received.map(|received| received.counters).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
