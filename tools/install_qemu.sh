#!/usr/bin/env bash
# Install qemu-user, which runs ARM programs here, where that can be done without asking.
# Never fails: without it the ARM artifact is built all the same, and only not run.
set -u

command -v qemu-arm >/dev/null && exit 0

say() { echo "qemu-arm is not here${1:+ and $1}: ARM programs are built but not run" >&2; }

command -v apt-get >/dev/null || { say "apt-get is not either"; exit 0; }
sudo=()
if [ "$(id -u)" -ne 0 ]; then
  sudo -n true 2>/dev/null || { say "installing it needs root (apt-get install qemu-user)"; exit 0; }
  sudo=(sudo -n)
fi

install() {
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    timeout 300 apt-get -qq -y -o DPkg::Lock::Timeout=60 install --no-install-recommends qemu-user
}
echo "installing qemu-user" >&2
install >/dev/null 2>&1 ||
  { "${sudo[@]}" timeout 120 apt-get -qq update >/dev/null 2>&1; install >/dev/null 2>&1; }
command -v qemu-arm >/dev/null || say "apt-get could not install it"
exit 0
