//! The first frame of each side says who it is; a side that does not want the session says why, so that the reason
//! stands in the log of both.

use std::time::Duration;

use bytes::Bytes;
use netsplit_core::Hash;
use netsplit_proto::peer as wire;
use netsplit_proto::peer::frame::Kind;
use netsplit_proto::peer::refusal::Reason;
use tonic::Streaming;

use crate::config::NetConfig;
use crate::{Class, PROTOCOL_VERSIONS};

/// Text that a peer sends ends up in our log and status: no longer than this.
const MAX_TEXT: usize = 256;

/// A checked `Hello`.
#[derive(Clone, Debug)]
pub(crate) struct PeerHello {
    pub node_name: String,
    pub agent: String,
    pub nonce: u64,
}

/// Why no session begins.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// We do not want it.
    #[error("refused: {detail}")]
    Refused { reason: Reason, detail: String },
    /// The peer does not want it.
    #[error("the peer refused: {0}")]
    RefusedByPeer(String),
    #[error("the session's stream failed: {0}")]
    Stream(String),
    #[error("no greeting within {0:?}")]
    Timeout(Duration),
}

impl HandshakeError {
    pub(crate) fn refuse(reason: Reason, detail: impl Into<String>) -> Self {
        Self::Refused { reason, detail: detail.into() }
    }

    /// Whether another attempt at once is pointless.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::RefusedByPeer(_))
    }
}

/// Our greeting on a connection of `class`.
pub(crate) fn hello(config: &NetConfig, class: Class, nonce: u64) -> wire::Frame {
    let hello = wire::Hello {
        protocol_min: *PROTOCOL_VERSIONS.start(),
        protocol_max: *PROTOCOL_VERSIONS.end(),
        chain_id: Bytes::copy_from_slice(config.chain_id.as_bytes()),
        chain_name: shorten(&config.chain_name),
        class: wire_class(class).into(),
        node_name: shorten(&config.name),
        agent_version: shorten(&config.agent),
        session_nonce: nonce,
    };
    wire::Frame { kind: Some(Kind::Hello(hello)) }
}

pub(crate) fn refusal(reason: Reason, detail: &str) -> wire::Frame {
    let refusal = wire::Refusal { reason: reason.into(), detail: shorten(detail) };
    wire::Frame { kind: Some(Kind::Refusal(refusal)) }
}

/// Waits for the peer's first frame and checks it against our chain, protocol and the connection's class.
pub(crate) async fn receive(
    config: &NetConfig,
    class: Class,
    stream: &mut Streaming<wire::Frame>,
) -> Result<PeerHello, HandshakeError> {
    let wait = config.timing.handshake_timeout;
    let frame = tokio::time::timeout(wait, stream.message())
        .await
        .map_err(|_| HandshakeError::Timeout(wait))?
        .map_err(|status| HandshakeError::Stream(shorten(status.message())))?
        .ok_or_else(|| HandshakeError::Stream("closed before the greeting".into()))?;
    match frame.kind {
        Some(Kind::Hello(hello)) => check(config, class, &hello),
        Some(Kind::Refusal(refusal)) => Err(HandshakeError::RefusedByPeer(shorten(&refusal.detail))),
        Some(Kind::Data(_)) | None => {
            Err(HandshakeError::refuse(Reason::Malformed, "the first frame must be a greeting"))
        }
    }
}

