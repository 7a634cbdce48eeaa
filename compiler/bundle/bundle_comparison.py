"""Comparison of bundles of one network, on the inputs that their goldens share."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import replay
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.manifest import Manifest, OutputContract
from tcc.compiler.bundle.replay import GoldenReplay
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.reference.output_quality import compute_cosine
from tcc.compiler.support.diagnostics import fail, make_file_span

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class OutputPair:
    """Comparison of one output of two bundles over `inputs` inputs.

    `differing` counts the values, of `values` in all, that are not bit-exact, and `largest` is the
    largest difference. `cosine` is the smallest one. `same` counts the inputs with the same class
    or the same decisions; None if the output has neither. `exact`: both bundles have the same
    integer program and must agree bit for bit.
    """

    first: str
    second: str
    output: str
    inputs: int
    values: int
    differing: int
    largest: float
    cosine: float
    same: int | None
    exact: bool

    @property
    def holds(self) -> bool:
        """Whether the outputs are equal if they must be."""
        return not (self.exact and self.differing)

    def to_json(self) -> dict[str, object]:
        """Return plain data; NaN and infinity become null."""
        finite = {
            name: number if isfinite(number) else None
            for name, number in (("largest", self.largest), ("cosine", self.cosine))
        }
        return {**asdict(self), **finite, "holds": self.holds}


def find_difference(a: Bundle, b: Bundle) -> str:
    """Return why two bundles cannot be compared; empty if they are of one network."""
    first_manifest, second_manifest = a.manifest, b.manifest
    if first_manifest.model.spec != second_manifest.model.spec:
        return "their specs differ"
    if first_manifest.weights.digest != second_manifest.weights.digest:
        return "their weights differ"
    if _build_contract(first_manifest) != _build_contract(second_manifest):
        return "their input contracts differ"
    outputs = [
        [(o.name, o.shape) for o in manifest.outputs]
        for manifest in (first_manifest, second_manifest)
    ]
    return "their outputs differ" if outputs[0] != outputs[1] else ""


def check(a: Bundle, b: Bundle) -> None:
    """Refuse two bundles of one spec with different preprocessing, outputs or labels.

    Raises:
        UserError: They differ (E0664): a manifest was edited and sealed again.
    """
    first_manifest, second_manifest = a.manifest, b.manifest
    if first_manifest.model.spec != second_manifest.model.spec:
        return
    differences = {
        "preprocessing": _build_contract(first_manifest) != _build_contract(second_manifest),
        "outputs or their labels": first_manifest.outputs != second_manifest.outputs,
    }
    for difference in (difference for difference, differs in differences.items() if differs):
        message = "two bundles of the same spec contradict each other: one manifest was changed"
        label = f"its {difference} differ from {b.folder}"
        help = "give the spec with --spec to find out which bundle does not match it"
        raise fail("E0664", message, make_file_span(str(a.folder)), label=label, help=help)


def have_equal_outputs(a: Bundle, b: Bundle) -> bool:
    """Return whether two bundles of one network come from one integer program.

    Both must reproduce their golden outputs bit for bit, and these and the calibrations are equal.
    Then all of their outputs are equal.
    """
    first_digests, second_digests = _list_promised_digests(a), _list_promised_digests(b)
    calibrations = (a.manifest.calibration, b.manifest.calibration)
    if first_digests is None or None in calibrations:
        return False
    first_calibration, second_calibration = (c.digest for c in calibrations if c)
    return first_digests == second_digests and first_calibration == second_calibration


def compare_bundles(a: GoldenReplay, b: GoldenReplay) -> Iterator[OutputPair]:
    """Yield how each output of two bundles compares, on shared inputs."""
    # Equal golden outputs that must be met bit for bit come from one integer program.
    promised_digests = _list_promised_digests(a.bundle)
    same_bits = promised_digests is not None and promised_digests == _list_promised_digests(
        b.bundle
    )
    for contract in a.bundle.manifest.outputs:
        rows = [
            tuple(
                run_outputs[contract.name].reshape(-1)
                for run_outputs in (a.outputs[key], b.outputs[key])
            )
            # By the image's content: bundles may share only some of their goldens.
            for key in a.outputs
            if contract.name in a.outputs[key] and contract.name in b.outputs.get(key, {})
        ]
        differences = [replay.count_differences(*row) for row in rows]
        same_decisions = [
            _has_same_decision(contract, first_row, second_row) for first_row, second_row in rows
        ]
        yield OutputPair(
            str(a.bundle.folder),
            str(b.bundle.folder),
            contract.name,
            len(rows),
            sum(first_row.size for first_row, _ in rows),
            sum(differing for differing, _ in differences),
            # np.max keeps NaN, max may lose it.
            float(np.max([largest for _, largest in differences], initial=0.0)),
            min(
                (compute_cosine(x.astype(np.float64), y.astype(np.float64)) for x, y in rows),
                default=1.0,
            ),
            None
            if None in same_decisions or not same_decisions
            else sum(map(bool, same_decisions)),
            same_bits,
        )


def _has_same_decision(
    contract: OutputContract, first_row: FloatArray, second_row: FloatArray
) -> bool | None:
    """Whether two rows give the same class or the same decisions; None if they give neither."""
    if len(contract.shape) != 1:
        return None
    match contract.kind:
        case "classes":
            return bool(first_row.argmax() == second_row.argmax())
        case "decisions":
            return bool(np.array_equal(first_row >= 0, second_row >= 0))
        case "regression":
            return None
        case _:
            assert_never(contract.kind)


ComparedContract = tuple[str, tuple[int, ...], Preprocess | str]


def _build_contract(manifest: Manifest) -> ComparedContract:
    """Return how a manifest's input is computed from an image, on any target."""
    input_contract = manifest.input
    contract = input_contract.preprocess
    # A target may start from raw pixels or from floats: not part of the comparison.
    return (
        input_contract.name,
        input_contract.shape,
        replace(contract, raw=False) if contract else input_contract.dtype,
    )


def _list_promised_digests(bundle: Bundle) -> dict[str, str] | None:
    """Return the digests of the golden files; None if outputs need not be bit-exact."""
    goldens = bundle.manifest.goldens
    if goldens.tolerance.relative:
        return None
    digests = {file.path: file.sha256 for file in bundle.manifest.files}
    return {
        f"{digests[case.image or case.tensor]} {name}": digests[path]
        for case in goldens.cases
        for name, path in case.outputs.items()
    }
