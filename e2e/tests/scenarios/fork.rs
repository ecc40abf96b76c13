//! The one thing that must never be taken for anything else: two final blocks at one height.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    time::Duration,
};

use netsplit_e2e::{Experiment, Lab, Testnet, exit};

const MOMENT: Duration = Duration::from_secs(15);
const TRAITORS: &str = "validator-2|validator-3";

/// Half of the validators sign for both sides of a partition, which is more than consensus bears: each side makes blocks
/// of its own final, and the verdict names the height and the two honest nodes.
#[test]
fn a_fork_by_traitors_fails_and_is_named() {
    let lab = Lab::with_programs(with_traitors);
    let mut experiment = Experiment { lasts: 20, ..Experiment::halves("betrayed") }.expect("agreement: {}");
    experiment.fault = "partition: [[validator-0], [validator-1]]\n      rest: bridge".to_owned();
    let file = lab.write("betrayed.yaml", &experiment.with(&Testnet::new("betrayed")));
    let mut run = lab.start(&["run", &file, "--json"]);
    run.wait_for("fault-proven", MOMENT);
    fs::write(lab.state().with_file_name("bin").join("betray"), "").unwrap();
    let (code, outcome) = run.verdict();
    let words = outcome.words();
    assert_eq!((code, outcome.verdict.phase.as_str()), (exit::FAILED, "Failed"), "{words}");
    assert!(outcome.faults[0].proven, "the fault was real: {:?}", outcome.faults);
    let named = words.split("at height ").skip(1).any(|fork| {
        let fork = fork.trim_start_matches(|c: char| c.is_ascii_digit());
        [("validator-0", "validator-1"), ("validator-1", "validator-0")].into_iter().any(|(one, other)| {
            fork.starts_with(&format!(" {one} made ")) && fork.contains(&format!(" final, and {other} made "))
        })
    });
    assert!(named, "no fork between the honest two is named: {words}");
    lab.assert_nothing_left();
}

/// Honest programs, but for a `netsplit-node` that is a traitor on some nodes.
fn with_traitors(from: &Path, own: &Path) {
    let traitor = Path::new(env!("CARGO_BIN_EXE_netsplit-node-byzantine"));
    // Found by its own path, not by the link's, the command line would start the nodes beside the original.
    fs::copy(from.join("netsplit"), own.join("netsplit")).expect("the lab's directory is writable");
    symlink(traitor, own.join("netsplit-node-byzantine")).expect("the lab's directory is writable");
    let (own_text, honest) = (own.display(), from.join("netsplit-node"));
    let honest = honest.display();
    let script = format!(
        "#!/bin/sh\n\
         case \"$NETSPLIT_NODE\" in {TRAITORS}) ;; *) exec '{honest}' \"$@\" ;; esac\n\
         export NETSPLIT_HONEST_NODE='{honest}' NETSPLIT_BETRAY='{own_text}/betray'\n\
         export NETSPLIT_SIDE_A=validator-0 NETSPLIT_SIDE_B=validator-1\n\
         exec '{own_text}/netsplit-node-byzantine' \"$@\"\n"
    );
    let wrapper = own.join("netsplit-node");
    fs::write(&wrapper, script).expect("the lab's directory is writable");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))
        .expect("the lab's directory is writable");
}