fn check(config: &NetConfig, class: Class, hello: &wire::Hello) -> Result<PeerHello, HandshakeError> {
    let (min, max) = (hello.protocol_min, hello.protocol_max);
    if min > *PROTOCOL_VERSIONS.end() || max < *PROTOCOL_VERSIONS.start() {
        let (from, to) = PROTOCOL_VERSIONS.into_inner();
        return Err(HandshakeError::refuse(
            Reason::Protocol,
            format!("peer protocol {min} to {max} is spoken there, {from} to {to} here"),
        ));
    }
    let chain_id: [u8; 32] = hello.chain_id.as_ref().try_into().map_err(|_| {
        HandshakeError::refuse(Reason::Malformed, "the genesis hash in the greeting is not 32 bytes long")
    })?;
    let chain_id = Hash::from_bytes(chain_id);
    let theirs = shorten(&hello.chain_name);
    if chain_id != config.chain_id {
        let what = if theirs == config.chain_name {
            format!("another genesis of the chain {theirs:?}")
        } else {
            format!("another chain: {theirs:?} there, {:?} here", config.chain_name)
        };
        return Err(HandshakeError::refuse(
            Reason::Chain,
            format!("{what} (genesis hash {chain_id} there, {} here)", config.chain_id),
        ));
    }
    if hello.class() != wire_class(class) {
        return Err(HandshakeError::refuse(
            Reason::Malformed,
            format!("the connection is for {}, the greeting is not", class.name()),
        ));
    }
    Ok(PeerHello {
        node_name: shorten(&hello.node_name),
        agent: shorten(&hello.agent_version),
        nonce: hello.session_nonce,
    })
}

const fn wire_class(class: Class) -> wire::Class {
    match class {
        Class::Consensus => wire::Class::Consensus,
        Class::Relay => wire::Class::Relay,
        Class::Bulk => wire::Class::Bulk,
    }
}

/// At most [`MAX_TEXT`] printable characters.
fn shorten(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use netsplit_core::SecretKey;

    use super::*;
    use crate::{Limits, Timing};

    fn config() -> NetConfig {
        NetConfig {
            key: SecretKey::from_seed([1; 32]),
            name: "node".into(),
            agent: "test".into(),
            chain_id: Hash::from_bytes([9; 32]),
            chain_name: "chain".into(),
            listen: ([127, 0, 0, 1], 0).into(),
            peers: vec![],
            limits: Limits::default(),
            timing: Timing::default(),
            seed: 1,
        }
    }

    fn greeting() -> wire::Hello {
        match hello(&config(), Class::Relay, 5).kind {
            Some(Kind::Hello(hello)) => hello,
            other => panic!("not a hello: {other:?}"),
        }
    }

    fn reason(hello: &wire::Hello) -> Reason {
        match check(&config(), Class::Relay, hello) {
            Err(HandshakeError::Refused { reason, .. }) => reason,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn our_own_greeting_is_accepted() {
        let hello = check(&config(), Class::Relay, &greeting()).unwrap();
        assert_eq!((hello.node_name.as_str(), hello.nonce), ("node", 5));
    }

    #[test]
    fn each_mismatch_has_its_reason() {
        assert_eq!(reason(&wire::Hello { protocol_min: 2, protocol_max: 3, ..greeting() }), Reason::Protocol);
        assert_eq!(reason(&wire::Hello { protocol_min: 0, protocol_max: 0, ..greeting() }), Reason::Protocol);
        assert_eq!(reason(&wire::Hello { chain_id: vec![8; 32].into(), ..greeting() }), Reason::Chain);
        assert_eq!(reason(&wire::Hello { chain_id: vec![9; 31].into(), ..greeting() }), Reason::Malformed);
        let class = wire::Class::Bulk.into();
        assert_eq!(reason(&wire::Hello { class, ..greeting() }), Reason::Malformed);
    }

    #[test]
    fn a_wider_protocol_range_is_accepted() {
        let hello = wire::Hello { protocol_min: 0, protocol_max: 99, ..greeting() };
        assert!(check(&config(), Class::Relay, &hello).is_ok());
    }

    #[test]
    fn text_from_a_peer_is_bounded_and_printable() {
        let hello = wire::Hello { node_name: "a\u{1b}[31m\n".repeat(1000), ..greeting() };
        let name = check(&config(), Class::Relay, &hello).unwrap().node_name;
        assert!(name.chars().count() <= MAX_TEXT && !name.contains('\u{1b}'));
    }
}
