#!/usr/bin/env bash
# The benchmarks: a node, and beside it in the same run whichever peers are installed.
#
#   bench/run.sh [--quick] [--json] [--only REGEX] [--build DIR]
#
# --quick takes about a minute; --json prints one JSON document instead of the table. What it starts
# it ends. What is measured, and against what, stands in bench/run.lua (one node) and
# bench/cluster.lua (many; --only cluster measures these alone).
set -euo pipefail
cd "$(dirname "$0")/.."
build=build
args=()
while [ $# -gt 0 ]; do
    case $1 in
    --build)
        build=$2
        shift
        ;;
    --help)
        sed -n '2,8s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *) args+=("$1") ;;
    esac
    shift
done
[ -x "$build/mpreg" ] || {
    echo "bench/run.sh: no $build/mpreg: run make first" >&2
    exit 1
}
cmake --build "$build" --target bench_tools >/dev/null

folder=$(mktemp -d)
: >"$folder/pids"
finish() {
    local pid
    while read -r pid; do kill "$pid" 2>/dev/null || true; done <"$folder/pids"
    rm -rf "$folder"
}
trap finish EXIT
"$build/spec/spec-lua" bench/run.lua "$build" "$folder" ${args[@]+"${args[@]}"}
