#!/usr/bin/env bash
# Makes the images of netsplit from its release binaries: images.sh FOLDER_OF_BINARIES FOLDER_OF_IMAGES
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=$1 out=$2 tag=${NETSPLIT_IMAGE_TAG:-dev}

mkdir -p "$out"
for program in netsplit netsplit-node; do
    python3 "$here/image.py" "$out/$program.tar" "localhost/$program:$tag" --libraries --user 65532:65532 \
        --entry "/$program" "$bin/$program=/$program"
done
