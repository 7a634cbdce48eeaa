"""Compare tcc with ncnn and TFLite on ARM, in instructions and modelled cycles.

    python tools/bench/arm.py table [--target arm-a7] [--spec ddsnet] [--images DIR] [--docs]
    python tools/bench/arm.py validate PARAMS [--folder build/arm-peers]

`table` builds bundles with random weights and runs all programs in qemu on one thread. It counts
one run from the image's pixels to the probabilities, with all copies. ncnn gets the graph after
tcc's passes, so both run the same network. On 64-bit processors (`--target arm-a53` and others),
only instructions are counted. `--docs` writes the counts to docs/measuring.md; the rows of other
targets, networks and peers do not change. `validate` compares the cycle model with ncnn's published
times; PARAMS is the folder `benchmark` of ncnn's repository. On first use, the peers are downloaded
to the folder from PyPI and Debian. docs/measuring.md explains how accurate the numbers are.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ncnn_file
import numpy as np
from arm_peers import BY_NAME, CountedRun, Peers
from arm_published import validate

from tcc.backends.arm.backend import Arm
from tcc.backends.arm.machine import Machine
from tcc.compiler import passes
from tcc.compiler.bundle.benchmark import MIN_COST_DIFFERENCE
from tcc.compiler.driver import pipeline
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.ir.measurement import RunCost, Workload
from tcc.compiler.support.diagnostics import make_file_span
from tcc.compiler.zoo import shipped

GUESTS = Path(__file__).parent / "arm_guests"
NETWORKS = ("ddsnet", "fastnet", "squeezenet", "resnet18", "mobilenet_v2", "shufflenet_v2")
PEERS = ("ncnn", "tflite")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "measuring.md"
TABLES = {
    True: ("32-bit ARM", "M instructions / M modelled cycles", ("tcc", "ncnn", "TFLite")),
    False: ("64-bit ARM", "M instructions", ("tcc", "ncnn")),
}
"""The page's tables with and without modelled cycles: marker, unit and columns."""
MAX_OUTPUT_ERROR = 1e-3
"""The largest difference of tcc's and ncnn's outputs, relative to the largest output."""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("table")
    table.add_argument("--spec", nargs="+", default=NETWORKS)
    table.add_argument("--target", choices=sorted(BY_NAME.keys() - {"host"}), default="arm-a7")
    table.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, help="all")
    table.add_argument("--images", type=Path, default=Path("zoo/samples"))
    table.add_argument("--docs", action="store_true", help="write the counts to docs/measuring.md")
    published = commands.add_parser("validate")
    published.add_argument("params", type=Path)
    for subparser in (table, published):
        subparser.add_argument(
            "--folder",
            type=Path,
            help="folder of the peers; default: build/arm-peers or build/aarch64-peers",
        )
    options = parser.parse_args()
    machine = BY_NAME["arm-a7" if options.command == "validate" else options.target]
    peers = Peers((options.folder or Path(f"build/{machine.arch}-peers")).resolve(), machine)
    peers.set_up()
    if options.command == "validate":
        validate(peers, options.params)
        return
    counts = _count_networks(peers, options.spec, options.images, options.peers)
    if options.docs:
        write(machine, counts)


CountsByNetwork = dict[str, dict[str, CountedRun]]
"""The counts by network and by program, such as `tcc fp32`."""


