//! CometBFT's answers, as far as they are used, and what they mean. Whole numbers of 64 bits are text in its JSON.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::rpc::Refused;
use super::wallet;
use crate::client::{BlockSeen, Id, NodeState, PeerState, Refusal, RefusalKind, Submission};

/// Of `status`.
#[derive(Debug, Deserialize)]
pub(super) struct Status {
    node_info: NodeInfo,
    pub sync_info: SyncInfo,
}

#[derive(Debug, Deserialize)]
struct NodeInfo {
    id: String,
    moniker: String,
    version: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct SyncInfo {
    #[serde(deserialize_with = "optional_id")]
    latest_block_hash: Option<Id>,
    /// 0 before the first block.
    #[serde(deserialize_with = "whole")]
    pub latest_block_height: u64,
    #[serde(deserialize_with = "whole")]
    pub earliest_block_height: u64,
    pub catching_up: bool,
}

/// Of `net_info`: the peers that it is connected to.
#[derive(Debug, Deserialize)]
pub(super) struct NetInfo {
    peers: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
struct Peer {
    node_info: NodeInfo,
}

/// Of `num_unconfirmed_txs`.
#[derive(Debug, Deserialize)]
pub(super) struct Unconfirmed {
    #[serde(deserialize_with = "whole")]
    total: u64,
}

pub(super) fn state(status: Status, net: NetInfo, waiting: &Unconfirmed) -> NodeState {
    let sync = status.sync_info;
    let peer =
        |peer: Peer| PeerState { name: peer.node_info.moniker, connected: true, last_error: String::new() };
    NodeState {
        name: status.node_info.moniker,
        identity: status.node_info.id,
        version: status.node_info.version,
        height: sync.latest_block_height + 1,
        final_height: sync.latest_block_height,
        final_id: sync.latest_block_hash,
        catching_up: sync.catching_up,
        peers: net.peers.into_iter().map(peer).collect(),
        mempool: waiting.total,
    }
}

/// Of `blockchain`: the newest block first.
#[derive(Debug, Deserialize)]
pub(super) struct Headers {
    block_metas: Vec<Meta>,
}

#[derive(Debug, Deserialize)]
struct Meta {
    block_id: BlockId,
    header: Header,
    #[serde(deserialize_with = "whole")]
    num_txs: u64,
}

#[derive(Debug, Deserialize)]
struct BlockId {
    #[serde(deserialize_with = "optional_id")]
    hash: Option<Id>,
}

#[derive(Debug, Deserialize)]
struct Header {
    #[serde(deserialize_with = "whole")]
    height: u64,
    time: Timestamp,
}

/// What a range of blocks was answered with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Range {
    Blocks(Vec<BlockSeen>),
    /// They begin above the height that was asked for.
    Pruned,
}

/// The blocks from `next` on, in ascending height without gaps; what is wrong with the answer, else. It may hold blocks below.
pub(super) fn blocks(headers: Headers, next: u64) -> Result<Range, String> {
    let mut blocks = Vec::with_capacity(headers.block_metas.len());
    let mut expected = next;
    for meta in headers.block_metas.into_iter().rev() {
        let height = meta.header.height;
        if height < next {
            continue;
        }
        if height != expected {
            if blocks.is_empty() {
                return Ok(Range::Pruned);
            }
            return Err(format!("block {height} instead of {expected}"));
        }
        expected += 1;
        blocks.push(BlockSeen {
            height,
            id: meta.block_id.hash.ok_or_else(|| format!("block {height} has no hash"))?,
            time_ms: u64::try_from(meta.header.time.as_millisecond()).unwrap_or(0),
            final_at_ms: None,
            state_root: None,
            transactions: u32::try_from(meta.num_txs).unwrap_or(u32::MAX),
            transaction_ids: Vec::new(),
        });
    }
    Ok(Range::Blocks(blocks))
}

/// Of `block`, for its transactions.
#[derive(Debug, Deserialize)]
pub(super) struct Block {
    block: Body,
}

#[derive(Debug, Deserialize)]
struct Body {
    data: Data,
}

#[derive(Debug, Deserialize)]
struct Data {
    /// In base64; null when there are none.
    txs: Option<Vec<String>>,
}

pub(super) fn transaction_ids(block: Block) -> Result<Vec<Id>, String> {
    let id = |text: String| match STANDARD.decode(text) {
        Ok(transaction) => Ok(wallet::id(&transaction)),
        Err(error) => Err(format!("a transaction is not base64: {error}")),
    };
    block.block.data.txs.into_iter().flatten().map(id).collect()
}

/// Of `block_results`: what the application answered to a block.
#[derive(Debug, Deserialize)]
pub(super) struct Results {
    #[serde(default)]
    app_hash: Option<String>,
}

/// The application's own hash of its state, which is any bytes.
pub(super) fn state_root(results: Results) -> Option<Arc<str>> {
    results.app_hash.filter(|hash| !hash.is_empty()).map(Arc::from)
}

/// Of `abci_query`.
#[derive(Debug, Deserialize)]
pub(super) struct Query {
    response: QueryResponse,
}

#[derive(Debug, Deserialize)]
struct QueryResponse {
    /// In base64; null when the key is not there.
    #[serde(default)]
    value: Option<String>,
}

/// The nonce after the one that is stored, 0 if none is.
pub(super) fn next_nonce(query: Query) -> Result<u64, String> {
    let Some(value) = query.response.value.filter(|value| !value.is_empty()) else { return Ok(0) };
    let stored = STANDARD.decode(&value).ok().and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
    stored.map(|nonce: u64| nonce + 1).ok_or_else(|| format!("the stored nonce is {value}"))
}

/// Of `broadcast_tx_sync`: what the store's check said.
#[derive(Debug, Deserialize)]
struct Checked {
    code: u32,
    log: String,
    #[serde(deserialize_with = "optional_id")]
    hash: Option<Id>,
}

pub(super) fn submission(answer: Result<Value, Refused>) -> Result<Submission, String> {
    let checked: Checked = match answer {
        Ok(value) => serde_json::from_value(value).map_err(|error| error.to_string())?,
        Err(refused) => {
            let message = refused.to_string();
            return Ok(Submission::Refused(Refusal { kind: refusal(&message), message }));
        }
    };
    if checked.code != 0 {
        let message = format!("code {}: {}", checked.code, checked.log);
        return Ok(Submission::Refused(Refusal { kind: RefusalKind::Malformed, message }));
    }
    checked.hash.map(Submission::Accepted).ok_or_else(|| "a taken transaction has no hash".to_owned())
}

/// CometBFT tells its reasons by text alone.
fn refusal(message: &str) -> RefusalKind {
    const KNOWN: [(&str, RefusalKind); 4] = [
        ("already exists in cache", RefusalKind::Duplicate),
        ("mempool is full", RefusalKind::Full),
        ("mempool is still rechecking", RefusalKind::Full),
        ("while node is catching up", RefusalKind::Full),
    ];
    KNOWN.iter().find(|(text, _)| message.contains(text)).map_or(RefusalKind::Other, |(_, kind)| *kind)
}

fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &"a whole number as text"))
}

