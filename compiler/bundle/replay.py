"""Replaying a bundle's goldens on its own artifact: does it give what the reference gave?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tcc.compiler.bundle import artifact_runs
from tcc.compiler.bundle.agreement import Agreement, Tolerance, relative
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.manifest import Golden
from tcc.compiler.data import confined_images
from tcc.compiler.data.dataset import fitting
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.device import Device
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Outputs = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """How an artifact agrees with its goldens, and what it gave.

    `outputs` go by the SHA-256 of each golden's image, or of its tensor where there is none.
    """

    bundle: Bundle
    agreement: tuple[Agreement, ...]
    outputs: "Mapping[str, Outputs]"

    @property
    def flat(self) -> tuple[str, ...]:
        """The outputs for which all goldens want the same: these tell nothing of what goes in."""
        cases, results = self.bundle.manifest.goldens.cases, self.bundle.manifest.outputs
        kept = {
            r.name: {expected(self.bundle, c, r.name).tobytes() for c in cases} for r in results
        }
        return tuple(name for name, values in kept.items() if len(values) == 1)


def replay(bundle: Bundle, device: Device, most: int | None = None) -> Replayed:
    """Return what an artifact gives for the first `most` goldens of its bundle, or for all.

    Args:
        bundle: The bundle.
        device: Its target.
        most: How many goldens, from the first on; all without it.

    Returns:
        How each output agrees with its golden, and which outputs are the same for all of them.

    Raises:
        UserError: The goldens are not those of the manifest's contract (E0621), or the artifact
            cannot be run, or gives something else than the manifest says (E0655).
    """
    cases = bundle.manifest.goldens.cases[:most]
    return judged(bundle, device, cases, _outputs(bundle, device, cases))


def judged(
    bundle: Bundle, device: Device, cases: Sequence[Golden], outputs: "Sequence[Outputs]"
) -> Replayed:
    """Return how outputs for goldens agree with these.

    Args:
        bundle: The bundle.
        device: Its target.
        cases: Goldens of it.
        outputs: What the artifact gave for each, by name.

    Raises:
        Mislabelled: The artifact is not what the manifest says (E0656).
    """
    # By output, as layers in float bear on some outputs and not on others.
    allowed = artifact_runs.allowed(bundle, device)
    agreement = tuple(
        found
        for case, given in zip(cases, outputs, strict=True)
        for found in _compared(bundle, case, given, allowed)
    )
    stuck = _stuck(bundle, cases, outputs)
    agreement = tuple(replace(one, stuck=one.output in stuck) for one in agreement)
    digests = {file.path: file.sha256 for file in bundle.manifest.files}
    keys = [digests[case.image or case.tensor] for case in cases]
    return Replayed(bundle, agreement, dict(zip(keys, outputs, strict=True)))


def expected(bundle: Bundle, case: Golden, output: str) -> "NDArray[np.float32]":
    """Return what a golden says of an output, as the file holds it: in one row.

    Args:
        bundle: The bundle.
        case: One of its goldens.
        output: The output's name.

    Returns:
        float32 (values,).
    """
    return _values(bundle, case.outputs[output], "float32")


def tensor(bundle: Bundle, case: Golden) -> "NDArray[np.float32]":
    """Return what a golden says that its image becomes, of the input's shape."""
    kind = bundle.input.type
    return _values(bundle, case.tensor, kind.dtype).reshape(kind.shape)


def _outputs(bundle: Bundle, device: Device, cases: Sequence[Golden]) -> "Sequence[Outputs]":
    """Run the artifact from the bytes of the images on, where there are images."""
    source = bundle.input
    # Also of images: what they become is compared with what the golden holds before the artifact is
    # asked.
    tensors = [tensor(bundle, case) for case in cases]
    if source.preprocess is None:
        return artifact_runs.infer(bundle, device, tensors)
    pictures = [bundle.folder / case.image for case in cases if case.image]
    pixels = [fitting(confined_images.read(path), source, str(path)) for path in pictures]
    channels, height, width = source.type.shape
    for path, image, kept in zip(pictures, pixels, tensors, strict=True):
        # To the bit: what an image becomes is part of the contract, and defined so.
        made = preprocess.apply(source.preprocess, image, (channels, height, width), str(path))
        if not np.array_equal(made, kept):
            label = "its tensor is not what the input contract makes of it"
            raise _damaged(path, label)
    return artifact_runs.run(bundle, device, pixels)


def _compared(
    bundle: Bundle, case: Golden, outputs: "Outputs", tolerances: Mapping[str, Tolerance]
) -> Iterator[Agreement]:
    wanted = {name: expected(bundle, case, name) for name in case.outputs}
    return beside(bundle, case.name, wanted, outputs, tolerances)


def beside(
    bundle: Bundle,
    name: str,
    wanted: "Outputs",
    outputs: "Outputs",
    tolerances: Mapping[str, Tolerance],
) -> Iterator[Agreement]:
    """Yield how each output of one input agrees with what is right.

    Args:
        bundle: The bundle, whose goldens say how large an output is.
        name: What the input is called.
        wanted: What is right, float32 by the outputs' names.
        outputs: What the artifact gave.
        tolerances: How far each may be off.
    """
    for output, value in wanted.items():
        right, found = value.reshape(-1), outputs[output].reshape(-1)
        differing, largest = apart(right, found)
        own = float(np.abs(right.astype(np.float64)).max(initial=0.0))
        allowed = tolerances[output].relative
        share = relative(largest, max(own, _magnitude(bundle, output)), allowed)
        yield Agreement(name, output, share, allowed, right.size, differing, largest, own)


def _magnitude(bundle: Bundle, output: str) -> float:
    """Return the largest magnitude of an output in all goldens."""
    cases = bundle.manifest.goldens.cases
    return max(float(np.abs(expected(bundle, case, output)).max(initial=0.0)) for case in cases)


def _stuck(bundle: Bundle, cases: Sequence[Golden], outputs: "Sequence[Outputs]") -> set[str]:
    """Return the outputs that are the same for every golden, where they are not to be."""
    return {
        name
        for name in (result.name for result in bundle.manifest.outputs)
        if len({given[name].tobytes() for given in outputs}) == 1
        and len({expected(bundle, case, name).tobytes() for case in cases}) > 1
    }


def apart(a: "NDArray[np.float32]", b: "NDArray[np.float32]") -> tuple[int, float]:
    """Return how many values of two arrays of one shape differ in bits, and by how much at most."""
    # By bits: 0.0 and -0.0 differ, and NaN is itself.
    differing = int(np.count_nonzero(a.view(np.uint32) != b.view(np.uint32)))
    with np.errstate(invalid="ignore"):
        largest = float(np.abs(a.astype(np.float64) - b).max(initial=0.0))
    return differing, largest


def _values(bundle: Bundle, path: str, dtype: str) -> "NDArray[np.float32]":
    """Return the numbers of a file whose size was found to be that of its tensor."""
    place = bundle.folder / path
    with regular_files.opened(place) as file:
        return np.frombuffer(file.read(), np.dtype(dtype).newbyteorder("<")).astype(np.float32)


def _damaged(path: Path, label: str) -> UserError:
    help = "build the bundle again"
    return fail(
        "E0621", "the bundle's goldens are damaged", whole_file(str(path)), label=label, help=help
    )
