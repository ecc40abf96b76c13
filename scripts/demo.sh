#!/usr/bin/env bash
# The main job, as a new user would do it: two files, one command, a verdict. Usage: demo.sh DIRECTORY_OF_BINARIES REPORT_DIRECTORY
set -euo pipefail

bin=$(cd "$1" && pwd)
mkdir -p "$2"
report=$(cd "$2" && pwd)
work=$(mktemp -d)
export PATH=$bin:$PATH NETSPLIT_STATE_DIR=$work/state
trap 'netsplit down --all >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

cd "$work"
say netsplit doctor
say netsplit init
say netsplit run split-brain.yaml --report "$report"
