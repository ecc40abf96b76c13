//! The genesis file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use borsh::BorshSerialize;
use netsplit_core::ledger::{GenesisParts, Limits};
use netsplit_core::{
    Address, Domain, Hash, MAX_TOTAL_POWER, MAX_TRANSACTION_BYTES, PROTOCOL_VERSION, Validator, ValidatorSet,
    encode,
};
use serde::{Deserialize, Serialize};

use crate::problems::{Checks, ConfigError, Problem, read};

/// Most validators of a genesis; a commit holds a signature of each, and every block carries one.
const MAX_VALIDATORS: usize = 1000;
/// Most accounts of a genesis.
const MAX_ACCOUNTS: usize = 1_000_000;
/// Largest block; it is held in memory several times while it is decided.
const MAX_BLOCK_BYTES: u64 = 32 << 20;
/// Room that a block needs beside its transactions: header, commit and evidence.
const BLOCK_OVERHEAD_BYTES: u64 = 128 << 10;

/// What a chain starts from. Its hash is the chain id: nodes with different genesis files refuse each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// Part of the hash, so that two chains that are otherwise equal differ.
    pub chain_name: String,
    /// Milliseconds since the Unix epoch; the first block is later.
    pub genesis_time_ms: u64,
    pub protocol_version: u32,
    /// Height from which a named change of the rules holds.
    #[serde(default)]
    pub activation_heights: BTreeMap<String, u64>,
    #[serde(default)]
    pub consensus: ConsensusParams,
    pub validators: Vec<GenesisValidator>,
    #[serde(default)]
    pub accounts: Vec<GenesisAccount>,
}

/// Durations in milliseconds, sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsensusParams {
    /// The least time from one block to the next.
    pub block_time_ms: u64,
    /// How long a round waits for its proposal, and how much longer each next round waits.
    pub propose_timeout_ms: u64,
    pub prevote_timeout_ms: u64,
    pub precommit_timeout_ms: u64,
    pub timeout_delta_ms: u64,
    /// Of a whole encoded block.
    pub max_block_bytes: u64,
    pub max_block_transactions: u64,
    /// How far a block's time may be ahead of the clock of the validator that checks it.
    pub max_time_ahead_ms: u64,
}

