#!/bin/sh
# Checks that SnapTrade's official Python and TypeScript clients work against the sandbox.
#
# Usage: run.sh [BASE_URL]. Without a base URL it builds and starts a sandbox of its own.
# Needs python3 and Node.js; the clients, of the versions pinned beside this file, go into a temporary folder.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH='' cd -- "$here/../../.." && pwd)
work=$(mktemp -d)
sandbox=

finish() {
    if [ -n "$sandbox" ]; then
        kill "$sandbox" 2>/dev/null || true
        wait "$sandbox" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

base_url=${1:-}
if [ -z "$base_url" ]; then
    cargo build --quiet --manifest-path "$root/Cargo.toml" --package berth-sandbox --example snaptrade
    target=${CARGO_TARGET_DIR:-$root/target}
    "$target/debug/examples/snaptrade" >"$work/base_url" &
    sandbox=$!
    tries=0
    while [ ! -s "$work/base_url" ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ]; then
            echo "The sandbox did not start." >&2
            exit 1
        fi
        sleep 0.1
    done
    base_url=$(head -n 1 "$work/base_url")
fi

python3 -m venv "$work/python"
"$work/python/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
"$work/python/bin/python" "$here/check.py" "$base_url"

mkdir "$work/node"
cp "$here/package.json" "$here/package-lock.json" "$here/check.cjs" "$work/node/"
(cd "$work/node" && npm ci --silent --no-audit --no-fund && node check.cjs "$base_url")
