//! Every key of a testnet, derived from its seed: a rerun is the same network.
//!
//! A node's keys hang on its name and not on its place, so that adding nodes to a group changes no other key.

/// The secret bytes of that holder's key, in the testnet of that seed. A `context` is a hard-coded, globally unique string,
/// as BLAKE3's key derivation asks for: equal inputs give unrelated keys in different ones.
pub(crate) fn derive(seed: u64, context: &str, holder: &str) -> [u8; 32] {
    // The seed has a fixed length, so that seed and holder cannot run together.
    let mut material = seed.to_le_bytes().to_vec();
    material.extend_from_slice(holder.as_bytes());
    blake3::derive_key(context, &material)
}
