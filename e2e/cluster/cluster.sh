#!/usr/bin/env bash
# A real, single-node Kubernetes on this machine, for tests: no Docker, no systemd, no registry. Needs root.
#
#   cluster.sh up [IMAGE.tar...]     bring it up (or keep the one that is up) and import images; prints how to use it
#   cluster.sh down                  take it down; nothing remains
#   cluster.sh status                what runs
#   cluster.sh import IMAGE.tar...   make images known to it
#   cluster.sh tag IMAGE NAME        give an image that it knows another name
#   cluster.sh hold [IMAGE.tar...]   as up; takes it down when standard input ends (not one that was up before)
#   cluster.sh start|stop PART       start one part of it, or end it as a crash does: apiserver, kubelet, ...
#   cluster.sh programs              build Kubernetes, CoreDNS and helm into the cache; prints their folder
#
# All of it lives in namespaces of its own (processes, mounts, network), so killing one process ends it. State, logs and the
# kubeconfig lie on a tmpfs at /run/netsplit-cluster-0. NETSPLIT_CLUSTER_SLOT=1..15 gives clusters beside it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"
. "$here/config.sh"

say() { echo "$*" >&2; }
die() { say "$*"; exit 1; }

# === What the machine must have ===

lacking() {
    local program cni file
    [ "$(id -u)" = 0 ] || echo "root: namespaces, mounts and control groups of a real kubelet need it"
    for program in containerd runc etcd ctr ip nft openssl curl unshare nsenter flock; do
        command -v "$program" >/dev/null || echo "the program $program"
    done
    for cni in /usr/lib/cni /opt/cni/bin ''; do [ -x "$cni/ptp" ] && break; done
    [ -n "$cni" ] || echo "the CNI plugins (ptp, host-local) in /usr/lib/cni or /opt/cni/bin"
    grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || echo "overlayfs in the kernel"
    for file in /proc/sys/net/netfilter/nf_conntrack_max /proc/self/ns/pid /proc/self/ns/net; do
        [ -e "$file" ] || modprobe nf_conntrack 2>/dev/null || echo "$file: the kernel lacks it"
    done
    if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
        for cni in cpu memory pids; do [ -d "/sys/fs/cgroup/$cni" ] || echo "the cgroup controller $cni, mounted"; done
    fi
}

demand_machine() {
    local lacks
    lacks=$(lacking)
    [ -z "$lacks" ] && return
    say "THIS MACHINE CANNOT RUN THE KUBERNETES TEST CLUSTER. It lacks:"
    sed 's/^/  - /' <<<"$lacks" >&2
    say "'make setup-cluster' installs the programs (Debian). Or name a cluster of yours: NETSPLIT_KUBECONFIG=FILE."
    exit 1
}

# === One at a time ===

# Up and down exclude each other on this machine; the folder itself is the lock, so that no file remains.
lock() {
    exec 9</run
    flock --timeout 120 9 || die "another 'cluster.sh' has held the lock for 120 s"
}
unlock() { exec 9<&-; }

lives() { # IDENTITY, zombies excepted
    [ -n "$1" ] && [ "$(identity "${1%%:*}")" = "$1" ] && ! grep -q '^State:.Z' "/proc/${1%%:*}/status" 2>/dev/null
}
recorded() { cat "$STATE/$1" 2>/dev/null || true; }
record() { cat >"$STATE/$1"; }

is_up() { [ -e "$STATE/ready" ] && lives "$(recorded init)"; }

# === Up ===

mount_state() {
    mkdir -p "$STATE"
    mountpoint -q "$STATE" || mount -t tmpfs -o size=8g,mode=755 "$NAME" "$STATE"
}

# Below it the kubelet puts every pod.
make_cgroups() {
    local folder
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        echo "+cpu +memory +pids +cpuset" >/sys/fs/cgroup/cgroup.subtree_control
        mkdir -p "/sys/fs/cgroup/$NAME"
        echo "+cpu +memory +pids +cpuset" >"/sys/fs/cgroup/$NAME/cgroup.subtree_control"
        return
    fi
    for folder in $(awk '$3 ~ /^cgroup2?$/ {print $2}' /proc/self/mounts); do mkdir -p "$folder/$NAME"; done
}

