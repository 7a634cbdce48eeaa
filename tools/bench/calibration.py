"""Calibrate networks by every method and every peer, and judge what they lose on unseen images.

    python tools/bench/calibration.py run [--folder build/calibration] [--draws 10] [--images 64]
                                          [--network NAME ...] [--only METHOD ...]
    python tools/bench/calibration.py cost [--folder ...] [--images N] [--draws 3] [--network NAME]
    python tools/bench/calibration.py report [--folder ...] [--docs]

`calibration_cases.toml` lists networks and sets. Each draw takes images of a network's first set at
random; all others of it judge, and those of other sets, against the float model's outputs. Each
method runs as a process of its own, one at a time, from its imports to the file that it writes:
`cpu_s` is all its processor time, `peak_mb` its peak memory. What is measured is kept below the
folder and not measured again, unless the method's code is another one. The peers are given the
fp32 file that tcc builds, and are set up below the folder in environments of their own.
`calibration_costs.toml` has enough different images for `cost --images 512`.

`cost` takes turns: each method and ONNX Runtime's MinMax run one after the other. `report` prints
JSON; with `--docs` it writes its table into docs/measuring.md.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import calibration_judge
import calibration_report
import calibration_sets
import peers
from calibration_sets import BenchNetwork, BenchSet
from peers import CalibrationPeer

from tcc.backends.tflite import description, writer
from tcc.compiler import passes
from tcc.compiler.driver import pipeline
from tcc.compiler.ir.preprocess import strip_normalization
from tcc.compiler.lower.onnx import lower
from tcc.compiler.quant.methods import METHODS
from tcc.compiler.quant.methods.method import Method

ROOT = Path(__file__).resolve().parents[2]
MEASURED = (sys.executable, "-S", "-E", str(peers.GUESTS / "measured_process.py"))
Means = Method | CalibrationPeer
Record = dict[str, Any]


def main() -> None:
    """Measure, or print what was measured."""
    given = _arguments()
    if given.what == "report":
        found = calibration_report.read(given.folder)
        if given.docs:
            calibration_report.write(ROOT / "docs/measuring.md", found)
        print(json.dumps(found, indent=1))
        return
    bench = Bench(given.folder, given.cases, given.images)
    named = [one for one in bench.networks if not given.network or one.name in given.network]
    if given.what == "cost":
        bench.costs(named, _wanted(given.only), given.draws)
        return
    # Draws first: what was stopped has measured every network and method equally often.
    for number in range(given.draws):
        for network in named:
            for means in _wanted(given.only):
                bench.cell(network, means, number)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("run", "cost", "report"))
    parser.add_argument("--folder", type=Path, default=ROOT / "build/calibration")
    parser.add_argument(
        "--cases", type=Path, default=Path(__file__).with_name("calibration_cases.toml")
    )
    parser.add_argument("--network", action="append", help="one of the cases; may be repeated")
    parser.add_argument("--only", action="append", help="a method or peer; may be repeated")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--docs", action="store_true")
    return parser.parse_args()


def _wanted(only: Sequence[str] | None) -> list[Means]:
    every: list[Means] = [*METHODS, *peers.PEERS]
    unknown = set(only or ()) - {one.name for one in every}
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}")
    return [one for one in every if not only or one.name in only]


@dataclass(frozen=True)
class Bench:
    """A folder of measurements: `images` are drawn for each."""

    folder: Path
    cases: Path
    images: int

    @cached_property
    def networks(self) -> Sequence[BenchNetwork]:
        """The networks whose weights are here."""
        return tuple(calibration_sets.networks(self.cases, self.folder / "weights"))

    def cell(self, network: BenchNetwork, means: Means, number: int) -> None:
        """Measure what a method makes of a draw, unless that is known."""
        path = self.folder / "results" / network.name / means.name / f"{self.images}-{number}.json"
        key = self._key(network, means)
        if path.exists() and json.loads(path.read_text())["key"] == key:
            return
        result = self.folder / f"result{_suffix(means)}"
        sets = _sets(network, self.folder)
        drawn = self._draw(network, number)
        cost = self._run(network, means, number, result)
        record: Record = {"key": key, "chosen": network.chosen, **cost}
        if not cost["status"]:
            try:
                found = {s.name: calibration_judge.judged(network, result, s, drawn) for s in sets}
            except calibration_judge.UnrunnableFileError as error:
                record["failed"] = str(error)
            else:
                judged = {name: calibration_judge.record(one) for name, one in found.items()}
                record |= {"sets": judged, "stated": calibration_judge.stated(network, result)}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1))
        print(network.name, means.name, number, json.dumps(record), flush=True)

    def costs(self, networks: Sequence[BenchNetwork], wanted: Sequence[Means], runs: int) -> None:
        """Measure costs alone, in turns with the peer that they are compared with."""
        for network in networks:
            for means in wanted:
                path = self.folder / "costs" / network.name / f"{means.name}-{self.images}.json"
                pairs = []
                for number in range(runs):
                    base = self._run(network, peers.BASE, number, self.folder / "base.onnx")
                    own = self._run(network, means, number, self.folder / f"own{_suffix(means)}")
                    pairs.append({"own": own, "base": base})
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(pairs, indent=1))
                print(network.name, means.name, json.dumps(calibration_report.cost(pairs)))

    def _key(self, network: BenchNetwork, means: Means) -> str:
        own = means.key if isinstance(means, CalibrationPeer) else _code()
        return hashlib.sha256(f"{network.key} {own}".encode()).hexdigest()

    def _draw(self, network: BenchNetwork, number: int) -> list[int]:
        count = len(_sets(network, self.folder)[0].levels)
        return calibration_sets.draw(network, count, self.images, number)

    def _run(self, network: BenchNetwork, means: Means, number: int, result: Path) -> Record:
        """Return the cost of a method's process, and why it failed if it did."""
        levels, drawn = _sets(network, self.folder)[0].levels, self._draw(network, number)
        name = f"draws/{network.name}-{network.key[:12]}/{self.images}-{number}"
        images = calibration_sets.written(levels, drawn, self.folder / name)
        if isinstance(means, CalibrationPeer):
            words = self._peer(network, means, images, result)
        else:
            words = _ours(network, means, images, result)
        done = subprocess.run(
            [*MEASURED, *words], check=True, capture_output=True, text=True, env=_environment()
        )
        cost: Record = json.loads(done.stdout)
        if cost["status"]:
            cost["failed"] = (done.stderr.strip().splitlines() or ["it says nothing"])[-1][:200]
        return cost

    def _peer(
        self, network: BenchNetwork, peer: CalibrationPeer, images: Path, result: Path
    ) -> list[str]:
        model = self.folder / f"models/{network.name}-{network.key[:12]}{peer.suffix}"
        if not model.exists():
            model.parent.mkdir(parents=True, exist_ok=True)
            model.write_bytes(_floats(network, peer.suffix))
        contract = network.contract
        divisor = {"divisor": 255} if strip_normalization(contract) else {}
        name = network.source.name
        given = json.dumps({"name": name, **divisor, "mean": contract.mean, "std": contract.std})
        python = peer.python(self.folder / "environments")
        program = peers.GUESTS / peer.program
        return [*map(str, (python, program, model, images)), given, str(result), *peer.words]


