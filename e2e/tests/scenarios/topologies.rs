//! Networks in which not everyone is everyone's neighbour.

use crate::{everywhere::topologies, here::Here};

#[test]
fn a_ring_splits_and_heals() {
    topologies::a_ring_splits_and_heals(&Here::new());
}

/// One side keeps the hub; the leaves on the other are alone.
#[test]
fn a_star_splits_and_heals() {
    topologies::splits_and_heals(&Here::new(), "star", 6);
}
