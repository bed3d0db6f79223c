#!/usr/bin/env bash
# The demo: installs what is missing, builds, starts a node on a free port of this machine, runs the
# quake pipeline on a week of real data, shows the trace and the report, and stops the node.
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
node=''
finish() {
    status=$?
    trap - EXIT INT TERM
    if [ -n "$node" ]; then
        kill "$node" 2>/dev/null || true
        wait "$node" 2>/dev/null || status=$((status ? status : $?))
    fi
    [ "$status" -eq 0 ] || [ "$status" -gt 128 ] || cat "$folder/log" >&2 2>/dev/null || true
    rm -rf "$folder"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

heading "Starting a node that has the functions of examples/quakes and the resource 'catalogue'"
mkfifo "$folder/ready"
build/mpreg node --listen 127.0.0.1:0 --load examples/quakes \
    --resource 'catalogue={"path":"examples/quakes/data"}' >"$folder/ready" 2>"$folder/log" &
node=$!
exec 3<"$folder/ready" # stays open: the node may write to its stdout until it ends
if ! read -r -t 30 ready <&3; then
    echo "the node did not get ready; its log:" >&2
    exit 1
fi
echo "$ready"
MPREG_NODE=$(sed -n 's/.*"addr":"\([^"]*\)".*/\1/p' <<<"$ready")
export MPREG_NODE

heading "Running the pipeline: mpreg run examples/quakes --trace"
build/mpreg run examples/quakes --trace -o json >"$folder/run.json"
luajit tools/show_run.lua trace "$folder/run.json" "${style[@]}"
heading "The report, which is the run's output"
luajit tools/show_run.lua report "$folder/run.json"

heading "Stopping the node"
kill "$node"
wait "$node"
node=''
echo "it ended with status 0"
