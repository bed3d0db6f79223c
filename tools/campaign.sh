#!/usr/bin/env bash
# The long campaign of the simulator: fresh seeds of mixed worlds, a tenth as many of deploys, and what
# takes hours of virtual time or thousands of nodes. As many worlds side by side as there are cores; a
# line for each part that is done, one summary, exit 1 if any promise broke.
#
#   tools/campaign.sh [--build DIR] [--first SEED] [--seeds N] [--jobs N] [--only REGEX]
#
# An interrupted campaign goes on with --first: the progress lines name the seeds that are done. Seed
# 0 (the default) means fresh ones, from the clock. --only picks parts by their name, for example
# --only '^mixed', '^deploy', '^loss', '^idle', '^partition'. Output is kept in BUILD/campaign/.
set -euo pipefail
cd "$(dirname "$0")/.."
build=build first=0 seeds=100000 jobs=$(nproc) only=
while [ $# -gt 0 ]; do
    case $1 in
    --build) build=$2 ;;
    --first) first=$2 ;;
    --seeds) seeds=$2 ;;
    --jobs) jobs=$2 ;;
    --only) only=$2 ;;
    *)
        sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | grep -v '^set' >&2
        exit 2
        ;;
    esac
    shift 2
done
[ "$first" != 0 ] || first=$(($(date +%s) * 1000000))

batch=250
sizes=(3 4 5 6 7 9 12 16 24 40) # nodes: each batch of seeds has the next size

chosen() { parts | awk -F'\t' -v pattern="$only" '$1 ~ pattern'; }

# The parts, one a line: its name, a tab, the simulator's arguments.
parts() {
    local seed=$first left=$seeds i=0 count hour
    # What takes longest begins first.
    for i in 1000 3000 5000; do # 5,000 take 16 GB
        printf 'idle of %d nodes\tmembership --nodes %d --seed 1 --crashes 0\n' "$i" "$i"
    done
    for hour in $(seq 1 10); do # 100 nodes for 100 hours, ten times: 10^5 node-hours
        printf 'loss of 10 %%, world %d\tmembership --nodes 100 --seed %d --loss 10 --hours 100 --crashes 0\n' \
            "$hour" $((first + hour))
    done
    for i in $(seq 1 10); do
        printf 'partition of a day, world %d\tmembership --nodes 20 --seed %d --partition 86400 --crashes 0\n' \
            "$i" $((first + i))
    done
    i=0
    while [ "$left" -gt 0 ]; do
        count=$((left < batch ? left : batch))
        printf 'mixed %d to %d\tmixed --nodes %d --seed %d --seeds %d\n' "$seed" $((seed + count - 1)) \
            "${sizes[$((i % ${#sizes[@]}))]}" "$seed" "$count"
        seed=$((seed + count)) left=$((left - count)) i=$((i + 1))
    done
    for ((left = seeds / 10, seed = first, i = 0; left > 0; left -= count, seed += count, i++)); do
        count=$((left < batch ? left : batch))
        printf 'deploy %d to %d\tdeploy --nodes %d --seed %d --seeds %d\n' "$seed" \
            $((seed + count - 1)) $((3 + i % 7)) "$seed" "$count"
    done
}

# Runs one part; its line goes to the log of all.
run_part() {
    local name=$1 arguments=$2 out=$3 began=$SECONDS state=ok
    local file="$out/${name//[^a-z0-9]/-}"
    # shellcheck disable=SC2086
    "$SIM" $arguments -o json >"$file.json" 2>"$file.err" || state=BROKEN
    printf '%s  %s  (%s)  %d s%s\n' "$state" "$name" "$arguments" $((SECONDS - began)) \
        "$(sed -n 's/.*"violation_count":\([1-9][0-9]*\).*/  \1 violations/p' "$file.json")" |
        tee -a "$out/log"
    sed -nE 's/.*"detected":[0-9]+,("false_deaths".*),"violation_count".*/    \1/p' "$file.json" | tee -a "$out/log"
    sed 's/^/    /' "$file.err" | tee -a "$out/log"
}
export -f run_part

export SIM=$build/mpreg-sim
[ -x "$SIM" ] || { echo "$SIM is not here: build first" >&2; exit 1; }
out=$build/campaign
mkdir -p "$out"
: >"$out/log"
echo "seeds $first to $((first + seeds - 1)), $jobs side by side; again: tools/campaign.sh --first $first --seeds $seeds"
chosen | tr '\n\t' '\0\0' | xargs -0 -n 2 -P "$jobs" bash -c 'run_part "$1" "$2" "$0"' "$out"

planned=$(chosen | wc -l)
done_count=$(grep -cE '^(ok|BROKEN)  ' "$out/log" || true)
broken=$(grep -c '^BROKEN' "$out/log" || true)
worlds=$(sed -nE 's/^(ok|BROKEN)  mixed .*--seeds ([0-9]+)\).*/\2/p' "$out/log" | awk '{ n += $1 } END { print n + 0 }')
violations=$(grep -c '^    replay:' "$out/log" || true)
echo
echo "$done_count of $planned parts, $worlds mixed worlds, $broken parts broken, $violations worlds with a violation, $SECONDS s"
grep '^    replay:' "$out/log" | head -20 || true
[ "$broken" -eq 0 ] && [ "$done_count" -eq "$planned" ]
