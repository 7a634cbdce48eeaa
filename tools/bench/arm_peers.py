"""Install ncnn and TFLite for ARM in a folder, without changes to the system.

The wheels come from PyPI. Their Python comes from Debian packages, which are unpacked but not
installed. Programs run in qemu with the counting plugin of `tcc bench`.
"""

import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tcc.backends.arm.machine import MACHINES, Machine
from tcc.backends.arm.measure import emulated, instructions
from tcc.backends.arm.measure.emulated import CountedInterval, ProgramCounts

BY_NAME: Mapping[str, Machine] = {machine.target.name: machine for machine in MACHINES}


@dataclass(frozen=True)
class PeerPlatform:
    """The names of a processor family's packages: wheels, Debian packages and libraries.

    `wheels` are the peers, with the platform tags of their wheels without the family's name.
    """

    family: str
    debian: str
    triple: str
    wheels: Mapping[str, Sequence[str]]

    @property
    def libraries(self) -> Sequence[str]:
        """The folder of libraries, relative to the root."""
        library_folder = f"usr/lib/{self.triple}"
        return (
            library_folder,
            f"lib/{self.triple}",
            f"{library_folder}/blas",
            f"{library_folder}/lapack",
        )


PLATFORMS: Mapping[str, PeerPlatform] = {
    "arm": PeerPlatform(
        "armv7l", "armhf", "arm-linux-gnueabihf",
        {
            "ncnn": ("manylinux_2_31", "manylinux_2_28", "manylinux_2_17"),
            "tflite_runtime": ("manylinux_2_34",),
        },
    ),
    "aarch64": PeerPlatform(
        "aarch64", "arm64", "aarch64-linux-gnu",
        {"ncnn": ("manylinux_2_28", "manylinux_2_24"), "tflite_runtime": ("manylinux_2_34",)},
    ),
}  # fmt: skip
"""The platforms by the architecture of tcc's machines."""
PYTHON = ("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none")
DEBIAN = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} bookworm main\n"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "python3-numpy", "libgomp1", "libstdc++6")


@dataclass(frozen=True)
class CountedRun:
    """Instructions and modelled cycles of one run: before, in and after the network itself.

    Cycles are 0 for processors without a cycle model.
    """

    preprocess: tuple[int, int]
    network: tuple[int, int]
    postprocess: tuple[int, int]

    @property
    def total(self) -> tuple[int, int]:
        """The sum, from the image's pixels to probabilities."""
        parts = (self.preprocess, self.network, self.postprocess)
        return sum(n for n, _ in parts), sum(c for _, c in parts)


