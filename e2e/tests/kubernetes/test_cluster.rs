//! The test cluster leaves nothing behind, whatever way it ends.

use std::{collections::BTreeSet, fs, process::Command};

use netsplit_e2e::Cluster;

use crate::alone;

/// One that no other test uses.
const SLOT: u8 = 15;

/// Everything of the machine that a cluster could leave behind.
fn machine() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let name = format!("netsplit-cluster-{SLOT}");
    let lines = |text: String| text.lines().map(ToOwned::to_owned).collect::<Vec<_>>();
    found.extend(
        lines(fs::read_to_string("/proc/self/mounts").expect("Linux"))
            .into_iter()
            .filter(|line| line.contains(&name)),
    );
    for table in ["link", "route"] {
        let output = Command::new("ip").args(["-oneline", table]).output().expect("ip can be started");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        found.extend(lines(text).into_iter().filter(|line| line.contains(&format!("nscluster{SLOT}"))));
    }
    for place in ["/run", "/sys/fs/cgroup"] {
        found.extend(below(place, &name));
    }
    for setting in ["vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops"] {
        let value = fs::read_to_string(format!("/proc/sys/{setting}")).expect("Linux");
        found.insert(format!("{setting}={value}"));
    }
    for entry in fs::read_dir("/proc").expect("Linux").filter_map(Result::ok) {
        // One that ended meanwhile is not there.
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&format!("/run/{name}")) {
            found.insert(command);
        }
    }
    found
}

/// Folders of this name in a folder or one below it.
fn below(place: &str, name: &str) -> Vec<String> {
    let folders = fs::read_dir(place).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let all = folders.flat_map(|folder| [folder.join(name), folder]);
    all.filter(|path| path.ends_with(name) && path.exists()).map(|path| path.display().to_string()).collect()
}

/// A pod that stays, with a volume, so that there is something to leave behind.
fn with_a_pod(cluster: &Cluster) {
    cluster.apply(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec:\n  accessModes: [ReadWriteOnce]\n  \
         resources: {requests: {storage: 1Mi}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: stays}\nspec:\n  \
         volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]\n  containers:\n    - name: it\n      \
         image: localhost/pause:1\n      imagePullPolicy: Never\n      \
         volumeMounts: [{name: data, mountPath: /data}]\n",
    );
    cluster.ok(cluster.kubectl(&["wait", "--for=condition=Ready", "pod/stays", "--timeout=60s"]));
}

fn up() -> Cluster {
    Cluster::up(SLOT).unwrap_or_else(|why| panic!("{why}"))
}

#[test]
fn nothing_remains_after_a_cluster_or_a_killed_one() {
    let _alone = alone();
    Cluster::clear(SLOT);
    let before = machine();
    let cluster = up();
    with_a_pod(&cluster);
    assert_ne!(machine(), before, "a cluster is seen");
    drop(cluster);
    assert_eq!(machine(), before, "after an orderly end");

    let cluster = up();
    with_a_pod(&cluster);
    cluster.abandon();
    assert_ne!(machine(), before, "nobody took it down");
    let next = up();
    let pods = next.ok(next.kubectl(&["get", "pods", "--output=name"]));
    assert_eq!(pods, "", "it is another cluster");
    drop(next);
    assert_eq!(machine(), before, "after the next one found it");
}
