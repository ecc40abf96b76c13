//! The probed links of one testnet: numbers for the agents at both ends, and what these have counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Instant,
};

use netsplit_links::{
    PairEvidence,
    pod::{Incoming, Outgoing, Received, Sent},
    probe::{PAIRS_PER_WATCH, Probes, WatchId},
};

#[derive(Debug)]
struct Pair {
    number: u64,
    from: Ipv4Addr,
    to: Ipv4Addr,
    sent: Sent,
    received: Received,
}

#[derive(Debug, Default)]
struct Watch {
    until: Option<Instant>,
    pairs: Vec<Pair>,
}

#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// The addresses where there is an agent.
    agents: BTreeSet<Ipv4Addr>,
    watches: BTreeMap<WatchId, Watch>,
    next_watch: u32,
    next_pair: u64,
    /// Where a pair is, by its number.
    index: BTreeMap<u64, (WatchId, usize)>,
}

impl Pairs {
    /// Follows the agents: pairs without an agent at both ends go.
    pub(super) fn set_agents(&mut self, agents: BTreeSet<Ipv4Addr>) {
        for watch in self.watches.values_mut() {
            watch.pairs.retain(|pair| agents.contains(&pair.from) && agents.contains(&pair.to));
        }
        self.agents = agents;
        self.reindex();
    }

    /// Another agent than before is at this address: its counters begin anew, and so do those of its pairs.
    pub(super) fn renew(&mut self, address: Ipv4Addr) {
        for watch in self.watches.values_mut() {
            for pair in watch.pairs.iter_mut().filter(|pair| pair.from == address || pair.to == address) {
                self.next_pair += 1;
                *pair = new_pair(self.next_pair, pair.from, pair.to);
            }
        }
        self.reindex();
    }

    /// Probes exactly these pairs from now on; those that stay keep their counters.
    pub(super) fn retarget(&mut self, id: WatchId, pairs: Vec<(Ipv4Addr, Ipv4Addr)>) {
        let mut before =
            self.watches.get_mut(&id).map(|watch| std::mem::take(&mut watch.pairs)).unwrap_or_default();
        let wanted = self.possible(pairs);
        let kept: Vec<Pair> = wanted
            .into_iter()
            .map(|(from, to)| {
                if let Some(at) = before.iter().position(|pair| (pair.from, pair.to) == (from, to)) {
                    return before.swap_remove(at);
                }
                self.next_pair += 1;
                new_pair(self.next_pair, from, to)
            })
            .collect();
        if let Some(watch) = self.watches.get_mut(&id) {
            watch.pairs = kept;
        }
        self.reindex();
    }

    fn possible(&self, pairs: Vec<(Ipv4Addr, Ipv4Addr)>) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        let known =
            |(from, to): &(Ipv4Addr, Ipv4Addr)| self.agents.contains(from) && self.agents.contains(to);
        pairs.into_iter().filter(known).take(PAIRS_PER_WATCH).collect()
    }

    fn reindex(&mut self) {
        self.index = self
            .watches
            .iter()
            .flat_map(|(id, watch)| {
                watch.pairs.iter().enumerate().map(move |(place, pair)| (pair.number, (*id, place)))
            })
            .collect();
    }

    fn pair(&mut self, number: u64) -> Option<&mut Pair> {
        let (watch, place) = *self.index.get(&number)?;
        self.watches.get_mut(&watch)?.pairs.get_mut(place)
    }

    /// Takes what the agent at an address has counted; what it says of other agents' ends is not believed.
    pub(super) fn report(&mut self, address: Ipv4Addr, sent: &[Sent], received: &[Received]) {
        for counted in sent {
            if let Some(pair) = self.pair(counted.pair).filter(|pair| pair.from == address) {
                pair.sent = *counted;
            }
        }
        for counted in received {
            if let Some(pair) = self.pair(counted.pair).filter(|pair| pair.to == address) {
                pair.received = *counted;
            }
        }
    }

    /// What the agent at an address has to do.
    pub(super) fn ends_at(&self, address: Ipv4Addr, now: Instant) -> (Vec<Outgoing>, Vec<Incoming>) {
        let mut outgoing = Vec::new();
        let mut incoming = Vec::new();
        for watch in self.watches.values() {
            let lasts = watch.until.map(|until| until.saturating_duration_since(now));
            for pair in &watch.pairs {
                if pair.from == address {
                    outgoing.push(Outgoing { pair: pair.number, to: pair.to, lasts });
                } else if pair.to == address {
                    incoming.push(Incoming { pair: pair.number, from: pair.from, lasts });
                }
            }
        }
        (outgoing, incoming)
    }
}

