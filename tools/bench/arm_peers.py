"""ncnn and TFLite for 32-bit ARM, set up in a folder; nothing of the system is touched.

The wheels come from PyPI, and a Python for them from Debian's packages, which are unpacked and
not installed. Programs run in qemu with the plugin that counts for `tcc bench`.
"""

import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tcc.backends.arm.machine import MACHINES
from tcc.backends.arm.measure import counts, cycles, plugin
from tcc.backends.arm.measure.counts import CountedInterval, ProgramCounts

A7 = next(machine for machine in MACHINES if machine.target.name == "arm-a7")
WHEELS: Mapping[str, Sequence[str]] = {
    "ncnn": ("manylinux_2_31_armv7l", "manylinux_2_28_armv7l", "manylinux_2_17_armv7l"),
    "tflite_runtime": ("manylinux_2_34_armv7l",),
}
"""The peers, and the platforms of their wheels."""
PYTHON = ("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none")
DEBIAN = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} bookworm main\n"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "python3-numpy", "libgomp1", "libstdc++6")
LIBRARIES = "usr/lib/arm-linux-gnueabihf"


@dataclass(frozen=True)
class CountedRun:
    """Instructions and modelled cycles of one run: before, in and behind the network itself."""

    preprocess: tuple[int, int]
    network: tuple[int, int]
    postprocess: tuple[int, int]

    @property
    def total(self) -> tuple[int, int]:
        """From the image's pixels to probabilities."""
        parts = (self.preprocess, self.network, self.postprocess)
        return sum(n for n, _ in parts), sum(c for _, c in parts)


@dataclass(frozen=True)
class Peers:
    """Programs for 32-bit ARM in a folder."""

    folder: Path

    @property
    def root(self) -> Path:
        """What takes the place of the system's root for the programs."""
        return self.folder / "root"

    def set_up(self) -> None:
        """Fetch and unpack what is not here yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        done = self.folder / "complete"
        if not done.exists():
            for name, platforms in WHEELS.items():
                self._wheel(name, platforms)
            self._debian()
            done.touch()

    def _wheel(self, name: str, platforms: Sequence[str]) -> None:
        listed = [word for each in platforms for word in ("--platform", each)]
        call = ("download", "-q", "--no-deps", "--only-binary=:all:", "-d", "wheels")
        _run((sys.executable, "-m", "pip", *call, *PYTHON, *listed, name), self.folder)
        (wheel,) = (self.folder / "wheels").glob(f"{name}-*.whl")
        zipfile.ZipFile(wheel).extractall(self.folder / "site")

    def _debian(self) -> None:
        """Have apt resolve and fetch packages in a state of its own, and unpack them."""
        apt = self.folder / "apt"
        for part in ("lists/partial", "cache/archives/partial"):
            (apt / part).mkdir(parents=True, exist_ok=True)
        (apt / "status").touch()
        mirror = os.environ.get("DEBIAN_MIRROR", MIRROR)
        (apt / "sources.list").write_text(DEBIAN.format(mirror=mirror))
        settings = {
            "APT::Architecture": "armhf", "APT::Architectures": "armhf",
            "APT::Install-Recommends": "false", "Debug::NoLocking": "1",
            "Dir::State": apt, "Dir::State::status": apt / "status",
            "Dir::State::lists": apt / "lists", "Dir::Cache": apt / "cache",
            "Dir::Etc::sourcelist": apt / "sources.list", "Dir::Etc::sourceparts": "-",
        }  # fmt: skip
        if os.geteuid() == 0:
            settings["APT::Sandbox::User"] = "root"
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        _run(("apt-get", *options, "-qq", "update"), self.folder)
        fetch = ("-y", "-qq", "--download-only", "install", *PACKAGES)
        _run(("apt-get", *options, *fetch), self.folder)
        for package in sorted((apt / "cache/archives").glob("*.deb")):
            _run(("dpkg-deb", "-x", str(package), str(self.root)), self.folder)

    def count(self, script: Path, *arguments: object) -> tuple[CountedRun, str]:
        """Run one of the scripts for peers; return what it cost, and what it printed.

        The script opens a file before and after preprocessing, and after the network and what
        follows it; then it ends.
        """
        out = self.folder / f"counts.{os.getpid()}"
        libraries = [
            LIBRARIES,
            "lib/arm-linux-gnueabihf",
            f"{LIBRARIES}/blas",
            f"{LIBRARIES}/lapack",
        ]
        environment = {
            "LD_LIBRARY_PATH": ":".join(str(self.root / each) for each in libraries),
            "PYTHONPATH": f"{self.folder / 'site'}:{self.root / 'usr/lib/python3/dist-packages'}",
            "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
        }  # fmt: skip
        said = [word for item in environment.items() for word in ("-E", "=".join(item))]
        emulator = (A7.qemu, "-cpu", A7.qemu_cpu, "-L", str(self.root))
        counting = plugin.named(plugin.built(A7), out)
        program = str(self.root / "usr/bin/python3.11")
        words = (*emulator, *counting, *said, program, str(script), *map(str, arguments))
        printed = _run(words, self.folder)
        try:
            with out.open() as lines:
                found = counts.read(lines)
        finally:
            out.unlink(missing_ok=True)
        return _parted(found), printed


def _parted(found: ProgramCounts) -> CountedRun:
    opened = [i for i, each in enumerate(found.intervals) if each.until == "open"][-4:]
    before, network, after = (found.intervals[a + 1 : b + 1] for a, b in pairwise(opened))
    return CountedRun(*(_cost(found, each) for each in (before, network, after)))


def _cost(found: ProgramCounts, intervals: Sequence[CountedInterval]) -> tuple[int, int]:
    runs = found.together(intervals)
    blocks = ((found.blocks[index], count) for index, count in runs.items())
    modelled = sum(count * cycles.of_block(each.code, each.instructions) for each, count in blocks)
    return found.instructions(runs), round(modelled)


def _run(words: Sequence[str], folder: Path) -> str:
    done = subprocess.run(words, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words[:3])} ... failed:\n{done.stdout}{done.stderr}"[-4000:])
    return done.stdout
