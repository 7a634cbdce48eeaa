"""Measure docs/support.jsonl: every network of the zoo on every target and precision.

    python tools/support_matrix.py                     what the record lacks
    python tools/support_matrix.py --again --networks ddsnet --targets host,web --precisions int8
    make support MINUTES=480                           a night: what it lacks, then the oldest cells

All of it takes days on two cores. Each line is written once it is known, with the commit that was
measured; `make_support.py` writes the page. Networks go from the least work to the most. Every
target is first asked what it refuses; then artifacts are built, and run on golden outputs where
this machine can run them. Untrained networks have random weights, of seed 0 with He's bounds.
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
"""Drawn images that a network without a calibration of its own is calibrated with."""
ANY = AccuracyFloor(cosine=0, drop=1, correlation=0, error=1e9, images=0)
"""No floor: random weights may well lose more than a build allows."""
LARGE, GOLDENS = 1e9, 2
"""Multiplications of a network that is run on one golden alone, and how many others are run on."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network of the zoo with its weights, and what its integers are made with."""

    spec: Spec
    _made: dict[bool, Int8Program] = field(default_factory=dict)
    """The integer programs so far: one, or two by their ends, serve all precisions."""

    @cached_property
    def given(self) -> WeightSource:
        """Its weights: its own, or random ones of He's, by which no value vanishes on its way."""
        if trained.find_by_spec(self.spec):
            return pipeline.load_weights(self.spec, None, None)
        return pipeline.create_random_weights(self.spec.graph, he=True)

    @cached_property
    def scales(self) -> CalibrationSource:
        """Its calibration: its own, or one of drawn images."""
        own = trained.find_by_spec(self.spec)
        if own:
            return int8_program.from_trained(own, self.spec, self.given)
        images = dataset.read_dataset(shipped.get_samples_folder()).select_first(IMAGES)
        method = find_method("minmax", make_file_span("minmax"))
        asked = pipeline.CalibrationRequest(int8_program.ANY_TARGET, method, RunOptions())
        return int8_program.from_images(self.spec, self.given, images, asked)

    def integers(self, plans: Sequence[Plan]) -> Int8Programs | None:
        """Return the integer programs that plans need."""
        ends = {p.precision.float_io for p in plans if p.precision.calibrated}
        if missing := ends - self._made.keys():
            ready = pipeline.lower_for_int8(self.spec, self.given)
            self._made.update(int8_program.build_programs(ready, self.scales, ANY, missing))
        return {end: self._made[end] for end in ends} or None

    def cells(self, plans: Sequence[Plan]) -> Iterator[Cell]:
        """Yield what each plan gives; what a target refuses is not built."""
        plain = {plan: self.taken(plan) for plan in plans}
        able = tuple(plan for plan in plans if not plain[plan].refused)
        yield from (cell for cell in plain.values() if cell.refused)
        able = tuple(replace(plan, compiles=False) for plan in able)
        if able:
            built = pipeline.build(self.spec, self.given, able, silent, self.integers(able))
            for plan, contents in zip(able, built, strict=True):
                yield self._built(plan, contents)

    def taken(self, plan: Plan) -> Cell:
        """Return what a target says of it before anything is built."""
        found = support_check.check_capability(self.spec.graph, plan)
        why = tuple(f"{error.code}: {error.message}: {error.label}" for error in found.errors)
        return Cell(self.spec.name, plan.device.name, plan.precision.name, why)

    def _built(self, plan: Plan, contents: BundleContents) -> Cell:
        about, device = contents.manifest, plan.device
        prefix = f"{bundle_folder.MODEL}/"
        size = sum(file.bytes for file in about.files if file.path.startswith(prefix))
        cell = replace(self.taken(plan), bytes=size, cosine=_cosine(about.calibration))
        if not device.target.runs or device.list_missing_run_tools():
            return cell
        count = 1 if compute_cost(self.spec.graph).macs > LARGE else GOLDENS
        with tempfile.TemporaryDirectory() as name:
            folder = bundle_folder.write_bundle(contents, Path(name))
            replayed = replay.replay_goldens(Bundle(folder, about, trusted=True), device, count)
            # What gives one answer to all images would be exact whatever its layers do.
            assert not replayed.constant_outputs, cell
        found = replayed.agreement
        if not all(each.holds for each in found):
            most = max(each.allowed for each in found)
            why = f"not written, exit 4: it is off the reference by more than {most:g}"
            return replace(cell, bytes=None, refused=(why,))
        return replace(
            cell,
            goldens=len({each.golden for each in found}),
            values=sum(each.values for each in found),
            differing=sum(each.differing for each in found),
            difference=_decade(max(each.difference for each in found)),
            allowed=max(each.allowed for each in found),
        )


