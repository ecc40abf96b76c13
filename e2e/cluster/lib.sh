# shellcheck shell=bash
# What both sides of the test cluster agree on: names, addresses, folders. Sourced by cluster.sh (outside) and inside.sh (inside).

# Clusters of different slots do not meet; 0 is the one that tests and `make cluster-up` use.
SLOT=${NETSPLIT_CLUSTER_SLOT:-0}
[[ $SLOT =~ ^([0-9]|1[0-5])$ ]] || { echo "NETSPLIT_CLUSTER_SLOT is $SLOT; it must be 0 to 15" >&2; exit 2; }

NAME=netsplit-cluster-$SLOT
STATE=/run/$NAME          # a tmpfs: everything the cluster writes lies below it
PROGRAMS=$STATE/programs  # the built programs, as they are seen inside
SOCKET=$STATE/containerd.sock
KUBECONFIG_FILE=$STATE/kubeconfig
NODE=node-0
VETH=nscluster$SLOT       # the host's end

# 198.18.0.0/15 is set aside for benchmarks of networks (RFC 2544): nobody's office or VPN lies there.
PREFIX=198.18.$((SLOT * 16))
HOST_ADDRESS=$PREFIX.1
NODE_ADDRESS=$PREFIX.2
LINK_BITS=30
DNS_ADDRESS=$PREFIX.10
PODS=198.18.$((SLOT * 16 + 4)).0/22
SERVICES=198.19.$((SLOT * 16)).0/20
FIRST_SERVICE=198.19.$((SLOT * 16)).1
API=https://$NODE_ADDRESS:6443

# The daemons live in /usr/sbin, which not every user has in the PATH.
PATH=$PROGRAMS:$PATH:/usr/sbin:/sbin

# A process as PID:START, which no later process can be mistaken for. Nothing for one that has ended.
identity() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
    # The name in parentheses may hold spaces; the start time is the 20th field after it.
    # shellcheck disable=SC2086
    set -- "$1" ${stat##*) }
    echo "$1:${21}"
}
