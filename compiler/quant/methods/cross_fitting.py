"""Images that judge, held out or in turn: no program is judged by what it learnt from."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.cost import cost
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.observe.condensed_statistics import condensed
from tcc.compiler.quant.observe.observer import observe, observe_parts
from tcc.compiler.quant.observe.statistics import MOST_OUTPUTS, Float32, Statistics
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.reference import float_program, output_comparison
from tcc.compiler.reference.accuracy_floor import Qualities
from tcc.compiler.reference.output_comparison import StackedOutputs
from tcc.compiler.support.memory_limit import give_back_freed

Run = Callable[[Float32], Mapping[str, Float32]]
"""Gives the outputs by name, for an input tensor."""

FEWEST, MOST = 8, 64
"""Images that judge a candidate: as many as `WORK` allows."""
WORK = 1 << 36
"""Multiply-accumulates that judging a candidate may take."""


def judging_images(ready: Model) -> int:
    """Return how many images judge candidates of a model."""
    # 2^36 multiply-accumulates are some 300 images of DDSNet: of a small network all 64 judge.
    return min(MOST, max(FEWEST, WORK // max(cost(ready.graph).macs, 1)))


def held_out_judge(ready: Model, held_out: DataSet, threads: int | None = None) -> "HeldOutJudge":
    """Return what judges by images held out, of which it takes as many as the network allows.

    Args:
        ready: The ready float model, which says what is right.
        held_out: Images that no candidate has learnt from.
        threads: How many images run side by side; None is one a processor.
    """
    return HeldOutJudge(ready, held_out.first(judging_images(ready)), threads)


class HeldOutJudge:
    """Tensors of images held out, with the float model's outputs for them."""

    def __init__(self, ready: Model, held_out: DataSet, threads: int | None) -> None:
        (source,) = ready.graph.inputs
        self.ready, self.threads = ready, threads
        self.tensors = [held_out.tensor(i, source) for i in range(len(held_out))]
        self.expected = self._rows(float_program.prepared(ready))

    def qualities(self, calibration: Calibration) -> Qualities:
        """Return how near a calibration comes to the float model."""
        return output_comparison.qualities(self.ready, self.expected, self.outputs(calibration))

    def outputs(self, calibration: Calibration) -> StackedOutputs:
        """Return what the integer program of a calibration gives for each image."""
        program = quantize(self.ready, calibration)
        # Optimised, as many candidates are run: integers come out the same (tests compare them).
        return self._rows(float_program.prepared(program, optimised=True))

    def _rows(self, run: Run) -> StackedOutputs:
        # Images side by side, each on one thread of the runtime: sums keep their order.
        with ThreadPoolExecutor(self.threads or os.cpu_count()) as pool:
            return output_comparison.stacked_outputs(self.ready, list(pool.map(run, self.tensors)))


Fit = Callable[[Statistics], Calibration]
"""Gives a calibration, from what was seen of some images."""

FOLDS = 4
"""Parts that judge in turn. Of fewer, much of what the result learns from is missing: with halves
of 48 images one odd image lost 20 times what it loses by three fourths. More take as much longer.
"""
SMALL = 1 << 21
"""Most weights of a network of which all parts judge, not only the first."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Places of images that judge, and of those that are learnt from."""

    judge: tuple[int, ...]
    learn: tuple[int, ...]


def seen_in_parts(
    ready: Model, data: DataSet, options: RunOptions, *, samples: bool = False
) -> Statistics:
    """Return what is seen of images, condensed to the parts that judge in turn.

    Args:
        ready: The ready model.
        data: Images that it takes.
        options: How to run them.
        samples: Whether samples of values are kept.
    """
    every = partition(data.digests, _judging(ready, FOLDS))
    if not samples:
        return condensed(observe_parts(ready, data, every, options), every, options.threads)
    whole = observe(ready, data, options)
    found = condensed((whole.of(part) for part in every), every, options.threads)
    return replace(found, seen=whole.seen)


def partition(digests: Sequence[str], parts: int = FOLDS) -> tuple[tuple[int, ...], ...]:
    """Return the places of the images of each part that judges, and of those that never do."""
    judge = [fold.judge for fold in folds(digests, FOLDS * len(digests), parts)]
    told = {place for part in judge for place in part}
    rest = tuple(place for place in range(len(digests)) if place not in told)
    return (*judge, rest) if rest else tuple(judge)


def _judging(ready: Model, parts: int) -> int:
    # Fits take longer the more weights there are.
    small = sum(tensor.size for tensor in ready.weights.values()) <= SMALL
    return parts if small else 1