cgroup_folders() { awk '$3 ~ /^cgroup2?$/ {print $2}' /proc/self/mounts | while read -r f; do [ ! -d "$f/$NAME" ] || echo "$f/$NAME"; done; }

# Starts process 1 of new namespaces; records it and the helper that waits for it.
start_init() {
    local programs=$1 script init
    mkdir "$STATE/scripts"
    cp "$here/lib.sh" "$here/inside.sh" "$STATE/scripts/"
    script='. "$1" && identity $$ >"$STATE/helper" && shift && exec "$@"'
    # The helper writes itself down before it has a child, so that a kill at any moment leaves nothing unknown, and its only
    # child is process 1.
    setsid bash -c "$script" - "$STATE/scripts/lib.sh" \
        unshare --mount --pid --net --ipc --fork --kill-child --mount-proc \
        bash "$STATE/scripts/inside.sh" "$programs" >"$STATE/log/init.log" 2>&1 </dev/null 9<&- &
    init=$(first_child $!)
    identity "$init" | record init
    ip link add "$VETH" type veth peer name eth0 netns "$init"
    ip address add "$HOST_ADDRESS/$LINK_BITS" dev "$VETH"
    ip link set "$VETH" up
    ip route add "$PODS" via "$NODE_ADDRESS"
    ip route add "$SERVICES" via "$NODE_ADDRESS"
}

first_child() {
    local left=250 child
    while ((left-- > 0)); do
        child=$(ps --no-headers -o pid --ppid "$1" | head -n 1)
        [ -z "$child" ] || { echo $((child)); return; }
        sleep 0.02
    done
    die "cannot make namespaces: $(cat "$STATE/log/init.log")"
}

await_ready() {
    local left=1800
    until [ -e "$STATE/ready" ]; do
        lives "$(recorded init)" || { say "the cluster did not come up:"; cat "$STATE/log/init.log" >&2; return 1; }
        ((left-- > 0)) || { say "the cluster was not ready within 180 s:"; cat "$STATE/log/init.log" >&2; return 1; }
        sleep 0.1
    done
}

up() {
    local programs archive
    if is_up; then
        say "the cluster is up already"
        import "$@"
        return
    fi
    demand_machine
    programs=$("$here/programs.sh")
    pause_image
    take_down
    # From here on a failure leaves nothing.
    trap take_down EXIT
    mount_state
    write_configuration
    make_cgroups
    echo "$programs" | record folder-of-programs
    mkdir "$STATE/images"
    cp "$cache/pause.tar" "$STATE/images/"
    for archive in "$@"; do cp "$archive" "$STATE/images/"; done
    start_init "$programs"
    await_ready || exit 1
    trap - EXIT
    rm -r "$STATE/images"
}

# Every pod's sandbox needs one.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/netsplit/cluster
pause_image() {
    [ "$cache/pause.tar" -nt "$here/pause.c" ] && [ "$cache/pause.tar" -nt "$here/image.py" ] && return
    local work
    work=$(mktemp -d)
    cc -static -Os -s -o "$work/pause" "$here/pause.c"
    python3 "$here/image.py" "$cache/pause.tar" localhost/pause:1 --entry /pause "$work/pause=/pause"
    rm -r "$work"
}

# === Down ===

# Kills the recorded process and waits for its end.
end() {
    local who=$1 left=500
    lives "$who" || return 0
    kill -KILL "${who%%:*}" 2>/dev/null || true
    while lives "$who"; do
        ((left-- > 0)) || die "process ${who%%:*} does not end"
        sleep 0.02
    done
}

remove_cgroups() {
    local left=250
    while [ -n "$(cgroup_folders)" ]; do
        cgroup_folders | while read -r folder; do find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null || true; done
        ((left-- > 0)) || die "control groups that cannot be removed: $(cgroup_folders | tr '\n' ' ')"
        [ -z "$(cgroup_folders)" ] || sleep 0.02
    done
}

