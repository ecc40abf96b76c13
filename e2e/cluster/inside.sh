#!/usr/bin/env bash
# Process 1 of the cluster: brings Kubernetes up inside the namespaces it was started in, then starts and stops parts of it on
# demand (cluster.sh start|stop). When it dies the kernel ends every process, mount and device of the cluster with it.
# Usage: inside.sh FOLDER_OF_PROGRAMS
set -euo pipefail
. "$(dirname "$0")/lib.sh"

built=$1
began=${EPOCHREALTIME/./}
export KUBECONFIG=$KUBECONFIG_FILE HOME=/root

die() { echo "$*" >&2; exit 1; }
mark() { printf '%-22s %6d ms\n' "$1" $(((${EPOCHREALTIME/./} - began) / 1000)) | tee -a "$STATE/times"; }

# === The machine as the cluster sees it ===

# /run, /var and /tmp are the cluster's own, so that what containerd, kubelet and CNI write to fixed places stays with them.
hide_the_machine() {
    mkdir -p "$PROGRAMS" "$STATE/root/run/$NAME" "$STATE/root/tmp" "$STATE"/root/var/{lib,log,tmp}
    ln -s /run "$STATE/root/var/run"
    chmod 1777 "$STATE/root/tmp" "$STATE/root/var/tmp"
    mount --bind "$built" "$PROGRAMS"
    mount --rbind "$STATE" "$STATE/root/run/$NAME"
    mount --rbind "$STATE/root/run" /run
    mount --bind "$STATE/root/var" /var
    mount --bind "$STATE/root/tmp" /tmp
    cd /
    # kubelet and containerd hand mounts on to containers.
    mount --make-rshared /
}

# kubelet sets these for the whole machine, if it does not find them set: it finds them set, and the machine keeps its own.
pretend_kernel_settings() {
    local name value
    mkdir "$STATE/sysctl"
    while read -r name value; do
        echo "$value" >"$STATE/sysctl/${name//\//.}"
        mount --bind "$STATE/sysctl/${name//\//.}" "/proc/sys/$name"
    done <<'SETTINGS'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
SETTINGS
}

network() {
    # The host hands eth0 in.
    local left=500
    until ip link show eth0 >/dev/null 2>&1; do
        ((left-- > 0)) || die "the host gave no network device within 10 s"
        sleep 0.02
    done
    ip link set lo up
    ip address add "$DNS_ADDRESS/32" dev lo
    ip address add "$NODE_ADDRESS/$LINK_BITS" dev eth0
    ip link set eth0 up
    # A local connection to a service needs a route before its address is translated.
    ip route add "$SERVICES" dev eth0
    echo 1 >/proc/sys/net/ipv4/ip_forward
}

# === The parts, one function each; `start NAME` runs it as a process of its own ===

run_etcd() {
    exec etcd --name "$NODE" --data-dir "$STATE/etcd" --log-level warn \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
        --initial-cluster "$NODE=http://127.0.0.1:2380"
}

run_containerd() { exec containerd --config "$STATE/containerd.toml" --log-level warn; }

run_apiserver() {
    local pki=$STATE/pki
    exec kube-apiserver --etcd-servers=http://127.0.0.1:2379 --endpoint-reconciler-type=lease \
        --bind-address="$NODE_ADDRESS" --advertise-address="$NODE_ADDRESS" --secure-port=6443 \
        --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
        --service-account-issuer=https://kubernetes.default.svc.cluster.local \
        --service-account-key-file="$pki/accounts.pub" --service-account-signing-key-file="$pki/accounts.key" \
        --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key" \
        --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
        --authorization-mode=RBAC --service-cluster-ip-range="$SERVICES" --allow-privileged=true \
        --audit-policy-file="$STATE/audit.yaml" --audit-log-path="$STATE/log/audit.log" \
        --profiling=false --enable-priority-and-fairness=false
}

run_controllers() {
    exec kube-controller-manager --kubeconfig="$KUBECONFIG" --bind-address=127.0.0.1 --leader-elect=false \
        --root-ca-file="$STATE/pki/ca.crt" --service-account-private-key-file="$STATE/pki/accounts.key" \
        --enable-hostpath-provisioner=true --pvclaimbinder-sync-period=1s --flex-volume-plugin-dir="$STATE/volume-plugins" \
        --kube-api-qps=200 --kube-api-burst=400 --profiling=false
}

