#!/usr/bin/env bash
# Refuses dependencies that cross a wall of ARCHITECTURE.md: pure crates decide, outer crates act.
set -euo pipefail

failed=0
# The normal dependencies of a package, one name a line (build and test tools may be anything).
deps() { cargo tree --locked --quiet --edges normal --prefix none --format '{p}' --package "$1" --all-features | awk '{print $1}' | sort -u; }
forbid() { # PACKAGE NAME...
    local package=$1 found
    shift
    found=$(deps "$package" | grep -Fx -f <(printf '%s\n' "$@") || true)
    if [ -n "$found" ]; then
        echo "wall broken: $package must not depend on" $found >&2
        cargo tree --locked --quiet --edges normal --package "$package" --all-features --invert "$(head -n1 <<<"$found")" 2>/dev/null | head -n 12 >&2 || true
        failed=1
    fi
}

forbid netsplit-core tokio tonic rocksdb prometheus
forbid netsplit-bft tonic rocksdb prometheus
forbid netsplit-spec tokio kube-client tonic
forbid netsplit-plan tokio kube-client tonic netsplit-config netsplit-core
forbid netsplit-links netsplit-core netsplit-config netsplit-net netsplit-store netsplit-bft tonic
# It is linked statically and runs in any image: system calls and nothing else.
forbid netsplit-keeper tokio tonic serde netsplit-proto netsplit-links netsplit-backend
for package in netsplit-spec netsplit-plan netsplit-chains netsplit-links netsplit-observe netsplit-keeper netsplit-backend netsplit; do
    forbid "$package" netsplit-net netsplit-store netsplit-bft netsplit-node
done
# The node's configuration is known to operator/chains alone: no other operator crate names it itself.
for manifest in operator/*/Cargo.toml; do
    case $manifest in operator/chains/*) continue ;; esac
    if grep -Eq '^netsplit-config\b' "$manifest"; then
        echo "wall broken: $manifest names netsplit-config; only operator/chains may" >&2
        failed=1
    fi
done
exit $failed
