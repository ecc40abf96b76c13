//! A binary Merkle tree over a list, shaped as in RFC 6962: the left part holds the largest power of two below the count. Leaves and
//! inner nodes hash under different tags, so neither can pose as the other.

use crate::{Domain, Hash};

/// A leaf over the parts joined, whose lengths the caller's encoding fixes.
pub fn leaf(parts: &[&[u8]]) -> Hash {
    Hash::of_parts(Domain::MerkleLeaf, parts)
}

/// The root over `leaves` in their order; [`Hash::ZERO`] for none.
pub fn root(leaves: impl IntoIterator<Item = Hash>) -> Hash {
    // A stack of finished subtrees, largest first: (leaves below, hash). Equal sizes merge at once, as carries of a counter do.
    let mut finished: Vec<(usize, Hash)> = Vec::with_capacity(32);
    for leaf in leaves {
        let (mut size, mut hash) = (1, leaf);
        while let Some(&(left_size, left)) = finished.last()
            && left_size == size
        {
            finished.pop();
            (size, hash) = (2 * size, node(&left, &hash));
        }
        finished.push((size, hash));
    }
    finished
        .into_iter()
        .map(|(_, hash)| hash)
        .rev()
        .reduce(|right, left| node(&left, &right))
        .unwrap_or(Hash::ZERO)
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Hash::of_parts(Domain::MerkleNode, &[left.as_ref(), right.as_ref()])
}
