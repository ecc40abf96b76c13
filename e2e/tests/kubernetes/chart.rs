//! The chart, before anything is installed.

use std::path::{Path, PathBuf};

use netsplit_e2e::Cluster;

use crate::alone;

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/netsplit")
}

#[test]
fn it_is_clean_and_refuses_values_that_nobody_can_mean() {
    let _alone = alone();
    let cluster = Cluster::shared();
    let with = |verb: &[&str], values: &[&str]| {
        let mut helm = cluster.helm(verb);
        helm.arg(path()).args(values.iter().flat_map(|value| ["--set", value]));
        helm
    };
    for values in [&[][..], &["scope=cluster", "replicas=2", "podMonitor.enabled=true", "image.registry=a/b"]]
    {
        cluster.ok(with(&["lint", "--strict"], values));
    }
    let all = cluster.ok(with(&["template", "net"], &["scope=cluster", "podMonitor.enabled=true"]));
    assert!(all.contains("kind: PodMonitor") && !all.contains("--namespace="), "{all}");
    for (value, why) in
        [("scope=everything", "/scope"), ("replicas=many", "/replicas"), ("image.tga=typo", "'tga'")]
    {
        let refused = with(&["template", "net"], &[value]).output().expect("helm can be started");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(why), "{value}: {said}");
    }
}
