//! Tables and reports as messages, for both ends of the stream.

pub(crate) mod node;
mod shaped;

use std::{net::Ipv4Addr, time::Duration};

use netsplit_links::pod::{CutReport, Inbound, Incoming, Outgoing, Received, Report, Sent, Table, Version};
use netsplit_proto::agent as wire;

/// What both ends speak.
pub(crate) const PROTOCOL: u32 = 2;

/// A message that cannot have been made by this program.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the message has {0}")]
pub(crate) struct WireError(String);

fn address(text: &str) -> Result<Ipv4Addr, WireError> {
    text.parse().map_err(|_| WireError(format!("{text:?} where an IPv4 address belongs")))
}

fn addresses(texts: &[String]) -> Result<Vec<Ipv4Addr>, WireError> {
    texts.iter().map(|text| address(text)).collect()
}

pub(crate) fn version(version: Version) -> wire::Version {
    wire::Version { term: version.term, sequence: version.sequence }
}

pub(crate) fn read_version(version: &wire::Version) -> Version {
    Version { term: version.term, sequence: version.sequence }
}

/// All but the hold of the pod's node, which is not the link agent's.
pub(crate) fn table(table: &Table, node: &str, peers: Vec<wire::Peer>) -> wire::LinkTable {
    let millis = |lasts: Option<Duration>| lasts.map(|lasts| lasts.as_millis() as u64);
    wire::LinkTable {
        version: Some(version(table.version)),
        node: node.to_owned(),
        session: table.session,
        peers,
        cuts: table
            .cuts
            .iter()
            .map(|cut| wire::Cut {
                id: cut.id,
                from: cut.from.iter().map(ToString::to_string).collect(),
                lease_ms: cut.lease.as_millis() as u64,
            })
            .collect(),
        probes: table
            .probes
            .iter()
            .map(|end| wire::Outgoing { pair: end.pair, to: end.to.to_string(), for_ms: millis(end.lasts) })
            .collect(),
        expected: table
            .expected
            .iter()
            .map(|end| wire::Incoming {
                pair: end.pair,
                from: end.from.to_string(),
                for_ms: millis(end.lasts),
            })
            .collect(),
        shaping: Some(shaped::shaping(&table.shaping)),
        hold: None,
    }
}

pub(crate) fn read_table(message: &wire::LinkTable) -> Result<Table, WireError> {
    let known = message.peers.iter().map(|peer| addresses(&peer.addresses)).collect::<Result<Vec<_>, _>>()?;
    let cut = |cut: &wire::Cut| {
        Ok(Inbound { id: cut.id, from: addresses(&cut.from)?, lease: Duration::from_millis(cut.lease_ms) })
    };
    let outgoing = |end: &wire::Outgoing| {
        let lasts = end.for_ms.map(Duration::from_millis);
        Ok(Outgoing { pair: end.pair, to: address(&end.to)?, lasts })
    };
    let incoming = |end: &wire::Incoming| {
        let lasts = end.for_ms.map(Duration::from_millis);
        Ok(Incoming { pair: end.pair, from: address(&end.from)?, lasts })
    };
    Ok(Table {
        version: message
            .version
            .as_ref()
            .map(read_version)
            .ok_or_else(|| WireError("no version".to_owned()))?,
        session: message.session,
        known: known.into_iter().flatten().collect(),
        cuts: message.cuts.iter().map(cut).collect::<Result<_, _>>()?,
        probes: message.probes.iter().map(outgoing).collect::<Result<_, _>>()?,
        expected: message.expected.iter().map(incoming).collect::<Result<_, _>>()?,
        shaping: shaped::read_shaping(message.shaping.as_ref())?,
    })
}

pub(crate) fn report(report: &Report) -> wire::AgentReport {
    wire::AgentReport {
        hello: None,
        applied: report.applied.map(version),
        refused: None,
        cuts: report
            .cuts
            .iter()
            .map(|cut| wire::CutReport {
                cut: cut.id,
                drops: cut.drops,
                lease_left_ms: cut.lease_left_ms,
                rule_missing: cut.rule_missing,
                interrupted: cut.interrupted.clone().unwrap_or_default(),
            })
            .collect(),
        sent: report
            .sent
            .iter()
            .map(|sent| wire::PairSent {
                pair: sent.pair,
                probes: sent.probes,
                controls: sent.controls,
                errors: sent.errors,
            })
            .collect(),
        received: report
            .received
            .iter()
            .map(|received| wire::PairReceived {
                pair: received.pair,
                probes: received.probes,
                controls: received.controls,
            })
            .collect(),
        shaped: report.shaped.as_ref().map(shaped::report),
        node: None,
    }
}

pub(crate) fn read_report(message: wire::AgentReport) -> Report {
    Report {
        applied: message.applied.as_ref().map(read_version),
        cuts: message
            .cuts
            .into_iter()
            .map(|cut| CutReport {
                id: cut.cut,
                drops: cut.drops,
                lease_left_ms: cut.lease_left_ms,
                rule_missing: cut.rule_missing,
                interrupted: Some(cut.interrupted).filter(|sentence| !sentence.is_empty()),
            })
            .collect(),
        sent: message
            .sent
            .into_iter()
            .map(|sent| Sent {
                pair: sent.pair,
                probes: sent.probes,
                controls: sent.controls,
                errors: sent.errors,
            })
            .collect(),
        received: message
            .received
            .into_iter()
            .map(|received| Received {
                pair: received.pair,
                probes: received.probes,
                controls: received.controls,
            })
            .collect(),
        shaped: message.shaped.map(shaped::read_report),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_reports_survive_the_way() {
        let (near, far) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let sent = Table {
            version: Version { term: 3, sequence: 9 },
            session: 7,
            known: vec![near, far],
            cuts: vec![Inbound { id: 1, from: vec![far], lease: Duration::from_secs(30) }],
            probes: vec![Outgoing { pair: 4, to: far, lasts: Some(Duration::from_secs(2)) }],
            expected: vec![Incoming { pair: 5, from: far, lasts: None }],
            shaping: shaped::tests::shaping(far),
        };
        let peer = |address: Ipv4Addr| wire::Peer { node: "n".into(), addresses: vec![address.to_string()] };
        let message = table(&sent, "n", vec![peer(near), peer(far)]);
        assert_eq!(read_table(&message).unwrap(), sent);
        let versionless = wire::LinkTable { version: None, ..message.clone() };
        assert_eq!(read_table(&versionless).unwrap_err().to_string(), "the message has no version");
        let peers = vec![wire::Peer { node: "n".into(), addresses: vec!["nowhere".into()] }];
        read_table(&wire::LinkTable { peers, ..message }).unwrap_err();

        let counted = Report {
            applied: Some(sent.version),
            cuts: vec![CutReport {
                id: 1,
                drops: 2,
                lease_left_ms: 3,
                rule_missing: true,
                interrupted: Some("why".into()),
            }],
            sent: vec![Sent { pair: 4, probes: 5, controls: 6, errors: 7 }],
            received: vec![Received { pair: 5, probes: 0, controls: 9 }],
            shaped: Some(shaped::tests::report()),
        };
        assert_eq!(read_report(report(&counted)), counted);
    }
}
