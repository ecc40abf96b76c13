//! Genesis and configuration files: what is read, and what each mistake is answered with.
#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

use std::path::Path;

use netsplit_config::{
    ApiConfig, ConfigError, ConsensusParams, Genesis, GenesisAccount, GenesisValidator, HttpConfig,
    LogConfig, MempoolLimits, NodeConfig, PeerAddress, PeerLimits, RetentionConfig, Role,
};
use netsplit_core::{Address, SecretKey};

fn address(number: u8) -> Address {
    SecretKey::from_seed([number; 32]).public()
}

fn genesis() -> Genesis {
    let validator =
        |number| GenesisValidator { address: address(number), power: 1, name: format!("v-{number}") };
    Genesis {
        chain_name: "quickstart".into(),
        genesis_time_ms: 1_700_000_000_000,
        protocol_version: 1,
        activation_heights: [("files".to_owned(), 100)].into(),
        consensus: ConsensusParams::default(),
        validators: (0..4).map(validator).collect(),
        accounts: (10..13).map(|number| GenesisAccount { address: address(number), balance: 5 }).collect(),
    }
}

fn node() -> NodeConfig {
    let peer = |number: u8| PeerAddress {
        name: format!("validator-{number}"),
        key: address(100 + number),
        address: format!("10.0.0.{number}:26600"),
    };
    NodeConfig {
        name: "validator-0".into(),
        roles: vec![Role::Full, Role::Validator],
        data_dir: "data".into(),
        genesis_file: "genesis.json".into(),
        node_key_file: "node.key".into(),
        validator_key_file: Some("validator.key".into()),
        peer: netsplit_config::PeerConfig { peers: (1..4).map(peer).collect(), ..Default::default() },
        api: ApiConfig::default(),
        http: HttpConfig::default(),
        mempool: MempoolLimits::default(),
        retention: RetentionConfig::default(),
        log: LogConfig::default(),
    }
}

#[test]
fn files_are_read_as_they_were_written() {
    let genesis = genesis();
    let read = Genesis::from_json(&genesis.to_json(), Path::new("genesis.json")).unwrap();
    assert_eq!(read, genesis);
    assert_eq!(read.hash(), genesis.hash());
    let node = node();
    assert_eq!(NodeConfig::from_toml(&node.to_toml(), Path::new("node.toml")).unwrap(), node);
}

#[test]
fn everything_but_names_roles_and_paths_has_a_default() {
    let text = "name = 'a'\nroles = ['full']\ndata_dir = 'd'\ngenesis_file = 'g'\nnode_key_file = 'k'\n";
    let node = NodeConfig::from_toml(text, Path::new("node.toml")).unwrap();
    assert_eq!(node.peer.listen.to_string(), "0.0.0.0:26600");
    assert_eq!(node.api.listen.to_string(), "0.0.0.0:26601");
    assert_eq!(node.http.listen.to_string(), "0.0.0.0:26602");
    assert_eq!(node.peer.limits, PeerLimits::default());
    assert_eq!(node.mempool, MempoolLimits::default());
    for line in text.lines() {
        let error = NodeConfig::from_toml(&text.replace(line, ""), Path::new("node.toml")).unwrap_err();
        let field = line.split(' ').next().unwrap();
        assert!(error.to_string().contains(&format!("missing field `{field}`")), "{error}");
    }
}

#[test]
fn paths_are_relative_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    let mut node = node();
    node.genesis_file = "/etc/genesis.json".into();
    std::fs::write(&file, node.to_toml()).unwrap();
    let loaded = NodeConfig::load(&file).unwrap();
    assert_eq!(loaded.data_dir, folder.path().join("data"));
    assert_eq!(loaded.genesis_file, Path::new("/etc/genesis.json"));
    assert_eq!(loaded.validator_key_file, Some(folder.path().join("validator.key")));
    let error = NodeConfig::load(&folder.path().join("absent.toml")).unwrap_err();
    assert!(error.to_string().ends_with("absent.toml cannot be read"), "{error}");
}

#[test]
fn an_unknown_field_is_an_error_that_names_it() {
    let text = node().to_toml().replacen("name =", "nmae =", 1);
    let error = NodeConfig::from_toml(&text, Path::new("node.toml")).unwrap_err().to_string();
    assert!(error.starts_with("node.toml is not valid TOML") && error.contains("nmae"), "{error}");
    let text = node().to_toml() + "\n[retention]\n";
    assert!(NodeConfig::from_toml(&text, Path::new("node.toml")).is_err());
    let text = genesis().to_json().replacen("\"power\"", "\"weight\"", 1);
    let error = Genesis::from_json(&text, Path::new("g.json")).unwrap_err().to_string();
    assert!(error.contains("g.json") && error.contains("weight") && error.contains("line"), "{error}");
}