def write(machine: Machine, counts: CountsByNetwork) -> None:
    """Write the counts to the page's table for such processors; other rows do not change."""
    mark, unit, runtimes = TABLES[machine.has_cycle_model]
    head = [f"| {unit}, all counted | target | {' | '.join(runtimes)} | tcc / ncnn |"]
    head.append("|---" * (len(runtimes) + 3) + "|")
    begin, end = f"<!-- {mark}: measured -->", f"<!-- {mark}: end -->"
    above, _, text_behind = PAGE.read_text("utf-8").partition(begin)
    old_table, _, below = text_behind.partition(end)
    lines = [line for line in old_table.splitlines() if line.startswith("|")][len(head) :]
    split_rows = [line.strip("| ").split(" | ") for line in lines]
    rows = {(name, target): cells[: len(runtimes)] for name, target, *cells in split_rows}
    for spec, runs in counts.items():
        for form in ("fp32", "int8"):
            key = (f"{Path(spec).stem}, {form}", machine.target.name)
            old_cells = rows.get(key, ["-"] * len(runtimes))
            counted = [runs.get(f"{runtime} {form}") for runtime in runtimes]
            rows[key] = [
                cell if run is None else _format_cell(run)
                for run, cell in zip(counted, old_cells, strict=True)
            ]
    table = [
        f"| {' | '.join((*key, *rows[key], _compute_ncnn_ratio(rows[key])))} |"
        for key in sorted(rows)
    ]
    text = "\n".join([*head, *table])
    PAGE.write_text(f"{above}{begin}\n\n{text}\n\n{end}{below}", "utf-8")


def _format_cell(run: CountedRun) -> str:
    instructions, modelled = (cost / 1e6 for cost in run.total)
    return f"{instructions:.1f} / {modelled:.1f}" if modelled else f"{instructions:.1f}"


def _compute_ncnn_ratio(cells: Sequence[str]) -> str:
    """Return tcc's cost relative to ncnn's: in cycles if they are modelled, or in instructions."""
    if "-" in cells[:2]:
        return "-"
    tcc_cost, ncnn_cost = (float(cell.split(" / ")[-1]) for cell in cells[:2])
    return f"{tcc_cost / ncnn_cost:.2f}"


def _count_networks(
    peers: Peers, specs: Sequence[str], images: Path, peer_names: Sequence[str]
) -> CountsByNetwork:
    counts: CountsByNetwork = {}
    heading = "M instructions" + " / M modelled cycles" * peers.machine.has_cycle_model
    print(f"{heading}: network only; with preprocessing and postprocessing")
    for spec in specs:
        print(f"\n{spec}", flush=True)
        tcc_runs: dict[str, CountedRun] = {}
        for name, run in BenchedNetwork(peers, spec, images, peer_names).count_runs():
            tcc_run = tcc_runs.setdefault(name.split()[-1], run)  # the tcc run comes first
            counts.setdefault(spec, {})[name] = run
            figures = (
                f"{_format_cost(run.network)}  {_format_cost(run.total)}  "
                f"{_format_ratio(tcc_run, run)}"
            )
            print(f"  {name:12} {figures}", flush=True)
    return counts


def _format_cost(cost: tuple[int, int]) -> str:
    instructions, modelled = cost
    return f"{instructions / 1e6:8.1f}" + (f" /{modelled / 1e6:8.1f}" if modelled else "")


def _format_ratio(tcc_run: CountedRun, run: CountedRun) -> str:
    # Compare cycles if they are modelled, otherwise instructions.
    tcc_cost, peer_cost = (cost[1] or cost[0] for cost in (tcc_run.total, run.total))
    ratio = tcc_cost / peer_cost
    is_undecided = 1 - MIN_COST_DIFFERENCE < ratio < 1 / (1 - MIN_COST_DIFFERENCE)
    return f"tcc / this {ratio:.2f}{' (undecided)' if is_undecided and tcc_run != run else ''}"


