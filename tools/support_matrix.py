"""Measure docs/support.jsonl: every network of the zoo on every target and precision.

    python tools/support_matrix.py                     the cells that are missing
    python tools/support_matrix.py --again --networks ddsnet --targets host,web --precisions int8
    make support MINUTES=480                           a night: missing cells, then the oldest ones

All cells take days on two cores. Each line is written as soon as it is measured, with the measured
commit; `make_support.py` writes the page. Networks are ordered by increasing multiply-accumulates.
For each target, the refusals are collected first. Then the artifacts are built, and run on golden
outputs if this machine can run them. Untrained networks have random weights, of seed 0 with He's
bounds.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, isfinite, log10
from pathlib import Path
from time import monotonic

import support_record
from support_record import RECORD, Cell, Key

from tcc.compiler.bundle import bundle_folder, replay
from tcc.compiler.bundle.bundle_folder import Bundle, BundleContents
from tcc.compiler.bundle.manifest import Calibrated
from tcc.compiler.data import dataset
from tcc.compiler.driver import int8_program, pipeline, support_check
from tcc.compiler.driver.build_plan import Int8Program, Int8Programs
from tcc.compiler.driver.int8_program import CalibrationSource
from tcc.compiler.driver.pipeline import WeightSource
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.ir.device import Plan
from tcc.compiler.quant.calibrate import find_method
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.reference.accuracy_floor import AccuracyFloor
from tcc.compiler.support.diagnostics import make_file_span
from tcc.compiler.support.progress import silent
from tcc.compiler.zoo import shipped, trained

IMAGES = 8
"""The number of synthetic calibration images of a network without its own calibration."""
ANY = AccuracyFloor(cosine=0, drop=1, correlation=0, error=1e9, images=0)
"""No accuracy floor, because random weights may miss every floor."""
LARGE, GOLDENS = 1e9, 2
"""Networks with more multiplications run on one golden, the others on GOLDENS."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network of the zoo with its weights and the source of its calibration."""

    spec: Spec
    _int8_programs: dict[bool, Int8Program] = field(default_factory=dict)
    """The integer programs that exist already: one or two by their I/O serve all precisions."""

    @cached_property
    def weight_source(self) -> WeightSource:
        """The network's own weights, or random ones with He's bounds, so that no value vanishes."""
        if trained.find_by_spec(self.spec):
            return pipeline.load_weights(self.spec, None, None)
        return pipeline.create_random_weights(self.spec.graph, he=True)

    @cached_property
    def calibration_source(self) -> CalibrationSource:
        """The network's own calibration, or one of synthetic images."""
        trained_network = trained.find_by_spec(self.spec)
        if trained_network:
            return int8_program.from_trained(trained_network, self.spec, self.weight_source)
        images = dataset.read_dataset(shipped.get_samples_folder()).select_first(IMAGES)
        method = find_method("minmax", make_file_span("minmax"))
        request = pipeline.CalibrationRequest(int8_program.ANY_TARGET, method, RunOptions())
        return int8_program.from_images(self.spec, self.weight_source, images, request)

    def build_int8(self, plans: Sequence[Plan]) -> Int8Programs | None:
        """Return the integer programs that plans need."""
        io_forms = {p.precision.float_io for p in plans if p.precision.calibrated}
        if missing := io_forms - self._int8_programs.keys():
            lowered_model = pipeline.lower_for_int8(self.spec, self.weight_source)
            self._int8_programs.update(
                int8_program.build_programs(lowered_model, self.calibration_source, ANY, missing)
            )
        return {float_io: self._int8_programs[float_io] for float_io in io_forms} or None

    def measure_cells(self, plans: Sequence[Plan]) -> Iterator[Cell]:
        """Yield the result of each plan; refused plans are not built."""
        unbuilt_cells = {plan: self.check_support(plan) for plan in plans}
        able = tuple(plan for plan in plans if not unbuilt_cells[plan].refused)
        yield from (cell for cell in unbuilt_cells.values() if cell.refused)
        able = tuple(replace(plan, compiles=False) for plan in able)
        if able:
            built = pipeline.build(
                self.spec, self.weight_source, able, silent, self.build_int8(able)
            )
            for plan, contents in zip(able, built, strict=True):
                yield self._measure_bundle(plan, contents)

    def check_support(self, plan: Plan) -> Cell:
        """Return what a target refuses, before any build."""
        support = support_check.check_capability(self.spec.graph, plan)
        reasons = tuple(f"{error.code}: {error.message}: {error.label}" for error in support.errors)
        return Cell(self.spec.name, plan.device.name, plan.precision.name, reasons)

    def _measure_bundle(self, plan: Plan, contents: BundleContents) -> Cell:
        manifest, device = contents.manifest, plan.device
        prefix = f"{bundle_folder.MODEL}/"
        size = sum(file.bytes for file in manifest.files if file.path.startswith(prefix))
        cell = replace(
            self.check_support(plan), bytes=size, cosine=_get_min_cosine(manifest.calibration)
        )
        if not device.target.runs or device.list_missing_run_tools():
            return cell
        count = 1 if compute_cost(self.spec.graph).macs > LARGE else GOLDENS
        with tempfile.TemporaryDirectory() as name:
            folder = bundle_folder.write_bundle(contents, Path(name))
            replayed = replay.replay_goldens(Bundle(folder, manifest, trusted=True), device, count)
            # If all images had the same output, it would match even with wrong layers.
            assert not replayed.constant_outputs, cell
        agreements = replayed.agreement
        if not all(output_agreement.holds for output_agreement in agreements):
            tolerance = max(output_agreement.allowed for output_agreement in agreements)
            reason = (
                f"not written (exit 4): it differs from the reference by more than {tolerance:g}"
            )
            return replace(cell, bytes=None, refused=(reason,))
        return replace(
            cell,
            goldens=len({output_agreement.golden for output_agreement in agreements}),
            values=sum(output_agreement.values for output_agreement in agreements),
            differing=sum(output_agreement.differing for output_agreement in agreements),
            difference=_round_to_decade(
                max(output_agreement.difference for output_agreement in agreements)
            ),
            allowed=max(output_agreement.allowed for output_agreement in agreements),
        )


