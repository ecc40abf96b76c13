#!/usr/bin/env bash
# Installs the Debian packages that the build needs, or with `cluster` those of the Kubernetes test cluster; without root it
# prints the one line to run.
set -euo pipefail

missing=()
# Daemons lie where not every user looks.
need() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
has_libclang() { [ -n "${LIBCLANG_PATH:-}" ] || compgen -G '/usr/lib/llvm-*/lib/libclang.so' >/dev/null || compgen -G '/usr/lib*/libclang.so' >/dev/null; }

for_build() {
    need cc gcc
    need clang clang
    need python3 python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    # RocksDB's bindings are made by libclang, which is looked for by its name without a version.
    has_libclang || missing+=(libclang-dev)
}

# Kubernetes itself is built from its Go modules (e2e/cluster/programs.sh).
for_cluster() {
    need containerd containerd
    need runc runc
    need etcd etcd-server
    need ip iproute2
    need nft nftables
    need openssl openssl
    need curl curl
    need ps procps
    need cc gcc
    [ -x /usr/lib/cni/ptp ] || [ -x /opt/cni/bin/ptp ] || missing+=(containernetworking-plugins)
    if ! command -v go >/dev/null; then
        echo "the test cluster is built with Go 1.26 or newer, which is not installed (https://go.dev/dl)" >&2
        exit 1
    fi
}

case ${1-build} in
build) for_build ;;
cluster) for_cluster ;;
*) echo "usage: setup.sh [build|cluster]" >&2; exit 2 ;;
esac
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "netsplit needs: ${missing[*]} (package names of Debian). Install them and run this again." >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "netsplit needs packages that are not installed. Run this, then try again:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y ${missing[*]}" >&2
    exit 1
fi
echo "installing ${missing[*]}"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
