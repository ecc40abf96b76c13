//! Guards the way between the hub and the machine it runs on: who is outside may connect to a node, no node to the outside.

use crate::{
    netlink::{Batch, NetlinkError, Socket},
    nft,
};

/// A table of its own: the agent's is replaced with each agent.
const TABLE: &str = "netsplit-uplink";

/// Why the rules are not there.
#[derive(Debug, thiserror::Error)]
#[error("cannot guard the way to this machine")]
pub struct UplinkError(#[source] NetlinkError);

/// Drops what a node of this namespace would begin on the way out through `link`. Answers pass: TCP that is not its first
/// packet, and ICMP.
pub fn guard(link: &str) -> Result<(), UplinkError> {
    let mut batch = Batch::new();
    nft::uplink_table(&mut batch, TABLE, link);
    Socket::open().and_then(|mut socket| socket.commit(batch)).map_err(UplinkError)
}
