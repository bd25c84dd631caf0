#!/bin/sh
# Creates .venv from requirements.lock, unless it is there already and whole.
# A stamp with the lock's checksum is written last, so an interrupted installation is done again.
set -eu
cd "$(dirname "$0")"

fail() { echo "error: $1" >&2; exit 1; }

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "Paddle 2.6 and the engines need Linux on x86-64; this is $(uname -s) on $(uname -m)"
command -v git >/dev/null 2>&1 || fail "git is missing; install it first"
[ -f requirements.lock ] || fail "requirements.lock is missing; take a whole checkout"

stamp=.venv/installed-from
checksum=$(cksum <requirements.lock)
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$checksum" ] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi

# The names of shims exist even where the interpreter does not: only one that runs counts.
fits='import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 12) and sys.implementation.name == "cpython"))'
python=
for candidate in ${PYTHON:-python3.12 python3.11 python3 python}; do
    if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c "$fits" >/dev/null 2>&1; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    found=$("${PYTHON:-python3}" --version 2>/dev/null) || found="no ${PYTHON:-python3} that runs"
    fail "needs CPython 3.11 or 3.12, found $found; install one, or name it: make PYTHON=/path/to/python"
fi
"$python" -c 'import venv, ensurepip' 2>/dev/null || fail "$python lacks the modules venv and ensurepip (on Debian: the package python3-venv)"
free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024) }')
[ "$free" -ge 4096 ] || fail "needs 4 GiB of free disk here for the environment and the artefacts, found $free MiB"

echo "creating .venv with $("$python" --version) from requirements.lock (about a minute, 2 GB)"
rm -rf .venv
"$python" -m venv .venv || fail "$python -m venv .venv failed"
log=.venv/installation.log
# The lock is complete: nothing is resolved again, and nothing is installed that it does not name.
if ! .venv/bin/python -m pip install --no-deps --require-hashes --no-input --disable-pip-version-check \
    -r requirements.lock >"$log" 2>&1; then
    grep -E '^ERROR|No space left|[Ee]rror:' "$log" | tail -n 3 >&2
    fail "installing the packages failed; the whole log is $log"
fi
echo "$checksum" >"$stamp"