def folds(digests: Sequence[str], most: int = MOST, parts: int = FOLDS) -> tuple[Fold, ...]:
    """Return who judges whom, by the contents of images; equal ones stay together.

    Args:
        digests: Of each image.
        most: Most images that judge, of all parts together.
        parts: How many of the parts judge; fewer than `FOLDS` take less time.

    Returns:
        None where all images are alike; of fewer different ones than `FOLDS`, each is a part.
    """
    # By contents: who judges whom does not hang on names, and a set with an image twice has it on
    # one side. Every so manyth of the sorted digests is a random part that is the same every time.
    order = {digest: place for place, digest in enumerate(sorted(set(digests)))}
    count = min(FOLDS, len(order))
    if count < 2:
        return ()
    part_of = [order[digest] % count for digest in digests]
    made = []
    for part in range(min(parts, count)):
        own = [place for place, other in enumerate(part_of) if other == part]
        rest = tuple(place for place, other in enumerate(part_of) if other != part)
        made.append(Fold(tuple(own[: -(-most // min(parts, count))]), rest))
    return tuple(made)


class CrossFitting:
    """What a network's images say of candidates, each fitted without the images that judge it."""

    def __init__(
        self,
        ready: Model,
        data: DataSet,
        seen: Statistics,
        threads: int | None,
        parts: int = FOLDS,
    ) -> None:
        """Choose who judges, and find what the floats say of them.

        Args:
            ready: The ready model.
            data: Its images.
            seen: What was seen of them, in their order.
            threads: How many images run side by side; None is one a processor.
            parts: How many of the parts judge; of a network that is not `SMALL`, one does.
        """
        count = judging_images(ready)
        self.ready, self.data, self.seen, self.threads = ready, data, seen, threads
        self.folds = folds(data.digests, count, _judging(ready, parts))
        # Images of too few different ones judge what they taught: there is nothing else.
        every = tuple(range(min(len(data), count)))
        self.places = tuple(i for fold in self.folds for i in fold.judge) or every
        self.expected = self._floats()

    def _floats(self) -> StackedOutputs:
        """Return the floats' outputs of the images that judge, seen already where kept whole."""
        kinds = {
            o.name: self.ready.graph.types[o.value]
            for o in output_comparison.judged_outputs(self.ready)
        }
        if any(kind.elements > MOST_OUTPUTS for kind in kinds.values()):
            return self.run(self.ready, self.data, self.places)
        rows = list(self.places)
        return {n: self.seen.outputs[n][rows].reshape(-1, *k.shape) for n, k in kinds.items()}

    def parts(self) -> tuple[NDArray[np.intp], ...]:
        """Return where the images of each part lie in `places`."""
        ends = np.cumsum([0, *(len(fold.judge) for fold in self.folds)])
        return tuple(np.arange(first, end) for first, end in pairwise(ends))

    def outputs(self, fit: Fit) -> StackedOutputs:
        """Return the integer outputs of the images that judge, in the order of `places`.

        Args:
            fit: What is judged.
        """
        if not self.folds:
            return self.run(quantize(self.ready, fit(self.seen)), self.data, self.places)
        parts = [self._judged(fit, fold) for fold in self.folds]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def run(self, model: Model, data: DataSet, places: Sequence[int]) -> StackedOutputs:
        """Return the outputs of a model, float or integer, for some images of a set.

        Args:
            model: The float model, or a program, which is optimised: integers come out the same.
            data: The set.
            places: Which images of it.
        """
        (source,) = self.ready.graph.inputs
        one = float_program.prepared(model, optimised=model is not self.ready)
        with ThreadPoolExecutor(self.threads or os.cpu_count()) as pool:
            rows = list(pool.map(lambda place: one(data.tensor(place, source)), places))
        return output_comparison.stacked_outputs(self.ready, rows)

    def _judged(self, fit: Fit, fold: Fold) -> StackedOutputs:
        # Statistics are of each image by itself: those of a part are taken, not observed again.
        calibration = fit(self.seen.of(fold.learn))
        give_back_freed()
        return self.run(quantize(self.ready, calibration), self.data, fold.judge)


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSplit:
    """Images to learn from, with what was seen of them, and others to judge by."""

    learn: DataSet
    statistics: Statistics
    held_out: DataSet


def split(ready: Model, data: DataSet, options: RunOptions) -> CalibrationSplit:
    """Return a data set in two parts, by the images' contents, the first of them observed.

    Args:
        ready: The ready model, which the first part is run through.
        data: All the images.
        options: How to run them.
    """
    # By contents: names, folders and their order choose nothing.
    learn, held_out = data.split()
    return CalibrationSplit(learn, observe(ready, learn, options), held_out)
