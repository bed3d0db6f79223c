#!/usr/bin/env bash
# The C specs of base, wire and core link with the C library and cmocka alone: neither libuv nor Lua
# nor anything else is needed to run the core.
#
#   tools/links.sh [BUILD]      prints the faults; exit 1 if there are any
set -euo pipefail
build=${1:-build}
shopt -s nullglob
specs=("$build"/spec/base-*_test "$build"/spec/wire-*_test "$build"/spec/core-*_test)
if [ ${#specs[@]} -eq 0 ]; then
    echo "$build/spec: no core specs here: build the target 'specs' first"
    exit 1
fi
bad=0
for spec in "${specs[@]}"; do
    for library in $(readelf -d "$spec" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
        case $library in
        libc.so.* | libcmocka.so.* | ld-linux*.so.*) ;;
        *)
            echo "$spec needs $library"
            bad=1
            ;;
        esac
    done
done
exit $bad