def _get_min_cosine(calibrated: Calibrated | None) -> float | None:
    """Return the least cosine of an output, rounded so that other processors give the same."""
    if calibrated is None or calibrated.measured is None:
        return None
    cosines = [output.cosine for output in calibrated.measured.outputs.values() if output.cosine]
    return round(min(cosines), 4) if cosines else None


def _round_to_decade(difference: float) -> float:
    """Return the smallest power of ten that bounds a float difference."""
    assert isfinite(difference)
    return float(f"1e{ceil(log10(max(difference, 1e-7)))}") if difference else 0.0


def load_network(name: str) -> Network:
    """Return a network by its name."""
    return Network(support_record.load_networks()[name])


def _select_names(known_names: Sequence[str], names_option: str | None) -> list[str]:
    names = known_names if names_option is None else names_option.split(",")
    if unknown := sorted(set(names) - set(known_names)):
        sys.exit(f"unknown: {', '.join(unknown)}; known: {', '.join(known_names)}")
    return [name for name in known_names if name in names]


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for noun in ("networks", "targets", "precisions"):
        parser.add_argument(f"--{noun}", metavar="N[,N...]", help="all")
    parser.add_argument(
        "--again",
        action="store_true",
        help="then measure the cells of other commits again, the oldest commit first",
    )
    parser.add_argument(
        "--minutes", type=float, default=600, help="start no cell after so many minutes"
    )
    return parser.parse_args()


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=RECORD.parent, check=True, capture_output=True, text=True
    ).stdout


def _measured_commit() -> str:
    """Return the commit that is checked out; exit if files differ from it."""
    changed = [line[3:] for line in _git("status", "--porcelain", "-uno").splitlines()]
    if changed_files := sorted(set(changed) - {"docs/support.jsonl", "docs/support.md"}):
        sys.exit(
            f"{changed_files[0]} is not committed: commit it first, because cells name their commit"
        )
    return _git("rev-parse", "--short=9", "HEAD").strip()


def _in_order(
    record: dict[Key, Cell], keys: Sequence[Key], commit: str, remeasure: bool
) -> list[Key]:
    """Return the keys to measure: those without a cell, then those of older commits."""
    missing = [key for key in keys if key not in record or _is_unmeasured(record[key])]
    if not remeasure:
        return missing
    ages = {name: age for age, name in enumerate(_git("log", "--format=%h", "--abbrev=9").split())}
    outdated = [key for key in keys if key not in missing and record[key].commit != commit]
    return missing + sorted(outdated, key=lambda key: -ages.get(record[key].commit, len(ages)))


def _is_unmeasured(cell: Cell) -> bool:
    return cell.bytes is None and not cell.refused


def main() -> int:
    """Measure the selected cells."""
    options = _parse_options()
    deadline = monotonic() + 60 * options.minutes
    commit = _measured_commit()
    specs = support_record.load_networks()
    names = _select_names(
        sorted(specs, key=lambda n: compute_cost(specs[n].graph).macs), options.networks
    )
    all_plans = support_record.list_plans()
    targets = _select_names(list(dict.fromkeys(p.device.name for p in all_plans)), options.targets)
    kinds = _select_names(
        list(dict.fromkeys(p.precision.name for p in all_plans)), options.precisions
    )
    plans = {(p.device.name, p.precision.name): p for p in all_plans}
    keys = [
        (name, target, kind)
        for name in names
        for target, kind in plans
        if target in targets and kind in kinds
    ]
    record = support_record.read_record()
    # Keep the last network: consecutive cells share its calibration.
    current = load_network(names[0])
    for key in _in_order(record, keys, commit, options.again):
        if monotonic() > deadline:
            break
        if current.spec.name != key[0]:
            current = load_network(key[0])
        for cell in current.measure_cells([plans[key[1:]]]):
            record[key] = replace(cell, commit=commit)
            RECORD.write_text(support_record.format_record(record.values()))
            print(*key, cell.bytes, cell.differing, *cell.refused, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
