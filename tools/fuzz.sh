#!/usr/bin/env bash
# Builds the fuzz targets with clang and runs each for a while. Inputs that found something new stay
# in build-fuzz/corpus/TARGET, seeds come from spec/fuzz/corpus/TARGET; a crash leaves its input in
# build-fuzz/crash/TARGET and the command that repeats it on the screen.
#
#   tools/fuzz.sh [--no-build] [SECONDS] [REGEX]
set -euo pipefail
cd "$(dirname "$0")/.."
build=true
if [ "${1:-}" = --no-build ]; then
    build=false
    shift
fi
seconds=${1:-60} regex=${2:-}

if $build; then
    cmake --preset fuzz >/dev/null
    cmake --build build-fuzz --parallel "$(nproc)" --target fuzzers >/dev/null
fi

failed=0 ran=0
for source in spec/fuzz/*_fuzz.c; do
    name=$(basename "$source" .c)
    [[ $name =~ $regex ]] || continue
    ran=$((ran + 1))
    corpus=build-fuzz/corpus/$name crash=build-fuzz/crash/$name
    mkdir -p "$corpus" "$crash"
    seeds=()
    [ -d "spec/fuzz/corpus/$name" ] && seeds=("spec/fuzz/corpus/$name")
    echo "$name: $seconds s"
    if ! "build-fuzz/spec/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
        -print_final_stats=1 -artifact_prefix="$crash/" "$corpus" "${seeds[@]}" 2>&1 | tail -60; then
        echo "again: build-fuzz/spec/$name $crash/…"
        failed=1
    fi
done
if [ "$ran" -eq 0 ]; then
    echo "no fuzz target matches '$regex'"
    exit 1
fi
exit $failed
