"""Test boards: this machine through a real sshd, and a fake adb."""

import getpass
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEM = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
ADB = """\
#!/bin/sh
# what Android's adb does: its shell's errors come with the output, and no status does
case $1 in
exec-out) sh -c "$(printf %s "$2" | sed 's#/data/local/tmp#FOLDER#g')" 2>&1; exit 0 ;;
push) cp "$2" "$3" ;;
*) exit 1 ;;
esac
"""
SSHD = """\
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
LogLevel ERROR
"""
SSH = """\
Host board
    User {user}
    IdentityFile {folder}/user
    IdentitiesOnly yes
    KexAlgorithms curve25519-sha256
    StrictHostKeyChecking no
    UserKnownHostsFile {folder}/known
    LogLevel ERROR
    ProxyCommand {sshd} -i -f {folder}/sshd_config
"""


def write_program(folder: Path, name: str, text: str) -> None:
    """Write a program and put it first in PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def make_fake_adb(folder: Path) -> Path:
    """Return a folder with a fake adb. Its device is a folder of this machine."""
    (folder / "device").mkdir()
    write_program(folder / "bin", "adb", ADB.replace("FOLDER", str(folder / "device")))
    return folder / "bin"


def make_ssh_folder(folder: Path) -> Path:
    """Return a folder with an `ssh` that reaches this machine as host `board`.

    A private sshd starts and ends with each connection. It needs no port and no service.
    """
    programs = {name: shutil.which(name, path=SYSTEM) for name in ("ssh", "sshd", "ssh-keygen")}
    if not all(programs.values()):
        pytest.skip("needs sshd: apt-get install openssh-server")
    if os.geteuid() == 0:  # sshd drops its privileges if it has any
        if "sshd" not in {user.pw_name for user in pwd.getpwall()}:
            pytest.skip("needs the user that comes with openssh-server")
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for key in ("host", "user"):
        arguments = ["-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
        subprocess.run([programs["ssh-keygen"], *arguments], check=True)
    (folder / "sshd_config").write_text(SSHD.format(folder=folder))
    (folder / "ssh_config").write_text(
        SSH.format(folder=folder, user=getpass.getuser(), sshd=programs["sshd"])
    )
    real = f'#!/bin/sh\nexec {programs["ssh"]} -F {folder}/ssh_config "$@"\n'
    write_program(folder / "bin", "ssh", real)
    return folder / "bin"
