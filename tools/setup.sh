#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Prepares this machine: the system's packages that are missing, then .venv with SysRift in it.
#
#   tools/setup.sh run         to record and replay: gdb, a C compiler, SysRift's own dependencies
#   tools/setup.sh test        to run the tests and the benchmark: also the programs they record
#   tools/setup.sh check-run, check    only the system's packages of the two
#
# Packages are installed by apt-get, only those that are missing, only as root or where sudo asks
# no password. Otherwise the command to run is printed and the exit status is 1.

set -u
cd "$(dirname "$0")/.." || exit 1

say() { printf '%s\n' "setup: $*" >&2; }

die() {
    say "$@"
    exit 1
}

# -- what is missing ------------------------------------------------------------------------------

python=
missing=()

need() { # COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            python=$candidate
            return
        fi
    done
    command -v python3 >/dev/null 2>&1 &&
        die "Python 3.10 or newer is needed; python3 is $(python3 -V 2>&1)." \
            "Install one, or name one: make PYTHON=/path/to/python3.X ..."
    missing+=(python3 python3-venv)
}

need_venv() {
    # Debian's own Python has ensurepip, which venv needs, in a package of its own.
    [ -n "$python" ] || return
    "$python" -c 'import ensurepip, venv' 2>/dev/null && return
    missing+=("$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')")
}

need_to_run() {
    need gcc gcc
    need cc gcc
    need make make
    [ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
    # gdb-minimal has no Python, and neither have some builds by hand.
    [ "$(gdb -nx -batch -ex 'python print(1)' 2>/dev/null)" = 1 ] || missing+=(gdb)
}

need_to_test() {
    local command
    for command in git sqlite3 perl bzip2 gzip gawk sed openssl strace tar grep; do
        need "$command" "$command"
    done
    need xz xz-utils
    need vi vim-tiny
    need curl curl
    need ssh-keygen openssh-client
    # Debian keeps it where an ordinary user's PATH does not look.
    PATH=$PATH:/usr/sbin need nginx nginx-light
    need sort coreutils
    need find findutils
    need setpriv util-linux
    # The package named busybox is linked dynamically; the test is about a static program.
    busybox=$(command -v busybox) && ! ldd "$busybox" >/dev/null 2>&1 ||
        missing+=(busybox-static)
}

install_missing() {
    [ ${#missing[@]} -eq 0 ] && return
    local wanted as_root
    wanted=$(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')
    wanted=${wanted% }
    if ! command -v apt-get >/dev/null 2>&1; then
        die "missing (by Debian's package names): $wanted." \
            "There is no apt-get here: install them with this system's package manager."
    fi
    if [ "$(id -u)" -eq 0 ]; then
        as_root=
    elif sudo -n true 2>/dev/null; then
        as_root="sudo -n"
    else
        say "these packages are missing, and installing them needs root; run:"
        say "    sudo apt-get update && sudo apt-get install --no-install-recommends $wanted"
        exit 1
    fi
    say "installing $wanted"
    local apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300"
    local log
    log=$(mktemp) || exit 1
    # An update that fails for one source of several is no reason to give up: the install tells.
    # shellcheck disable=SC2086
    $apt update >"$log" 2>&1 </dev/null
    # shellcheck disable=SC2086
    if ! $apt install -y --no-install-recommends $wanted >>"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        die "apt-get could not install: $wanted"
    fi
    rm -f "$log"
}

# A GDB beside the system's, for the tests that run on two of them and for DAP (GDB 14 or newer).
newer_gdb=gdb-for-pwndbg==18.1.0.post1

# -- .venv ----------------------------------------------------------------------------------------

make_venv() { # EXTRA: "" or "[test]"
    # A .venv whose Python was upgraded away, or that was copied from elsewhere, is made anew.
    if ! .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
        [ "$(.venv/bin/python -c 'import sys; print(sys.prefix)')" != "$PWD/.venv" ]; then
        rm -rf .venv
        say "making .venv ($("$python" -V 2>&1))"
        "$python" -m venv .venv || die "$python -m venv .venv failed"
    fi
    say "installing SysRift into .venv"
    local log
    log=$(mktemp) || exit 1
    if ! .venv/bin/python -m pip install --editable ".$1" >"$log" 2>&1 </dev/null; then
        tail -n 30 "$log" >&2
        rm -f "$log"
        die "pip could not install SysRift and what it needs (see above)"
    fi
    rm -f "$log"
}

make_newer_gdb() {
    # In an environment of its own: python-ptrace has a bin/gdb.py, which this GDB would take for its
    # own module.
    [ "$(cat .venv/gdb/.version 2>/dev/null)" = "$newer_gdb" ] && return
    .venv/bin/python -c 'import sys; sys.exit(sys.version_info >= (3, 15))' || return 0
    say "installing $newer_gdb into .venv/gdb"
    local log
    log=$(mktemp) || exit 1
    if ! {
        rm -rf .venv/gdb &&
            "$python" -m venv .venv/gdb &&
            .venv/gdb/bin/python -m pip install "$newer_gdb"
    } >"$log" 2>&1 </dev/null; then
        tail -n 30 "$log" >&2
        rm -f "$log"
        die "pip could not install $newer_gdb, which some tests run in (see above)"
    fi
    rm -f "$log"
    echo "$newer_gdb" >.venv/gdb/.version
}

case ${1-} in
run | test)
    find_python
    need_venv
    need_to_run
    [ "$1" = test ] && need_to_test
    install_missing
    [ -n "$python" ] || python=python3
    make_venv "$([ "$1" = test ] && echo '[test]')"
    [ "$1" = run ] || make_newer_gdb
    ;;
check-run)
    need_to_run
    install_missing
    ;;
check)
    need_to_run
    need_to_test
    install_missing
    ;;
*)
    die "usage: tools/setup.sh run|test|check-run|check"
    ;;
esac