def _cosine(calibrated: Calibrated | None) -> float | None:
    """Return the least cosine of an output, as far as another processor's floats give it too."""
    if calibrated is None or calibrated.measured is None:
        return None
    found = [each.cosine for each in calibrated.measured.outputs.values() if each.cosine]
    return round(min(found), 4) if found else None


def _decade(difference: float) -> float:
    """Return the power of ten that a difference of floats is within."""
    assert isfinite(difference)
    return float(f"1e{ceil(log10(max(difference, 1e-7)))}") if difference else 0.0


def network(name: str) -> Network:
    """Return a network by its name."""
    return Network(support_record.networks()[name])


def _picked(known_names: Sequence[str], words: str | None) -> list[str]:
    names = known_names if words is None else words.split(",")
    if unknown := sorted(set(names) - set(known_names)):
        sys.exit(f"not known: {', '.join(unknown)}; known: {', '.join(known_names)}")
    return [name for name in known_names if name in names]


def _options() -> argparse.Namespace:
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for what in ("networks", "targets", "precisions"):
        words.add_argument(f"--{what}", metavar="N[,N...]", help="all")
    words.add_argument(
        "--again",
        action="store_true",
        help="then measure what other commits measured, the oldest commit first",
    )
    words.add_argument("--minutes", type=float, default=600, help="begin nothing after so many")
    return words.parse_args()


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=RECORD.parent, check=True, capture_output=True, text=True
    ).stdout


def _measured_commit() -> str:
    """Return the commit that is checked out; exit where files differ from it."""
    changed = [line[3:] for line in _git("status", "--porcelain", "-uno").splitlines()]
    if others := sorted(set(changed) - {"docs/support.jsonl", "docs/support.md"}):
        sys.exit(f"{others[0]} is not committed, and each cell names its commit: commit it first")
    return _git("rev-parse", "--short=9", "HEAD").strip()


def _in_order(record: dict[Key, Cell], keys: Sequence[Key], commit: str, again: bool) -> list[Key]:
    """Return the keys to measure: those without a cell, then those of older commits."""
    missing = [key for key in keys if key not in record or _is_unmeasured(record[key])]
    if not again:
        return missing
    ages = {name: age for age, name in enumerate(_git("log", "--format=%h", "--abbrev=9").split())}
    rest = [key for key in keys if key not in missing and record[key].commit != commit]
    return missing + sorted(rest, key=lambda key: -ages.get(record[key].commit, len(ages)))


def _is_unmeasured(cell: Cell) -> bool:
    return cell.bytes is None and not cell.refused


def main() -> int:
    """Measure what the command line asks for."""
    options = _options()
    until = monotonic() + 60 * options.minutes
    commit = _measured_commit()
    specs = support_record.networks()
    names = _picked(
        sorted(specs, key=lambda n: compute_cost(specs[n].graph).macs), options.networks
    )
    every = support_record.plans()
    targets = _picked(list(dict.fromkeys(p.device.name for p in every)), options.targets)
    kinds = _picked(list(dict.fromkeys(p.precision.name for p in every)), options.precisions)
    plans = {(p.device.name, p.precision.name): p for p in every}
    keys = [
        (name, target, kind)
        for name in names
        for target, kind in plans
        if target in targets and kind in kinds
    ]
    record = support_record.read()
    # The last network stays: its calibration serves all cells that follow each other.
    current = network(names[0])
    for key in _in_order(record, keys, commit, options.again):
        if monotonic() > until:
            break
        if current.spec.name != key[0]:
            current = network(key[0])
        for cell in current.cells([plans[key[1:]]]):
            record[key] = replace(cell, commit=commit)
            RECORD.write_text(support_record.text(record.values()))
            print(*key, cell.bytes, cell.differing, *cell.refused, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
