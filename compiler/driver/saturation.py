"""Count an int8 model's saturated values by layer, compared with the calibration images.

A value outside the range of its calibration is stored as the largest or smallest integer of its
type. Counting needs no float values, so it works wherever the program runs. A deviation
means that more values clip than on the calibration images. No deviation shows nothing: images of
another kind may clip no more.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import fsum, sqrt
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from tcc.compiler.bundle import artifact_runs
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.data.dataset import DataSet, check_dataset
from tcc.compiler.driver.build_plan import CALIBRATION
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.quant import calibration_document
from tcc.compiler.quant.calibration_document import CalibrationDocument
from tcc.compiler.quant.program import saturated_values
from tcc.compiler.quant.program.saturated_values import QuantizedValues
from tcc.compiler.reference import exceedance
from tcc.compiler.support.diagnostics import fail, make_file_span
from tcc.compiler.support.progress import Progress

if TYPE_CHECKING:
    pass


REPORT = "report/saturation.json"
"""The calibration's counts in a bundle, for pages that do not read the calibration."""
MIN_SHARE = 1e-4
"""A smaller share of saturated values never counts as more than the calibration's: it changes no
output that matters."""


@dataclass(frozen=True, slots=True)
class UsualShare:
    """Shares of a layer's saturated values on the calibration images.

    `mean` is over all `images`, `largest` the share of the worst image. `images` is 0 if the file
    of an older version does not have them.
    """

    mean: float
    largest: float = 0.0
    images: int = 0


@dataclass(frozen=True, slots=True)
class LayerSaturation:
    """Share of a layer's saturated values for each image.

    `usual` is None if the calibration file does not have it.
    """

    name: str
    shares: tuple[float, ...]
    usual: UsualShare | None = None

    @property
    def mean(self) -> float:
        """The mean share over all images."""
        return fsum(self.shares) / len(self.shares)

    @property
    def error(self) -> float:
        """The standard error of the mean over the images; for one image, its share."""
        count = len(self.shares)
        if count < 2:
            return max(self.shares)
        squares = fsum((share - self.mean) ** 2 for share in self.shares)
        return sqrt(squares / (count - 1) / count)

    @property
    def above(self) -> int | None:
        """Number of images that saturate more than any calibration image; None if unknown."""
        if self.usual is None or not self.usual.images:
            return None
        limit = max(self.usual.largest, MIN_SHARE)
        return sum(share > limit for share in self.shares)

    def has_more_clipping(self, layers: int) -> bool:
        """Whether more values clip than by chance, if this many `layers` are compared."""
        above = self.above
        if above is None or self.usual is None:
            return False
        return exceedance.is_shifted(above, len(self.shares), self.usual.images, layers)


@dataclass(frozen=True, slots=True)
class Saturation:
    """Counts of each layer, in program order, and the number of images."""

    layers: tuple[LayerSaturation, ...]
    images: int

    @property
    def compared(self) -> tuple[LayerSaturation, ...]:
        """The layers with counts by calibration image."""
        return tuple(layer for layer in self.layers if layer.above is not None)

    @property
    def deviating(self) -> tuple[LayerSaturation, ...]:
        """The layers that clip more than on the calibration images, the most certain first."""
        compared = self.compared
        layers = (layer for layer in compared if layer.has_more_clipping(len(compared)))
        return tuple(sorted(layers, key=lambda layer: -(layer.above or 0)))

    @property
    def can_deviate(self) -> bool:
        """Whether this number of images could show a deviation at all."""
        compared = self.compared
        return any(
            exceedance.is_shifted(self.images, self.images, layer.usual.images, len(compared))
            for layer in compared
            if layer.usual
        )


def measure_artifact(
    bundle: Bundle, device: Device, dataset: DataSet, progress: Progress
) -> Saturation:
    """Count the saturated values of a bundle's artifact.

    Args:
        bundle: The bundle.
        device: Its target, with a backend that can read layer values.
        dataset: Images for its network.
        progress: Receives the number of processed images.

    Raises:
        UserError: The artifact has no int8 values, or they cannot be read here (E1267), or the
            images do not fit the network.
    """
    manifest = bundle.manifest
    location = make_file_span(str(bundle.folder))
    if manifest.calibration is None:
        message = f"this bundle computes in float ({manifest.precision}), so no value saturates"
        raise fail("E1267", message, location, help="build it with --precision int8")
    if device.quantized_value_reader is None:
        message = f"layer outputs of a bundle for {device.name} cannot be read here"
        help = "evaluate a bundle for onnxruntime or tflite with the same calibration"
        raise fail("E1267", message, location, help=help)
    document = calibration_document.read_document(bundle.folder / CALIBRATION)
    signed = {name: value.signed for name, value in document.values.items()}
    check_dataset(dataset, bundle.input)
    layer_values = artifact_runs.collect_quantized_layers(
        bundle, device, iterate_tensors(dataset, bundle.input)
    )
    assert layer_values is not None
    counted = _count_saturation(layer_values, signed, len(dataset), progress)
    if not counted.layers:
        message = "this artifact has floats between its layers, so nothing saturates there"
        raise fail("E1267", message, location, help="build it with --precision int8")
    return add_usual_shares(counted, get_usual_shares(document))


def measure_program(
    program: Model, document: CalibrationDocument, dataset: DataSet, progress: Progress
) -> Saturation:
    """Count the saturated values of an integer program, in the reference executor.

    Args:
        program: The integer program.
        document: Its calibration.
        dataset: Images for its input.
        progress: Receives the number of processed images.
    """
    check_dataset(dataset, program.graph.inputs[0])
    signed = {name: value.signed for name, value in document.values.items()}
    levels = saturated_values.iterate_quantized_values(program, signed, dataset)
    return add_usual_shares(
        _count_saturation(levels, signed, len(dataset), progress), get_usual_shares(document)
    )


def create_files(document: CalibrationDocument) -> Mapping[str, bytes]:
    """Return the file with the usual shares for a bundle, if the calibration has them."""
    if not document.usual:
        return {}
    layers = [
        {"name": name, "signed": document.values[name].signed, "usual": share.mean}
        | ({"largest": share.largest} if share.images else {})
        for name, share in get_usual_shares(document).items()
        if name in document.values
    ]
    text = json.dumps({"images": document.usual_images, "layers": layers}, indent=2) + "\n"
    return {REPORT: text.encode()}


def get_usual_shares(document: CalibrationDocument) -> Mapping[str, UsualShare]:
    """Return the shares of saturated values on the calibration images, by value name."""
    largest, images = document.usual_largest, document.usual_images
    return {
        name: UsualShare(mean, largest[name], images) if name in largest else UsualShare(mean)
        for name, mean in document.usual.items()
    }


def iterate_tensors(dataset: DataSet, network_input: Input) -> Iterator[NDArray[Any]]:
    """Yield each item as an input tensor."""
    return (dataset.read_tensor(index, network_input) for index in range(len(dataset)))


def add_usual_shares(counts: Saturation, usual: Mapping[str, UsualShare]) -> Saturation:
    """Return the counts with the usual shares of the calibration images added."""
    layers = (replace(layer, usual=usual.get(layer.name)) for layer in counts.layers)
    return Saturation(tuple(layers), counts.images)


def _count_saturation(
    layer_values: Iterable[QuantizedValues],
    signed: Mapping[str, bool],
    images: int,
    progress: Progress,
) -> Saturation:
    by_name = saturated_values.compute_saturation_shares(layer_values, signed, images, progress)
    layers = (LayerSaturation(name, tuple(shares.tolist())) for name, shares in by_name.items())
    return Saturation(tuple(layers), images)
