//! Users who mean no good: a node refuses them with the right code, and goes on.

mod support;

use std::time::Duration;

use bytes::Bytes;
use netsplit_core::{Signature, SignedTransaction};
use netsplit_proto::node as wire;
use netsplit_proto::node::RefusalCode as Refusal;
use netsplit_proto::node::submit_result::Outcome;
use support::{Network, key};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

async fn single() -> Network {
    let mut network = Network::new(2, 0, 4, 50);
    network.start_all();
    network.all_reach(1).await;
    network
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_requests_get_their_codes() {
    let network = single().await;
    let mut client = network.nodes[0].client().await;
    let code = |result: Result<(), tonic::Status>| result.expect_err("a refusal").code();

    let block = client.get_block(wire::GetBlockRequest { height: u64::MAX }).await.map(|_| ());
    assert_eq!(code(block), Code::NotFound);
    let block = client.get_block(wire::GetBlockRequest { height: 0 }).await.map(|_| ());
    assert_eq!(code(block), Code::InvalidArgument);
    for id in [vec![], vec![1; 31], vec![1; 1000]] {
        let found = client.get_transaction(wire::GetTransactionRequest { id: id.into() }).await.map(|_| ());
        assert_eq!(code(found), Code::InvalidArgument);
    }
    for address in ["", "ns1", "nonsense", &"ns1".repeat(100_000)] {
        let account =
            client.get_account(wire::GetAccountRequest { address: address.into() }).await.map(|_| ());
        assert_eq!(code(account), Code::InvalidArgument);
    }
    let too_many = wire::SubmitTransactionsRequest { transactions: vec![Bytes::new(); 1001] };
    assert_eq!(code(client.submit_transactions(too_many).await.map(|_| ())), Code::InvalidArgument);
    let too_large = wire::SubmitTransactionsRequest { transactions: vec![Bytes::from(vec![0; 5 << 20])] };
    assert_eq!(code(client.submit_transactions(too_large).await.map(|_| ())), Code::OutOfRange);
    // A stream far above the head waits, and can be given up.
    let far = wire::StreamBlocksRequest { from_height: u64::MAX, include_transactions: true };
    let mut blocks = client.stream_blocks(far).await.unwrap().into_inner();
    assert!(tokio::time::timeout(Duration::from_millis(300), blocks.message()).await.is_err());
    drop(blocks);
    network.nodes[0].reach(network.nodes[0].status().await.final_height + 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_transactions_are_refused_one_by_one_with_a_sentence() {
    let network = single().await;
    let node = &network.nodes[0];
    let to = key("receiver", 1).public();
    let good = network.transfer(0, &to, 0, 1);
    let mut forged = network.transfer(1, &to, 0, 1);
    forged.signature = Signature::from_bytes([7; 64]);
    let mut other_chain = Network::new(2, 0, 4, 99).transfer(2, &to, 0, 1);
    other_chain.signature = Signature::from_bytes([0; 64]);
    let poor = network.transfer(9, &to, 0, 1);
    let ahead = network.transfer(3, &to, 1_000_000, 1);
    let mut stranger = good.clone();
    stranger.body = Bytes::from_static(b"no body at all");
    let all = [good.clone(), forged, other_chain, poor, ahead, stranger, good];
    let outcomes = node.submit(&all).await;
    let codes: Vec<Option<Refusal>> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Accepted(_) => None,
            Outcome::Refused(refused) => {
                assert!(refused.message.contains(' '), "{refused:?}");
                Some(refused.code())
            }
        })
        .collect();
    assert_eq!(codes[0], None, "{outcomes:?}");
    assert_eq!(codes[1], Some(Refusal::BadSignature));
    assert_eq!(codes[2], Some(Refusal::WrongChain));
    assert_eq!(codes[3], Some(Refusal::InsufficientFunds));
    assert_eq!(codes[4], Some(Refusal::FutureNonce));
    assert_eq!(codes[5], Some(Refusal::Malformed));
    assert_eq!(codes[6], Some(Refusal::Duplicate));

    let garbage = wire::SubmitTransactionsRequest {
        transactions: vec![Bytes::new(), Bytes::from(vec![0xff; 200]), Bytes::from(vec![0; 200_000])],
    };
    let response = node.client().await.submit_transactions(garbage).await.unwrap().into_inner();
    for result in response.results {
        match result.outcome {
            Some(Outcome::Refused(refused)) => assert_eq!(refused.code(), Refusal::Malformed),
            other => panic!("{other:?}"),
        }
    }
    // The same again, once it is final.
    let height = node.status().await.final_height;
    node.reach(height + 2).await;
    let stale = node.submit(&[network.transfer(0, &to, 0, 1)]).await;
    assert!(
        matches!(&stale[0], Outcome::Refused(refused) if refused.code() == Refusal::StaleNonce),
        "{stale:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_cannot_fill_more_than_its_share_of_the_pool() {
    let network = single().await;
    let node = &network.nodes[0];
    let to = key("receiver", 1).public();
    // Nonce 0 is missing, so that none of them can be in a block.
    let mut refused = 0;
    for start in (1..10_500).step_by(500) {
        let batch: Vec<SignedTransaction> =
            (start..start + 500).map(|nonce| network.transfer(0, &to, nonce, 1)).collect();
        refused +=
            node.submit(&batch).await.iter().filter(|outcome| matches!(outcome, Outcome::Refused(_))).count();
    }
    assert!(refused > 0, "everything was taken");
    let other = node.submit(&[network.transfer(1, &to, 0, 1)]).await;
    assert!(matches!(other[0], Outcome::Accepted(_)), "{other:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_silence_on_every_port_leave_the_node_running() {
    let network = single().await;
    let node = &network.nodes[0];
    let mut silent = Vec::new();
    for address in [node.api_address(), node.http_address(), format!("{}:26600", node.ip)] {
        for garbage in [
            &b"GET / HTTP/9.9\r\n\r\n"[..],
            &[0; 10_000],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff",
        ] {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            // The node may have closed it already.
            stream.write_all(garbage).await.ok();
        }
        for _ in 0..50 {
            silent.push(TcpStream::connect(&address).await.unwrap());
        }
    }
    let height = node.status().await.final_height;
    node.reach(height + 5).await;
    let mut http = TcpStream::connect(node.http_address()).await.unwrap();
    http.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    http.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("netsplit_chain_height"), "{answer:.300}");
    drop(silent);
}
