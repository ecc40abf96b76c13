//! Generated types of the protocols: [`peer`] is what nodes say to each other, [`node`] what a node offers to
//! its users, [`control`] what the command line asks of a testnet's supervisor, [`agent`] what an operator tells the link
//! agents in its pods. The `.proto` files in `proto/` are the reference.

/// Generated code follows prost's conventions, not this workspace's lints.
#[allow(missing_debug_implementations, unused_qualifications, clippy::all, clippy::pedantic)]
mod generated {
    pub mod peer {
        tonic::include_proto!("netsplit.peer.v1");
    }
    pub mod control {
        tonic::include_proto!("netsplit.control.v1");
    }
    pub mod agent {
        tonic::include_proto!("netsplit.agent.v1");
    }
    pub mod node {
        tonic::include_proto!("netsplit.node.v1");
    }
}

pub use generated::{agent, control, node, peer};

/// The compiled descriptors of all protocols, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/netsplit.descriptors.bin"));
