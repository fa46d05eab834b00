#!/bin/sh
# envs/build.sh PYTHON FOLDER LOCK...   Build a virtual environment from locks with hashes; nothing else is needed.
#
# What a lock has installed is stamped in the folder, so this costs nothing until a lock changes. The first lock is the
# base: where it has changed, the folder is rebuilt. uv installs (several times faster); where it cannot, pip does.
set -eu
python=$1 venv=$2
shift 2
here=$(dirname "$0")

stamp() { echo "$venv/.$(basename "$1").stamp"; }
is_made() { [ -f "$(stamp "$1")" ] && [ "$(cat "$(stamp "$1")")" = "$(cksum <"$1")" ]; }

if ! is_made "$1"; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "error: Python 3.11 or newer is needed, '$python' is not: give one, as in 'make PYTHON=python3.12'" >&2
        exit 1
    }
    "$python" -m venv --clear "$venv" || {
        echo "error: '$python -m venv' does not work here: install the venv module (Debian: python3-venv)" >&2
        exit 1
    }
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$here/uv.txt" ||
        echo "uv cannot be installed here: pip does the rest, which takes longer" >&2
fi
for lock in "$@"; do
    is_made "$lock" && continue
    if [ -x "$venv/bin/uv" ] &&
        "$venv/bin/uv" pip install --python "$venv/bin/python" --require-hashes --compile-bytecode -r "$lock"; then
        :
    else
        echo "installing with pip" >&2
        "$venv/bin/python" -m pip install --disable-pip-version-check --require-hashes -r "$lock"
    fi
    cksum <"$lock" >"$(stamp "$lock")"
done