/// 64 digits, or nothing where there is no block yet.
fn optional_id<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Id>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || de::Error::invalid_value(de::Unexpected::Str(&text), &"a hash of 64 hex digits");
    if text.len() != 64 || !text.is_ascii() {
        return Err(wrong());
    }
    let mut id = [0; 32];
    for (byte, at) in id.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(Some(Id(id)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn headers(heights: &[u64]) -> Headers {
        let meta = |height: &u64| {
            json!({
                "block_id": { "hash": format!("{height:064X}") },
                "header": { "height": height.to_string(), "time": "2026-11-29T01:20:00.123456789Z" },
                "num_txs": "2",
            })
        };
        serde_json::from_value(json!({ "block_metas": heights.iter().map(meta).collect::<Vec<_>>() }))
            .unwrap()
    }

    fn heights(range: Range) -> Vec<u64> {
        match range {
            Range::Blocks(blocks) => blocks.iter().map(|block| block.height).collect(),
            Range::Pruned => panic!("pruned"),
        }
    }

    #[test]
    fn blocks_come_in_order_and_without_gaps() {
        assert_eq!(heights(blocks(headers(&[9, 8, 7, 6]), 7).unwrap()), [7, 8, 9]);
        assert_eq!(heights(blocks(headers(&[6]), 7).unwrap()), Vec::<u64>::new());
        assert_eq!(blocks(headers(&[9, 8]), 7), Ok(Range::Pruned));
        assert!(blocks(headers(&[9, 7]), 7).is_err());
        let Ok(Range::Blocks(seen)) = blocks(headers(&[7]), 7) else { panic!("one block") };
        assert_eq!((seen[0].time_ms % 1000, seen[0].id.0[31], seen[0].transactions), (123, 7, 2));
    }

    #[test]
    fn a_block_without_a_hash_is_no_block() {
        let mut headers = headers(&[7]);
        headers.block_metas[0].block_id.hash = None;
        assert!(blocks(headers, 7).is_err());
        assert!(serde_json::from_value::<BlockId>(json!({ "hash": "12" })).is_err());
        assert!(serde_json::from_value::<BlockId>(json!({ "hash": "é".repeat(32) })).is_err());
    }

    #[test]
    fn a_stored_nonce_gives_the_next() {
        let query = |value: Value| serde_json::from_value(json!({ "response": { "value": value } })).unwrap();
        assert_eq!(next_nonce(query(Value::Null)), Ok(0));
        assert_eq!(next_nonce(query(json!(STANDARD.encode("41")))), Ok(42));
        assert!(next_nonce(query(json!(STANDARD.encode("x")))).is_err());
    }

    #[test]
    fn refusals_are_known_by_their_text() {
        let of = |data: &str| {
            let refused = json!({ "code": -32603, "message": "Internal error", "data": data });
            match submission(Err(serde_json::from_value(refused).unwrap())).unwrap() {
                Submission::Refused(refusal) => refusal.kind,
                Submission::Accepted(id) => panic!("{id}"),
            }
        };
        assert_eq!(of("tx already exists in cache"), RefusalKind::Duplicate);
        assert_eq!(of("mempool is full: number of txs 5000 (max: 5000)"), RefusalKind::Full);
        assert_eq!(of("endpoint is closed while node is catching up"), RefusalKind::Full);
        assert_eq!(of("something else"), RefusalKind::Other);
        let checked = json!({ "code": 2, "log": "no", "hash": "" });
        assert!(matches!(submission(Ok(checked)), Ok(Submission::Refused(_))));
        assert!(submission(Ok(json!({ "code": 0, "log": "", "hash": "" }))).is_err());
    }
}
