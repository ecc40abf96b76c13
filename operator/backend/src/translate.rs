//! Names outside, addresses inside.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use netsplit_links::{
    Cut, Rect,
    shape::{LinkEntry, LinkTable},
};

use crate::backend::{
    BackendError, CutEvidence, CutRequest, LinkEvidence, LinkRequest, LinksEvidence, LinksRequest,
    PairEvidence,
};

/// Which node has which address.
#[derive(Debug, Default)]
pub(crate) struct Names {
    addresses: BTreeMap<String, Ipv4Addr>,
    names: BTreeMap<Ipv4Addr, String>,
}

impl Names {
    pub(crate) fn new(nodes: impl Iterator<Item = (String, Ipv4Addr)>) -> Self {
        let mut names = Self::default();
        for (name, address) in nodes {
            names.names.insert(address, name.clone());
            names.addresses.insert(name, address);
        }
        names
    }

    pub(crate) fn len(&self) -> usize {
        self.addresses.len()
    }

    pub(crate) fn address(&self, node: &str) -> Result<Ipv4Addr, BackendError> {
        self.addresses.get(node).copied().ok_or_else(|| BackendError::UnknownNode(node.to_owned()))
    }

    fn name(&self, address: Ipv4Addr) -> String {
        self.names.get(&address).cloned().unwrap_or_else(|| address.to_string())
    }

    pub(crate) fn cut(&self, request: &CutRequest) -> Result<Cut, BackendError> {
        let all =
            |nodes: &[String]| nodes.iter().map(|node| self.address(node)).collect::<Result<Vec<_>, _>>();
        let rects = request
            .rects
            .iter()
            .map(|rect| Ok(Rect { from: all(&rect.from)?, to: all(&rect.to)? }))
            .collect::<Result<Vec<_>, BackendError>>()?;
        Ok(Cut { id: request.id.clone(), rects, lease: request.lease })
    }

    /// `known_base`: the request's base, where it is known already.
    pub(crate) fn link_table(
        &self,
        request: &LinksRequest,
        known_base: Option<Arc<[LinkEntry]>>,
    ) -> Result<LinkTable, BackendError> {
        let entry = |link: &LinkRequest| {
            Ok(LinkEntry {
                from: self.address(&link.from)?,
                to: self.address(&link.to)?,
                number: link.number,
                state: link.state,
            })
        };
        let entries =
            |links: &[LinkRequest]| links.iter().map(entry).collect::<Result<Vec<_>, BackendError>>();
        let faulted = entries(&request.faulted)?;
        Ok(match known_base {
            Some(base) => LinkTable::over(request.seed, base, faulted, request.lease),
            None => LinkTable::new(request.seed, entries(&request.base)?, faulted, request.lease),
        })
    }

    /// Sentences of the link agent speak of addresses; people know names.
    fn in_words(&self, sentence: &str) -> String {
        let known = |word: &str| word.parse().ok().and_then(|address| self.names.get(&address).cloned());
        let words: Vec<String> =
            sentence.split(' ').map(|word| known(word).unwrap_or_else(|| word.to_owned())).collect();
        words.join(" ")
    }
}

pub(crate) fn cut_evidence(evidence: netsplit_links::CutEvidence, names: &Names) -> CutEvidence {
    use netsplit_links::Proof;
    CutEvidence {
        id: evidence.id,
        state: evidence.state,
        drops: evidence.drops,
        lease_left_ms: evidence.lease_left_ms,
        pairs: evidence
            .pairs
            .into_iter()
            .map(|pair| PairEvidence {
                from: names.name(pair.from),
                to: names.name(pair.to),
                probes_sent: pair.probes_sent,
                probes_received: pair.probes_received,
                controls_sent: pair.controls_sent,
                controls_received: pair.controls_received,
            })
            .collect(),
        proof: match evidence.proof {
            Proof::Proven => Proof::Proven,
            Proof::Unproven(sentence) => Proof::Unproven(names.in_words(&sentence)),
            Proof::Violated(sentence) => Proof::Violated(names.in_words(&sentence)),
        },
        problems: evidence.problems.iter().map(|sentence| names.in_words(sentence)).collect(),
    }
}

pub(crate) fn links_evidence(
    evidence: netsplit_links::emulator::LinksEvidence,
    names: &Names,
) -> LinksEvidence {
    let link = |link: netsplit_links::emulator::LinkEvidence| LinkEvidence {
        from: names.name(link.measure.from),
        to: names.name(link.measure.to),
        sent: link.measure.sent,
        received: link.measure.received,
        duplicated: link.measure.duplicated,
        reordered: link.measure.reordered,
        latency_us: link.measure.latency_us,
        samples: link.measure.samples,
        rate: link.measure.rate,
        counters: link.counters,
    };
    LinksEvidence {
        links: evidence.links.into_iter().map(link).collect(),
        faults: evidence.faults.iter().map(|sentence| names.in_words(sentence)).collect(),
        lease_ended: evidence.lease_ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::CutRect;

    #[test]
    fn cuts_name_known_nodes_and_sentences_name_them_back() {
        let address = Ipv4Addr::new(10, 77, 0, 1);
        let names = Names::new([("validator-0".to_owned(), address)].into_iter());
        let request = |node: &str| CutRequest {
            id: "c".into(),
            rects: vec![CutRect { from: vec![node.into()], to: vec![node.into()] }],
            lease: std::time::Duration::from_secs(15),
        };
        assert_eq!(names.cut(&request("validator-0")).unwrap().rects[0].from, [address]);
        assert!(matches!(names.cut(&request("nobody")), Err(BackendError::UnknownNode(_))));
        assert_eq!(names.in_words("from 10.77.0.1 at 10.77.0.2"), "from validator-0 at 10.77.0.2");
    }
}
