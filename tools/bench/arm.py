"""DDSNet and others on ARM: tcc beside ncnn and TFLite, instructions and modelled cycles.

    python tools/bench/arm.py table [--target arm-a7] [--spec ddsnet] [--images DIR] [--docs]
    python tools/bench/arm.py validate PARAMS [--folder build/arm-peers]

`table` builds bundles with random weights, runs everything in qemu on one thread, and counts one
run from the image's pixels to probabilities, copies and all; ncnn has the very graph that our
kernels have, after our passes. Of 64-bit processors, `--target arm-a53` and others, instructions
alone are counted. `--docs` writes what was counted into docs/measuring.md, where other targets,
networks and peers stay. `validate` compares the cycle model with ncnn's published times; PARAMS is
the folder `benchmark` of ncnn's repository. What is needed is fetched at first use, from PyPI and
Debian, into the folder; docs/measuring.md says what the numbers are worth.
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
"""The page's tables of processors with modelled cycles, and without: what is in which columns."""
AGREES = 1e-3
"""How far outputs of ours and of ncnn may be apart, of their largest, to be of one network."""


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("table")
    table.add_argument("--spec", nargs="+", default=NETWORKS)
    table.add_argument("--target", choices=sorted(BY_NAME.keys() - {"host"}), default="arm-a7")
    table.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, help="all")
    table.add_argument("--images", type=Path, default=Path("zoo/samples"))
    table.add_argument("--docs", action="store_true", help="write what was counted")
    published = commands.add_parser("validate")
    published.add_argument("params", type=Path)
    for each in (table, published):
        each.add_argument("--folder", type=Path, help="build/arm-peers, or build/aarch64-peers")
    given = parser.parse_args()
    machine = BY_NAME["arm-a7" if given.command == "validate" else given.target]
    peers = Peers((given.folder or Path(f"build/{machine.arch}-peers")).resolve(), machine)
    peers.set_up()
    if given.command == "validate":
        validate(peers, given.params)
        return
    found = _table(peers, given.spec, given.images, given.peers)
    if given.docs:
        write(machine, found)


Found = dict[str, dict[str, CountedRun]]
"""What was counted, by network and by what was run: `tcc fp32`."""


def write(machine: Machine, found: Found) -> None:
    """Put what was counted into the page's table of such processors; all else stays there."""
    mark, what, who = TABLES[machine.has_cycle_model]
    head = [f"| {what}, all counted | target | {' | '.join(who)} | tcc / ncnn |"]
    head.append("|---" * (len(who) + 3) + "|")
    begin, end = f"<!-- {mark}: measured -->", f"<!-- {mark}: end -->"
    above, _, rest = PAGE.read_text("utf-8").partition(begin)
    before, _, below = rest.partition(end)
    lines = [line for line in before.splitlines() if line.startswith("|")][len(head) :]
    parted = [line.strip("| ").split(" | ") for line in lines]
    rows = {(name, target): cells[: len(who)] for name, target, *cells in parted}
    for spec, runs in found.items():
        for form in ("fp32", "int8"):
            key = (f"{Path(spec).stem}, {form}", machine.target.name)
            was = rows.get(key, ["-"] * len(who))
            counted = [runs.get(f"{each} {form}") for each in who]
            rows[key] = [
                cell if run is None else _cell(run) for run, cell in zip(counted, was, strict=True)
            ]
    table = [f"| {' | '.join((*key, *rows[key], _of_ncnn(rows[key])))} |" for key in sorted(rows)]
    text = "\n".join([*head, *table])
    PAGE.write_text(f"{above}{begin}\n\n{text}\n\n{end}{below}", "utf-8")


def _cell(run: CountedRun) -> str:
    instructions, modelled = (cost / 1e6 for cost in run.total)
    return f"{instructions:.1f} / {modelled:.1f}" if modelled else f"{instructions:.1f}"


def _of_ncnn(cells: Sequence[str]) -> str:
    """Return what ours takes of what ncnn does, in cycles where they are modelled."""
    if "-" in cells[:2]:
        return "-"
    ours, theirs = (float(cell.split(" / ")[-1]) for cell in cells[:2])
    return f"{ours / theirs:.2f}"


def _table(peers: Peers, specs: Sequence[str], images: Path, beside: Sequence[str]) -> Found:
    found: Found = {}
    counted = "M instructions" + " / M modelled cycles" * peers.machine.has_cycle_model
    print(f"{counted}: network alone; with what comes before and after")
    for spec in specs:
        print(f"\n{spec}", flush=True)
        ours: dict[str, CountedRun] = {}
        for name, run in BenchedNetwork(peers, spec, images, beside).counted():
            own = ours.setdefault(name.split()[-1], run)  # it comes first
            found.setdefault(spec, {})[name] = run
            shown = f"{_shown(run.network)}  {_shown(run.total)}  {_ratio(own, run)}"
            print(f"  {name:12} {shown}", flush=True)
    return found


