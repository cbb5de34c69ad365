#!/usr/bin/env bash
# Builds and runs the C++ tests: once plainly, or once with each set of sanitizers named (address,undefined thread).
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:$PWD/.venv/bin"
skip() {
  echo "C++ tests skipped: $1"
  exit 0
}
compiler=${CXX:-$(command -v c++ || command -v g++ || command -v clang++ || true)}
[ -n "$compiler" ] && command -v "$compiler" >/dev/null || skip "no C++ compiler (apt install g++)"
command -v cmake >/dev/null && command -v ctest >/dev/null || skip "no cmake (apt install cmake, or pip install cmake)"
options=(-DSTOKER_TESTS=ON "-DCMAKE_CXX_COMPILER=$compiler")
if command -v ninja >/dev/null; then options+=(-G Ninja); fi

quietly() { # COMMAND…: its output is shown when it fails
  "$@" >"$log" 2>&1 || {
    cat "$log"
    return 1
  }
}
run() { # NAME SANITIZERS
  local build=build/native-$1 workers
  workers=$(nproc)
  log=$build.log
  quietly cmake -S . -B "$build" "${options[@]}" -DSTOKER_SANITIZE="$2"
  quietly cmake --build "$build" --parallel "$workers"
  quietly ctest --test-dir "$build" --output-on-failure --no-tests=error --timeout 120 --parallel "$workers"
  echo "C++ tests passed${2:+ under the $2 sanitizer}: $(grep -o 'out of [0-9]*' "$log" | tail -1 | tr -dc 0-9)"
}

mkdir -p build
if [ $# -eq 0 ]; then
  run test ""
else
  for sanitizers in "$@"; do run "${sanitizers%%,*}" "$sanitizers"; done
fi
