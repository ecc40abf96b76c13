//! Scenarios that are the same wherever testnets run: written once, against a [`Place`], and run on this machine and on a cluster.

pub mod by_hand;
pub mod node_faults;
pub mod topologies;
pub mod verdicts;

use std::{net::SocketAddr, time::Duration};

use netsplit_e2e::{Lab, NodeStatus};

/// Somewhere that testnets run.
pub trait Place {
    /// Whose commands are about this place.
    fn lab(&self) -> &Lab;

    /// Far above what any single step takes on a machine that does nothing else.
    fn moment(&self) -> Duration;

    /// The process of a node that runs: every place is on this machine.
    fn process(&self, testnet: &str, node: &str) -> i32;

    /// The same of a node that may have none now.
    fn find_process(&self, testnet: &str, node: &str) -> Option<i32>;

    /// Where a node's metrics are read from here.
    fn http(&self, node: &NodeStatus) -> SocketAddr;

    /// Whether the load of a testnet's spec waits for one by hand.
    fn own_load_waits(&self, testnet: &str) -> bool;

    /// The node's program, as `netsplit exec` finds it.
    fn program(&self) -> String;

    /// Waits until nothing is left of any testnet.
    fn nothing_left(&self);
}
