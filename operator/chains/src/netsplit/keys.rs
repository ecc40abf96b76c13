//! Every key of a testnet, derived from its seed: a rerun is the same network.
//!
//! A node's keys hang on its name and not on its place, so that adding nodes to a group changes no other key.

use netsplit_core::SecretKey;

/// What a key is for. The contexts keep the purposes apart: equal inputs give unrelated keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Identifies a node to its peers.
    Node,
    /// Signs votes.
    Validator,
    /// Holds the funds that load is paid from.
    LoadAccount,
}

impl Purpose {
    /// Hard-coded, globally unique strings, as BLAKE3's key derivation asks for.
    fn context(self) -> &'static str {
        match self {
            Self::Node => "netsplit testnet v1 node key",
            Self::Validator => "netsplit testnet v1 validator key",
            Self::LoadAccount => "netsplit testnet v1 load account key",
        }
    }
}

/// The key of that purpose for that holder, in the testnet of that seed.
pub(super) fn derive(seed: u64, purpose: Purpose, holder: &str) -> SecretKey {
    // The seed has a fixed length, so that seed and holder cannot run together.
    let mut material = seed.to_le_bytes().to_vec();
    material.extend_from_slice(holder.as_bytes());
    SecretKey::from_seed(blake3::derive_key(purpose.context(), &material))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn seed_purpose_and_holder_all_count() {
        let mut keys = BTreeSet::new();
        for seed in [0, 1, u64::MAX] {
            for purpose in [Purpose::Node, Purpose::Validator, Purpose::LoadAccount] {
                for holder in ["", "validator-0", "validator-1"] {
                    assert!(keys.insert(derive(seed, purpose, holder).public()));
                    assert_eq!(
                        derive(seed, purpose, holder).public(),
                        derive(seed, purpose, holder).public()
                    );
                }
            }
        }
        assert_eq!(keys.len(), 27);
    }
}
