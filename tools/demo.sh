#!/usr/bin/env bash
# From a trained network to classes and probabilities, by the integer program of a Cortex-A7.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
  printf '\n$ %s\n' "$*"
  "$@"
}

echo 'The first build also compiles the C library of the target, which takes a minute or two.'
step tcc build ddsnet-blood --target arm-a7 --precision int8
target=arm-a7
if command -v qemu-arm >/dev/null; then
  printf '\nThe ARM program runs here under qemu-arm.\n'
else
  printf '\nqemu-arm is not here: the same code is built for this machine and that is run.\n'
  target=host
  step tcc build ddsnet-blood --target host --precision int8
fi
step tcc run "build/ddsnet-blood-$target-int8" zoo/cells/WBC/1.png zoo/cells/RBC/1.png
