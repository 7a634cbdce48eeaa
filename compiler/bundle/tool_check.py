"""What a maker's tool gave for a bundle's goldens, beside what the reference gave."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import replay
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.target import LEAST, ToolReport
from tcc.compiler.reference.output_quality import cosine
from tcc.compiler.support.diagnostics import fail, whole_file

Values = NDArray[np.float32]
LOG = "compiled/log.txt"
"""The tool's log among the files of a package that was compiled as it was built."""


@dataclass(frozen=True, slots=True)
class GoldenCosine:
    """One output of one golden: its cosine with the reference's, and whether the class is the same.

    `stuck`: the tool gave the same for every golden, and the reference did not.
    """

    golden: str
    output: str
    cosine: float
    same: bool | None
    stuck: bool

    @property
    def holds(self) -> bool:
        """Whether the two are near; NaN is near nothing."""
        return self.cosine >= LEAST and not self.stuck


@dataclass(frozen=True, slots=True)
class ToolCheck:
    """What a log says of a package, and how the outputs beside it compare with the goldens."""

    log: str
    report: ToolReport
    goldens: tuple[GoldenCosine, ...]
    lacking: tuple[str, ...] = ()
    """Goldens that should have outputs beside the log, and have none."""

    @property
    def holds(self) -> bool:
        """Whether the tool did all that it was asked, and no output is far from the reference's.

        Both its own words and the goldens tell.
        """
        done = not (self.report.stopped or self.lacking)
        return done and not self.report.low and all(each.holds for each in self.goldens)


def check(bundle: Bundle, device: Device, log: Path | None) -> ToolCheck:
    """Return what is known of a package: by a log, or by the one of its own.

    Args:
        bundle: The package.
        device: Its target.
        log: The file; without it, that of the package's own compilation.

    Raises:
        UserError: There is no log (E0657), the tool did not write it (E0671), or this is no package
            of a tool (E0673).
    """
    packager = device.packager
    where = whole_file(str(bundle.folder))
    if packager is None:
        message = f"what is built for {device.name} is no package of a maker's tool"
        raise fail("E0673", message, where, help="leave --logs out")
    own = bundle.model / LOG
    if log is None and not has_log(bundle):
        message = f"nothing here runs what is built for {device.name}"
        help = f"run `sh {bundle.model}/build.sh` where docker is, and give its log with --logs"
        raise fail("E0657", message, where, help=help)
    shapes = {each.name: each.shape for each in bundle.manifest.outputs}
    found = packager.tool_results(device.target, shapes, log or own)
    compared = tuple(_compared(bundle, found.outputs))
    names = [case.name for case in bundle.manifest.goldens.cases]
    lacking = tuple(name for name in names if name not in found.outputs)
    # A log by itself is worth reading; outputs that were left behind are no failure of the tool's.
    alone = log is not None and len(lacking) == len(names)  # brought back without its folder
    return ToolCheck(str(log or own), found.report, compared, () if alone else lacking)


def has_log(bundle: Bundle) -> bool:
    """Whether a package holds the log of the tool that compiled it as it was built."""
    return (bundle.model / LOG).is_file()


def _compared(bundle: Bundle, given: Mapping[str, Mapping[str, Values]]) -> Iterator[GoldenCosine]:
    cases = [case for case in bundle.manifest.goldens.cases if case.name in given]
    for result in bundle.manifest.outputs:
        wanted = {case.name: replay.expected(bundle, case, result.name) for case in cases}
        outputs = {case.name: given[case.name][result.name].reshape(-1) for case in cases}
        stuck = _alike(outputs) and not _alike(wanted)
        for case in cases:
            one, other = wanted[case.name], outputs[case.name]
            decides = result.kind == "classes" and len(result.shape) == 1
            same = bool(one.argmax() == other.argmax()) if decides else None
            near = cosine(one.astype(np.float64), other.astype(np.float64))
            yield GoldenCosine(case.name, result.name, near, same, stuck)


def _alike(values: Mapping[str, Values]) -> bool:
    return len(values) > 1 and len({each.tobytes() for each in values.values()}) == 1
