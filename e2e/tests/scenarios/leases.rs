//! Nobody needs to be alive for a fault to end.

use netsplit_e2e::{Lab, held_beyond_their_lease};

#[test]
fn links_are_free_within_the_lease_though_all_of_netsplit_hangs_or_dies() {
    let lab = Lab::new();
    assert_eq!(held_beyond_their_lease(&lab, 10, |line| println!("{line}")), Vec::<String>::new());
}
