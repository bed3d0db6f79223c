#!/usr/bin/env bash
# The demo: installs what is missing, builds, starts three nodes on free ports of this machine that
# become one cluster, runs the quake pipeline on a week of real data across them, shows the trace
# and the report, and stops the nodes.
set -euo pipefail
cd "$(dirname "$0")/.."

bold='' plain='' style=()
if [ -t 1 ]; then
    style=(--width "$(tput cols 2>/dev/null || echo 100)")
    if [ -z "${NO_COLOR:-}" ]; then
        bold=$'\e[1m' plain=$'\e[0m'
        style+=(--color)
    fi
fi
heading() { printf '\n%s%s%s\n\n' "$bold" "$*" "$plain"; }

tools/setup.sh build run
heading "Building build/mpreg"
make --no-print-directory all | tail -n 1

folder=$(mktemp -d)
pids=() addrs=()
finish() {
    status=$?
    trap - EXIT INT TERM
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || status=$((status ? status : $?)); done
    [ "$status" -eq 0 ] || [ "$status" -gt 128 ] || tail -n 50 "$folder"/*.log >&2 2>/dev/null || true
    rm -rf "$folder"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start NAME FLAG…: a node with one worker, so that a busy one leaves the next call to the others.
start() {
    local name=$1 ready fd
    shift
    mkfifo "$folder/$name"
    build/mpreg node --name "$name" --listen 127.0.0.1:0 --workers 1 --load examples/quakes "$@" \
        >"$folder/$name" 2>"$folder/$name.log" &
    pids+=($!)
    exec {fd}<"$folder/$name" # stays open: the node may write to its stdout until it ends
    if ! read -r -t 30 ready <&"$fd"; then
        echo "$name did not get ready; its log:" >&2
        exit 1
    fi
    echo "$ready"
    addrs+=("$(sed -n 's/.*"addr":"\([^"]*\)".*/\1/p' <<<"$ready")")
}

# The nodes that the node at an address takes for alive.
alive_at() { { build/mpreg nodes -n "$1" -o json -t 5s || true; } | { grep -o '"state":"alive"' || true; } | wc -l; }

# Each node must know all three.
await_cluster() {
    local deadline=$((SECONDS + 30)) addr
    for addr in "${addrs[@]}"; do
        until [ "$(alive_at "$addr")" -eq "${#addrs[@]}" ]; do
            if [ "$SECONDS" -ge "$deadline" ]; then
                echo "the node at $addr does not know the others; the logs:" >&2
                exit 1
            fi
            sleep 0.05
        done
    done
}

heading "Starting three nodes: n1 has the data, n2 and n3 join it"
start n1 --resource 'catalogue={"path":"examples/quakes/data"}'
start n2 --resource compute --join "${addrs[0]}"
start n3 --resource archive --join "${addrs[0]}"
await_cluster
export MPREG_NODE=${addrs[2]} # any node answers for all; this one has no data

heading "mpreg nodes"
build/mpreg nodes
heading "mpreg topology"
build/mpreg topology
heading "A call goes where its resources are: mpreg call mpreg.node --need compute"
build/mpreg call mpreg.node --need compute

heading "Asking n3 to run the pipeline: mpreg run examples/quakes --trace"
build/mpreg run examples/quakes --trace -o json >"$folder/run.json"
luajit tools/show_run.lua trace "$folder/run.json" "${style[@]}"
heading "The report, which is the run's output"
luajit tools/show_run.lua report "$folder/run.json"

heading "Stopping the nodes"
while [ "${#pids[@]}" -gt 0 ]; do
    last=$((${#pids[@]} - 1))
    kill "${pids[$last]}"
    wait "${pids[$last]}"
    unset "pids[$last]"
    echo "n$((last + 1)) ended with status 0"
done