take_down() {
    # Its device first, so that the routes go at once.
    ip link delete "$VETH" 2>/dev/null || true
    end "$(recorded init)"
    end "$(recorded helper)"
    remove_cgroups
    if mountpoint -q "$STATE"; then umount "$STATE" 2>/dev/null || umount --lazy "$STATE"; fi
    [ ! -d "$STATE" ] || rmdir "$STATE"
}

# === Use ===

import() {
    local archive
    for archive in "$@"; do
        ctr --address "$SOCKET" --namespace k8s.io images import "$archive" >/dev/null || die "cannot import $archive"
    done
}

tag() { # IMAGE NAME
    ctr --address "$SOCKET" --namespace k8s.io images tag --force "$1" "$2" >/dev/null || die "cannot name $1 $2"
}

usage() {
    echo "export KUBECONFIG=$KUBECONFIG_FILE"
    echo "export PATH=$(recorded folder-of-programs):\$PATH"
}

status() {
    local file part init
    is_up || die "no cluster is up ($STATE)"
    init=$(recorded init)
    cat "$STATE/times"
    for file in "$STATE"/pid/*; do
        part=${file##*/}
        nsenter --target "${init%%:*}" --pid --mount -- \
            awk -v part="$part" '/^VmRSS/ {printf "%-12s %7.1f MiB\n", part, $2 / 1024}' "/proc/$(<"$file")/status" 2>/dev/null \
            || printf '%-12s ended\n' "$part"
    done
    KUBECONFIG=$KUBECONFIG_FILE "$(recorded folder-of-programs)/kubectl" get nodes,pods --all-namespaces
}

# Waits until process 1 has done it: a started part has a pid file, a stopped one has none.
tell() { # start|stop PART
    local left=500 parts
    is_up || die "no cluster is up ($STATE)"
    parts=$(sed -n 's/^run_\([a-z]*\)() .*/\1/p' "$here/inside.sh" | tr '\n' ' ')
    [[ -n ${2-} && " $parts" == *" $2 "* ]] || die "name a part: $parts"
    echo "$1 $2" >"$STATE/control"
    until if [ "$1" = start ]; then [ -e "$STATE/pid/$2" ]; else [ ! -e "$STATE/pid/$2" ]; fi; do
        ((left-- > 0)) || die "$1 $2: not done within 10 s"
        sleep 0.02
    done
}

# A holder that was killed cannot take its cluster down: whoever comes next does. One that lives is waited for.
await_holder() {
    local left=3000
    while is_up && [ -e "$STATE/holder" ]; do
        lives "$(recorded holder)" || { say "taking down what a killed test run left"; take_down; return; }
        [ $left != 3000 ] || say "the cluster is used by tests (process $(recorded holder)); waiting for their end"
        ((left-- > 0)) || die "still in use after 300 s; NETSPLIT_CLUSTER_SLOT=1 gives another cluster"
        unlock
        sleep 0.1
        lock
    done
}

hold() {
    local mine=
    trap '' INT TERM HUP
    lock
    await_holder
    is_up || mine=yes
    up "$@"
    if [ -n "$mine" ]; then
        identity $$ | record holder
        mine=$(recorded init)
    fi
    unlock
    # For programs: where things are, and that it is up.
    printf 'kubeconfig=%s\nprograms=%s\nready\n' "$KUBECONFIG_FILE" "$(recorded folder-of-programs)"
    cat >/dev/null
    [ -n "$mine" ] || return 0
    lock
    [ "$(recorded init)" != "$mine" ] || take_down
}

verb=${1-}
[ $# = 0 ] || shift
case $verb in
up) lock; await_holder; up "$@"; usage ;;
down) lock; take_down ;;
status) status ;;
import) is_up || die "no cluster is up ($STATE)"; import "$@" ;;
tag) is_up || die "no cluster is up ($STATE)"; tag "$@" ;;
hold) hold "$@" ;;
start | stop) tell "$verb" "$@" ;;
programs) "$here/programs.sh" ;;
*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit 2 ;;
esac
