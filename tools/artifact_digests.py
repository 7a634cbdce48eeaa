"""Check that artifacts do not change: compare the SHA-256 of every file of every build.

    python tools/artifact_digests.py before.json         at one commit
    python tools/artifact_digests.py after.json          at another, on the same machine
    python tools/artifact_digests.py --compare before.json after.json

Weights are random with seed 0, and calibration uses the sample images. Builds that are already in
the file are skipped. So you can resume an interrupted run, or add other `--targets`. Networks are
built in order of increasing multiply-accumulates.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from time import monotonic

from tcc.compiler.targets import devices

ROOT = Path(__file__).resolve().parents[1]
TCC = Path(sys.executable).with_name("tcc")
SAMPLES = str(ROOT / "zoo" / "samples")
IMAGES = 4  # for calibration: one held-out image and three observed ones
RUNNABLE = frozenset(device.name for device in devices.list_devices() if device.target.runs)
"""The targets whose artifacts can run on this machine."""
# Random weights may miss every accuracy floor. The built files are the same without it.
NO_FLOOR = (
    "--floor=min_cosine=0",
    "--floor=max_drop=1",
    "--floor=max_error=1e9",
    "--floor=min_correlation=0",
    "--allow-few",
)


class BuildError(Exception):
    """A tcc command failed."""


def run_tcc(*arguments: str) -> str:
    """Run tcc and return its standard output."""
    process = subprocess.run(
        [TCC, *arguments], check=False, capture_output=True, text=True, cwd="/"
    )
    if process.returncode:
        raise BuildError(f"tcc {' '.join(arguments)}: exit {process.returncode}\n{process.stderr}")
    return process.stdout


@dataclass
class Digests:
    """SHA-256 digests by path, in a file that is updated after every build."""

    path: Path
    digests: dict[str, str] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def has_digests(self, name: str) -> bool:
        """Return whether a file has a digest, or a folder has files with digests."""
        return any(path == name or path.startswith(f"{name}/") for path in self.digests)

    def add(self, folder: Path) -> None:
        """Add every file below a folder, by its path relative to the folder."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        new = {path.relative_to(folder).as_posix(): digest(path) for path in files}
        with self.lock:
            self.digests = dict(sorted({**self.digests, **new}.items()))
            partial_file = self.path.with_suffix(".part")
            partial_file.write_text(json.dumps(self.digests, indent=0) + "\n")
            partial_file.replace(self.path)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class BuildSelection:
    """The networks and targets to build, and the precisions of each target."""

    networks: tuple[str, ...]
    targets: dict[str, tuple[str, ...]]
    scratch: Path
    deadline: float  # in seconds of the clock `monotonic`

    def group_targets(self) -> dict[str, list[str]]:
        """Return the targets by precision: one command builds all targets of a precision."""
        by_precision: dict[str, list[str]] = defaultdict(list)
        for target, precisions in self.targets.items():
            for precision in precisions:
                by_precision[precision].append(target)
        return by_precision


def select_builds(options: argparse.Namespace, scratch: Path) -> BuildSelection:
    """Return the networks and targets that the options select."""
    models = sorted(
        json.loads(run_tcc("zoo", "--json"))["models"], key=lambda record: record["macs"]
    )
    networks = select_names([record["name"] for record in models], options.networks)
    target_records = {
        record["name"]: record for record in json.loads(run_tcc("targets", "--json"))["targets"]
    }
    buildable = [name for name, record in target_records.items() if record["builds"]]
    targets = select_names(buildable, options.targets)
    precisions = {name: tuple(target_records[name]["precisions"]) for name in targets}
    deadline = monotonic() + options.minutes * 60
    return BuildSelection(networks, precisions, scratch, deadline)


def select_names(known_names: Sequence[str], names_option: str | None) -> tuple[str, ...]:
    """Return the known names that the option lists, or all without the option."""
    if names_option is None:
        return tuple(known_names)
    names = names_option.split(",")
    if unknown := sorted(set(names) - set(known_names)):
        sys.exit(f"unknown: {', '.join(unknown)}; known: {', '.join(known_names)}")
    return tuple(name for name in known_names if name in names)


