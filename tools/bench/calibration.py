"""Calibrate networks by every method and peer, and measure the accuracy drop on unseen images.

    python tools/bench/calibration.py run [--folder build/calibration] [--draws 10] [--images 64]
                                          [--network NAME ...] [--only METHOD ...]
    python tools/bench/calibration.py cost [--folder ...] [--images N] [--draws 3] [--network NAME]
    python tools/bench/calibration.py report [--folder ...] [--docs]

`calibration_cases.toml` lists networks and image sets. Each draw takes random calibration images of
a network's first set. All its other images and those of the other sets evaluate the int8 model
against the float model's outputs. Each method runs in its own process, one at a time, from its
imports to the file that it writes. `cpu_s` is the CPU time of that process, `peak_mb` its peak
memory. Results are cached in the folder and measured again only if the method's code changes. The
peers get the fp32 file that tcc builds, and are installed in their own environments in the folder.
`calibration_costs.toml` has enough different images for `cost --images 512`.

`cost` runs each method and ONNX Runtime's MinMax alternately. `report` prints JSON; with `--docs`
it writes its tables to docs/measuring.md.
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
MethodOrPeer = Method | CalibrationPeer
Record = dict[str, Any]


def main() -> None:
    """Measure, or print the earlier results."""
    options = _parse_arguments()
    if options.what == "report":
        report = calibration_report.read_report(options.folder)
        if options.docs:
            calibration_report.write_tables(ROOT / "docs/measuring.md", report)
        print(json.dumps(report, indent=1))
        return
    bench = Bench(options.folder, options.cases, options.images)
    networks = [
        candidate
        for candidate in bench.networks
        if not options.network or candidate.name in options.network
    ]
    if options.what == "cost":
        bench.measure_costs(networks, _select_methods(options.only), options.draws)
        return
    # Loop over draws first: an interrupted run has measured all networks and methods equally often.
    for number in range(options.draws):
        for network in networks:
            for method in _select_methods(options.only):
                bench.measure_cell(network, method, number)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("run", "cost", "report"))
    parser.add_argument("--folder", type=Path, default=ROOT / "build/calibration")
    parser.add_argument(
        "--cases", type=Path, default=Path(__file__).with_name("calibration_cases.toml")
    )
    parser.add_argument(
        "--network", action="append", help="a network of the cases; can be repeated"
    )
    parser.add_argument("--only", action="append", help="a method or peer; can be repeated")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--docs", action="store_true")
    return parser.parse_args()


def _select_methods(only: Sequence[str] | None) -> list[MethodOrPeer]:
    methods: list[MethodOrPeer] = [*METHODS, *peers.PEERS]
    unknown = set(only or ()) - {method.name for method in methods}
    if unknown:
        raise SystemExit(
            f"unknown methods: {', '.join(sorted(unknown))}; the methods are "
            f"{', '.join(method.name for method in methods)}"
        )
    return [method for method in methods if not only or method.name in only]


@dataclass(frozen=True)
class Bench:
    """A folder of measurements, with `images` calibration images in each draw."""

    folder: Path
    cases: Path
    images: int

    @cached_property
    def networks(self) -> Sequence[BenchNetwork]:
        """The networks with weights in this checkout or folder."""
        return tuple(calibration_sets.read_networks(self.cases, self.folder / "weights"))

    def measure_cell(self, network: BenchNetwork, method: MethodOrPeer, number: int) -> None:
        """Measure a method on a draw, unless the result is cached."""
        path = self.folder / "results" / network.name / method.name / f"{self.images}-{number}.json"
        key = self._compute_key(network, method)
        if path.exists() and json.loads(path.read_text())["key"] == key:
            return
        output_file = self.folder / f"result{_get_suffix(method)}"
        sets = _prepare_sets(network, self.folder)
        fit_indices = self._draw(network, number)
        cost = self._run(network, method, number, output_file)
        record: Record = {"key": key, "chosen": network.is_chosen, **cost}
        if not cost["status"]:
            try:
                set_quality = {
                    s.name: calibration_judge.evaluate_set(network, output_file, s, fit_indices)
                    for s in sets
                }
            except calibration_judge.UnrunnableFileError as error:
                record["failed"] = str(error)
            else:
                set_records = {
                    name: calibration_judge.to_record(quality)
                    for name, quality in set_quality.items()
                }
                record |= {
                    "sets": set_records,
                    "stated": calibration_judge.read_loss_interval(network, output_file),
                }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1))
        print(network.name, method.name, number, json.dumps(record), flush=True)

    def measure_costs(
        self, networks: Sequence[BenchNetwork], methods: Sequence[MethodOrPeer], runs: int
    ) -> None:
        """Measure only costs, alternating with the base peer."""
        for network in networks:
            for method in methods:
                path = self.folder / "costs" / network.name / f"{method.name}-{self.images}.json"
                pairs = []
                for number in range(runs):
                    base = self._run(network, peers.BASE, number, self.folder / "base.onnx")
                    method_cost = self._run(
                        network, method, number, self.folder / f"own{_get_suffix(method)}"
                    )
                    pairs.append({"own": method_cost, "base": base})
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(pairs, indent=1))
                print(
                    network.name, method.name, json.dumps(calibration_report.summarize_costs(pairs))
                )

    def _compute_key(self, network: BenchNetwork, method: MethodOrPeer) -> str:
        method_key = method.key if isinstance(method, CalibrationPeer) else _hash_methods()
        return hashlib.sha256(f"{network.key} {method_key}".encode()).hexdigest()

    def _draw(self, network: BenchNetwork, number: int) -> list[int]:
        count = len(_prepare_sets(network, self.folder)[0].images)
        return calibration_sets.draw(network, count, self.images, number)

    def _run(
        self, network: BenchNetwork, method: MethodOrPeer, number: int, output_file: Path
    ) -> Record:
        """Return the cost of a method's process, and the reason if it failed."""
        levels, fit_indices = (
            _prepare_sets(network, self.folder)[0].images,
            self._draw(network, number),
        )
        name = f"draws/{network.name}-{network.key[:12]}/{self.images}-{number}"
        images = calibration_sets.write_images(levels, fit_indices, self.folder / name)
        if isinstance(method, CalibrationPeer):
            command = self._make_peer_command(network, method, images, output_file)
        else:
            command = _make_tcc_command(network, method, images, output_file)
        process = subprocess.run(
            [*MEASURED, *command],
            check=True,
            capture_output=True,
            text=True,
            env=_prepare_environment(),
        )
        cost: Record = json.loads(process.stdout)
        if cost["status"]:
            cost["failed"] = (process.stderr.strip().splitlines() or ["no error message"])[-1][:200]
        return cost

    def _make_peer_command(
        self, network: BenchNetwork, peer: CalibrationPeer, images: Path, output_file: Path
    ) -> list[str]:
        model = self.folder / f"models/{network.name}-{network.key[:12]}{peer.suffix}"
        if not model.exists():
            model.parent.mkdir(parents=True, exist_ok=True)
            model.write_bytes(_make_float_model(network, peer.suffix))
        contract = network.contract
        divisor = {"divisor": 255} if strip_normalization(contract) else {}
        name = network.source.name
        input_contract = json.dumps(
            {"name": name, **divisor, "mean": contract.mean, "std": contract.std}
        )
        python = peer.prepare_python(self.folder / "environments")
        program = peers.GUESTS / peer.program
        return [
            *map(str, (python, program, model, images)),
            input_contract,
            str(output_file),
            *peer.arguments,
        ]


