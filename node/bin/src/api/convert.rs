//! Between the node's types and the API's.

use netsplit_core::Hash;
use netsplit_core::mempool::Refusal;
use netsplit_net::PeerStatus;
use netsplit_proto::node as wire;
use tonic::Status;

use crate::admission::Refused;
use crate::feed::FinalBlock;

pub(super) fn bytes_of(hash: &Hash) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(hash.as_bytes())
}

pub(super) fn hash_of(what: &str, bytes: &[u8]) -> Result<Hash, Status> {
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| {
        Status::invalid_argument(format!("{what} is {} bytes long, it must be 32 bytes", bytes.len()))
    })?;
    Ok(Hash::from_bytes(bytes))
}

pub(super) fn final_block(block: &FinalBlock, with_transactions: bool) -> wire::FinalBlock {
    wire::FinalBlock {
        height: block.height,
        id: bytes_of(&block.id),
        time_ms: block.time_ms,
        proposer: block.proposer.to_string(),
        transaction_count: block.transactions.len() as u32,
        transaction_ids: if with_transactions {
            block.transactions.iter().map(bytes_of).collect()
        } else {
            Vec::new()
        },
        round: block.round,
        final_at_ms: block.own.final_at_ms,
        state_root: bytes_of(&block.state_root),
        size_bytes: block.size as u32,
        executed_root: block.own.executed_root.as_ref().map(bytes_of).unwrap_or_default(),
    }
}

pub(super) fn peer(peer: PeerStatus) -> wire::Peer {
    wire::Peer {
        name: peer.name,
        key: peer.key.to_string(),
        address: peer.address.map(|address| address.to_string()).unwrap_or_default(),
        classes: peer.classes.iter().map(|class| class.name().to_owned()).collect(),
        direction: peer.direction.map(|direction| direction.name().to_owned()).unwrap_or_default(),
        last_error: peer.last_error.unwrap_or_default(),
    }
}

pub(super) fn submit_result(result: Result<Hash, Refused>) -> wire::SubmitResult {
    use wire::submit_result::Outcome;
    let outcome = match result {
        Ok(id) => Outcome::Accepted(bytes_of(&id)),
        Err(refused) => Outcome::Refused(wire::Refused {
            code: code(&refused).into(),
            message: crate::application::chain_of(&refused),
        }),
    };
    wire::SubmitResult { outcome: Some(outcome) }
}

fn code(refused: &Refused) -> wire::RefusalCode {
    use wire::RefusalCode as Code;
    match refused {
        Refused::Malformed(_) => Code::Malformed,
        Refused::Signature => Code::BadSignature,
        Refused::Busy => Code::Busy,
        Refused::Store(_) => Code::Unspecified,
        Refused::Pool(refusal) => match refusal {
            Refusal::Full(_) | Refusal::FullBytes(_) | Refusal::SenderFull(_) => Code::MempoolFull,
            Refusal::Duplicate | Refusal::NonceTaken { .. } => Code::Duplicate,
            Refusal::NonceUsed { .. } => Code::StaleNonce,
            Refusal::NonceAhead { .. } => Code::FutureNonce,
            Refusal::Fee { .. } => Code::FeeTooLow,
            Refusal::Balance { .. } => Code::InsufficientFunds,
            Refusal::Chain { .. } => Code::WrongChain,
            Refusal::Size { .. } | Refusal::Malformed(_) => Code::Malformed,
        },
    }
}
