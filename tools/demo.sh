#!/usr/bin/env bash
# From the spec to classes and probabilities, by the artifact of a Cortex-A7.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
  printf '\n$ %s\n' "$*"
  "$@"
}

echo 'The first build also compiles the C library of the target, which takes a minute or two.'
step tcc build spec/ddsnet.yaml --target arm-a7
target=arm-a7
if command -v qemu-arm >/dev/null; then
  printf '\nThe ARM program runs here under qemu-arm.\n'
else
  printf '\nqemu-arm is not here: the same code is built for this machine and that is run.\n'
  target=host
  step tcc build spec/ddsnet.yaml --target host
fi
step tcc run "build/ddsnet-$target-fp32" zoo/samples/TUM/1.png
