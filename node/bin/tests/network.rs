//! Networks of real processes: agreement, kills, restarts, refusals.

mod support;

use std::process::Command;

use netsplit_proto::node as wire;
use netsplit_proto::node::submit_result::Outcome;
use support::{BALANCE, Network, key, until};
use tokio_stream::StreamExt;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_at_one_node_is_final_at_all_and_a_killed_node_comes_back() {
    let mut network = Network::new(4, 1, 10, 100);
    network.start_all();
    network.all_reach(2).await;

    // Through the full node, so that it must travel.
    let to = key("receiver", 0).public();
    let transfers: Vec<_> = (0..10).map(|from| network.transfer(from, &to, 0, 5)).collect();
    let outcomes = network.nodes[4].submit(&transfers).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Accepted(_))), "{outcomes:?}");
    let id = transfers[0].id();
    for node in &network.nodes {
        let mut client = node.client().await;
        let request = || wire::GetTransactionRequest { id: id.as_bytes().to_vec().into() };
        let deadline = std::time::Instant::now() + support::PATIENCE;
        let found = loop {
            match client.get_transaction(request()).await {
                Ok(found) if found.get_ref().height > 0 => break found.into_inner(),
                Ok(_) => {}
                Err(status) => assert_eq!(status.code(), tonic::Code::NotFound, "{status}"),
            }
            assert!(std::time::Instant::now() < deadline, "{}: the transfer is not final", node.name);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        assert_eq!(found.bytes, transfers[0].to_bytes());
    }
    let height = network.nodes[0].status().await.final_height + 2;
    network.all_reach(height).await;
    network.agree_at(height).await;
    for node in &network.nodes {
        assert_eq!(node.account(&to).await.balance, 50, "{}", node.name);
        let sender = node.account(&key("account", 3).public()).await;
        assert_eq!((sender.balance, sender.nonce), (BALANCE - 6, 1), "{}", node.name);
    }

    // A killed validator keeps its identity and catches up with what it missed.
    let before = network.nodes[1].status().await;
    network.nodes[1].kill();
    let missed = network.nodes[0].status().await.final_height + 5;
    network.nodes[0].reach(missed).await;
    network.nodes[1].start();
    let after = network.nodes[1].reach(missed).await;
    assert_eq!((&after.node_key, &after.validator_address), (&before.node_key, &before.validator_address));
    network.agree_at(missed).await;
    // It takes part again: heights go on with it, and it follows.
    network.all_reach(missed + 5).await;

    // A stop by SIGTERM is clean and loses nothing.
    let height = network.nodes[2].status().await.final_height;
    assert!(network.nodes[2].terminate().success());
    network.nodes[2].start();
    assert!(network.nodes[2].reach(height).await.final_height >= height);
    network.agree_at(height).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_stream_has_every_height_once_and_resumes() {
    let mut network = Network::new(2, 1, 1, 50);
    network.start_all();
    network.all_reach(5).await;
    for node in &network.nodes {
        let mut next = 1;
        let mut root = None;
        for _ in 0..2 {
            let request = wire::StreamBlocksRequest { from_height: next, include_transactions: true };
            let mut blocks = node.client().await.stream_blocks(request).await.unwrap().into_inner();
            for _ in 0..8 {
                let block =
                    tokio::time::timeout(support::PATIENCE, blocks.next()).await.unwrap().unwrap().unwrap();
                assert_eq!(block.height, next);
                // What it has computed itself is what the next header says.
                assert!(root.is_none_or(|root| root == block.state_root), "after block {}", next - 1);
                assert_eq!(block.executed_root.len(), 32);
                root = Some(block.executed_root);
                next += 1;
            }
        }
        assert!(node.block(next - 1).await.block.unwrap().final_at_ms > 0);
    }
    let request = wire::StreamBlocksRequest { from_height: 0, include_transactions: false };
    let head = network.nodes[0].status().await.final_height;
    let mut blocks = network.nodes[0].client().await.stream_blocks(request).await.unwrap().into_inner();
    assert!(blocks.next().await.unwrap().unwrap().height > head);
}

#[tokio::test]
async fn a_node_of_another_genesis_is_refused_and_both_logs_say_why() {
    let mut network = Network::new(2, 0, 1, 200);
    let file = network.nodes[1].folder.join("genesis.json");
    let mut other = network.genesis.clone();
    other.accounts[0].balance += 1;
    std::fs::write(file, other.to_json()).unwrap();
    network.start_all();
    for node in &network.nodes {
        until("the reason in the log", || node.log().contains("another genesis of the chain")).await;
        let reason = node.log();
        assert!(
            reason.contains(&network.chain_id().to_string()) && reason.contains(&other.hash().to_string())
        );
    }
    assert_eq!(network.nodes[0].status().await.final_height, 0);
}

#[tokio::test]
async fn a_failed_write_stops_the_node_with_code_1() {
    let mut network = Network::new(2, 0, 1, 20);
    let mut command = Command::new("sh");
    // No file may grow beyond 64 blocks of 512 bytes; the signal that comes with it is ignored, the error stays.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$@\"";
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_netsplit-node")]);
    network.nodes[0].start_with(command);
    network.nodes[1].start();
    assert_eq!(network.nodes[0].wait().code(), Some(1));
    let log = network.nodes[0].log();
    assert!(log.contains("the node failed"), "{log}");
}

#[test]
fn a_bad_configuration_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    std::fs::write(&file, "nonsense = 1\n").unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_netsplit-node")).arg("--config").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("node.toml") && text.contains("nonsense"), "{text}");
}
