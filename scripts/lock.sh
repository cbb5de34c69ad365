#!/usr/bin/env bash
# Regenerates the two lock files from pyproject.toml, or with --check tells whether they are still what it resolves to.
# Hashes are kept, registry addresses are not. torch, tensorflow and jax stay outside: their builds differ by machine.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
target=src/stoker/locks
resolve() { # OUTPUT EXTRA…
  local output=$1
  shift
  "$uv" pip compile pyproject.toml "$@" --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-emit-find-links --no-annotate --no-header --quiet --output-file "$output"
}
if [ "${1:-}" = "--check" ]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  cp "$target"/*.lock "$scratch"/
  resolve "$scratch/base.lock"
  resolve "$scratch/full.lock" --extra dev
  diff -u "$target/base.lock" "$scratch/base.lock" && diff -u "$target/full.lock" "$scratch/full.lock"
  echo "lock files match pyproject.toml"
else
  resolve "$target/base.lock"
  resolve "$target/full.lock" --extra dev
  wc -l "$target"/*.lock
fi
