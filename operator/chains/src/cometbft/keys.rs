//! A testnet's keys, as CometBFT writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Identifies a node to its peers.
    Node,
    /// Signs votes.
    Validator,
}

impl Purpose {
    fn context(self) -> &'static str {
        match self {
            Self::Node => "netsplit testnet v1 cometbft node key",
            Self::Validator => "netsplit testnet v1 cometbft validator key",
        }
    }
}

pub(super) struct Key(SigningKey);

impl Key {
    /// The key of that purpose for that holder, in the testnet of that seed.
    pub fn derive(seed: u64, purpose: Purpose, holder: &str) -> Self {
        Self(SigningKey::from_bytes(&crate::keys::derive(seed, purpose.context(), holder)))
    }

    /// The first 20 bytes of the public key's SHA-256, in lower-case hex: a node's name to its peers.
    pub fn address(&self) -> String {
        hex(&Sha256::digest(self.0.verifying_key().as_bytes())[..20])
    }

    pub fn public_json(&self) -> Value {
        json!({
            "type": "tendermint/PubKeyEd25519",
            "value": STANDARD.encode(self.0.verifying_key().as_bytes()),
        })
    }

    pub fn secret_json(&self) -> Value {
        json!({
            "type": "tendermint/PrivKeyEd25519",
            "value": STANDARD.encode(self.0.to_keypair_bytes()),
        })
    }

    /// What `priv_validator_key.json` holds.
    pub fn validator_json(&self) -> Value {
        json!({
            "address": self.address().to_uppercase(),
            "pub_key": self.public_json(),
            "priv_key": self.secret_json(),
        })
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String succeeds");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked out by another implementation: `cometbft show-node-id` of the same key.
    #[test]
    fn an_address_is_what_cometbft_makes_of_the_key() {
        let key = Key(SigningKey::from_bytes(&[7; 32]));
        assert_eq!(key.address(), "fe812c12f3ab4ce6ac5db69ac352f906cb1b11ef");
    }

    #[test]
    fn every_holder_and_purpose_has_a_key_of_its_own() {
        let address = |purpose, holder| Key::derive(7, purpose, holder).address();
        let all = [
            address(Purpose::Node, "a-0"),
            address(Purpose::Node, "a-1"),
            address(Purpose::Validator, "a-0"),
            Key::derive(8, Purpose::Node, "a-0").address(),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{all:?}");
        }
    }
}