fn new_pair(number: u64, from: Ipv4Addr, to: Ipv4Addr) -> Pair {
    Pair {
        number,
        from,
        to,
        sent: Sent { pair: number, probes: 0, controls: 0, errors: 0 },
        received: Received { pair: number, probes: 0, controls: 0 },
    }
}

impl Probes for Pairs {
    fn watch(&mut self, pairs: Vec<(Ipv4Addr, Ipv4Addr)>, until: Option<Instant>) -> WatchId {
        self.next_watch += 1;
        let id = WatchId(self.next_watch);
        self.watches.insert(id, Watch { until, pairs: Vec::new() });
        self.retarget(id, pairs);
        id
    }

    fn extend(&mut self, id: WatchId, until: Instant) {
        if let Some(watch) = self.watches.get_mut(&id) {
            watch.until = Some(until);
        }
    }

    fn end(&mut self, id: WatchId) {
        self.watches.remove(&id);
        self.reindex();
    }

    fn evidence(&self, id: WatchId, _now: Instant) -> (Vec<PairEvidence>, u64) {
        let Some(watch) = self.watches.get(&id) else { return (Vec::new(), 0) };
        let pairs = watch.pairs.iter().map(|pair| PairEvidence {
            from: pair.from,
            to: pair.to,
            // The two ends report at different times: what has arrived was sent.
            probes_sent: pair.sent.probes.max(pair.received.probes),
            probes_received: pair.received.probes,
            controls_sent: pair.sent.controls.max(pair.received.controls),
            controls_received: pair.received.controls,
        });
        (pairs.collect(), watch.pairs.iter().map(|pair| pair.sent.errors).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, host)
    }

    #[test]
    fn the_two_ends_of_a_pair_are_put_together_and_believed_only_of_themselves() {
        let now = Instant::now();
        let mut pairs = Pairs::default();
        pairs.set_agents([at(1), at(2)].into());
        let watch = pairs.watch(vec![(at(1), at(2)), (at(1), at(3))], None);
        let (outgoing, none) = pairs.ends_at(at(1), now);
        assert!(none.is_empty());
        assert_eq!(outgoing.len(), 1, "there is no agent at the third address");
        let (_, incoming) = pairs.ends_at(at(2), now);
        assert_eq!(incoming[0].pair, outgoing[0].pair);
        let number = outgoing[0].pair;
        let sent = [Sent { pair: number, probes: 9, controls: 9, errors: 0 }];
        let received = [Received { pair: number, probes: 2, controls: 8 }];
        pairs.report(at(2), &sent, &[]);
        pairs.report(at(1), &[], &received);
        assert_eq!(pairs.evidence(watch, now).0[0].controls_received, 0);
        pairs.report(at(1), &sent, &[]);
        pairs.report(at(2), &[], &received);
        let evidence = pairs.evidence(watch, now).0[0];
        assert_eq!((evidence.probes_sent, evidence.probes_received, evidence.controls_received), (9, 2, 8));
    }

    #[test]
    fn another_agent_at_an_end_is_another_pair_and_a_third_one_keeps_its_counts() {
        let now = Instant::now();
        let mut pairs = Pairs::default();
        pairs.set_agents([at(1), at(2), at(3)].into());
        let watch = pairs.watch(vec![(at(1), at(2)), (at(1), at(3))], None);
        let numbers: Vec<u64> = pairs.ends_at(at(1), now).0.iter().map(|end| end.pair).collect();
        for pair in &numbers {
            pairs.report(at(1), &[Sent { pair: *pair, probes: 5, controls: 5, errors: 0 }], &[]);
        }
        pairs.renew(at(2));
        let sent: Vec<u64> = pairs.evidence(watch, now).0.iter().map(|pair| pair.probes_sent).collect();
        assert_eq!(sent, [0, 5]);
        // What the old agent had counted is not taken for the new one's.
        pairs.report(at(1), &[Sent { pair: numbers[0], probes: 6, controls: 6, errors: 0 }], &[]);
        assert_eq!(pairs.evidence(watch, now).0[0].probes_sent, 0);
        pairs.retarget(watch, vec![(at(1), at(3)), (at(3), at(1))]);
        let sent: Vec<u64> = pairs.evidence(watch, now).0.iter().map(|pair| pair.probes_sent).collect();
        assert_eq!(sent, [5, 0]);
    }
}
