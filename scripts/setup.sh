#!/usr/bin/env bash
# Installs the Debian packages that the build needs; without root it prints the one line to run.
set -euo pipefail

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need cc gcc
need clang clang
need python3 python3
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
# RocksDB's bindings are made by libclang, which is looked for by its name without a version.
has_libclang() { [ -n "${LIBCLANG_PATH:-}" ] || compgen -G '/usr/lib/llvm-*/lib/libclang.so' >/dev/null || compgen -G '/usr/lib*/libclang.so' >/dev/null; }
has_libclang || missing+=(libclang-dev)
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