def build(network: str, selection: BuildSelection, digests: Digests) -> Iterator[str]:
    """Build a network for the selected targets; yield each failed or skipped build."""
    with tempfile.TemporaryDirectory(dir=selection.scratch) as name:
        calibration_run = CalibrationRun(network, Path(name) / f"{network}.calibration.json")
        for precision, targets in selection.group_targets().items():
            missing_targets = [
                t for t in targets if not digests.has_digests(f"{network}-{t}-{precision}")
            ]
            if not missing_targets:
                continue
            title = f"{network} {','.join(missing_targets)} {precision}"
            if monotonic() > selection.deadline:
                yield f"skipped, no time left: {title}"
                continue
            started = monotonic()
            folder = Path(name) / precision
            try:
                command = ["build", network, "--seed=0", "--precision", precision]
                command += ["--target", ",".join(missing_targets), "--quiet"]
                if RUNNABLE.intersection(missing_targets):  # other targets have no replay
                    command += ["--no-replay"]
                if precision.startswith("int"):
                    command += ["--calibration", calibration_run.prepare_file(digests), *NO_FLOOR]
                if not RUNNABLE.issuperset(missing_targets):  # NPU packages contain images
                    command += ["--data", SAMPLES]
                run_tcc(*command, "--output", str(folder))
            except BuildError as error:
                yield str(error)
                continue
            digests.add(folder)
            remove_files(folder)
            print(f"{title}: {monotonic() - started:.0f} s", flush=True)


def remove_files(folder: Path) -> None:
    """Remove the files of a folder. The files of all builds take several GB."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()


@dataclass
class CalibrationRun:
    """A calibration that all int8 builds of a network share."""

    network: str
    path: Path

    def prepare_file(self, digests: Digests) -> str:
        """Return the calibration file; create it if it does not exist."""
        if not self.path.exists():
            folder = self.path.with_suffix("")
            samples = ["--images", str(IMAGES), "--data", SAMPLES]
            output_file = folder / self.path.name
            arguments = [
                "--seed=0",
                "--target=onnxruntime",
                "--quiet",
                "--output",
                str(output_file),
            ]
            run_tcc("calibrate", self.network, *samples, *arguments)
            digests.add(folder)
            output_file.rename(self.path)
        return str(self.path)


def collect(options: argparse.Namespace) -> int:
    """Write the digests to the file; return the exit code."""
    digests = Digests(options.files[0])
    if digests.path.exists():
        digests.digests = json.loads(digests.path.read_text())
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(options.jobs) as pool:
        selection = select_builds(options, Path(scratch))
        runs = pool.map(lambda name: list(build(name, selection, digests)), selection.networks)
        problems = [line for lines in runs for line in lines]
    for line in problems:
        print(line, file=sys.stderr)
    print(f"{len(digests.digests)} files, {len(problems)} builds failed or skipped")
    return int(bool(problems))


def compare(old_path: Path, new_path: Path) -> int:
    """Print the differences between two digest files; return the exit code."""
    old, new = (json.loads(path.read_text()) for path in (old_path, new_path))
    unchanged = [name for name in old.keys() & new.keys() if old[name] == new[name]]
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            print(f"only in {old_path}: {name}")
        elif name not in old:
            print(f"only in {new_path}: {name}")
        elif old[name] != new[name]:
            print(f"differs: {name}")
    different = len(old.keys() | new.keys()) - len(unchanged)
    print(f"{len(unchanged)} files are equal, {different} differ")
    return int(different > 0 or not unchanged)


def main() -> int:
    """Collect or compare digests."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="JSON files of digests")
    parser.add_argument("--compare", action="store_true", help="compare two digest files")
    parser.add_argument(
        "--networks",
        metavar="N[,N...]",
        help="names from `tcc zoo`, separated by commas; default: all",
    )
    parser.add_argument(
        "--targets",
        metavar="T[,T...]",
        help="names from `tcc targets`, separated by commas; default: all that build",
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="number of networks built in parallel"
    )
    parser.add_argument(
        "--minutes", type=float, default=120, help="start no build after so many minutes"
    )
    options = parser.parse_args()
    if len(options.files) != 1 + options.compare:
        parser.error("give one file to write, or --compare and two files")
    return compare(*options.files) if options.compare else collect(options)


if __name__ == "__main__":
    sys.exit(main())