@cache
def _sets(network: BenchNetwork, folder: Path) -> list[BenchSet]:
    return calibration_sets.ready(network, folder / "sets")


@cache
def _environment() -> Mapping[str, str]:
    """Return the variables of measured processes, whose Python files are compiled, as pip does."""
    found = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    folders = (str(ROOT / "src/tcc" / each) for each in ("compiler", "backends"))
    subprocess.run([sys.executable, "-m", "compileall", "-q", *folders], check=True, env=found)
    return found


@cache
def _code() -> str:
    """Return what changes where our methods do."""
    files = sorted((ROOT / "compiler/quant").rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _suffix(means: Means) -> str:
    return means.suffix if isinstance(means, CalibrationPeer) else ".json"


def _ours(network: BenchNetwork, method: Method, images: Path, result: Path) -> list[str]:
    settings = [word for item in network.settings.items() for word in ("--set", "=".join(item))]
    program = (sys.executable, "-c", "from tcc.compiler.cli import main; main()")
    files = ("--weights", network.weights, "--data", images, "--output", result)
    words = ("calibrate", network.spec.name, *settings, "--method", method.name, *files)
    return [*program, *map(str, words), "--quiet"]


def _floats(network: BenchNetwork, suffix: str) -> bytes:
    """Return the fp32 file that tcc builds, of one input without a border of constants."""
    if suffix == ".onnx":
        data: bytes = lower(pipeline.fuse_model(network.model)).SerializeToString()
        return data
    # The peer gives constants that are joined to a map no scale, so its input has no border.
    plain = [one for one in passes.INT8 if one.name != "raw_input"]
    lite = writer.pack(description.describe_floats(passes.run(network.model, plain)))
    return calibration_sets.named(lite)


if __name__ == "__main__":
    main()
