//! What a link must be measured as, from the spec and the faults themselves.
//!
//! A second way to the same answer, on purpose: it shares no code with the tables that agents are given, so that a
//! mistake in those is found by measuring.

use std::time::Duration;

use netsplit_spec::{Links, NodeIndex};

use crate::links::LinkFault;

/// One way, of the link between two nodes.
pub fn latency(base: Option<&Links>, faults: &[LinkFault], from: NodeIndex, to: NodeIndex) -> Duration {
    let mut asked = None;
    for fault in faults {
        let touches = fault.rects.iter().any(|rect| rect.from.contains(&from) && rect.to.contains(&to));
        if let (true, Some(latency)) = (touches, fault.links.latency)
            && asked.is_none_or(|longest| latency > longest)
        {
            asked = Some(latency);
        }
    }
    asked.or_else(|| base?.latency).unwrap_or_default()
}

/// In millionths.
pub fn loss(base: Option<&Links>, faults: &[LinkFault], from: NodeIndex, to: NodeIndex) -> u32 {
    let given = |links: &Links| links.loss.map(netsplit_spec::Share::as_millionths);
    let touching = faults
        .iter()
        .filter(|fault| fault.rects.iter().any(|rect| rect.from.contains(&from) && rect.to.contains(&to)));
    let asked = touching.filter_map(|fault| given(&fault.links)).max();
    asked.or_else(|| given(base?)).unwrap_or_default()
}

/// How far a measured latency may be off.
pub fn tolerance(latency: Duration) -> Duration {
    (latency / 20).max(Duration::from_millis(1))
}