run_scheduler() {
    exec kube-scheduler --kubeconfig="$KUBECONFIG" --bind-address=127.0.0.1 --leader-elect=false --profiling=false
}

run_kubelet() {
    exec kubelet --config="$STATE/kubelet.yaml" --kubeconfig="$KUBECONFIG" --root-dir="$STATE/kubelet" \
        --cert-dir="$STATE/kubelet/pki" --hostname-override="$NODE" --node-ip="$NODE_ADDRESS"
}

run_proxy() {
    # Limits of connection tracking belong to the machine.
    exec kube-proxy --kubeconfig="$KUBECONFIG" --hostname-override="$NODE" --proxy-mode=nftables --cluster-cidr="$PODS" \
        --bind-address="$NODE_ADDRESS" --metrics-bind-address=127.0.0.1:10249 --healthz-bind-address=127.0.0.1:10256 \
        --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
}

run_dns() { exec coredns -conf "$STATE/Corefile"; }

PARTS=(etcd containerd apiserver controllers scheduler kubelet proxy dns)

declare -A pids=()

known() { [[ " ${PARTS[*]} " == *" $1 "* ]]; }
alive() { [ -n "${pids[$1]-}" ] && kill -0 "${pids[$1]}" 2>/dev/null; }

start() {
    known "$1" || { echo "no part is called $1: ${PARTS[*]}" >&2; return 1; }
    alive "$1" && return
    ( "run_$1" ) >>"$STATE/log/$1.log" 2>&1 </dev/null 3<&- &
    pids[$1]=$!
    echo $! >"$STATE/pid/$1"
}

# At once and without farewell: what a crash does.
stop() {
    known "$1" || { echo "no part is called $1: ${PARTS[*]}" >&2; return 1; }
    alive "$1" || return 0
    kill -KILL "${pids[$1]}"
    wait "${pids[$1]}" 2>/dev/null || true
    rm "$STATE/pid/$1"
}

# until_ok SECONDS WHAT COMMAND...: waits for a command to succeed, and no longer than every part lives.
until_ok() {
    local deadline=$((SECONDS + $1)) what=$2 part
    shift 2
    until "$@" >/dev/null 2>&1; do
        for part in "${!pids[@]}"; do
            alive "$part" || die "$part ended while waiting for $what; its last words:"$'\n'"$(tail -n 12 "$STATE/log/$part.log")"
        done
        ((SECONDS < deadline)) || die "$what: not within the time"
        sleep 0.05
    done
    mark "$what"
}

import() {
    local archive
    for archive in "$@"; do
        ctr --address "$SOCKET" --namespace k8s.io images import "$archive" >>"$STATE/log/import.log" 2>&1 \
            || die "cannot import $archive:"$'\n'"$(tail -n 5 "$STATE/log/import.log")"
    done
}

storage_class() {
    kubectl apply -f - <<'YAML'
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: kubernetes.io/host-path
YAML
}

bring_up() {
    local part
    start etcd
    start containerd
    start apiserver
    until_ok 30 containerd ctr --address "$SOCKET" version
    import "$STATE"/images/*.tar
    mark "images"
    until_ok 120 "API server" curl -fsS --max-time 2 --cacert "$STATE/pki/ca.crt" --cert "$STATE/pki/admin.crt" \
        --key "$STATE/pki/admin.key" "$API/readyz"
    for part in controllers scheduler kubelet proxy dns; do start "$part"; done
    until_ok 60 "node" kubectl wait --for=create "node/$NODE" --timeout=10s
    until_ok 60 "node Ready" kubectl wait --for=condition=Ready "node/$NODE" --timeout=10s
    until_ok 60 "service account" kubectl --namespace default wait --for=create serviceaccount/default --timeout=10s
    until_ok 10 "storage class" storage_class
}

hide_the_machine
pretend_kernel_settings
network
mark "network"
bring_up
mkfifo "$STATE/control"
exec 3<>"$STATE/control"
touch "$STATE/ready"
while read -r -u 3 verb part; do
    case $verb in
    start) start "$part" || true ;;
    stop) stop "$part" || true ;;
    esac
done
