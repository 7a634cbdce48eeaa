"""Bundles beside each other: artifacts of one network, on the inputs that their goldens share."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import replay
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.manifest import Manifest, OutputContract
from tcc.compiler.bundle.replay import Replayed
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.reference.output_quality import cosine
from tcc.compiler.support.diagnostics import fail, whole_file

Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class OutputPair:
    """One output of two bundles over `inputs` inputs.

    `differing` counts the values, of `values` in all, whose bits are others, and `largest` is by
    how much at most; `cosine` is the least; `same` counts the inputs that get the same class, or
    the same decisions (None: the output is no row of either). `exact` says that both promise to
    give the same bits, as they have one integer program.
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
        """Whether the two are equal, where they promise to be."""
        return not (self.exact and self.differing)

    def as_json(self) -> dict[str, object]:
        """Return plain data; what is no number is null."""
        finite = {
            name: value if isfinite(value) else None
            for name, value in (("largest", self.largest), ("cosine", self.cosine))
        }
        return {**asdict(self), **finite, "holds": self.holds}


def unlike(a: Bundle, b: Bundle) -> str:
    """Say why two bundles are not to be compared: nothing, if they are of one network."""
    one, other = a.manifest, b.manifest
    if one.model.spec != other.model.spec:
        return "their specs differ"
    if one.weights.digest != other.weights.digest:
        return "their weights differ"
    if _contract(one) != _contract(other):
        return "their input contracts differ"
    outputs = [[(o.name, o.shape) for o in about.outputs] for about in (one, other)]
    return "their outputs differ" if outputs[0] != outputs[1] else ""


def check(a: Bundle, b: Bundle) -> None:
    """Refuse two bundles of one spec that say other things of what goes in or of what comes out.

    Raises:
        UserError: They do (E0664): somebody changed a manifest, and sealed it again.
    """
    one, other = a.manifest, b.manifest
    if one.model.spec != other.model.spec:
        return
    said = {
        "preprocessing is not that": _contract(one) != _contract(other),
        "outputs, or their labels, are not those": one.outputs != other.outputs,
    }
    for what in (what for what, apart in said.items() if apart):
        message = "one of two bundles of the same spec is not what it was built from"
        label = f"its {what} of {b.folder}"
        help = "name the spec with --spec: it tells which of them"
        raise fail("E0664", message, whole_file(str(a.folder)), label=label, help=help)


def compared(a: Replayed, b: Replayed) -> Iterator[OutputPair]:
    """Yield how each output of two bundles that are not `unlike` compares, on shared inputs."""
    # Equal goldens, to the bit: two bundles that hold the same outputs as right have one program.
    promised = _promises(a.bundle)
    same_bits = promised is not None and promised == _promises(b.bundle)
    for result in a.bundle.manifest.outputs:
        rows = [
            tuple(given[result.name].reshape(-1) for given in (a.outputs[key], b.outputs[key]))
            # By the contents of the golden's image: bundles may have other sets, and share some.
            for key in a.outputs
            if result.name in a.outputs[key] and result.name in b.outputs.get(key, {})
        ]
        parts = [replay.apart(*row) for row in rows]
        decided = [_decided(result, one, other) for one, other in rows]
        yield OutputPair(
            str(a.bundle.folder),
            str(b.bundle.folder),
            result.name,
            len(rows),
            sum(one.size for one, _ in rows),
            sum(differing for differing, _ in parts),
            # np.max, as max may pass over NaN.
            float(np.max([largest for _, largest in parts], initial=0.0)),
            min((cosine(x.astype(np.float64), y.astype(np.float64)) for x, y in rows), default=1.0),
            None if None in decided or not decided else sum(map(bool, decided)),
            same_bits,
        )


def _decided(result: OutputContract, one: Values, other: Values) -> bool | None:
    """Whether two rows choose the same class, or decide all the same; None where nothing is."""
    if len(result.shape) != 1:
        return None
    match result.kind:
        case "classes":
            return bool(one.argmax() == other.argmax())
        case "decisions":
            return bool(np.array_equal(one >= 0, other >= 0))
        case "regression":
            return None
        case _:
            assert_never(result.kind)


Contract = tuple[str, tuple[int, ...], Preprocess | str]


def _contract(about: Manifest) -> Contract:
    """Return what an input becomes, whichever numbers of its pixels a target starts from."""
    source = about.input
    known = source.preprocess
    # Whether a target starts from grey levels or from floats is its own affair.
    return source.name, source.shape, replace(known, raw=False) if known else source.dtype


def _promises(bundle: Bundle) -> dict[str, str] | None:
    """Return the digests of the goldens' files, if nothing but their bytes will do."""
    goldens = bundle.manifest.goldens
    if goldens.tolerance.relative:
        return None
    digests = {file.path: file.sha256 for file in bundle.manifest.files}
    return {
        f"{digests[case.image or case.tensor]} {name}": digests[path]
        for case in goldens.cases
        for name, path in case.outputs.items()
    }
