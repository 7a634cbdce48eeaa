"""Show that artifacts keep their bytes: the SHA-256 of every file that networks are built into.

    python tools/artifact_digests.py before.json         at one commit
    python tools/artifact_digests.py after.json          at another, on the same machine
    python tools/artifact_digests.py --compare before.json after.json

Weights are random, of seed 0, and calibration sees sample images. What the file already holds
is not built again, so that a run that was cut short goes on, and one with other `--targets` adds
to it. Networks are taken from the least work to the most.
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
IMAGES = 4  # to calibrate with: enough that one is held out and three are observed
RUNNABLE = frozenset(device.name for device in devices.list_devices() if device.target.runs)
"""The targets whose artifacts run here."""
# Random weights may well lose more than a build allows; what is built is the same.
NO_FLOOR = (
    "--floor=min_cosine=0",
    "--floor=max_drop=1",
    "--floor=max_error=1e9",
    "--floor=min_correlation=0",
    "--allow-few",
)


class BuildError(Exception):
    """A command of tcc did not end well."""


def tcc(*words: str) -> str:
    """Run tcc; return what it printed."""
    done = subprocess.run([TCC, *words], check=False, capture_output=True, text=True, cwd="/")
    if done.returncode:
        raise BuildError(f"tcc {' '.join(words)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


@dataclass
class Digests:
    """SHA-256 by name, in a file that is written after every build."""

    path: Path
    found: dict[str, str] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def holds(self, name: str) -> bool:
        """Whether a file, or a folder with files, is there."""
        return any(each == name or each.startswith(f"{name}/") for each in self.found)

    def add(self, folder: Path) -> None:
        """Add every file below a folder, by its path from there."""
        files = [path for path in folder.rglob("*") if path.is_file()]
        new = {path.relative_to(folder).as_posix(): digest(path) for path in files}
        with self.lock:
            self.found = dict(sorted({**self.found, **new}.items()))
            beside = self.path.with_suffix(".part")
            beside.write_text(json.dumps(self.found, indent=0) + "\n")
            beside.replace(self.path)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Choice:
    """What to build: networks and targets, each with its precisions."""

    networks: tuple[str, ...]
    targets: dict[str, tuple[str, ...]]
    scratch: Path
    until: float  # on the clock `monotonic`

    def builds(self) -> dict[str, list[str]]:
        """Return the targets by precision: one command builds for all of them."""
        by_precision: dict[str, list[str]] = defaultdict(list)
        for target, precisions in self.targets.items():
            for precision in precisions:
                by_precision[precision].append(target)
        return by_precision


def chosen(options: argparse.Namespace, scratch: Path) -> Choice:
    """Return what the options leave of all networks and targets."""
    models = sorted(json.loads(tcc("zoo", "--json"))["models"], key=lambda each: each["macs"])
    networks = picked([each["name"] for each in models], options.networks)
    every = {each["name"]: each for each in json.loads(tcc("targets", "--json"))["targets"]}
    able = [name for name, each in every.items() if each["builds"]]
    targets = picked(able, options.targets)
    precisions = {name: tuple(every[name]["precisions"]) for name in targets}
    until = monotonic() + options.minutes * 60
    return Choice(networks, precisions, scratch, until)


def picked(known: Sequence[str], words: str | None) -> tuple[str, ...]:
    """Return the known names that are among the words, or all."""
    if words is None:
        return tuple(known)
    names = words.split(",")
    if unknown := sorted(set(names) - set(known)):
        sys.exit(f"not known: {', '.join(unknown)}; known: {', '.join(known)}")
    return tuple(name for name in known if name in names)


def build(network: str, choice: Choice, digests: Digests) -> Iterator[str]:
    """Build a network for everything chosen; yield what failed or was left."""
    with tempfile.TemporaryDirectory(dir=choice.scratch) as name:
        calibrating = Calibrating(network, Path(name) / f"{network}.calibration.json")
        for precision, targets in choice.builds().items():
            lacking = [t for t in targets if not digests.holds(f"{network}-{t}-{precision}")]
            if not lacking:
                continue
            said = f"{network} {','.join(lacking)} {precision}"
            if monotonic() > choice.until:
                yield f"no time left for {said}"
                continue
            started = monotonic()
            folder = Path(name) / precision
            try:
                command = ["build", network, "--seed=0", "--precision", precision]
                command += ["--target", ",".join(lacking), "--quiet"]
                if RUNNABLE.intersection(lacking):  # elsewhere nothing is replayed
                    command += ["--no-replay"]
                if precision.startswith("int"):
                    command += ["--calibration", calibrating.file(digests), *NO_FLOOR]
                if not RUNNABLE.issuperset(lacking):  # packages of NPUs hold images
                    command += ["--data", SAMPLES]
                tcc(*command, "--output", str(folder))
            except BuildError as why:
                yield str(why)
                continue
            digests.add(folder)
            discard(folder)
            print(f"{said}: {monotonic() - started:.0f} s", flush=True)


def discard(folder: Path) -> None:
    """Remove the files of a folder: those of all builds together are some GB."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()


@dataclass
class Calibrating:
    """One calibration, which all integer builds of a network take."""

    network: str
    path: Path

    def file(self, digests: Digests) -> str:
        """Return the calibration file; write it first where it is not there yet."""
        if not self.path.exists():
            folder = self.path.with_suffix("")
            samples = ["--images", str(IMAGES), "--data", SAMPLES]
            written = folder / self.path.name
            words = ["--seed=0", "--target=onnxruntime", "--quiet", "--output", str(written)]
            tcc("calibrate", self.network, *samples, *words)
            digests.add(folder)
            written.rename(self.path)
        return str(self.path)


def collect(options: argparse.Namespace) -> int:
    """Write digests into the file; return the exit code."""
    digests = Digests(options.files[0])
    if digests.path.exists():
        digests.found = json.loads(digests.path.read_text())
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(options.jobs) as pool:
        choice = chosen(options, Path(scratch))
        runs = pool.map(lambda name: list(build(name, choice, digests)), choice.networks)
        wrong = [line for lines in runs for line in lines]
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{len(digests.found)} files, {len(wrong)} builds failed or left")
    return int(bool(wrong))


def compare(before: Path, after: Path) -> int:
    """Print what differs between two files of digests; return the exit code."""
    old, new = (json.loads(path.read_text()) for path in (before, after))
    same = [name for name in old.keys() & new.keys() if old[name] == new[name]]
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            print(f"only in {before}: {name}")
        elif name not in old:
            print(f"only in {after}: {name}")
        elif old[name] != new[name]:
            print(f"differs: {name}")
    different = len(old.keys() | new.keys()) - len(same)
    print(f"{len(same)} files are the same, {different} are not")
    return int(different > 0 or not same)


def main() -> int:
    """Collect or compare, as the command line asks."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("files", nargs="+", type=Path, metavar="FILE", help="digests, as JSON")
    words.add_argument("--compare", action="store_true", help="compare two files")
    words.add_argument("--networks", metavar="N[,N...]", help="of `tcc zoo`; all")
    words.add_argument("--targets", metavar="T[,T...]", help="of `tcc targets`; all that build")
    words.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="networks at a time")
    words.add_argument("--minutes", type=float, default=120, help="start no build after so many")
    options = words.parse_args()
    if len(options.files) != 1 + options.compare:
        words.error("give one file to write, or --compare and two")
    return compare(*options.files) if options.compare else collect(options)


if __name__ == "__main__":
    sys.exit(main())
