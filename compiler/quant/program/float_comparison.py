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
from tcc.compiler.quant.program.level_ends import at_end, tapped
from tcc.compiler.quant.scale_groups import kept_values
from tcc.compiler.reference import output_comparison
from tcc.compiler.reference.accuracy_floor import FloorBounds, Qualities
from tcc.compiler.reference.expected_loss import estimate_bounds
from tcc.compiler.reference.integer_program import inexact
from tcc.compiler.reference.output_comparison import ComparisonImages
from tcc.compiler.support.progress import Progress

BEST = 200.0
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

    def worst(self, count: int = 5) -> tuple[LayerLoss, ...]:
        """Return the layers with the most noise, the worst first."""
        return tuple(sorted(self.layers, key=lambda layer: layer.snr)[:count])


def compare(
    ready: Model,
    program: Model,
    calibration: Calibration,
    images: ComparisonImages,
    progress: Progress,
) -> FloatComparison:
    """Return how an integer program differs from the float model that it was made from.

    One image at a time, so that only what the outputs take grows with their number. Layers are
    compared over the images that judge.

    Args:
        ready: The ready float model.
        program: Its integer program.
        calibration: What the program was made from, with the factors of equalised channels.
        images: Those that judge, and others that show how outputs spread.
        progress: Told how many images are done.
    """
    names = [
        n for n in kept_values(ready.graph) if n in program.graph.types and n in ready.graph.types
    ]
    # What stays in float has no levels to compare.
    names = [n for n in names if program.graph.types[n].scale is not None]
    sums = {name: _RunningLoss(calibration.factors.get(name)) for name in names}
    both = tapped(ready, names), tapped(program, names)
    outputs: tuple[list[output_comparison.Tensors], ...] = ([], [])
    total = len(images.data)
    progress("compare", 0, total)
    for index in range(total):
        tensor = images.data.tensor(index, ready.graph.inputs[0])
        floats, integers = (run(tensor) for run in both)
        for name in names if index < images.judges else ():
            sums[name].add(floats[name], integers[name], program.graph.types[name])
        for kept_ones, values in zip(outputs, (floats, integers), strict=True):
            kept_ones.append(
                {o.name: values[o.name] for o in output_comparison.judged_outputs(ready)}
            )
        progress("compare", index + 1, total)
    words = {node.name: node.op.word for node in ready.graph.nodes}
    expected, found = (output_comparison.stacked_outputs(ready, rows) for rows in outputs)
    return FloatComparison(
        output_comparison.qualities(ready, expected, found, images.judges),
        tuple(s.layer(n, words.get(n, "input"), program.graph.types[n]) for n, s in sums.items()),
        tuple(sorted(calibration.in_float)),
        tuple(name.removesuffix(":float") for name in inexact(program.graph)),
        estimate_bounds(ready, expected, found, images),
    )


@dataclass
class _RunningLoss:
    """What is known of one value so far; `factor` makes real numbers of equalised channels."""

    factor: Float32 | None
    dot: float = 0.0
    floats: float = 0.0
    integers: float = 0.0
    noise: float = 0.0
    worst: float = 0.0
    outside: int = 0
    at_end: int = 0
    count: int = 0

    def add(self, real: NDArray[Any], stored: NDArray[Any], kind: TensorType) -> None:
        """Take in one image's floats and the levels as ONNX holds them."""
        if self.factor is not None:
            real = real / self.factor.reshape(-1, *(1 for _ in real.shape[1:]))
        low, high = kind.limits
        steps = real.astype(np.float64).ravel() / float(kind.scale or 1)
        # ONNX stores signed levels as uint8 with the zero point 128 (`ops.integer.base`).
        levels = stored.astype(np.float64).ravel() + min(low, 0)
        error = np.abs(steps - levels)
        self.dot += float(steps @ levels)
        self.floats += float(steps @ steps)
        self.integers += float(levels @ levels)
        self.noise += float(error @ error)
        self.worst = max(self.worst, float(error.max(initial=0.0)))
        self.outside += int(((steps < low - 0.5) | (steps > high + 0.5)).sum())
        if stored.dtype.kind != "f":  # the input comes as floats: pixels are as large as they are
            self.at_end += at_end(stored, signed=low < 0)
        self.count += steps.size

    def layer(self, name: str, op: str, kind: TensorType) -> LayerLoss:
        """Return what the sums say."""
        lengths = sqrt(self.floats) * sqrt(self.integers)
        cosine = self.dot / lengths if lengths else float(self.floats == self.integers)
        return LayerLoss(
            name,
            op,
            float(kind.scale or 0),
            kind.limits[0] < 0,
            min(cosine, 1.0),
            _decibels(self.floats, self.noise),
            self.worst,
            self.outside / max(self.count, 1),
            self.at_end / max(self.count, 1),
        )


def _decibels(signal: float, noise: float) -> float:
    if not noise:
        return BEST
    return min(BEST, 10 * log10(signal / noise)) if signal else 0.0
