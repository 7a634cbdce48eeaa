"""How often an integer program's values saturate, layer by layer, beside the calibration's images.

A value outside the range of its calibration is stored as the largest or smallest integer of its
type. Counting those needs no floats, so that it works wherever the program runs. A deviation says
that more values clip than on the calibration's images. Its absence says nothing: images of another
kind may clip no more.
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
"""The calibration's counts, in a bundle: for a page, which reads no weights to know them."""
MIN_SHARE = 1e-4
"""A smaller share of saturated values is not counted as more than the calibration's: it changes no
output that matters."""


@dataclass(frozen=True, slots=True)
class UsualShare:
    """Shares of a layer's saturated values on the calibration's images.

    `mean` is of all `images`, `largest` of the image with the most; `images` is 0 where the file
    of an older version does not say them.
    """

    mean: float
    largest: float = 0.0
    images: int = 0


@dataclass(frozen=True, slots=True)
class LayerSaturation:
    """The shares of a layer's values that are saturated, one for each of some images.

    `usual` is None where the calibration's file does not say it.
    """

    name: str
    shares: tuple[float, ...]
    usual: UsualShare | None = None

    @property
    def mean(self) -> float:
        """The share of all images' values."""
        return fsum(self.shares) / len(self.shares)

    @property
    def error(self) -> float:
        """The standard error of the mean, from image to image; that of one image is its share."""
        count = len(self.shares)
        if count < 2:
            return max(self.shares)
        squares = fsum((share - self.mean) ** 2 for share in self.shares)
        return sqrt(squares / (count - 1) / count)

    @property
    def above(self) -> int | None:
        """How many images saturate more than each of the calibration's; None if not known."""
        if self.usual is None or not self.usual.images:
            return None
        limit = max(self.usual.largest, MIN_SHARE)
        return sum(share > limit for share in self.shares)

    def has_more_clipping(self, layers: int) -> bool:
        """Whether more clips than chance explains, where as many `layers` are compared."""
        above = self.above
        if above is None or self.usual is None:
            return False
        return exceedance.is_shifted(above, len(self.shares), self.usual.images, layers)


@dataclass(frozen=True, slots=True)
class Saturation:
    """What was counted of each layer, in the program's order, over how many images."""

    layers: tuple[LayerSaturation, ...]
    images: int

    @property
    def compared(self) -> tuple[LayerSaturation, ...]:
        """The layers whose counts the calibration's images have, by image."""
        return tuple(layer for layer in self.layers if layer.above is not None)

    @property
    def deviating(self) -> tuple[LayerSaturation, ...]:
        """The layers that clip more than on the calibration's images, the most certain first."""
        compared = self.compared
        layers = (layer for layer in compared if layer.has_more_clipping(len(compared)))
        return tuple(sorted(layers, key=lambda layer: -(layer.above or 0)))

    @property
    def can_deviate(self) -> bool:
        """Whether as many images could show a deviation at all."""
        compared = self.compared
        return any(
            exceedance.is_shifted(self.images, self.images, layer.usual.images, len(compared))
            for layer in compared
            if layer.usual
        )


def measure_artifact(
    bundle: Bundle, device: Device, dataset: DataSet, progress: Progress
) -> Saturation:
    """Return how often the values of a bundle's artifact saturate.

    Args:
        bundle: The bundle.
        device: Its target, with the backend that can look into it.
        dataset: Images that its network takes.
        progress: Told how many images are done.

    Raises:
        UserError: The artifact has no integers, or cannot be looked into here (E1267), or the
            images do not fit the network.
    """
    manifest = bundle.manifest
    location = make_file_span(str(bundle.folder))
    if manifest.calibration is None:
        message = f"this bundle computes in floats ({manifest.precision}), which do not saturate"
        raise fail("E1267", message, location, help="build it with --precision int8")
    if device.quantized_value_reader is None:
        message = f"the values of a bundle for {device.name} cannot be looked into here"
        help = "evaluate a bundle for onnxruntime or tflite of the same calibration"
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
        message = "this artifact keeps floats between its layers, so that nothing can be counted"
        raise fail("E1267", message, location, help="build it with --precision int8")
    return add_usual_shares(counted, get_usual_shares(document))


def measure_program(
    program: Model, document: CalibrationDocument, dataset: DataSet, progress: Progress
) -> Saturation:
    """Return the same of an integer program, in the reference executor.

    Args:
        program: The integer program.
        document: Its calibration.
        dataset: Images that it takes.
        progress: Told how many are done.
    """
    check_dataset(dataset, program.graph.inputs[0])
    signed = {name: value.signed for name, value in document.values.items()}
    levels = saturated_values.iterate_quantized_values(program, signed, dataset)
    return add_usual_shares(
        _count_saturation(levels, signed, len(dataset), progress), get_usual_shares(document)
    )


def create_files(document: CalibrationDocument) -> Mapping[str, bytes]:
    """Return what a bundle says of what is usual, if its calibration knows it."""
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
    """Return what a calibration's file says of its images, by the values' names."""
    largest, images = document.usual_largest, document.usual_images
    return {
        name: UsualShare(mean, largest[name], images) if name in largest else UsualShare(mean)
        for name, mean in document.usual.items()
    }


def iterate_tensors(dataset: DataSet, source: Input) -> Iterator[NDArray[Any]]:
    """Yield each item as the network's input."""
    return (dataset.read_tensor(index, source) for index in range(len(dataset)))


def add_usual_shares(counts: Saturation, usual: Mapping[str, UsualShare]) -> Saturation:
    """Return the counts beside those of the calibration's images."""
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
