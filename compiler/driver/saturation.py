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
from tcc.compiler.driver.int8_program import DRAWN, REPORT
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.quant import calibration_document
from tcc.compiler.quant.program.float_comparison import at_end, tapped
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.progress import Progress

Levels = Mapping[str, NDArray[Any]]
TIMES = 4.0
"""A layer saturates unusually often from so many times its usual share on: the share of one half of
a calibration's images is rarely more than twice that of the other half."""
LEAST = 1e-4
"""A smaller share is never unusual: of images as usual, a number in ten thousand may be chance."""


@dataclass(frozen=True, slots=True)
class LayerSaturation:
    """The share of a layer's values that are at the end of their levels.

    `share` is of all images, `error` its standard error, from image to image; `worst` is that of
    the image with the most, `usual` that of the calibration's images, None where a bundle does not
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
    return with_usual(counted, usual(found))


def of_program(
    program: Model, signed: Mapping[str, bool], data: DataSet, progress: Progress
) -> Saturation:
    """Return the same of an integer program, in the reference executor.

    Args:
        program: The integer program.
        signed: Whether each value of its calibration is.
        data: Images that it takes.
        progress: Told how many are done.
    """
    (source,) = program.graph.inputs
    check(data, source)
    types = program.graph.types
    made = {node.name for node in program.graph.nodes}
    names = [n for n in signed if n in made and types[n].scale is not None]
    run = tapped(program, names)
    values = ({n: v for n, v in run(x).items() if n in names} for x in tensors(data, source))
    return _counted(values, signed, len(data), progress)


def tensors(data: DataSet, source: Input) -> Iterator[NDArray[Any]]:
    """Yield each item as the network's input."""
    return (data.tensor(index, source) for index in range(len(data)))


def usual(found: Bundle) -> Mapping[str, float]:
    """Return the share of each layer on the calibration's images, as the bundle's report says."""
    path = found.folder / REPORT
    if REPORT not in {file.path for file in found.manifest.files}:
        return {}
    report = json.loads(path.read_bytes())
    # What is usual on drawings says nothing of the images that they stand for.
    layers = () if report.get("where", "").startswith(DRAWN) else report["layers"]
    return {one["name"]: float(one["at_end"]) for one in layers if "at_end" in one}


def with_usual(found: Saturation, shares: Mapping[str, float]) -> Saturation:
    """Return what was counted beside what is usual."""
    layers = (replace(layer, usual=shares.get(layer.name)) for layer in found.layers)
    return Saturation(tuple(layers), found.images)


def _counted(
    values: Iterable[Levels], signed: Mapping[str, bool], images: int, progress: Progress
) -> Saturation:
    shares: dict[str, list[float]] = {}
    progress("saturation", 0, images)
    for done, found in enumerate(values, 1):
        for name in signed.keys() & found.keys():
            stored = found[name]
            share = at_end(stored, signed=signed[name]) / max(stored.size, 1)
            shares.setdefault(name, []).append(share)
        progress("saturation", done, images)
    layers = (_layer(name, np.array(shares[name])) for name in signed if name in shares)
    return Saturation(tuple(layers), images)


def _layer(name: str, shares: NDArray[np.float64]) -> LayerSaturation:
    """Return what the shares of a layer in each image (images,) come to."""
    # Of one image nothing is known of how much shares differ: as much as they are large.
    error = shares.std(ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else shares[0]
    return LayerSaturation(name, float(shares.mean()), float(error), float(shares.max()))
