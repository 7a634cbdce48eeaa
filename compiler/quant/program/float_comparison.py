"""Quantization error of each layer and output: the int8 program against the fp32 model."""

from dataclasses import dataclass, field
from math import log10, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.observe.statistics import Float32
from tcc.compiler.quant.program.saturated_values import count_saturated, create_probe
from tcc.compiler.quant.scale_groups import list_unfused_values
from tcc.compiler.reference import output_comparison
from tcc.compiler.reference.accuracy_floor import FloorBounds, Qualities
from tcc.compiler.reference.expected_loss import estimate_bounds
from tcc.compiler.reference.integer_program import find_inexact_nodes
from tcc.compiler.reference.output_comparison import ComparisonImages
from tcc.compiler.support.progress import Progress

MAX_SNR = 200.0
"""Signal-to-noise ratio, in decibels, for no noise."""


@dataclass(frozen=True, slots=True)
class LayerLoss:
    """Quantization error of one value, over all images.

    Attributes:
        cosine: Cosine similarity of int8 and fp32 values.
        snr: Signal-to-noise ratio in decibels.
        error: Largest difference, in quantization steps.
        saturated: Share of fp32 values more than half a step outside the quantized range.
        at_end: Share of quantized values at an end of their range; it needs no fp32 values.
    """

    name: str
    op: str
    scale: float
    signed: bool
    cosine: float
    snr: float
    error: float
    saturated: float
    at_end: float = 0.0


@dataclass(frozen=True, slots=True)
class FloatComparison:
    """Comparison of an int8 program with the fp32 model: outputs and layers.

    Attributes:
        quality: Quality of each output.
        layers: Quantization error of each layer.
        in_float: Layers that are not quantized.
        inexact: Float operations of the program with results that depend on the runtime.
        bounds: Estimated bounds of each output's quality on unseen images, from held-out images; if
            these are too few, from all compared images.
    """

    quality: Qualities
    layers: tuple[LayerLoss, ...]
    in_float: tuple[str, ...]
    inexact: tuple[str, ...]
    bounds: FloorBounds = field(default_factory=dict)

    def find_worst_layers(self, count: int = 5) -> tuple[LayerLoss, ...]:
        """Return the layers with the lowest signal-to-noise ratio, worst first."""
        return tuple(sorted(self.layers, key=lambda layer: layer.snr)[:count])


def compare(
    lowered_model: Model,
    program: Model,
    calibration: Calibration,
    images: ComparisonImages,
    progress: Progress,
) -> FloatComparison:
    """Compare an int8 program with its fp32 model.

    Images run one at a time, so that only the memory for outputs grows with their number. Layers
    are compared on the held-out images.

    Args:
        lowered_model: The lowered fp32 model.
        program: Its int8 program.
        calibration: The program's calibration, with equalization factors.
        images: Held-out images, and others that only show the spread of outputs.
        progress: Called with the number of completed images.
    """
    names = [
        n
        for n in list_unfused_values(lowered_model.graph)
        if n in program.graph.types and n in lowered_model.graph.types
    ]
    # Layers in float have no quantized values to compare.
    names = [n for n in names if program.graph.types[n].scale is not None]
    running_losses = {name: _RunningLoss(calibration.factors.get(name)) for name in names}
    probes = create_probe(lowered_model, names), create_probe(program, names)
    outputs: tuple[list[output_comparison.Tensors], ...] = ([], [])
    total = len(images.dataset)
    progress("compare", 0, total)
    for index in range(total):
        tensor = images.dataset.read_tensor(index, lowered_model.graph.inputs[0])
        float_values, int_values = (run(tensor) for run in probes)
        for name in names if index < images.held_out_count else ():
            running_losses[name].add(
                float_values[name], int_values[name], program.graph.types[name]
            )
        for output_rows, tensors in zip(outputs, (float_values, int_values), strict=True):
            output_rows.append(
                {
                    o.name: tensors[o.name]
                    for o in output_comparison.get_inference_outputs(lowered_model)
                }
            )
        progress("compare", index + 1, total)
    op_names = {node.name: node.op.keyword for node in lowered_model.graph.nodes}
    expected, actual = (output_comparison.stack_outputs(lowered_model, rows) for rows in outputs)
    return FloatComparison(
        output_comparison.compute_qualities(lowered_model, expected, actual, images.held_out_count),
        tuple(
            s.build_layer_loss(n, op_names.get(n, "input"), program.graph.types[n])
            for n, s in running_losses.items()
        ),
        tuple(sorted(calibration.in_float)),
        tuple(name.removesuffix(":float") for name in find_inexact_nodes(program.graph)),
        estimate_bounds(lowered_model, expected, actual, images),
    )


@dataclass
class _RunningLoss:
    """Running error statistics of one value; `factor` has its equalization factors."""

    factor: Float32 | None
    dot: float = 0.0
    float_energy: float = 0.0
    int_energy: float = 0.0
    noise: float = 0.0
    max_error: float = 0.0
    clipped_count: int = 0
    saturated_count: int = 0
    count: int = 0

    def add(self, real: NDArray[Any], codes: NDArray[Any], tensor_type: TensorType) -> None:
        """Add one image: its fp32 values, and its quantized values as ONNX stores them."""
        if self.factor is not None:
            real = real / self.factor.reshape(-1, *(1 for _ in real.shape[1:]))
        low, high = tensor_type.limits
        steps = real.astype(np.float64).ravel() / float(tensor_type.scale or 1)
        if tensor_type.zero_point:
            # No reader sees a difference below (`quant.zero_points`).
            steps = np.maximum(steps, low)
        # ONNX stores signed values as uint8 with zero point 128 (`ops.integer.base`).
        quantized_values = codes.astype(np.float64).ravel() + min(low, 0)
        error = np.abs(steps - quantized_values)
        self.dot += float(steps @ quantized_values)
        self.float_energy += float(steps @ steps)
        self.int_energy += float(quantized_values @ quantized_values)
        self.noise += float(error @ error)
        self.max_error = max(self.max_error, float(error.max(initial=0.0)))
        self.clipped_count += int(((steps < low - 0.5) | (steps > high + 0.5)).sum())
        if codes.dtype.kind != "f":  # a float input has no quantized values
            self.saturated_count += count_saturated(codes, signed=tensor_type.dtype is DType.I8)
        self.count += steps.size

    def build_layer_loss(self, name: str, op: str, tensor_type: TensorType) -> LayerLoss:
        """Return the quantization error from the sums."""
        lengths = sqrt(self.float_energy) * sqrt(self.int_energy)
        cosine = self.dot / lengths if lengths else float(self.float_energy == self.int_energy)
        return LayerLoss(
            name,
            op,
            float(tensor_type.scale or 0),
            tensor_type.dtype is DType.I8,
            min(cosine, 1.0),
            _to_decibels(self.float_energy, self.noise),
            self.max_error,
            self.clipped_count / max(self.count, 1),
            self.saturated_count / max(self.count, 1),
        )


def _to_decibels(signal: float, noise: float) -> float:
    if not noise:
        return MAX_SNR
    return min(MAX_SNR, 10 * log10(signal / noise)) if signal else 0.0
