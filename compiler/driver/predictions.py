"""What a bundle's artifact tells of images: raw values, and what its contract makes of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import artifact_runs
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.manifest import OutputContract
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.operating_point import OperatingPoint
from tcc.compiler.reference import decision_rule
from tcc.compiler.reference.output_activations import applied


@dataclass(frozen=True)
class Prediction:
    """One output of one image: raw values, and the probabilities that its activation makes.

    `point` is what was fitted of it, if anything.
    """

    output: OutputContract
    raw: NDArray[np.float32]
    values: NDArray[np.float64]
    point: OperatingPoint | None

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names, or their indices."""
        return self.output.labels or tuple(map(str, range(len(self.values))))

    def ranked(self) -> list[tuple[int, str, float]]:
        """Return class index, label and value, the largest first, of equal ones the first.

        Raw values decide, as different ones can round to one probability.
        """
        order = sorted(range(len(self.values)), key=lambda i: (-self.raw[i], i))
        return [(i, self.labels[i], float(self.values[i])) for i in order]

    def decided(self) -> tuple[int, ...] | None:
        """Return the classes that it is taken for by fitted thresholds; None where are none."""
        if self.point is None or not self.point.thresholds:
            return None
        row = self.raw[None]
        if self.output.kind == "decisions":
            return tuple(decision_rule.decided(row, self.point)[0].nonzero()[0].tolist())
        found = decision_rule.class_taken(self.output.activation, row, self.point)
        return (int(found[0]),)


def predicted(
    bundle: Bundle, device: Device, images: Sequence[NDArray[np.uint8]]
) -> Iterator[Mapping[str, Prediction]]:
    """Yield what a bundle's artifact tells of each image, by the outputs' names.

    Args:
        bundle: The bundle.
        device: Its target.
        images: uint8 (height, width, 3) each.

    Raises:
        UserError: As for `artifact_runs.run`.
    """
    about = bundle.manifest
    for raw in artifact_runs.run(bundle, device, images):
        found = {}
        for output in about.outputs:
            own, point = raw[output.name], about.operating_point(output.name)
            values = applied(output.activation, own, point.temperature if point else 1.0)
            found[output.name] = Prediction(output, own, values, point)
        yield found