impl Default for ConsensusParams {
    fn default() -> Self {
        Self {
            block_time_ms: 500,
            propose_timeout_ms: 1000,
            prevote_timeout_ms: 500,
            precommit_timeout_ms: 500,
            timeout_delta_ms: 250,
            max_block_bytes: 2 << 20,
            max_block_transactions: 5000,
            max_time_ahead_ms: 10_000,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisValidator {
    /// The public validator key.
    pub address: Address,
    pub power: u64,
    /// For people; the rules do not look at it.
    #[serde(default)]
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, BorshSerialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisAccount {
    pub address: Address,
    /// In the ledger's smallest unit.
    pub balance: u64,
}

impl Genesis {
    /// Reads and checks a genesis file.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::from_json(&read(file)?, file)
    }

    /// Reads and checks a genesis; `file` is named in errors.
    pub fn from_json(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let genesis: Self = serde_json::from_str(text)
            .map_err(|source| ConfigError::Json { file: file.to_owned(), source })?;
        genesis.validate().map_err(|problems| ConfigError::Rules { file: file.to_owned(), problems })?;
        Ok(genesis)
    }

    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a genesis has only string keys");
        text.push('\n');
        text
    }

    /// The chain id. Over the values and not over the text, so that layout and order of fields do not matter.
    pub fn hash(&self) -> Hash {
        Hash::of(Domain::Genesis, &encode(self))
    }

    /// What the ledger and the store need. Errors as [`Genesis::validate`].
    pub fn parts(&self) -> Result<GenesisParts, Vec<Problem>> {
        self.validate()?;
        let validators = self.validators.iter().map(|v| Validator { address: v.address, power: v.power });
        let validators = ValidatorSet::new(validators.collect())
            .map_err(|error| vec![Problem { field: "validators".into(), text: error.to_string() }])?;
        let params = &self.consensus;
        Ok(GenesisParts {
            chain_id: self.hash(),
            time_ms: self.genesis_time_ms,
            protocol_version: self.protocol_version,
            limits: Limits {
                // Both fit: validated against limits that fit 32 bits.
                max_block_bytes: params.max_block_bytes as usize,
                max_block_transactions: params.max_block_transactions as usize,
                max_time_ahead_ms: params.max_time_ahead_ms,
            },
            validators,
            accounts: self.accounts.iter().map(|account| (account.address, account.balance)).collect(),
        })
    }

    /// Every rule that this genesis breaks.
    pub fn validate(&self) -> Result<(), Vec<Problem>> {
        let mut checks = Checks::default();
        let name_fits = (1..=64).contains(&self.chain_name.len());
        checks.require(name_fits, "chain_name", "must have 1 to 64 bytes");
        checks.require(
            (1..=PROTOCOL_VERSION).contains(&self.protocol_version),
            "protocol_version",
            format!("is {}, this program speaks 1 to {PROTOCOL_VERSION}", self.protocol_version),
        );
        self.check_params(&mut checks);
        self.check_validators(&mut checks);
        self.check_accounts(&mut checks);
        checks.finish()
    }

    fn check_params(&self, checks: &mut Checks) {
        let params = &self.consensus;
        let durations = [
            ("block_time_ms", params.block_time_ms, 1),
            ("propose_timeout_ms", params.propose_timeout_ms, 1),
            ("prevote_timeout_ms", params.prevote_timeout_ms, 1),
            ("precommit_timeout_ms", params.precommit_timeout_ms, 1),
            ("timeout_delta_ms", params.timeout_delta_ms, 0),
            ("max_time_ahead_ms", params.max_time_ahead_ms, 1),
        ];
        for (field, value, least) in durations {
            checks.require(
                (least..=3_600_000).contains(&value),
                format!("consensus.{field}"),
                format!("is {value}, must be {least} to 3600000 (one hour)"),
            );
        }
        // A block must have room for the largest transaction, or that could never be included.
        let least_bytes = MAX_TRANSACTION_BYTES as u64 + BLOCK_OVERHEAD_BYTES;
        checks.require(
            (least_bytes..=MAX_BLOCK_BYTES).contains(&params.max_block_bytes),
            "consensus.max_block_bytes",
            format!("is {}, must be {least_bytes} to {MAX_BLOCK_BYTES}", params.max_block_bytes),
        );
        checks.require(
            (1..=100_000).contains(&params.max_block_transactions),
            "consensus.max_block_transactions",
            format!("is {}, must be 1 to 100000", params.max_block_transactions),
        );
    }

    fn check_validators(&self, checks: &mut Checks) {
        let count = self.validators.len();
        checks.require(
            (1..=MAX_VALIDATORS).contains(&count),
            "validators",
            format!("has {count}, must have 1 to {MAX_VALIDATORS}"),
        );
        let mut seen = BTreeSet::new();
        let mut total = 0_u64;
        for (index, validator) in self.validators.iter().enumerate() {
            let field = |name: &str| format!("validators[{index}].{name}");
            checks.require(validator.power > 0, field("power"), "must be at least 1");
            checks.require(
                seen.insert(validator.address),
                field("address"),
                format!("{} is listed before; each validator needs its own key", validator.address),
            );
            total = total.saturating_add(validator.power);
        }
        checks.require(
            total <= MAX_TOTAL_POWER,
            "validators",
            format!("have {total} power together, the most is {MAX_TOTAL_POWER}"),
        );
    }

    fn check_accounts(&self, checks: &mut Checks) {
        let count = self.accounts.len();
        checks.require(count <= MAX_ACCOUNTS, "accounts", format!("has {count}, the most is {MAX_ACCOUNTS}"));
        let mut seen = BTreeSet::new();
        let mut supply = 0_u128;
        for (index, account) in self.accounts.iter().enumerate() {
            checks.require(
                seen.insert(account.address),
                format!("accounts[{index}].address"),
                format!("{} is listed before", account.address),
            );
            supply += u128::from(account.balance);
        }
        checks.require(
            supply <= u128::from(u64::MAX),
            "accounts",
            format!("hold {supply} together, the most is {}", u64::MAX),
        );
    }
}
