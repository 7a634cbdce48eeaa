"""Replaying a bundle's goldens on its own artifact: does it give what the reference gave?"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tcc.compiler import images
from tcc.compiler.agreement import Agreement
from tcc.compiler.bundle import Bundle
from tcc.compiler.manifest import Golden

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Outputs = dict[str, NDArray[np.float32]]


class Runs(Protocol):
    """What runs a bundle's artifact."""

    def run(self, bundle: Bundle, images: "Sequence[NDArray[np.uint8]]") -> "list[Outputs]":
        """Return the raw outputs for images."""
        ...

    def infer(self, bundle: Bundle, tensors: "Sequence[NDArray[np.float32]]") -> "list[Outputs]":
        """Return the raw outputs for preprocessed tensors."""
        ...


def replay(bundle: Bundle, device: Runs, most: int | None = None) -> tuple[Agreement, ...]:
    """Return how the artifact agrees with the first `most` goldens of its bundle, or with all."""
    cases = bundle.manifest.goldens.cases[:most]
    return tuple(
        found
        for case, outputs in zip(cases, _outputs(bundle, device, cases), strict=True)
        for found in _compared(bundle, case, outputs)
    )


def _outputs(bundle: Bundle, device: Runs, cases: Sequence[Golden]) -> "list[Outputs]":
    """Run the artifact from the bytes of the images on, where there are images."""
    pictures = [bundle.folder / case.image for case in cases if case.image]
    if len(pictures) == len(cases):
        return device.run(bundle, [images.read(path) for path in pictures])
    source = bundle.manifest.input
    tensors = [_tensor(bundle, c.tensor, source.dtype).reshape(source.shape) for c in cases]
    return device.infer(bundle, tensors)


def _compared(bundle: Bundle, case: Golden, outputs: "Outputs") -> Iterator[Agreement]:
    allowed = bundle.manifest.goldens.tolerance.relative
    for name, path in case.outputs.items():
        expected = _tensor(bundle, path, "float32").astype(np.float64)
        found = outputs[name].reshape(-1).astype(np.float64)
        scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
        difference = float(np.abs(found - expected).max(initial=0.0)) / scale
        yield Agreement(case.name, name, difference, allowed)


def _tensor(bundle: Bundle, path: str, dtype: str) -> "NDArray[np.float32]":
    kind = np.dtype(dtype).newbyteorder("<")
    return np.frombuffer((bundle.folder / path).read_bytes(), kind).astype(np.float32)
