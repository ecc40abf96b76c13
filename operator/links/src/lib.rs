//! Link faults on Linux: cuts in nf_tables that end by themselves, and probes that prove them.
//!
//! The agent ([`agent::run`]) lives in the *hub* network namespace, through which every packet between two nodes is
//! routed. A cut is a rule over two sets of addresses whose elements carry a kernel timeout (its lease): whoever dies or
//! hangs, the cut ends. What the rule does is not believed but tested: probes sent from the nodes' own addresses must not
//! arrive while control probes, on a port that is never cut, must ([`proof`]).
//!
//! Only traffic between nodes is cut: the peer port, the probe port and ICMP. API, metrics and control probes pass.

#[cfg(not(target_os = "linux"))]
compile_error!("netsplit-links drives nf_tables and network namespaces, which only Linux has");

pub mod agent;
pub mod cuts;
pub mod emulator;
pub mod frame;
mod guard;
mod model;
mod netlink;
mod nft;
pub mod pod;
pub mod probe;
pub mod proof;
pub mod shape;
mod track;
pub mod tracker;
pub mod uplink;

pub use guard::Guard;
pub use model::{Cut, CutEvidence, CutState, PairEvidence, PeerPorts, Proof, Rect};
