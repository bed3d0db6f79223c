#!/usr/bin/env bash
# The simulator runs what the node runs: mpreg and mpreg-sim link the very same archives of base,
# wire and core; no source of theirs is compiled for anything else; and what both executables have
# of them has the same size in both.
#
#   tools/same_core.sh [BUILD]      prints the faults; exit 1 if there are any
set -euo pipefail
build=${1:-build}
core='libmp_(base|wire|core_[a-z]+)\.a'
for program in mpreg mpreg-sim; do
    if [ ! -x "$build/$program" ] || [ ! -f "$build/CMakeFiles/$program.dir/link.txt" ]; then
        echo "$build/$program is not here: build first"
        exit 1
    fi
done

archives() { tr ' ' '\n' <"$build/CMakeFiles/$1.dir/link.txt" | grep -E "$core" | sort -u || true; }
bad=0
node=$(archives mpreg)
sim=$(archives mpreg-sim)
if [ -z "$node" ] || [ "$node" != "$sim" ]; then
    echo "mpreg and mpreg-sim link other archives of the core:"
    diff <(echo "$node") <(echo "$sim") || true
    bad=1
fi

compiled=$(cd "$build/CMakeFiles" && find . -name '*.o' -path '*/src/*' |
    sed -nE 's|^\./([^/]*)\.dir/(src/(base\|wire\|core)/.*)\.o$|\2 \1|p' | sort)
twice=$(awk '{ n[$1]++; of[$1] = of[$1] " " $2 } END { for (s in n) if (n[s] > 1) print s ":" of[s] }' <<<"$compiled")
if [ -n "$twice" ]; then
    echo "compiled more than once:"
    echo "$twice"
    bad=1
fi

# NAME SIZE of the functions and data of an executable that some archive of the core defines.
names=$(for archive in $node; do nm -g --defined-only "$build/$archive"; done | awk 'NF == 3 { print $3 }' | sort -u)
sizes() { nm -S --defined-only "$build/$1" | awk 'NF == 4 { print $4, $2 }' | sort | join - <(echo "$names"); }
different=$(join <(sizes mpreg) <(sizes mpreg-sim) | awk '$2 != $3 { print $1 }')
common=$(join <(sizes mpreg) <(sizes mpreg-sim) | wc -l)
if [ -n "$different" ] || [ "$common" -eq 0 ]; then
    echo "not the same code in both (of $common common symbols): $different"
    bad=1
fi
exit $bad
