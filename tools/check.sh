#!/usr/bin/env bash
# The static checks, as TAP. They read the sources, and the archives and C specs in BUILD.
#
#   tools/check.sh [BUILD]
set -uo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}

files() { find . \( -name .git -o -path './build*' \) -prune -o -name "$1" -print | sort; }
c_files() { files '*.[ch]'; }
lua_files() { files '*.lua'; }

formatted() {
    c_files | xargs clang-format --dry-run -Werror 2>&1 | head -40
    return "${PIPESTATUS[1]}"
}
lua_clean() { lua_files | xargs luacheck -q --no-color; }
rock() { luajit tools/rock.lua && luarocks lint rockspec/mpreg-scm-1.rockspec; }

# Formatters of other versions disagree about details; this one formats the tree.
formatter_differs() {
    local version
    version=$(clang-format --version | sed 's/.*version \([0-9]*\).*/\1/')
    [ "$version" = 14 ] || echo "clang-format 14 formats this tree, here is $version"
}

number=0 failed=0
# check NAME COMMAND…
check() {
    local name=$1 output
    shift
    number=$((number + 1))
    if output=$("$@" 2>&1); then
        echo "ok $number - $name"
    else
        failed=1
        echo "not ok $number - $name"
        printf '%s\n' "$output" | sed 's/^/# /'
    fi
}
skip() {
    number=$((number + 1))
    echo "ok $number - $1 # SKIP $2"
}

luajit tools/sizes.lua | sed 's/^/# to think about: /'
check "every include is one that the layers allow" luajit tools/layers.lua
check "every header compiles alone" tools/headers.sh
check "the core imports nothing but memcpy and its like" tools/symbols.sh "$build"
check "the core's specs link with neither libuv nor Lua" tools/links.sh "$build"
check "the simulator links the core that the node links" tools/same_core.sh "$build"
differs=$(formatter_differs)
if [ -n "$differs" ]; then
    skip "C files are formatted" "$differs"
else
    check "C files are formatted" formatted
fi
check "luacheck finds nothing" lua_clean
check "the rock lists the Lua library" rock
check "every link in the docs leads somewhere" luajit tools/docs.lua
echo "1..$number"
exit $failed
