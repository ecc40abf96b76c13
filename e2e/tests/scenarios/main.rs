//! Scenarios on real testnets, driven through the command line as a person drives it.
//!
//! One binary, one scenario at a time: testnets are judged by their timing.

mod by_hand;
mod cometbft;
mod crashes;
#[path = "../everywhere/mod.rs"]
mod everywhere;
mod fork;
mod here;
mod leases;
mod links;
mod machine;
mod node_faults;
mod topologies;
mod verdicts;
