#!/usr/bin/env bash
# Build a trained network for a Cortex-A7 in int8, and classify two images with it.
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
  printf '\nThe ARM program runs on this machine under qemu-arm.\n'
else
  printf '\nqemu-arm is missing: the same code is built for this machine and run instead.\n'
  target=host
  step tcc build ddsnet-blood --target host --precision int8
fi
step tcc run "build/ddsnet-blood-$target-int8" zoo/cells/WBC/1.png zoo/cells/RBC/1.png
