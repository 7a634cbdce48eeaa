"""Measure what docs/support.md says: every network of the zoo on every target and precision.

    python tools/support_matrix.py                          what the record lacks
    python tools/support_matrix.py --again --networks ddsnet --targets host,web --precisions int8
    python tools/support_matrix.py --older --targets arm-a7,host  after a change of their kernels

It takes hours; each line is written as it is known, into docs/support.jsonl, of which
`make_support.py` makes the page. Networks are taken from the least work to the most. First every
target is asked what it refuses; then artifacts are built, and run on goldens where something here
runs them. Weights that nobody trained are random, of seed 0 and He's bounds.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence, Set
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
from tcc.compiler.driver import capability, int8_program, pipeline
from tcc.compiler.driver.build_plan import Int8Program, Int8Programs
from tcc.compiler.driver.int8_program import CalibrationSource
from tcc.compiler.driver.pipeline import WeightSource
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.ir.cost import cost
from tcc.compiler.ir.device import Plan
from tcc.compiler.quant.calibrate import known
from tcc.compiler.quant.methods.method import RunOptions
from tcc.compiler.reference.accuracy_floor import AccuracyFloor
from tcc.compiler.support.diagnostics import whole_file
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
        if trained.of(self.spec):
            return pipeline.weights_of(self.spec, None, None)
        return pipeline.random_weights(self.spec.graph, he=True)

    @cached_property
    def scales(self) -> CalibrationSource:
        """Its calibration: its own, or one of drawn images."""
        own = trained.of(self.spec)
        if own:
            return int8_program.from_trained(own, self.spec, self.given)
        images = dataset.read(shipped.samples_folder()).first(IMAGES)
        method = known("minmax", whole_file("minmax"))
        asked = pipeline.CalibrationRequest(int8_program.ANY, method, RunOptions())
        return int8_program.from_images(self.spec, self.given, images, asked)

    def integers(self, plans: Sequence[Plan]) -> Int8Programs | None:
        """Return the integer programs that plans need."""
        ends = {p.precision.real_ends for p in plans if p.precision.calibrated}
        if missing := ends - self._made.keys():
            ready = pipeline.ready(self.spec, self.given)
            self._made.update(int8_program.integers(ready, self.scales, ANY, missing))
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
        found = capability.capability(self.spec.graph, plan)
        why = tuple(f"{error.code}: {error.message}: {error.label}" for error in found.errors)
        return Cell(self.spec.name, plan.device.name, plan.precision.name, why)

    def _built(self, plan: Plan, contents: BundleContents) -> Cell:
        about, device = contents.manifest, plan.device
        prefix = f"{bundle_folder.MODEL}/"
        size = sum(file.bytes for file in about.files if file.path.startswith(prefix))
        cell = replace(self.taken(plan), bytes=size, cosine=_cosine(about.calibration))
        if not device.target.runs or device.absent():
            return cell
        count = 1 if cost(self.spec.graph).macs > LARGE else GOLDENS
        with tempfile.TemporaryDirectory() as name:
            folder = bundle_folder.write(contents, Path(name))
            replayed = replay.replay(Bundle(folder, about, trusted=True), device, count)
            # What gives one answer to all images would be exact whatever its layers do.
            assert not replayed.flat, cell
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
    words.add_argument("--again", action="store_true", help="what the record has too")
    words.add_argument(
        "--older", action="store_true", help="measure nothing: mark what is built as of older code"
    )
    words.add_argument("--minutes", type=float, default=600, help="begin nothing after so many")
    return words.parse_args()


def main() -> int:
    """Measure what the command line asks for."""
    options = _options()
    until = monotonic() + 60 * options.minutes
    specs = support_record.networks()
    names = _picked(sorted(specs, key=lambda n: cost(specs[n].graph).macs), options.networks)
    every = support_record.plans()
    targets = _picked(list(dict.fromkeys(p.device.name for p in every)), options.targets)
    kinds = _picked(list(dict.fromkeys(p.precision.name for p in every)), options.precisions)
    record = support_record.read()
    asked = [p for p in every if p.device.name in targets and p.precision.name in kinds]
    if options.older:
        found = {(name, p.device.name, p.precision.name) for name in names for p in asked}
        RECORD.write_text(support_record.text(_aged(c, found) for c in record.values()))
        return 0

    def keep(cells: Iterator[Cell]) -> None:
        for cell in cells:
            record.update({cell.key: cell})
            RECORD.write_text(support_record.text(record.values()))
            print(*cell.key, cell.bytes, cell.differing, *cell.refused, flush=True)

    for name in names:
        one = network(name)
        lacks = (p for p in asked if (name, p.device.name, p.precision.name) not in record)
        keep(map(one.taken, lacks))
    for name in names:
        one = network(name)
        for kind in kinds:
            plans = [
                p for p in asked if p.precision.name == kind
                and (options.again or _open(record[name, p.device.name, kind]))
            ]  # fmt: skip
            if plans and monotonic() < until:
                keep(one.cells(plans))
    return 0


def _aged(cell: Cell, found: Set[Key]) -> Cell:
    return replace(cell, older=True) if cell.key in found and cell.bytes is not None else cell


def _open(cell: Cell) -> bool:
    return cell.older or (cell.bytes is None and not cell.refused)


if __name__ == "__main__":
    sys.exit(main())
