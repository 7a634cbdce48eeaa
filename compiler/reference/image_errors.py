"""How far the outputs of each image are off: candidates rank by it, more images lose as much.

An output's error is measured against how far the floats spread over the set, so that no image with
values near zero owns it: of classes without the number that softmax does not see, of decisions and
quantities unit by unit.
"""

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.reference.output_comparison import StackedOutputs, judged_outputs
from tcc.compiler.reference.output_quality import cosine

Float64 = NDArray[np.float64]

STILL = 1e-3
"""A unit that spreads by less than this share of the widest is measured against the widest."""


def error_shares(model: Model, expected: StackedOutputs, found: StackedOutputs) -> Float64:
    """Return each image's root mean square error as a share of the spread, (images,).

    A decision that changes counts by its margin as well, so that one far from a tie weighs more. Of
    several outputs it is the mean. What is not finite is infinitely far off.

    Args:
        model: The float model.
        expected: Its outputs by name, (images, *shape).
        found: Those of another program for the same images.
    """
    every = [_shares(o, expected[o.name], found[o.name]) for o in judged_outputs(model)]
    # Image by image, so that candidates are compared on the same ones and not by their averages.
    total: Float64 = np.mean(every, axis=0)
    return np.where(np.isfinite(total), total, np.inf)


def losses(output: Output, expected: NDArray[np.float32], found: NDArray[np.float32]) -> Float64:
    """Return each image's loss (images,): 1 - cosine of classes, of others the error squared.

    Args:
        output: What the numbers mean.
        expected: The floats (images, *shape).
        found: Those of another program.
    """
    raw, own = (one.astype(np.float64).reshape(len(one), -1) for one in (expected, found))
    if output.meaning == "classes" and raw.shape[1] > 1:
        pairs = zip(raw, own, strict=True)
        return np.array([max(1 - cosine(a, b), 0.0) for a, b in pairs])
    return _relative(output, expected, found) ** 2


def _shares(output: Output, expected: NDArray[np.float32], found: NDArray[np.float32]) -> Float64:
    return _relative(output, expected, found) + _turned(output, expected, found)


def _relative(output: Output, expected: NDArray[np.float32], found: NDArray[np.float32]) -> Float64:
    raw, own = (_deciding(output, one) for one in (expected, found))
    error = (own - raw) / _spread(output, raw)
    total: Float64 = np.sqrt((error**2).mean(axis=(1, 2)))
    return total


def _deciding(output: Output, values: NDArray[np.float32]) -> Float64:
    """Return values (images, units, places) without what softmax does not see."""
    raw = values.astype(np.float64).reshape(len(values), values.shape[1], -1)
    shifts = output.meaning == "classes" and output.activation != "sigmoid" and raw.shape[1] > 1
    centred: Float64 = raw - raw.mean(axis=1, keepdims=True) if shifts else raw
    return centred


def _spread(output: Output, raw: Float64) -> Float64:
    """Return how far each unit spreads over the images, (units, 1); classes spread together."""
    squares = ((raw - raw.mean(axis=0)) ** 2).mean(axis=(0, 2))[:, None]
    # Classes are told apart by their differences, for which one unit of measure is needed.
    together = np.full_like(squares, squares.mean())
    units = np.sqrt(together if output.meaning == "classes" else squares)
    widest = units.max()
    if widest == 0:  # all images are alike: against the magnitude
        return np.full_like(units, np.sqrt((raw**2).mean()) or 1.0)
    # A unit that hardly moves would make any error of it huge.
    spread: Float64 = np.where(units > STILL * widest, units, widest)
    return spread


def _turned(output: Output, expected: NDArray[np.float32], found: NDArray[np.float32]) -> Float64:
    """Return the margins of decisions that change, as shares of the spread, summed (images,)."""
    raw, own = (_deciding(output, one) for one in (expected, found))
    spread = _spread(output, raw)
    if output.meaning == "decisions":
        changed = (raw >= 0) != (own >= 0)
        margins: Float64 = (np.abs(raw) / spread * changed).mean(axis=2).sum(axis=1)
        return margins
    if output.meaning != "classes" or raw.shape[1] < 2:
        return np.zeros(len(raw))
    chosen = own.argmax(axis=1, keepdims=True)
    # What the floats would say of the class that was chosen, less than of their own: 0 where it is
    # the same.
    lost = raw.max(axis=1, keepdims=True) - np.take_along_axis(raw, chosen, axis=1)
    shares: Float64 = (lost / spread[0]).mean(axis=(1, 2))
    return shares
