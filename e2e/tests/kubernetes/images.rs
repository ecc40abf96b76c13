//! The images run as a strict cluster runs them.

use netsplit_e2e::Cluster;

use crate::alone;

/// The most that a namespace can ask for: not root, no capability, a root that cannot be written.
#[test]
fn both_images_run_where_restricted_is_enforced() {
    let _alone = alone();
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("images");
    let label = "pod-security.kubernetes.io/enforce=restricted";
    cluster.ok(cluster.kubectl(&["label", "namespace", &namespace.name, label]));
    let images = cluster.images();
    for (name, image) in [("netsplit", &images.netsplit), ("netsplit-node", &images.node)] {
        namespace.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  containers:\n    \
             - name: it\n      image: {image}\n      imagePullPolicy: {policy}\n      args: [--version]\n      \
             securityContext:\n        runAsNonRoot: true\n        readOnlyRootFilesystem: true\n        \
             allowPrivilegeEscalation: false\n        capabilities: {{drop: [ALL]}}\n        \
             seccompProfile: {{type: RuntimeDefault}}\n",
            policy = images.pull_policy
        ));
        namespace.ok(&[
            "wait",
            "--for=jsonpath={.status.phase}=Succeeded",
            &format!("pod/{name}"),
            "--timeout=60s",
        ]);
        let said = namespace.ok(&["logs", name]);
        assert!(said.starts_with(&format!("{name} ")), "{name} --version says: {said}");
    }
}