def _shown(cost: tuple[int, int]) -> str:
    instructions, modelled = cost
    return f"{instructions / 1e6:8.1f}" + (f" /{modelled / 1e6:8.1f}" if modelled else "")


def _ratio(ours: CountedRun, run: CountedRun) -> str:
    # Cycles where they are modelled, else instructions.
    own, others = (cost[1] or cost[0] for cost in (ours.total, run.total))
    ratio = own / others
    near = 1 - MIN_COST_DIFFERENCE < ratio < 1 / (1 - MIN_COST_DIFFERENCE)
    return f"ours / this {ratio:.2f}{' (undecided)' if near and ours != run else ''}"


@dataclass(frozen=True)
class BenchedNetwork:
    """A network with random weights, of which every runtime gets its own form."""

    peers: Peers
    spec: str
    images: Path
    beside: Sequence[str]

    def counted(self) -> Iterator[tuple[str, CountedRun]]:
        """Yield what each form costs, ours before the peers' of the same numbers."""
        graph = load(shipped.find_spec(self.spec, make_file_span(self.spec)), {}).graph
        model = passes.run(
            Model(graph, pipeline.create_random_weights(graph).tensors), passes.INFERENCE
        )
        (source,) = graph.inputs
        height, width = source.type.shape[1:]
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        taken = self.peers.folder / "pixels"
        taken.write_bytes(pixels.tobytes())
        words = [width, height, taken]
        for form in ("fp32", "int8"):
            ours, outputs = self._ours(form, source, pixels)
            yield f"tcc {form}", ours
            if "ncnn" in self.beside:
                yield f"ncnn {form}", self._ncnn(form, model, words, outputs)
            if "tflite" in self.beside:
                file = self._bundle("tflite", form) / "model/model.tflite"
                run, _ = self.peers.count(
                    GUESTS / "tflite_guest.py", file, *words, *_statistics(source)
                )
                yield f"TFLite {form}", run

    def _ncnn(
        self, form: str, model: Model, words: Sequence[object], ours: "np.ndarray"
    ) -> CountedRun:
        param = self.peers.folder / f"{Path(self.spec).stem}-{form}.param"
        text, data = ncnn_file.files(model, integers=form == "int8")
        param.write_text(text)
        param.with_suffix(".bin").write_bytes(data)
        (source,) = model.graph.inputs
        run, said = self.peers.count(
            GUESTS / "ncnn_guest.py", param, param.with_suffix(".bin"), *words, "fp32",
            *_statistics(source),
        )  # fmt: skip
        if form == "fp32":
            _same_network(ours, said)
        return run

    def _bundle(self, target: str, form: str) -> Path:
        """Return a bundle; ours is built anew, as its kernels may be others than before."""
        folder = self.peers.folder / "bundles"
        made = folder / f"{Path(self.spec).stem}-{target}-{form}"
        if target == self.peers.machine.target.name:
            shutil.rmtree(made, ignore_errors=True)
        if not made.exists():
            words = ["build", self.spec, "--target", target, "--precision", form, "--seed", "0"]
            more = ["--no-replay", "-q", "--output", str(folder)]
            if form == "int8":
                more += ["--data", str(self.images), "--method", "minmax"]
                more += ["--floor", "min_cosine=0", "--floor", "min_correlation=0"]
            program = "import sys; from tcc.compiler.cli import main; sys.exit(main())"
            subprocess.run([sys.executable, "-c", program, *words, *more], check=True)
        return made

    def _ours(
        self, form: str, source: Input, pixels: "np.ndarray"
    ) -> tuple[CountedRun, "np.ndarray"]:
        folder = self._bundle(self.peers.machine.target.name, form) / "model"
        tensor = np.zeros(source.type.shape, np.float32)
        target = self.peers.machine.target
        found = Arm().measure(target, folder, source, Workload(pixels, tensor, 1))
        assert found.preprocess
        made = CountedRun(_pair(found.preprocess), _pair(found.network), (0, 0))
        (outputs,) = Arm().run(target, folder, [pixels])
        return made, next(iter(outputs.values())).reshape(-1)


def _pair(cost: RunCost) -> tuple[int, int]:
    return cost.instructions or 0, cost.cycles or 0


def _statistics(source: Input) -> list[str]:
    """Return mean and deviation of pixels up to 255, none where an image's own maximum scales."""
    contract = source.preprocess
    if contract is None or contract.scale == "max":
        return []
    each = (contract.mean, contract.std)
    full = (values * 3 if len(values) == 1 else values for values in each)
    return [",".join(str(255 * value) for value in values) for values in full]


def _same_network(ours: "np.ndarray", said: str) -> None:
    theirs = np.array([float(word) for word in said.split()[1:]])
    apart = np.abs(ours[: len(theirs)] - theirs).max() / np.abs(ours).max()
    if not apart < AGREES:
        raise SystemExit(f"ncnn computes something else: {json.dumps(said)}, not {ours[:8]}")


if __name__ == "__main__":
    main()
