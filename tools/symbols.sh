#!/usr/bin/env bash
# What the core archives import and what all our archives export, read with nm:
#   * base imports only base; wire base and wire; a machine of the core these and itself; the
#     composition all of them. From outside come memcpy and its like, nothing else: no malloc, no
#     clock, no I/O;
#   * every global symbol carries mp_ (luaopen_… in the binding excepted).
#
#   tools/symbols.sh [BUILD]      prints the faults; exit 1 if there are any
set -euo pipefail
build=${1:-build}
shopt -s nullglob
archives=("$build"/libmp_*.a)
if [ ${#archives[@]} -eq 0 ]; then
    echo "$build: no libmp_*.a here: build first"
    exit 1
fi
if grep -q '^MPREG_SANITIZE:BOOL=ON' "$build/CMakeCache.txt" 2>/dev/null; then
    echo "$build is a sanitizer build: its archives import the sanitizers"
    exit 1
fi

for archive in "${archives[@]}"; do
    name=$(basename "$archive" .a)
    nm --defined-only -g "$archive" | awk -v of="${name#lib}" 'NF == 3 { print "D", of, $3 }'
    nm -u "$archive" | awk -v of="${name#lib}" 'NF == 2 { print "U", of, $2 }'
done | sort -u | awk '
    BEGIN {
        split("memcpy memmove memset memcmp memchr strlen strcmp strncmp strnlen " \
              "__memcpy_chk __memmove_chk __memset_chk __stack_chk_fail _GLOBAL_OFFSET_TABLE_", list)
        for (i in list)
            free[list[i]] = 1
    }
    function is_core(of) { return of ~ /^mp_(base|wire|core_.*)$/ }
    # Whether the archive `of` may import from the core archive `from`.
    function may(of, from) {
        if (of == from || from == "mp_base")
            return 1
        if (of == "mp_base")
            return 0
        return from == "mp_wire" || of == "mp_core_node"
    }
    $1 == "D" {
        owner[$3] = $2
        if ($3 !~ /^mp_/ && !($2 == "mp_binding" && $3 ~ /^luaopen_/)) {
            print $2 " exports " $3 ": a global symbol without mp_"
            bad = 1
        }
    }
    $1 == "U" { wanted[$2 " " $3] = 1 }
    END {
        for (pair in wanted) {
            split(pair, part, " ")
            if (!is_core(part[1]) || part[2] in free)
                continue
            if (!(part[2] in owner))
                print part[1] " imports " part[2] ": the core may not"
            else if (!is_core(owner[part[2]]) || !may(part[1], owner[part[2]]))
                print part[1] " imports " part[2] " of " owner[part[2]] ": the layers forbid it"
            else
                continue
            bad = 1
        }
        exit bad
    }'
