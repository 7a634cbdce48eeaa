"""Shares of saturated values in an int8 program, by value.

A number outside the range is stored as the largest or smallest quantized value. Counting these
needs no fp32 values, so that an artifact can be checked on any image.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import float_program
from tcc.compiler.support.progress import Progress, silent


def create_probe(model: Model, names: list[str]) -> Callable[[Any], Mapping[str, Any]]:
    """Return a function that computes a model's outputs and some intermediate values.

    Args:
        model: An fp32 model or an int8 program, with one input.
        names: The intermediate values.
    """
    graph = model.graph
    probe_outputs = tuple(
        Output(f"tap {name}", name) for name in names if name not in _list_inputs(model)
    )
    run = float_program.create_runner(
        replace(model, graph=replace(graph, outputs=graph.outputs + probe_outputs))
    )

    def run_probe(tensor: Any) -> Mapping[str, Any]:
        tensors = dict.fromkeys(_list_inputs(model), tensor)
        return tensors | {key.removeprefix("tap "): array for key, array in run(tensor).items()}

    return run_probe


def _list_inputs(model: Model) -> tuple[str, ...]:
    return tuple(network_input.name for network_input in model.graph.inputs)


QuantizedValues = Mapping[str, NDArray[Any]]
"""8-bit quantized values of one image, as uint8 or int8, by value name."""
MAX_IMAGES = 16
"""Maximum images for counting saturated values at calibration."""


@dataclass(frozen=True, slots=True)
class CalibrationSaturation:
    """Shares of saturated values on calibration images, by value name.

    `mean` is the share over all `images`, `largest` the share in the image with the most.
    """

    images: int = 0
    mean: Mapping[str, float] = field(default_factory=dict)
    largest: Mapping[str, float] = field(default_factory=dict)


def count_saturated(codes: NDArray[Any], *, signed: bool) -> int:
    """Return the number of values at the upper end of the type, or at either end if signed.

    The lower end of an unsigned value is 0, which is the normal result of a relu.

    Args:
        codes: 8-bit quantized values, as uint8 or int8.
        signed: Whether the value can be negative.
    """
    type_limits = np.iinfo(codes.dtype)
    saturated_count = int(np.count_nonzero(codes == type_limits.max))
    return (
        saturated_count + int(np.count_nonzero(codes == type_limits.min))
        if signed
        else saturated_count
    )


def measure_saturation(
    lowered_model: Model, calibration: Calibration, dataset: DataSet
) -> CalibrationSaturation:
    """Return the shares of saturated values on calibration images.

    Args:
        lowered_model: The lowered fp32 model.
        calibration: Its calibration.
        dataset: The images, of which at most `MAX_IMAGES` run.
    """
    signed = {name: value_range.signed for name, value_range in calibration.ranges.items()}
    program = quantize(lowered_model, calibration)
    images = dataset.select_first(MAX_IMAGES)
    shares_by_name = compute_saturation_shares(
        iterate_quantized_values(program, signed, images), signed
    )
    return CalibrationSaturation(
        len(images),
        {name: float(image_shares.mean()) for name, image_shares in shares_by_name.items()},
        {name: float(image_shares.max()) for name, image_shares in shares_by_name.items()},
    )


def iterate_quantized_values(
    program: Model, signed: Iterable[str], dataset: DataSet
) -> Iterator[QuantizedValues]:
    """Yield the quantized values of each image, computed by the reference executor.

    Args:
        program: The int8 program, with one input.
        signed: Names of values; those in float are skipped.
        dataset: Images for the program.
    """
    (network_input,) = program.graph.inputs
    types = program.graph.types
    node_names = {node.name for node in program.graph.nodes}
    names = [n for n in signed if n in node_names and types[n].scale is not None]
    run = create_probe(program, names)
    for index in range(len(dataset)):
        arrays = run(dataset.read_tensor(index, network_input))
        yield {name: arrays[name] for name in names}


def compute_saturation_shares(
    images_quantized: Iterable[QuantizedValues],
    signed: Mapping[str, bool],
    images: int = 0,
    progress: Progress = silent,
) -> Mapping[str, NDArray[np.float64]]:
    """Return the share of saturated values in each image (images,), by value name.

    Args:
        images_quantized: The quantized values of each image.
        signed: Whether each value can be negative; other values are not counted.
        images: Number of images, for `progress`.
        progress: Called with the number of completed images.
    """
    shares_by_name: dict[str, list[float]] = {name: [] for name in signed}
    progress("saturation", 0, images)
    for completed, quantized_values in enumerate(images_quantized, 1):
        for name in shares_by_name.keys() & quantized_values.keys():
            codes = quantized_values[name]
            shares_by_name[name].append(
                count_saturated(codes, signed=signed[name]) / max(codes.size, 1)
            )
        progress("saturation", completed, images)
    return {
        name: np.array(image_shares)
        for name, image_shares in shares_by_name.items()
        if image_shares
    }
