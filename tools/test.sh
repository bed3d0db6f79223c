#!/usr/bin/env bash
# Every test there is: set-up, builds, checks, specs, sanitizers, fuzzing. `make test` calls it.
#
#   tools/test.sh [REGEX]      only units whose PART/NAME matches, e.g. 'asan' or 'functional/calls'
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh build run test >&2
exec python3 tools/run_tests.py ${1:+--only "$1"}
