# shellcheck shell=bash
# Certificates and configuration of the cluster's parts. Sourced by cluster.sh, after lib.sh.

# P-256 keys as PKCS#8, which both Go and rustls read.
new_key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" 2>/dev/null; }

# certificate NAME SUBJECT EXTENSION...
certificate() {
    local name=$1 subject=$2
    shift 2
    new_key "$name"
    openssl req -new -key "$name.key" -subj "$subject" -out "$name.csr" 2>/dev/null
    openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -out "$name.crt" \
        -extfile <(printf '%s\n' "$@") 2>/dev/null
    rm "$name.csr"
}

write_certificates() {
    local names=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
    mkdir "$STATE/pki"
    (
        umask 077
        cd "$STATE/pki"
        new_key ca
        openssl req -x509 -new -key ca.key -subj /CN=netsplit-test-cluster -days 365 -out ca.crt 2>/dev/null
        certificate apiserver /CN=kube-apiserver extendedKeyUsage=serverAuth \
            "subjectAltName=IP:127.0.0.1,IP:$NODE_ADDRESS,IP:$FIRST_SERVICE,$names"
        certificate kubelet "/CN=$NODE" extendedKeyUsage=serverAuth "subjectAltName=IP:$NODE_ADDRESS,DNS:$NODE"
        certificate admin /O=system:masters/CN=admin extendedKeyUsage=clientAuth
        new_key accounts
        openssl pkey -in accounts.key -pubout -out accounts.pub
    )
}

write_kubeconfig() {
    local pki=$STATE/pki
    (
        umask 077
        cat >"$KUBECONFIG_FILE" <<YAML
apiVersion: v1
kind: Config
clusters:
  - name: $NAME
    cluster: {server: "$API", certificate-authority-data: $(base64 -w0 "$pki/ca.crt")}
users:
  - name: admin
    user: {client-certificate-data: $(base64 -w0 "$pki/admin.crt"), client-key-data: $(base64 -w0 "$pki/admin.key")}
contexts:
  - name: $NAME
    context: {cluster: $NAME, user: admin}
current-context: $NAME
YAML
    )
}

# What programs in pods ask for, a line each: `make bench` counts them.
write_audit() {
    cat >"$STATE/audit.yaml" <<'YAML'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: Metadata, userGroups: ["system:serviceaccounts"]}
  - {level: None}
YAML
}

# Pods are routed, not bridged: no bridge filter is needed in the kernel, and no neighbour table is shared.
write_cni() {
    mkdir "$STATE/cni"
    cat >"$STATE/cni/10-pods.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipMasq": false,
   "ipam": {"type": "host-local", "dataDir": "$STATE/addresses", "ranges": [[{"subnet": "$PODS"}]],
            "routes": [{"dst": "0.0.0.0/0"}]}}]}
JSON
}

# Version 2 of the format is read by containerd 1 and 2.
write_containerd() {
    local cni
    for cni in /usr/lib/cni /opt/cni/bin; do [ -x "$cni/ptp" ] && break; done
    cat >"$STATE/containerd.toml" <<TOML
version = 2
root = "$STATE/containerd"
state = "$STATE/containerd-run"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "$SOCKET"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  # Some machines' root may not lower a process's score (no CAP_SYS_RESOURCE); without this no container starts there.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$cni"
    conf_dir = "$STATE/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
TOML
}

write_dns() {
    echo "nameserver $DNS_ADDRESS" >"$STATE/resolv.conf"
    # Answers live one second: a replaced pod is found at its new address at once.
    cat >"$STATE/Corefile" <<COREFILE
.:53 {
    bind $DNS_ADDRESS
    errors
    kubernetes cluster.local {
        kubeconfig $KUBECONFIG_FILE $NAME
        ttl 1
    }
}
COREFILE
}

write_kubelet() {
    cat >"$STATE/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODE_ADDRESS
healthzBindAddress: 127.0.0.1
readOnlyPort: 0
containerRuntimeEndpoint: unix://$SOCKET
# Below a group of our own: a kubelet ends what it does not know in its group.
cgroupRoot: /$NAME
cgroupDriver: cgroupfs
enforceNodeAllocatable: [pods]
failCgroupV1: false
failSwapOn: false
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $STATE/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $STATE/pki/kubelet.crt
tlsPrivateKeyFile: $STATE/pki/kubelet.key
clusterDomain: cluster.local
clusterDNS: [$DNS_ADDRESS]
resolvConf: $STATE/resolv.conf
podLogsDir: $STATE/pod-logs
volumePluginDir: $STATE/volume-plugins
serializeImagePulls: false
maxPods: 250
podPidsLimit: -1
kubeAPIQPS: 200
kubeAPIBurst: 400
eventRecordQPS: 0
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%, imagefs.inodesFree: 1%}
YAML
}

write_configuration() {
    mkdir "$STATE/log" "$STATE/pid"
    write_certificates
    write_kubeconfig
    write_cni
    write_containerd
    write_dns
    write_kubelet
    write_audit
}
