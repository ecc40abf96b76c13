//! Follows every node of a testnet and the host below it, and turns what it sees into the values that
//! `netsplit_plan` judges.
//!
//! * [`Observer`]: one block stream and one slow status poll a node, resumed wherever they broke off.
//! * [`host`]: how busy the host is, so that a late observation is not taken for a failing chain.
//! * [`timeline`]: what happened at the nodes, in words, bounded.
//!
//! Nothing is lost in silence: buffers are bounded, and what did not fit is counted in the observation.

mod follower;
pub mod host;
mod node;
mod observer;
mod ring;
pub mod timeline;

pub use host::{HostCursor, HostSampler};
pub use node::NodeView;
pub use observer::{EventCursor, Observer, ObserverConfig, ProcessState, Watch, now_ms};
pub use timeline::{NodeEvent, NodeEventKind};
