//! Pure planning: what nodes a testnet has and who is whose neighbour, faults compiled to directed cuts, and the
//! experiment's state machine with its verdict. Same input, same output: no clock, no randomness, no network.

pub mod expected;
pub mod experiment;
mod fault;
mod links;
mod preview;
mod testnet;

pub use fault::{CutRect, FaultPlan, HeldNodes, compile, ramped};
pub use links::{Base, LinkFault, LinkRow, base_links, faulted_links};
pub use netsplit_spec::{NodeFault, NodeIndex, Ramp, seed_of};
pub use preview::{Stretch, preview};
pub use testnet::{PlannedNode, TestnetPlan, plan_testnet};
