"""Compare a vendor toolchain's outputs for a bundle's goldens with the reference outputs."""

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
"""The tool's log in a package that was compiled during the build."""


@dataclass(frozen=True, slots=True)
class GoldenCosine:
    """Comparison of one output of one golden: cosine with the reference, and class agreement.

    `stuck`: the tool gives the same output for every golden and the reference does not.
    """

    golden: str
    output: str
    cosine: float
    has_same_class: bool | None
    stuck: bool

    @property
    def holds(self) -> bool:
        """Whether the output is close to the reference; NaN never is."""
        return self.cosine >= MIN_COSINE and not self.stuck


@dataclass(frozen=True, slots=True)
class ToolCheck:
    """A tool's report from its log, and the agreement of its outputs with the goldens."""

    log: str
    report: ToolReport
    goldens: tuple[GoldenCosine, ...]
    missing_goldens: tuple[str, ...] = ()
    """Goldens that should have outputs next to the log, and have none."""

    @property
    def holds(self) -> bool:
        """Whether the tool completed, and no output is far from the reference.

        Both the tool's own report and the goldens count.
        """
        is_complete = not (self.report.stopped or self.missing_goldens)
        return (
            is_complete
            and not self.report.inaccurate_outputs
            and all(golden.holds for golden in self.goldens)
        )


def check(bundle: Bundle, device: Device, log: Path | None) -> ToolCheck:
    """Check a package by a tool's log: a given one, or the one in the package.

    Args:
        bundle: The package.
        device: Its target.
        log: The file; without it, the log of the package's own compilation.

    Raises:
        UserError: There is no log (E0657), the tool did not write it (E0671), or the bundle is no
            package for a vendor toolchain (E0673).
    """
    packager = device.packager
    source = make_file_span(str(bundle.folder))
    if packager is None:
        message = f"{device.name} is not compiled by a vendor toolchain, so there is no log to read"
        raise fail("E0673", message, source, help="remove --logs")
    package_log = bundle.model / LOG_FILE
    if log is None and not has_log(bundle):
        message = f"this machine cannot run what is built for {device.name}"
        help = (
            f"run `sh {bundle.model}/build.sh` on a machine with docker, then give its log: --logs"
        )
        raise fail("E0657", message, source, help=help)
    shapes = {contract.name: contract.shape for contract in bundle.manifest.outputs}
    tool_results = packager.read_tool_results(device.target, shapes, log or package_log)
    golden_cosines = tuple(_compare_outputs(bundle, tool_results.outputs))
    names = [case.name for case in bundle.manifest.goldens.cases]
    missing_goldens = tuple(name for name in names if name not in tool_results.outputs)
    # A log alone is still useful; outputs that were not copied back are no failure of the tool.
    has_log_only = log is not None and len(missing_goldens) == len(
        names
    )  # copied back without its folder
    return ToolCheck(
        str(log or package_log),
        tool_results.report,
        golden_cosines,
        () if has_log_only else missing_goldens,
    )


def has_log(bundle: Bundle) -> bool:
    """Whether a package has the log of the tool that compiled it during the build."""
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
