//! From the API's messages to what this crate speaks of, and strictly: what breaks the API's rules is an error.

use netsplit_proto::node::submit_result::Outcome;
use netsplit_proto::node::{FinalBlock, RefusalCode, Status, SubmitResult};

use crate::client::{BlockSeen, ClientError, Id, NodeState, PeerState, Refusal, RefusalKind, Submission};

/// What is wrong with an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(String);

impl Malformed {
    /// The error of that call to that node.
    pub fn from(self, node: &str, call: &'static str) -> ClientError {
        ClientError::Malformed { node: node.to_owned(), call, what: self.0 }
    }
}

fn id(what: &str, bytes: &[u8]) -> Result<Id, Malformed> {
    let length = bytes.len();
    bytes.try_into().map(Id).map_err(|_| Malformed(format!("{what} has {length} bytes instead of 32")))
}

pub(super) fn state(status: Status) -> Result<NodeState, Malformed> {
    let final_id = match status.final_height {
        0 => None,
        _ => Some(id("the newest final block's id", &status.final_id)?),
    };
    let peers = status
        .peers
        .into_iter()
        .map(|peer| PeerState {
            name: peer.name,
            connected: !peer.classes.is_empty(),
            last_error: peer.last_error,
        })
        .collect();
    Ok(NodeState {
        name: status.name,
        identity: status.node_key,
        version: status.version,
        height: status.height,
        final_height: status.final_height,
        final_id,
        catching_up: status.catching_up,
        peers,
        mempool: status.mempool.map_or(0, |mempool| mempool.count),
    })
}

/// `expected` is the height that has to come now; 0 when any may.
pub(super) fn block(block: &FinalBlock, expected: u64) -> Result<BlockSeen, Malformed> {
    if block.height == 0 || (expected != 0 && block.height != expected) {
        return Err(Malformed(format!("block {} instead of {expected}", block.height)));
    }
    let transaction_ids =
        block.transaction_ids.iter().map(|bytes| id("a transaction id", bytes)).collect::<Result<_, _>>()?;
    let state_root = match &block.executed_root[..] {
        [] => None,
        root => Some(id("a state root", root)?.to_string().into()),
    };
    Ok(BlockSeen {
        height: block.height,
        id: id("a block id", &block.id)?,
        time_ms: block.time_ms,
        final_at_ms: (block.final_at_ms != 0).then_some(block.final_at_ms),
        state_root,
        transactions: block.transaction_count,
        transaction_ids,
    })
}

pub(super) fn submission(result: SubmitResult) -> Result<Submission, Malformed> {
    match result.outcome {
        Some(Outcome::Accepted(bytes)) => {
            Ok(Submission::Accepted(id("an accepted transaction's id", &bytes)?))
        }
        Some(Outcome::Refused(refused)) => {
            let kind = refusal(refused.code());
            Ok(Submission::Refused(Refusal { kind, message: refused.message }))
        }
        None => Err(Malformed("a result that is neither accepted nor refused".to_owned())),
    }
}

fn refusal(code: RefusalCode) -> RefusalKind {
    match code {
        RefusalCode::Malformed => RefusalKind::Malformed,
        RefusalCode::BadSignature => RefusalKind::Signature,
        RefusalCode::WrongChain => RefusalKind::WrongChain,
        RefusalCode::StaleNonce => RefusalKind::StaleNonce,
        RefusalCode::FutureNonce => RefusalKind::FutureNonce,
        RefusalCode::InsufficientFunds => RefusalKind::Funds,
        RefusalCode::Duplicate => RefusalKind::Duplicate,
        RefusalCode::MempoolFull | RefusalCode::Busy => RefusalKind::Full,
        RefusalCode::FeeTooLow => RefusalKind::Fee,
        RefusalCode::Unspecified => RefusalKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn final_block(height: u64) -> FinalBlock {
        FinalBlock { height, id: Bytes::from(vec![1; 32]), ..FinalBlock::default() }
    }

    #[test]
    fn only_the_height_that_has_to_come_is_taken() {
        assert_eq!(block(&final_block(7), 7).unwrap().height, 7);
        assert_eq!(block(&final_block(7), 0).unwrap().height, 7);
        for (height, expected) in [(8, 7), (6, 7), (0, 0)] {
            assert!(block(&final_block(height), expected).is_err(), "{height} for {expected}");
        }
    }

    #[test]
    fn ids_have_32_bytes() {
        let short = Bytes::from(vec![1; 31]);
        let with_short_id = FinalBlock { id: short.clone(), ..final_block(1) };
        assert_eq!(
            block(&with_short_id, 1).unwrap_err(),
            Malformed("a block id has 31 bytes instead of 32".to_owned())
        );
        assert!(block(&FinalBlock { transaction_ids: vec![short.clone()], ..final_block(1) }, 1).is_err());
        assert!(block(&FinalBlock { executed_root: short.clone(), ..final_block(1) }, 1).is_err());
        assert_eq!(block(&final_block(1), 1).unwrap().state_root, None);
        assert!(state(Status { final_height: 1, final_id: short.clone(), ..Status::default() }).is_err());
        assert_eq!(state(Status::default()).unwrap().final_id, None);
        assert!(submission(SubmitResult { outcome: Some(Outcome::Accepted(short)) }).is_err());
        assert!(submission(SubmitResult { outcome: None }).is_err());
    }
}
