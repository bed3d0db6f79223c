#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that are missing, and nothing when all are there.
#
#   tools/setup.sh [build|run|test]…      which sets; none named: all three
#   tools/setup.sh --list [SET]…          prints the packages of the sets, one a line
#
# Meant for Debian 12 and 13 and Ubuntu 24.04; needs root or sudo only if something is missing.
set -euo pipefail

build=(gcc libc6-dev make cmake pkg-config binutils libluajit-5.1-dev libuv1-dev libyajl-dev libssl-dev
    libedit-dev libsqlite3-dev)
run=(luajit lua-cjson)
test=(lua-busted libcmocka-dev clang libclang-rt-dev llvm clang-format lua-check lua-luv lua-messagepack
    luarocks python3 python3-msgpack iproute2 groff-base zsh fish)

list_only=false
if [ "${1:-}" = --list ]; then
    list_only=true
    shift
fi
[ $# -gt 0 ] || set -- build run test
wanted=()
for name in "$@"; do
    case $name in
    build) wanted+=("${build[@]}") ;;
    run) wanted+=("${run[@]}") ;;
    test) wanted+=("${test[@]}") ;;
    *)
        echo "tools/setup.sh: unknown set '$name': there are build, run and test" >&2
        exit 2
        ;;
    esac
done
if $list_only; then
    printf '%s\n' "${wanted[@]}"
    exit 0
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "tools/setup.sh: no apt here. Install by hand what provides these Debian packages:" >&2
    echo "  ${wanted[*]}" >&2
    exit 1
fi

# Installed, or provided by something installed (pkg-config by pkgconf).
is_installed() {
    case $installed in
    *" $1 "*) return 0 ;;
    *) return 1 ;;
    esac
}
installed=" $(dpkg-query -W -f '${db:Status-Status} ${Package} ${Provides}\n' |
    sed -n 's/^installed //p' | sed 's/([^)]*)//g; s/,/ /g; s/:[a-z0-9]*//g' | tr -s ' \n' ' ') "
missing=()
for package in "${wanted[@]}"; do
    is_installed "$package" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "tools/setup.sh: these packages are missing, and installing needs root or sudo:" >&2
        echo "  ${missing[*]}" >&2
        echo "as root:  apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# apt's own words matter only when it fails.
quietly() {
    if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "$@" </dev/null >"$log" 2>&1; then
        cat "$log" >&2
        echo "tools/setup.sh: failed: $*" >&2
        exit 1
    fi
}
quietly apt-get update
quietly apt-get install -y --no-install-recommends "${missing[@]}"
