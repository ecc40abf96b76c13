//! What is made of a plan, byte for byte.

#![allow(clippy::unwrap_used, reason = "test helpers are not inside a test function")]

mod golden;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use netsplit_chains::netsplit::Netsplit;
use netsplit_chains::{ArtifactsError, ChainArtifacts, NodeArtifacts, NodeHost};
use netsplit_config::{Genesis, NodeConfig};
use netsplit_core::{Action, SecretKey, SignedTransaction};
use netsplit_plan::{TestnetPlan, plan_testnet};
use netsplit_spec::{Chain, Role, Testnet, Topology};

use self::golden::{hosts, text};

fn testnet(validators: u32, full: u32, topology: Topology) -> Testnet {
    golden::testnet(Chain::Netsplit, validators, full, topology)
}

fn build(plan: &TestnetPlan) -> Vec<NodeArtifacts> {
    Netsplit.build(plan, &hosts(plan)).unwrap()
}

/// Without the tables that only repeat the node's own defaults.
fn decided(toml: &str) -> String {
    let defaults = ["[peer.limits]", "[mempool]", "[log]"];
    toml.split_inclusive("\n\n")
        .filter(|table| !defaults.iter().any(|name| table.starts_with(name)))
        .collect()
}

#[test]
fn two_validators_and_a_full_node() {
    let plan = plan_testnet(&testnet(2, 1, Topology::Mesh));
    let mut out = String::new();
    for node in build(&plan) {
        writeln!(out, "##### {}: {}", node.node, node.command.join(" ")).unwrap();
        for file in &node.files {
            let text = std::str::from_utf8(&file.bytes).unwrap();
            let shown = match file.path.to_str().unwrap() {
                "node.key" | "validator.key" => {
                    format!("(secret key of {})\n", SecretKey::from_file_text(text).unwrap().public())
                }
                // Once is enough: that all nodes hold the same genesis is asserted elsewhere.
                "genesis.json" if node.node != "validator-0" => "(as above)\n".to_owned(),
                "node.toml" => decided(text),
                _ => text.to_owned(),
            };
            write!(out, "=== {} {:04o}\n{shown}", file.path.display(), file.mode).unwrap();
        }
    }
    insta::assert_snapshot!(out);
}

#[test]
fn nodes_accept_what_they_are_given_and_know_each_other() {
    for topology in [Topology::Mesh, Topology::Ring, Topology::Star] {
        let plan = plan_testnet(&testnet(4, 2, topology));
        let built = build(&plan);
        let genesis: BTreeSet<_> = built.iter().map(|node| text(node, "genesis.json")).collect();
        assert_eq!(genesis.len(), 1);
        let genesis = Genesis::from_json(text(&built[0], "genesis.json"), Path::new("genesis.json")).unwrap();
        assert_eq!(genesis.validators.len(), 4);

        let key = |node: &NodeArtifacts, file| SecretKey::from_file_text(text(node, file)).unwrap().public();
        for (planned, node) in plan.nodes.iter().zip(&built) {
            let config = NodeConfig::from_toml(text(node, "node.toml"), Path::new("node.toml")).unwrap();
            assert_eq!(config.name, planned.name);
            let peers: Vec<_> = config.peer.peers.iter().map(|peer| (peer.name.as_str(), peer.key)).collect();
            let expected: Vec<_> = planned
                .peers
                .iter()
                .map(|&peer| (plan.nodes[peer].name.as_str(), key(&built[peer], "node.key")))
                .collect();
            assert_eq!(peers, expected, "{topology:?} {}", node.node);
            for peer in &config.peer.peers {
                let place = plan.node(&peer.name).unwrap().index;
                assert_eq!(peer.address, format!("10.77.0.{}:26600", place + 1));
            }
            let listed = genesis.validators.iter().find(|validator| validator.name == node.node);
            assert_eq!(listed.is_some(), planned.role == Role::Validator);
            if let Some(listed) = listed {
                assert_eq!(listed.address, key(node, "validator.key"));
            }
        }
    }
}