@cache
def _prepare_sets(network: BenchNetwork, folder: Path) -> list[BenchSet]:
    return calibration_sets.prepare_sets(network, folder / "sets")


@cache
def _prepare_environment() -> Mapping[str, str]:
    """Return the environment of measured processes; compile the Python files, as pip does."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    folders = (str(ROOT / "src/tcc" / package) for package in ("compiler", "backends"))
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", *folders], check=True, env=environment
    )
    return environment


@cache
def _hash_methods() -> str:
    """Return a hash of the code of tcc's methods."""
    files = sorted((ROOT / "compiler/quant").rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _get_suffix(method: MethodOrPeer) -> str:
    return method.suffix if isinstance(method, CalibrationPeer) else ".json"


def _make_tcc_command(
    network: BenchNetwork, method: Method, images: Path, output_file: Path
) -> list[str]:
    settings = [
        option for setting in network.settings.items() for option in ("--set", "=".join(setting))
    ]
    program = (sys.executable, "-c", "from tcc.compiler.cli import main; main()")
    files = ("--weights", network.weights, "--data", images, "--output", output_file)
    arguments = ("calibrate", network.spec.name, *settings, "--method", method.name, *files)
    return [*program, *map(str, arguments), "--quiet"]


def _make_float_model(network: BenchNetwork, suffix: str) -> bytes:
    """Return the fp32 file that tcc builds, with one input and no constant border."""
    if suffix == ".onnx":
        onnx_bytes: bytes = lower(pipeline.fuse_model(network.model)).SerializeToString()
        return onnx_bytes
    # The peer sets no scale for constants that are concatenated to a map, so omit the border.
    float_passes = [graph_pass for graph_pass in passes.INT8 if graph_pass.name != "raw_input"]
    lite = writer.pack(description.describe_floats(passes.run(network.model, float_passes)))
    return calibration_sets.name_tensors(lite)


if __name__ == "__main__":
    main()
