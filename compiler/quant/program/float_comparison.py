"""Integers beside floats, value by value: what each layer loses, and what the outputs lose."""

from dataclasses import dataclass, field
from math import log10, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.types import TensorType
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
"""The signal-to-noise ratio, in decibels, that stands for no noise at all."""


@dataclass(frozen=True, slots=True)
class LayerLoss:
    """One value as integers against floats, over all images.

    `error` is the largest difference in steps of the scale, `saturated` the share of numbers whose
    float lies more than half a step outside of what the integers reach; `at_end` the share of
    integers that are the last of their levels, which is what an artifact shows by itself.
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
    """All layers, the worst of them, and each of the model's own outputs.

    `bounds` is what each output keeps on unseen images: estimated from those held out, or from all
    that were compared where too few are held out.
    """

    quality: Qualities
    layers: tuple[LayerLoss, ...]
    in_float: tuple[str, ...]
    inexact: tuple[str, ...]
    bounds: FloorBounds = field(default_factory=dict)

    def find_worst_layers(self, count: int = 5) -> tuple[LayerLoss, ...]:
        """Return the layers with the most noise, the worst first."""
        return tuple(sorted(self.layers, key=lambda layer: layer.snr)[:count])


def compare(
    lowered_model: Model,
    program: Model,
    calibration: Calibration,
    images: ComparisonImages,
    progress: Progress,
) -> FloatComparison:
    """Return how an integer program differs from the float model that it was made from.

    One image at a time, so that only what the outputs take grows with their number. Layers are
    compared over the images that judge.

    Args:
        lowered_model: The ready float model.
        program: Its integer program.
        calibration: What the program was made from, with the factors of equalised channels.
        images: Those that judge, and others that show how outputs spread.
        progress: Told how many images are done.
    """
    names = [
        n
        for n in list_unfused_values(lowered_model.graph)
        if n in program.graph.types and n in lowered_model.graph.types
    ]
    # What stays in float has no levels to compare.
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
    """What is known of one value so far; `factor` makes real numbers of equalised channels."""

    factor: Float32 | None
    dot: float = 0.0
    float_energy: float = 0.0
    int_energy: float = 0.0
    noise: float = 0.0
    max_error: float = 0.0
    clipped_count: int = 0
    saturated_count: int = 0
    count: int = 0

    def add(self, real: NDArray[Any], codes: NDArray[Any], kind: TensorType) -> None:
        """Take in one image's floats and the levels as ONNX holds them."""
        if self.factor is not None:
            real = real / self.factor.reshape(-1, *(1 for _ in real.shape[1:]))
        low, high = kind.limits
        steps = real.astype(np.float64).ravel() / float(kind.scale or 1)
        # ONNX stores signed levels as uint8 with the zero point 128 (`ops.integer.base`).
        quantized_values = codes.astype(np.float64).ravel() + min(low, 0)
        error = np.abs(steps - quantized_values)
        self.dot += float(steps @ quantized_values)
        self.float_energy += float(steps @ steps)
        self.int_energy += float(quantized_values @ quantized_values)
        self.noise += float(error @ error)
        self.max_error = max(self.max_error, float(error.max(initial=0.0)))
        self.clipped_count += int(((steps < low - 0.5) | (steps > high + 0.5)).sum())
        if codes.dtype.kind != "f":  # the input comes as floats: pixels are as large as they are
            self.saturated_count += count_saturated(codes, signed=low < 0)
        self.count += steps.size

    def build_layer_loss(self, name: str, op: str, kind: TensorType) -> LayerLoss:
        """Return what the sums say."""
        lengths = sqrt(self.float_energy) * sqrt(self.int_energy)
        cosine = self.dot / lengths if lengths else float(self.float_energy == self.int_energy)
        return LayerLoss(
            name,
            op,
            float(kind.scale or 0),
            kind.limits[0] < 0,
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