@dataclass(frozen=True)
class BenchedNetwork:
    """A network with random weights, built in each runtime's own format."""

    peers: Peers
    spec: str
    images: Path
    peer_names: Sequence[str]

    def count_runs(self) -> Iterator[tuple[str, CountedRun]]:
        """Yield the cost of each program: in each form, tcc's first and then the peers'."""
        graph = load(shipped.find_spec(self.spec, make_file_span(self.spec)), {}).graph
        model = passes.run(
            Model(graph, pipeline.create_random_weights(graph).tensors), passes.INFERENCE
        )
        (source,) = graph.inputs
        height, width = source.type.shape[1:]
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        pixels_file = self.peers.folder / "pixels"
        pixels_file.write_bytes(pixels.tobytes())
        image_arguments = [width, height, pixels_file]
        for form in ("fp32", "int8"):
            tcc_run, outputs = self._count_tcc(form, source, pixels)
            yield f"tcc {form}", tcc_run
            if "ncnn" in self.peer_names:
                yield f"ncnn {form}", self._count_ncnn(form, model, image_arguments, outputs)
            if "tflite" in self.peer_names:
                file = self._build_bundle("tflite", form) / "model/model.tflite"
                run, _ = self.peers.count(
                    GUESTS / "tflite_guest.py", file, *image_arguments, *_format_statistics(source)
                )
                yield f"TFLite {form}", run

    def _count_ncnn(
        self, form: str, model: Model, image_arguments: Sequence[object], tcc_outputs: "np.ndarray"
    ) -> CountedRun:
        param = self.peers.folder / f"{Path(self.spec).stem}-{form}.param"
        text, weight_bytes = ncnn_file.write_files(model, integers=form == "int8")
        param.write_text(text)
        param.with_suffix(".bin").write_bytes(weight_bytes)
        (source,) = model.graph.inputs
        run, printed = self.peers.count(
            GUESTS / "ncnn_guest.py", param, param.with_suffix(".bin"), *image_arguments, "fp32",
            *_format_statistics(source),
        )  # fmt: skip
        if form == "fp32":
            _check_outputs(tcc_outputs, printed)
        return run

    def _build_bundle(self, target: str, form: str) -> Path:
        """Return a bundle; tcc's own is always rebuilt, because its kernels may have changed."""
        folder = self.peers.folder / "bundles"
        bundle = folder / f"{Path(self.spec).stem}-{target}-{form}"
        if target == self.peers.machine.target.name:
            shutil.rmtree(bundle, ignore_errors=True)
        if not bundle.exists():
            arguments = ["build", self.spec, "--target", target, "--precision", form, "--seed", "0"]
            options = ["--no-replay", "-q", "--output", str(folder)]
            if form == "int8":
                options += ["--data", str(self.images), "--method", "minmax"]
                options += ["--floor", "min_cosine=0", "--floor", "min_correlation=0"]
            program = "import sys; from tcc.compiler.cli import main; sys.exit(main())"
            subprocess.run([sys.executable, "-c", program, *arguments, *options], check=True)
        return bundle

    def _count_tcc(
        self, form: str, source: Input, pixels: "np.ndarray"
    ) -> tuple[CountedRun, "np.ndarray"]:
        folder = self._build_bundle(self.peers.machine.target.name, form) / "model"
        tensor = np.zeros(source.type.shape, np.float32)
        target = self.peers.machine.target
        measurement = Arm().measure(target, folder, source, Workload(pixels, tensor, 1))
        assert measurement.preprocess
        counted_run = CountedRun(
            _get_counts(measurement.preprocess), _get_counts(measurement.network), (0, 0)
        )
        (outputs,) = Arm().run(target, folder, [pixels])
        return counted_run, next(iter(outputs.values())).reshape(-1)


def _get_counts(cost: RunCost) -> tuple[int, int]:
    return cost.instructions or 0, cost.cycles or 0


def _format_statistics(source: Input) -> list[str]:
    """Return mean and deviation for pixels up to 255; none if an image's own maximum scales it."""
    contract = source.preprocess
    if contract is None or contract.scale == "max":
        return []
    mean_and_std = (contract.mean, contract.std)
    by_channel = (numbers * 3 if len(numbers) == 1 else numbers for numbers in mean_and_std)
    return [",".join(str(255 * number) for number in numbers) for numbers in by_channel]


def _check_outputs(tcc_outputs: "np.ndarray", printed: str) -> None:
    ncnn_outputs = np.array([float(number) for number in printed.split()[1:]])
    difference = (
        np.abs(tcc_outputs[: len(ncnn_outputs)] - ncnn_outputs).max() / np.abs(tcc_outputs).max()
    )
    if not difference < MAX_OUTPUT_ERROR:
        raise SystemExit(
            f"ncnn's outputs differ from tcc's: {json.dumps(printed)}, expected {tcc_outputs[:8]}"
        )


if __name__ == "__main__":
    main()
