#!/usr/bin/env bash
# Makes the images of netsplit from its release binaries, and its keeper of nodes: images.sh FOLDER_OF_BINARIES FOLDER_OF_IMAGES
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=$1 out=$2 tag=${NETSPLIT_IMAGE_TAG:-dev}

mkdir -p "$out"
# The keeper runs in images of others, too: with everything it needs in itself. Built apart, since the one beside the other
# binaries is linked as they are, and each build would undo the other.
"${CARGO:-cargo}" rustc --quiet --release --locked --manifest-path "$here/../../Cargo.toml" --package netsplit-keeper \
    --bin netsplit-keeper --target-dir "$out/static" -- -C target-feature=+crt-static

python3 "$here/image.py" "$out/netsplit.tar" "localhost/netsplit:$tag" --libraries --user 65532:65532 \
    --entry /netsplit "$bin/netsplit=/netsplit" "$out/static/release/netsplit-keeper=/netsplit-keeper"
python3 "$here/image.py" "$out/netsplit-node.tar" "localhost/netsplit-node:$tag" --libraries --user 65532:65532 \
    --entry /netsplit-node "$bin/netsplit-node=/netsplit-node"
