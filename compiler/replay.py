"""Replaying a bundle's goldens on its own artifact: does it give what the reference gave?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan, prod
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tcc.compiler import images
from tcc.compiler.agreement import Agreement
from tcc.compiler.bundle import Bundle
from tcc.compiler.manifest import NAME, Golden
from tcc.compiler.quant.data import fitting
from tcc.compiler.source import UserError, fail, whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Outputs = Mapping[str, NDArray[np.float32]]


class Runs(Protocol):
    """What runs a bundle's artifact."""

    def run(
        self, bundle: Bundle, images: "Sequence[NDArray[np.uint8]]"
    ) -> "list[dict[str, NDArray[np.float32]]]":
        """Return the raw outputs for images."""
        ...

    def infer(
        self, bundle: Bundle, tensors: "Sequence[NDArray[np.float32]]"
    ) -> "list[dict[str, NDArray[np.float32]]]":
        """Return the raw outputs for preprocessed tensors."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """How an artifact agrees with its goldens, and what it gave.

    `outputs` go by the SHA-256 of each golden's image, or of its tensor where there is none; what
    is not of the contract's size is left out.
    """

    bundle: Bundle
    agreement: tuple[Agreement, ...]
    outputs: "Mapping[str, Outputs]"


def replay(bundle: Bundle, device: Runs, most: int | None = None) -> Replayed:
    """Return what an artifact gives for the first `most` goldens of its bundle, or for all.

    Raises:
        UserError: The goldens are not those of the manifest's contract (E0621).
    """
    cases = bundle.manifest.goldens.cases[:most]
    outputs = _outputs(bundle, device, cases)
    agreement = tuple(
        found
        for case, given in zip(cases, outputs, strict=True)
        for found in _compared(bundle, case, given)
    )
    digests = {file.path: file.sha256 for file in bundle.manifest.files}
    keys = [digests[_listed(bundle, case.image or case.tensor)] for case in cases]
    sizes = {result.name: prod(result.shape) for result in bundle.manifest.outputs}
    fit = [{n: v for n, v in given.items() if v.size == sizes.get(n)} for given in outputs]
    return Replayed(bundle, agreement, dict(zip(keys, fit, strict=True)))


def expected(bundle: Bundle, case: Golden, output: str) -> "NDArray[np.float32]":
    """Return what a golden says of an output, as the file holds it: in one row.

    Raises:
        UserError: There is no such output, or the file is not of its size (E0621).
    """
    shapes = {result.name: result.shape for result in bundle.manifest.outputs}
    if output not in shapes:
        raise _damaged(bundle, f"golden {case.name} has an output `{output[:40]}`")
    return _tensor(bundle, case.outputs[output], "float32", shapes[output])


def _outputs(bundle: Bundle, device: Runs, cases: Sequence[Golden]) -> "Sequence[Outputs]":
    """Run the artifact from the bytes of the images on, where there are images."""
    pictures = [bundle.folder / _listed(bundle, case.image) for case in cases if case.image]
    source = bundle.manifest.input
    if source.preprocess and len(pictures) == len(cases):
        given = [fitting(images.read(path), bundle.input, str(path)) for path in pictures]
        return device.run(bundle, given)
    tensors = [_tensor(bundle, case.tensor, source.dtype, source.shape) for case in cases]
    return device.infer(bundle, [tensor.reshape(source.shape) for tensor in tensors])


def _compared(bundle: Bundle, case: Golden, outputs: "Outputs") -> Iterator[Agreement]:
    allowed = bundle.manifest.goldens.tolerance.relative
    for name in case.outputs:
        wanted = expected(bundle, case, name)
        found = outputs.get(name, np.empty(0, np.float32)).reshape(-1).astype(np.float32)
        if found.size != wanted.size:
            yield Agreement(case.name, name, nan, allowed, wanted.size, wanted.size, inf)
            continue
        differing, largest = apart(wanted, found)
        scale = max(1.0, float(np.abs(wanted.astype(np.float64)).max(initial=0.0)))
        yield Agreement(case.name, name, largest / scale, allowed, wanted.size, differing, largest)


def apart(a: "NDArray[np.float32]", b: "NDArray[np.float32]") -> tuple[int, float]:
    """Return how many values of two arrays of one shape differ in bits, and by how much at most."""
    differing = int(np.count_nonzero(a.view(np.uint32) != b.view(np.uint32)))
    with np.errstate(invalid="ignore"):
        largest = float(np.abs(a.astype(np.float64) - b).max(initial=0.0))
    return differing, largest


def _tensor(bundle: Bundle, path: str, dtype: str, shape: tuple[int, ...]) -> "NDArray[np.float32]":
    kind = np.dtype(dtype).newbyteorder("<")
    data = (bundle.folder / _listed(bundle, path)).read_bytes()
    if len(data) != prod(shape) * kind.itemsize:
        raise _damaged(bundle, f"{path} has {len(data):,} bytes, which is not its tensor's size")
    return np.frombuffer(data, kind).astype(np.float32)


def _listed(bundle: Bundle, path: str) -> str:
    """Return a path of the bundle's files, which alone were checked."""
    if any(file.path == path for file in bundle.manifest.files):
        return path
    raise _damaged(bundle, f"goldens: {path[:80]} is none of the bundle's files")


def _damaged(bundle: Bundle, label: str) -> UserError:
    where = whole_file(str(bundle.folder / NAME))
    help = "build the bundle again"
    return fail("E0621", "the bundle's goldens are damaged", where, label=label, help=help)