@dataclass(frozen=True)
class Peers:
    """The peers for a machine's processor family, in a folder."""

    folder: Path
    machine: Machine

    @property
    def platform(self) -> PeerPlatform:
        """The names of the packages."""
        return PLATFORMS[self.machine.arch]

    @property
    def root(self) -> Path:
        """The folder that replaces the system's root for the programs."""
        return self.folder / "root"

    def set_up(self) -> None:
        """Download and unpack the missing packages."""
        self.folder.mkdir(parents=True, exist_ok=True)
        marker = self.folder / "complete"
        if not marker.exists():
            for name, platforms in self.platform.wheels.items():
                self._install_wheel(name, platforms)
            self._install_debian()
            marker.touch()

    def _install_wheel(self, name: str, platforms: Sequence[str]) -> None:
        platform_options = [
            option
            for platform in platforms
            for option in ("--platform", f"{platform}_{self.platform.family}")
        ]
        call = ("download", "-q", "--no-deps", "--only-binary=:all:", "-d", "wheels")
        _run((sys.executable, "-m", "pip", *call, *PYTHON, *platform_options, name), self.folder)
        (wheel,) = (self.folder / "wheels").glob(f"{name}-*.whl")
        zipfile.ZipFile(wheel).extractall(self.folder / "site")

    def _install_debian(self) -> None:
        """Resolve and download packages with apt in a separate state folder, and unpack them."""
        apt = self.folder / "apt"
        for part in ("lists/partial", "cache/archives/partial"):
            (apt / part).mkdir(parents=True, exist_ok=True)
        (apt / "status").touch()
        mirror = os.environ.get("DEBIAN_MIRROR", MIRROR)
        (apt / "sources.list").write_text(DEBIAN.format(mirror=mirror))
        settings = {
            "APT::Architecture": self.platform.debian,
            "APT::Architectures": self.platform.debian,
            "APT::Install-Recommends": "false", "Debug::NoLocking": "1",
            "Dir::State": apt, "Dir::State::status": apt / "status",
            "Dir::State::lists": apt / "lists", "Dir::Cache": apt / "cache",
            "Dir::Etc::sourcelist": apt / "sources.list", "Dir::Etc::sourceparts": "-",
        }  # fmt: skip
        if os.geteuid() == 0:
            settings["APT::Sandbox::User"] = "root"
        options = [
            option for name, setting in settings.items() for option in ("-o", f"{name}={setting}")
        ]
        _run(("apt-get", *options, "-qq", "update"), self.folder)
        fetch = ("-y", "-qq", "--download-only", "install", *PACKAGES)
        _run(("apt-get", *options, *fetch), self.folder)
        for package in sorted((apt / "cache/archives").glob("*.deb")):
            _run(("dpkg-deb", "-x", str(package), str(self.root)), self.folder)

    def count(self, script: Path, *arguments: object) -> tuple[CountedRun, str]:
        """Run one of the guest scripts; return its cost and its standard output.

        The script opens a file before and after preprocessing, after the network and after
        postprocessing; then it exits.
        """
        out = self.folder / f"counts.{os.getpid()}"
        environment = {
            "LD_LIBRARY_PATH": ":".join(
                str(self.root / library_folder) for library_folder in self.platform.libraries
            ),
            "PYTHONPATH": f"{self.folder / 'site'}:{self.root / 'usr/lib/python3/dist-packages'}",
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        environment_options = [
            option for variable in environment.items() for option in ("-E", "=".join(variable))
        ]
        emulator = (self.machine.qemu, "-cpu", self.machine.qemu_cpu, "-L", str(self.root))
        library = self.folder / "count.so"
        emulated.write_plugin(self.machine, library)
        counting = emulated.build_plugin_options(library, out)
        program = str(self.root / "usr/bin/python3.11")
        command = (
            *emulator,
            *counting,
            *environment_options,
            program,
            str(script),
            *map(str, arguments),
        )
        printed = _run(command, self.folder)
        try:
            with out.open() as lines:
                counts = emulated.parse_counts(lines)
        finally:
            out.unlink(missing_ok=True)
        return _split_run(counts, modelled=self.machine.has_cycle_model), printed


def _split_run(counts: ProgramCounts, *, modelled: bool) -> CountedRun:
    mark_indices = [
        i for i, interval in enumerate(counts.intervals) if interval.end_event == "open"
    ][-4:]
    preprocess, network, postprocess = (
        counts.intervals[a + 1 : b + 1] for a, b in pairwise(mark_indices)
    )
    return CountedRun(
        *(
            _compute_cost(counts, interval, modelled=modelled)
            for interval in (preprocess, network, postprocess)
        )
    )


def _compute_cost(
    counts: ProgramCounts, intervals: Sequence[CountedInterval], *, modelled: bool
) -> tuple[int, int]:
    runs = counts.sum_runs(intervals)
    if not modelled:
        return counts.count_instructions(runs), 0
    blocks = ((counts.blocks[index], count) for index, count in runs.items())
    modelled_cycles = sum(
        count * instructions.estimate_cycles(block.code, block.instructions)
        for block, count in blocks
    )
    return counts.count_instructions(runs), round(modelled_cycles)


def _run(command: Sequence[str], folder: Path) -> str:
    process = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(
            f"{' '.join(command[:3])} ... failed:\n{process.stdout}{process.stderr}"[-4000:]
        )
    return process.stdout
