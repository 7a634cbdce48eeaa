#!/usr/bin/env bash
# Install qemu-user, which runs ARM programs on this machine, if that needs no password.
# Never fails: without qemu-user, ARM artifacts are built but not run.
set -u

command -v qemu-arm >/dev/null && exit 0

say() { echo "qemu-arm is missing${1:+ and $1}: ARM programs are built but not run" >&2; }

command -v apt-get >/dev/null || { say "this system has no apt-get to install it (package qemu-user)"; exit 0; }
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
command -v qemu-arm >/dev/null || say "apt-get could not install qemu-user"
exit 0
