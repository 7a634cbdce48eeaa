"""How often an integer program's values lie at the end of their levels, layer by layer.

A value beyond what calibration saw is stored as the last level. How many levels are the last ones
needs no floats, so that it can be counted of any image wherever the program runs; what is usual is
what the images of the calibration gave, and more says that these no longer stand for those at hand.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import artifact_runs
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.data.dataset import DataSet, check
from tcc.compiler.driver.build_plan import CALIBRATION
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.quant import calibration_document
from tcc.compiler.quant.calibration_document import CalibrationDocument
from tcc.compiler.quant.program import level_ends
from tcc.compiler.quant.program.level_ends import Levels
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.progress import Progress

REPORT = "report/saturation.json"
"""What is usual, in a bundle: for a page, which reads no weights to know it."""
TIMES = 4.0
"""A layer saturates unusually often from so many times its usual share on: the share of one half of
a calibration's images is rarely more than twice that of the other half."""
LEAST = 1e-4
"""A smaller share is never unusual: of images as usual, a number in ten thousand may be chance."""
FEWEST = 4
"""Fewer images say nothing: of images as usual one group of four in a hundred seems unusual, of
two eight."""


@dataclass(frozen=True, slots=True)
class LayerSaturation:
    """The share of a layer's values that are at the end of their levels.

    `share` is of all images, `error` its standard error, from image to image; `worst` is that of
    the image with the most, `usual` that of the calibration's images, None where its file does not
    say it.
    """

    name: str
    share: float
    error: float
    worst: float
    usual: float | None = None

    @property
    def unusual(self) -> bool:
        """Whether it is so often more than usual that calibration no longer fits.

        By two standard errors: a single odd image says nothing of the others.
        """
        sure = self.share - 2 * self.error
        return self.usual is not None and sure > max(TIMES * self.usual, LEAST)


@dataclass(frozen=True, slots=True)
class Saturation:
    """What was counted of each layer, in the program's order, over how many images."""

    layers: tuple[LayerSaturation, ...]
    images: int

    @property
    def unusual(self) -> tuple[LayerSaturation, ...]:
        """The layers that saturate unusually often."""
        return tuple(layer for layer in self.layers if layer.unusual)

    @property
    def compared(self) -> bool:
        """Whether it is known what is usual."""
        return any(layer.usual is not None for layer in self.layers)


def of_artifact(found: Bundle, device: Device, data: DataSet, progress: Progress) -> Saturation:
    """Return how often the values of a bundle's artifact saturate.

    Args:
        found: The bundle.
        device: Its target, with the backend that can look into it.
        data: Images that its network takes.
        progress: Told how many images are done.

    Raises:
        UserError: The artifact has no integers, or cannot be looked into here (E1267), or the
            images do not fit the network.
    """
    about = found.manifest
    where = whole_file(str(found.folder))
    if about.calibration is None:
        message = f"this bundle computes in floats ({about.precision}), which do not saturate"
        raise fail("E1267", message, where, help="build it with --precision int8")
    if device.level_reader is None:
        message = f"the values of a bundle for {device.name} cannot be looked into here"
        help = "evaluate a bundle for onnxruntime or tflite of the same calibration"
        raise fail("E1267", message, where, help=help)
    written = calibration_document.read(found.folder / CALIBRATION)
    signed = {name: value.signed for name, value in written.values.items()}
    check(data, found.input)
    values = artifact_runs.inner_levels(found, device, tensors(data, found.input))
    assert values is not None
    counted = _counted(values, signed, len(data), progress)
    if not counted.layers:
        message = "this artifact keeps floats between its layers, so that nothing can be counted"
        raise fail("E1267", message, where, help="build it with --precision int8")
    return with_usual(counted, written.usual)


def of_program(
    program: Model, found: CalibrationDocument, data: DataSet, progress: Progress
) -> Saturation:
    """Return the same of an integer program, in the reference executor.

    Args:
        program: The integer program.
        found: Its calibration.
        data: Images that it takes.
        progress: Told how many are done.
    """
    check(data, program.graph.inputs[0])
    signed = {name: value.signed for name, value in found.values.items()}
    levels = level_ends.program_levels(program, signed, data)
    return with_usual(_counted(levels, signed, len(data), progress), found.usual)


def files(found: CalibrationDocument) -> Mapping[str, bytes]:
    """Return what a bundle says of what is usual, if its calibration knows it."""
    if not found.usual:
        return {}
    layers = [
        {"name": name, "signed": found.values[name].signed, "usual": share}
        for name, share in found.usual.items()
        if name in found.values
    ]
    text = json.dumps({"layers": layers}, indent=2) + "\n"
    return {REPORT: text.encode()}


def tensors(data: DataSet, source: Input) -> Iterator[NDArray[Any]]:
    """Yield each item as the network's input."""
    return (data.tensor(index, source) for index in range(len(data)))


def with_usual(found: Saturation, shares: Mapping[str, float]) -> Saturation:
    """Return what was counted beside what is usual."""
    layers = (replace(layer, usual=shares.get(layer.name)) for layer in found.layers)
    return Saturation(tuple(layers), found.images)


def _counted(
    values: Iterable[Levels], signed: Mapping[str, bool], images: int, progress: Progress
) -> Saturation:
    found = level_ends.shares(values, signed, images, progress)
    return Saturation(tuple(_layer(name, own) for name, own in found.items()), images)


def _layer(name: str, shares: NDArray[np.float64]) -> LayerSaturation:
    """Return what the shares of a layer in each image (images,) come to."""
    few = len(shares) < FEWEST  # how much shares differ is not known: as much as they are large
    error = shares.max() if few else shares.std(ddof=1) / np.sqrt(len(shares))
    return LayerSaturation(name, float(shares.mean()), float(error), float(shares.max()))