#[test]
fn nodes_may_listen_elsewhere_than_where_they_are_called() {
    let plan = plan_testnet(&testnet(2, 0, Topology::Mesh));
    let host = |host: &str| NodeHost { bind: Ipv4Addr::UNSPECIFIED.into(), host: host.to_owned() };
    let built = Netsplit.build(&plan, &[host("golden-validator-0.golden.ns.svc"), host("fd00::2")]).unwrap();
    let config = |node| NodeConfig::from_toml(text(node, "node.toml"), Path::new("node.toml")).unwrap();
    let (first, second) = (config(&built[0]), config(&built[1]));
    assert!(first.peer.listen.ip().is_unspecified() && first.api.listen.ip().is_unspecified());
    assert_eq!(first.peer.peers[0].address, "[fd00::2]:26600");
    assert_eq!(second.peer.peers[0].address, "golden-validator-0.golden.ns.svc:26600");
}

#[test]
fn keys_are_for_their_owner_only() {
    let plan = plan_testnet(&testnet(2, 1, Topology::Mesh));
    for node in build(&plan) {
        for file in &node.files {
            let is_key = file.path.extension().is_some_and(|extension| extension == "key");
            assert_eq!(file.mode, if is_key { 0o600 } else { 0o644 }, "{file:?}");
            assert!(!format!("{file:?}").contains(std::str::from_utf8(&file.bytes).unwrap()));
        }
    }
}

#[test]
fn another_seed_is_another_network_and_a_larger_one_keeps_its_keys() {
    let small = build(&plan_testnet(&testnet(2, 1, Topology::Mesh)));
    let large = build(&plan_testnet(&testnet(4, 1, Topology::Mesh)));
    let other = build(&plan_testnet(&Testnet { seed: Some(8), ..testnet(2, 1, Topology::Mesh) }));
    for node in &small {
        let same = large.iter().find(|candidate| candidate.node == node.node).unwrap();
        assert_eq!(text(node, "node.key"), text(same, "node.key"));
        let different = other.iter().find(|candidate| candidate.node == node.node).unwrap();
        assert_ne!(text(node, "node.key"), text(different, "node.key"));
    }
}

#[test]
fn a_wrong_number_of_addresses_and_a_chain_without_validators_are_refused() {
    let plan = plan_testnet(&testnet(2, 1, Topology::Mesh));
    let error = Netsplit.build(&plan, &hosts(&plan)[1..]).unwrap_err();
    assert_eq!(error.to_string(), "testnet `golden` has 3 nodes, but 2 hosts were given for them");
    let plan = plan_testnet(&testnet(0, 2, Topology::Mesh));
    assert!(matches!(Netsplit.build(&plan, &hosts(&plan)), Err(ArtifactsError::NoValidator { .. })));
}

#[test]
fn the_wallet_signs_for_funded_accounts_of_this_chain() {
    let plan = plan_testnet(&testnet(2, 1, Topology::Mesh));
    let wallet = Netsplit.wallet(&plan).unwrap();
    assert_eq!(wallet.accounts(), 3);
    let genesis =
        Genesis::from_json(text(&build(&plan)[0], "genesis.json"), Path::new("genesis.json")).unwrap();
    for account in 0..wallet.accounts() {
        let address = wallet.address(account);
        assert!(genesis.accounts.iter().any(|funded| funded.address.to_string() == address));
        for nonce in 0..4 {
            let transfer = wallet.transfer(account, nonce);
            assert_eq!(transfer, wallet.transfer(account, nonce));
            let signed = SignedTransaction::from_bytes(&transfer.bytes).unwrap();
            assert!(signed.verify());
            assert_eq!(signed.signer.to_string(), address);
            assert_eq!(signed.id().as_bytes(), &transfer.id.0);
            let body = signed.decode_body().unwrap();
            assert_eq!((body.nonce, body.chain_id), (nonce, genesis.hash()));
            let Action::Transfer { to, .. } = body.action;
            assert_ne!(to, signed.signer);
        }
    }
}
