"""What a maker's tool gave for a bundle's goldens, beside what the reference gave."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import replay
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.target import MIN_COSINE, ToolReport
from tcc.compiler.reference.output_quality import compute_cosine
from tcc.compiler.support.diagnostics import fail, make_file_span

FloatArray = NDArray[np.float32]
LOG_FILE = "compiled/log.txt"
"""The tool's log among the files of a package that was compiled as it was built."""


@dataclass(frozen=True, slots=True)
class GoldenCosine:
    """One output of one golden: its cosine with the reference's, and whether the class is the same.

    `stuck`: the tool gave the same for every golden, and the reference did not.
    """

    golden: str
    output: str
    cosine: float
    has_same_class: bool | None
    stuck: bool

    @property
    def holds(self) -> bool:
        """Whether the two are near; NaN is near nothing."""
        return self.cosine >= MIN_COSINE and not self.stuck


@dataclass(frozen=True, slots=True)
class ToolCheck:
    """What a log says of a package, and how the outputs beside it compare with the goldens."""

    log: str
    report: ToolReport
    goldens: tuple[GoldenCosine, ...]
    missing_goldens: tuple[str, ...] = ()
    """Goldens that should have outputs beside the log, and have none."""

    @property
    def holds(self) -> bool:
        """Whether the tool did all that it was asked, and no output is far from the reference's.

        Both its own words and the goldens tell.
        """
        is_complete = not (self.report.stopped or self.missing_goldens)
        return (
            is_complete
            and not self.report.low_outputs
            and all(golden.holds for golden in self.goldens)
        )


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
    source = make_file_span(str(bundle.folder))
    if packager is None:
        message = f"what is built for {device.name} is no package of a maker's tool"
        raise fail("E0673", message, source, help="leave --logs out")
    package_log = bundle.model / LOG_FILE
    if log is None and not has_log(bundle):
        message = f"this machine cannot run what is built for {device.name}"
        help = f"run `sh {bundle.model}/build.sh` where docker is, and give its log with --logs"
        raise fail("E0657", message, source, help=help)
    shapes = {contract.name: contract.shape for contract in bundle.manifest.outputs}
    tool_results = packager.read_tool_results(device.target, shapes, log or package_log)
    golden_cosines = tuple(_compare_outputs(bundle, tool_results.outputs))
    names = [case.name for case in bundle.manifest.goldens.cases]
    missing_goldens = tuple(name for name in names if name not in tool_results.outputs)
    # A log by itself is worth reading; outputs that were left behind are no failure of the tool's.
    has_log_only = log is not None and len(missing_goldens) == len(
        names
    )  # brought back without its folder
    return ToolCheck(
        str(log or package_log),
        tool_results.report,
        golden_cosines,
        () if has_log_only else missing_goldens,
    )


def has_log(bundle: Bundle) -> bool:
    """Whether a package holds the log of the tool that compiled it as it was built."""
    return (bundle.model / LOG_FILE).is_file()


def _compare_outputs(
    bundle: Bundle, tool_outputs: Mapping[str, Mapping[str, FloatArray]]
) -> Iterator[GoldenCosine]:
    cases = [case for case in bundle.manifest.goldens.cases if case.name in tool_outputs]
    for contract in bundle.manifest.outputs:
        expected_outputs = {
            case.name: replay.read_expected_output(bundle, case, contract.name) for case in cases
        }
        actual_outputs = {
            case.name: tool_outputs[case.name][contract.name].reshape(-1) for case in cases
        }
        stuck = _has_equal_arrays(actual_outputs) and not _has_equal_arrays(expected_outputs)
        for case in cases:
            expected, actual = expected_outputs[case.name], actual_outputs[case.name]
            decides = contract.kind == "classes" and len(contract.shape) == 1
            has_same_class = bool(expected.argmax() == actual.argmax()) if decides else None
            similarity = compute_cosine(expected.astype(np.float64), actual.astype(np.float64))
            yield GoldenCosine(case.name, contract.name, similarity, has_same_class, stuck)


def _has_equal_arrays(arrays: Mapping[str, FloatArray]) -> bool:
    return len(arrays) > 1 and len({array.tobytes() for array in arrays.values()}) == 1
