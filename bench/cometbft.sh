#!/usr/bin/env bash
# cometbft.sh SECONDS RATE: the baseline. Four CometBFT validators (kvstore, which checks no signature) on loopback
# addresses, offered RATE 250-byte transactions a second over two connections for SECONDS. Prints key=value lines.
# Needs curl, jq, and Go the first time: scripts/cometbft.sh builds it.
set -euo pipefail

seconds=${1:?usage: cometbft.sh SECONDS RATE}
rate=${2:?usage: cometbft.sh SECONDS RATE}
addresses=(127.0.0.2 127.0.0.3 127.0.0.4 127.0.0.5)
pids=()
home=$(mktemp -d)

finish() {
    if [ ${#pids[@]} -gt 0 ]; then
        kill "${pids[@]}" 2>/dev/null || true
        wait "${pids[@]}" 2>/dev/null || true
    fi
    rm -rf "$home"
}
trap finish EXIT

need() { command -v "$1" >/dev/null || { echo "cometbft.sh: $1 is not installed" >&2; exit 1; }; }

# set FILE KEY VALUE: replaces every line "KEY = ..." of a TOML file.
set_key() { sed -i -E "s|^$2 = .*|$2 = $3|" "$1"; }

start() {
    "$tools/cometbft" testnet --v 4 --o "$home" --starting-ip-address "${addresses[0]}" \
        --populate-persistent-peers >/dev/null
    local index config
    for index in 0 1 2 3; do
        config=$home/node$index/config/config.toml
        sed -i -E "s|tcp://(0\.0\.0\.0\|127\.0\.0\.1):(2665[67])|tcp://${addresses[index]}:\2|" "$config"
        set_key "$config" proxy_app '"kvstore"'
        set_key "$config" pprof_laddr '""'
        set_key "$config" addr_book_strict false
        set_key "$config" allow_duplicate_ip true
        set_key "$config" size 50000
        set_key "$config" max_txs_bytes 1073741824
        set_key "$config" timeout_commit '"0s"'
        set_key "$config" log_level '"error"'
        "$tools/cometbft" start --home "$home/node$index" >"$home/$index.log" 2>&1 &
        pids+=($!)
    done
}

rpc() { curl -sf --max-time 5 "http://${addresses[0]}:26657/$1"; }
height() { rpc status | jq -r '.result.sync_info.latest_block_height'; }
largest_mib() {
    local pid
    for pid in "${pids[@]}"; do awk '/^Pss:/ {printf "%.1f\n", $2 / 1024}' "/proc/$pid/smaps_rollup"; done | sort -n | tail -n 1
}

# Transactions of the blocks from $1 to $2 over the time between the first and the last block that hold some.
per_second() {
    local at
    for at in $(seq "$1" "$2"); do
        rpc "blockchain?minHeight=$at&maxHeight=$at" |
            jq -r '.result.block_metas[0] | "\(.header.time) \(.num_txs)"'
    done | while read -r time count; do
        echo "$(date -d "$time" +%s.%N) $count"
    done | awk '$2 > 0 { if (!n++) { begin = $1; next } end = $1; sum += $2 }
                END { printf "%.0f\n", (end > begin) ? sum / (end - begin) : 0 }'
}

need curl
need jq
tools=$("$(dirname "$0")/../scripts/cometbft.sh")
start
deadline=$((SECONDS + 60))
until [ "$(height 2>/dev/null || echo 0)" -ge 3 ]; do
    [ $SECONDS -lt $deadline ] || { echo "cometbft.sh: no third block within a minute" >&2; tail -n 5 "$home"/*.log >&2; exit 1; }
    sleep 0.2
done
idle=$(largest_mib)
first=$(height)
# Errors of single submissions show as fewer committed transactions.
"$tools/load" -c 1 -T "$seconds" -r $((rate / 2)) -s 250 --broadcast-tx-method async --stats-output "$home/stats.csv" \
    --endpoints "ws://${addresses[0]}:26657/websocket,ws://${addresses[1]}:26657/websocket" >"$home/load.log" 2>&1
loaded=$(largest_mib)
rate_seen=$(per_second "$first" "$(height)")
# The report reads the database, which must be closed.
kill "${pids[@]}"
wait "${pids[@]}" 2>/dev/null || true
pids=()
"$tools/report" --database-type goleveldb --data-dir "$home/node0/data" >"$home/report" 2>/dev/null

# latency NAME: from "NAME Latency: 297.1ms" or "1.2s", in milliseconds.
latency() {
    sed -n -E "s/.*$1 Latency: ([0-9.]+)(µs|ms|s).*/\1 \2/p" "$home/report" |
        awk '{ factor = ($2 == "s") ? 1000 : ($2 == "ms") ? 1 : 0.001; if ($1 * factor > most) most = $1 * factor } END { printf "%.1f\n", most }'
}
echo "per_second=$rate_seen"
echo "latency_mean_ms=$(latency Average)"
echo "latency_worst_ms=$(latency Maximum)"
echo "idle_mib=$idle"
echo "loaded_mib=$loaded"
