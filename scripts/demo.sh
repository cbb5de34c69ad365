#!/usr/bin/env bash
# The main job on this machine's own disk: can it feed two emulated accelerators? A verdict, and a report beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${STOKER_DEMO_TARGET:-demo/storage}
model=${STOKER_DEMO_MODEL:-resnet50}
accelerator=${STOKER_DEMO_ACCELERATOR:-a100:2}
case $target in *://*) ;; *) mkdir -p "$target" ;; esac
echo "\$ stoker feed $target --model $model --accelerator $accelerator --budget 60s"
code=0
.venv/bin/stoker feed "$target" --model "$model" --accelerator "$accelerator" --budget 60s --results demo/results || code=$?
# 0 is a yes, 3 any other honest answer; everything else means that the demonstration itself did not work.
case $code in
  0 | 3) echo "Open the report in a browser. The command is ready: .venv/bin/stoker --help" ;;
  *) exit "$code" ;;
esac
