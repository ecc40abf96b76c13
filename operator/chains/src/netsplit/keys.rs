//! What keys are for.

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
    SecretKey::from_seed(crate::keys::derive(seed, purpose.context(), holder))
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
