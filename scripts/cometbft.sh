#!/usr/bin/env bash
# Builds CometBFT and its load tools from their Go module, once for each content of cometbft/go.mod, which alone says which
# version. Prints their folder: cometbft, load, report.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)/cometbft
cache=${XDG_CACHE_HOME:-$HOME/.cache}/netsplit
say() { echo "$*" >&2; }

version=$(awk '$1 == "github.com/cometbft/cometbft" && $2 ~ /^v/ {print $2}' "$here/go.mod")
out=$cache/cometbft-$version-$(cat "$here"/go.{mod,sum} | sha256sum | cut -c1-16)
mkdir -p "$cache"
exec 9>"$cache/cometbft.lock"
flock 9
if [ -d "$out" ]; then
    touch "$out"
    echo "$out"
    exit
fi

command -v go >/dev/null || { say "CometBFT is built with Go 1.26 or newer, which is not installed (https://go.dev/dl)"; exit 1; }
say "building CometBFT $version, once (about a minute and a half on two cores, 0.2 GB)"
new=$(mktemp -d "$cache/cometbft.XXXXXX")
trap 'rm -rf "$new"' EXIT
(cd "$here" && CGO_ENABLED=0 GOWORK=off GOFLAGS=-buildvcs=false go build -trimpath -ldflags '-s -w' -o "$new/" tool) >&2
# Of other versions, those that nobody has used for a month go.
find "$cache" -maxdepth 1 -name 'cometbft-*' -mtime +30 -exec rm -rf {} +
chmod 755 "$new"
mv "$new" "$out"
trap - EXIT
echo "$out"
