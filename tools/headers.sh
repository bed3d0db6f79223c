#!/usr/bin/env bash
# Each header compiles alone, with the project's warnings.
#
#   tools/headers.sh [ROOT]      prints the faults; exit 1 if there are any
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"
flags=(-std=c11 -D_GNU_SOURCE '-DMPREG_VERSION="0"' -I. -Wall -Wextra -Wshadow -Wstrict-prototypes
    -Werror -fsyntax-only -x c)
outside=$(pkg-config --cflags luajit libuv yajl libedit sqlite3)

# shellcheck disable=SC2086  # the flags of pkg-config are a list
alone() {
    case $1 in
    src/base/* | src/wire/* | src/core/*) set -- "$1" ;;
    *) set -- "$1" $outside ;;
    esac
    local header=$1
    shift
    if ! echo "#include \"$header\"" | ${CC:-cc} "${flags[@]}" "$@" - 2>&1; then
        echo "$header does not compile alone"
        return 1
    fi
}

bad=0
while IFS= read -r header; do
    alone "$header" || bad=1
done < <(find src -name '*.h' | sort)
exit $bad