/// The problems of `change` as `field: text`.
fn node_problems(change: impl FnOnce(&mut NodeConfig)) -> Vec<String> {
    let mut node = node();
    change(&mut node);
    match NodeConfig::from_toml(&node.to_toml(), Path::new("node.toml")) {
        Err(ConfigError::Rules { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_rule_of_a_configuration_names_its_field() {
    let one = |expected: &str, change: &dyn Fn(&mut NodeConfig)| {
        let problems = node_problems(change);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(expected), "{problems:?}");
    };
    one("name: must have 1 to 63", &|node| node.name = "Node 1".into());
    one("validator_key_file: is missing", &|node| node.validator_key_file = None);
    one("validator_key_file: is set", &|node| node.roles = vec![Role::Full]);
    one("roles: names a role twice", &|node| node.roles.push(Role::Full));
    one("peer.peers[1].name: must", &|node| node.peer.peers[1].name = String::new());
    one("peer.peers[2].key: ns1", &|node| node.peer.peers[2].key = node.peer.peers[0].key);
    for wrong in ["10.0.0.1", "10.0.0.1:", ":26600", "10.0.0.1:0", "10.0.0.1:99999", "a b:1"] {
        one("peer.peers[0].address: is", &|node| node.peer.peers[0].address = wrong.into());
    }
    one("peer.limits.consensus_queue: is 0", &|node| node.peer.limits.consensus_queue = 0);
    one("peer.limits.reconnect_max_ms: is 5", &|node| node.peer.limits.reconnect_max_ms = 5);
    one("mempool.max_bytes: is 0", &|node| node.mempool.max_bytes = 0);
    one("retention.blocks: is 9", &|node| node.retention.blocks = 9);
    one("log.level: is empty", &|node| node.log.level.clear());
}

#[test]
fn all_problems_are_reported_at_once() {
    let problems = node_problems(|node| {
        node.name.clear();
        node.roles.clear();
        node.retention.states = 0;
    });
    assert_eq!(problems.len(), 4, "{problems:?}");
    let mut genesis = genesis();
    genesis.chain_name.clear();
    genesis.validators[3].power = 0;
    genesis.consensus.max_block_bytes = 1000;
    let error = Genesis::from_json(&genesis.to_json(), Path::new("genesis.json")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "genesis.json breaks these rules:\n  chain_name: must have 1 to 64 bytes\n  \
         consensus.max_block_bytes: is 1000, must be 262144 to 33554432\n  validators[3].power: must be at least 1"
    );
}

#[test]
fn each_rule_of_a_genesis_names_its_field() {
    let one = |expected: &str, change: &dyn Fn(&mut Genesis)| {
        let mut genesis = genesis();
        change(&mut genesis);
        let problems = genesis.parts().unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].to_string().starts_with(expected), "{problems:?}");
    };
    one("protocol_version: is 2", &|genesis| genesis.protocol_version = 2);
    one("protocol_version: is 0", &|genesis| genesis.protocol_version = 0);
    one("consensus.block_time_ms: is 0", &|genesis| genesis.consensus.block_time_ms = 0);
    one("consensus.timeout_delta_ms: is", &|genesis| genesis.consensus.timeout_delta_ms = u64::MAX / 2);
    one("consensus.max_block_transactions", &|genesis| genesis.consensus.max_block_transactions = 0);
    one("validators: has 0", &|genesis| genesis.validators.clear());
    one("validators[2].address: ns1", &|genesis| genesis.validators[2].address = address(0));
    one("validators: have", &|genesis| genesis.validators[0].power = u64::MAX / 4);
    one("accounts[1].address: ns1", &|genesis| genesis.accounts[1].address = address(10));
    one("accounts: hold", &|genesis| genesis.accounts[0].balance = u64::MAX);
}

#[test]
fn the_hash_covers_every_value_and_not_the_layout() {
    let genesis = genesis();
    let spaced = genesis.to_json().replace(['\n', ' '], "");
    assert_eq!(Genesis::from_json(&spaced, Path::new("g")).unwrap().hash(), genesis.hash());
    let mut hashes = vec![genesis.hash()];
    let changes: [&dyn Fn(&mut Genesis); 9] = [
        &|genesis| genesis.chain_name.push('x'),
        &|genesis| genesis.genesis_time_ms += 1,
        &|genesis| genesis.activation_heights.clear(),
        &|genesis| genesis.consensus.block_time_ms += 1,
        &|genesis| genesis.consensus.max_block_transactions += 1,
        &|genesis| genesis.validators[0].power += 1,
        &|genesis| genesis.validators[0].name.push('x'),
        &|genesis| genesis.accounts[0].balance += 1,
        &|genesis| genesis.accounts.truncate(2),
    ];
    for change in changes {
        let mut other = genesis.clone();
        change(&mut other);
        assert!(!hashes.contains(&other.hash()));
        hashes.push(other.hash());
    }
}

#[test]
fn the_parts_are_what_the_ledger_needs() {
    let genesis = genesis();
    let parts = genesis.parts().unwrap();
    assert_eq!(parts.chain_id, genesis.hash());
    assert_eq!(parts.validators.len(), 4);
    assert_eq!(parts.limits.max_block_transactions, 5000);
    assert_eq!(parts.state().unwrap().len(), 3);
}
