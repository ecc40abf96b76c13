#!/usr/bin/env bash
# Builds Kubernetes, CoreDNS and helm from their Go modules, once for each content of the go.mod files here. Prints their folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/netsplit/cluster
say() { echo "$*" >&2; }

version=$(awk '$1 == "k8s.io/kubernetes" {print $2}' "$here/kubernetes/go.mod")
minor=${version#v1.} minor=${minor%%.*}
version_of=k8s.io/component-base/version
# What helm takes a cluster to be when it is not asked for one.
helm_for=helm.sh/helm/v3/pkg/chartutil
kubernetes_flags="-s -w -X $version_of.gitVersion=$version -X $version_of.gitMajor=1 -X $version_of.gitMinor=$minor"
tools_flags="-s -w -X $helm_for.k8sVersionMajor=1 -X $helm_for.k8sVersionMinor=$minor"

hash=$({ cat "$here"/{kubernetes,tools}/go.{mod,sum}; echo "$kubernetes_flags $tools_flags"; } | sha256sum | cut -c1-16)
out=$cache/programs-$hash
mkdir -p "$cache"
exec 9<"$cache"
flock 9
if [ -d "$out" ]; then
    touch "$out"
    echo "$out"
    exit
fi

command -v go >/dev/null || { say "the test cluster is built with Go 1.26 or newer, which is not installed (https://go.dev/dl)"; exit 1; }
export CGO_ENABLED=0 GOWORK=off GOFLAGS=-buildvcs=false

# A long build says how far it is: packages are counted as the compiler names them, other lines are shown.
progress() { # WHAT
    local since=$SECONDS count=0 line
    while read -r line; do
        case $line in
        *' '*) case $line in 'go: downloading '*) ;; *) say "$line" ;; esac ;;
        *) ((++count % 250)) || say "  $1: $count packages compiled, $((SECONDS - since)) s" ;;
        esac
    done
    say "  $1: done, $((SECONDS - since)) s"
}

# build MODULE FLAGS_OF_THE_LINKER: all programs that a go.mod here names as tools
build() { (cd "$here/$1" && go build -v -trimpath -o "$new/" -ldflags "$2" tool 2>&1) | progress "$1"; }

say "building the test cluster's programs, once (Kubernetes $version: about 6 minutes on two cores, 0.6 GB)"
new=$(mktemp -d "$cache/new.XXXXXX")
trap 'rm -rf "$new"' EXIT
build kubernetes "$kubernetes_flags"
build tools "$tools_flags"
# Of other versions, those that nobody has used for a month go: they are large.
find "$cache" -maxdepth 1 -name 'programs-*' -mtime +30 -exec rm -rf {} +
chmod 755 "$new"
mv "$new" "$out"
echo "$out"
