"""Images that judge, held out or in turn: no program is judged by what it learnt from."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.observe.condensed_statistics import condense_statistics
from tcc.compiler.quant.observe.observer import observe, observe_parts
from tcc.compiler.quant.observe.statistics import MAX_OUTPUTS, Float32, Statistics
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.reference import float_program, output_comparison
from tcc.compiler.reference.accuracy_floor import Qualities
from tcc.compiler.reference.output_comparison import StackedOutputs
from tcc.compiler.support.memory_limit import release_freed_memory

Run = Callable[[Float32], Mapping[str, Float32]]
"""Gives the outputs by name, for an input tensor."""

MIN_HELD_OUT, MAX_HELD_OUT = 8, 64
"""Images that judge a candidate: as many as `WORK` allows."""
MAX_MACS = 1 << 36
"""Multiply-accumulates that judging a candidate may take."""


def count_held_out_images(lowered_model: Model) -> int:
    """Return how many images judge candidates of a model."""
    # 2^36 multiply-accumulates are some 300 images of DDSNet: of a small network all 64 judge.
    return min(
        MAX_HELD_OUT, max(MIN_HELD_OUT, MAX_MACS // max(compute_cost(lowered_model.graph).macs, 1))
    )


def create_evaluator(
    lowered_model: Model, held_out: DataSet, threads: int | None = None
) -> "HeldOutEvaluator":
    """Return what judges by images held out, of which it takes as many as the network allows.

    Args:
        lowered_model: The ready float model, which says what is right.
        held_out: Images that no candidate has learnt from.
        threads: How many images run side by side; None is one a processor.
    """
    return HeldOutEvaluator(
        lowered_model, held_out.select_first(count_held_out_images(lowered_model)), threads
    )


class HeldOutEvaluator:
    """Tensors of images held out, with the float model's outputs for them."""

    def __init__(self, lowered_model: Model, held_out: DataSet, threads: int | None) -> None:
        (source,) = lowered_model.graph.inputs
        self.lowered_model, self.threads = lowered_model, threads
        self.tensors = [held_out.read_tensor(i, source) for i in range(len(held_out))]
        self.expected = self._run_images(float_program.create_runner(lowered_model))

    def compute_qualities(self, calibration: Calibration) -> Qualities:
        """Return how near a calibration comes to the float model."""
        return output_comparison.compute_qualities(
            self.lowered_model, self.expected, self.compute_outputs(calibration)
        )

    def compute_outputs(self, calibration: Calibration) -> StackedOutputs:
        """Return what the integer program of a calibration gives for each image."""
        program = quantize(self.lowered_model, calibration)
        # Optimised, as many candidates are run: integers come out the same (tests compare them).
        return self._run_images(float_program.create_runner(program, optimised=True))

    def _run_images(self, run: Run) -> StackedOutputs:
        # Images side by side, each on one thread of the runtime: sums keep their order.
        with ThreadPoolExecutor(self.threads or os.cpu_count()) as pool:
            return output_comparison.stack_outputs(
                self.lowered_model, list(pool.map(run, self.tensors))
            )


Fit = Callable[[Statistics], Calibration]
"""Gives a calibration, from what was seen of some images."""

FOLDS = 4
"""Parts that judge in turn. Of fewer, much of what the result learns from is missing: with halves
of 48 images one odd image lost 20 times what it loses by three fourths. More take as much longer.
"""
MAX_SMALL_WEIGHTS = 1 << 21
"""Most weights of a network of which all parts judge, not only the first."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Places of images that judge, and of those that are learnt from."""

    held_out_indices: tuple[int, ...]
    fit_indices: tuple[int, ...]


def observe_folds(
    lowered_model: Model, dataset: DataSet, options: RunOptions, *, samples: bool = False
) -> Statistics:
    """Return what is seen of images, condensed to the parts that judge in turn.

    Args:
        lowered_model: The ready model.
        dataset: Images that it takes.
        options: How to run them.
        samples: Whether samples of values are kept.
    """
    parts = partition(dataset.digests, _count_held_out_parts(lowered_model, FOLDS))
    if not samples:
        return condense_statistics(
            observe_parts(lowered_model, dataset, parts, options), parts, options.threads
        )
    statistics = observe(lowered_model, dataset, options)
    part_statistics = condense_statistics(
        (statistics.select_images(part) for part in parts), parts, options.threads
    )
    return replace(part_statistics, by_value=statistics.by_value)


def partition(digests: Sequence[str], parts: int = FOLDS) -> tuple[tuple[int, ...], ...]:
    """Return the places of the images of each part that judges, and of those that never do."""
    held_out_parts = [
        fold.held_out_indices for fold in make_folds(digests, FOLDS * len(digests), parts)
    ]
    held_out_indices = {index for part in held_out_parts for index in part}
    remaining = tuple(index for index in range(len(digests)) if index not in held_out_indices)
    return (*held_out_parts, remaining) if remaining else tuple(held_out_parts)


def _count_held_out_parts(lowered_model: Model, parts: int) -> int:
    # Fits take longer the more weights there are.
    is_small = sum(tensor.size for tensor in lowered_model.weights.values()) <= MAX_SMALL_WEIGHTS
    return parts if is_small else 1


def make_folds(
    digests: Sequence[str], max_images: int = MAX_HELD_OUT, parts: int = FOLDS
) -> tuple[Fold, ...]:
    """Return who judges whom, by the contents of images; equal ones stay together.

    Args:
        digests: Of each image.
        max_images: Most images that judge, of all parts together.
        parts: How many of the parts judge; fewer than `FOLDS` take less time.

    Returns:
        None where all images are alike; of fewer different ones than `FOLDS`, each is a part.
    """
    # By contents: who judges whom does not hang on names, and a set with an image twice has it on
    # one side. Every so manyth of the sorted digests is a random part that is the same every time.
    rank_by_digest = {digest: index for index, digest in enumerate(sorted(set(digests)))}
    count = min(FOLDS, len(rank_by_digest))
    if count < 2:
        return ()
    part_ids = [rank_by_digest[digest] % count for digest in digests]
    fold_list = []
    for part in range(min(parts, count)):
        held_out_indices = [index for index, part_id in enumerate(part_ids) if part_id == part]
        fit_indices = tuple(index for index, part_id in enumerate(part_ids) if part_id != part)
        fold_list.append(
            Fold(tuple(held_out_indices[: -(-max_images // min(parts, count))]), fit_indices)
        )
    return tuple(fold_list)


class CrossFitting:
    """What a network's images say of candidates, each fitted without the images that judge it."""

    def __init__(
        self,
        lowered_model: Model,
        dataset: DataSet,
        statistics: Statistics,
        threads: int | None,
        parts: int = FOLDS,
    ) -> None:
        """Choose who judges, and find what the floats say of them.

        Args:
            lowered_model: The ready model.
            dataset: Its images.
            statistics: What was seen of them, in their order.
            threads: How many images run side by side; None is one a processor.
            parts: How many of the parts judge; of a network that is not `MAX_SMALL_WEIGHTS`, one
                does.
        """
        count = count_held_out_images(lowered_model)
        self.lowered_model, self.dataset, self.statistics, self.threads = (
            lowered_model,
            dataset,
            statistics,
            threads,
        )
        self.folds = make_folds(dataset.digests, count, _count_held_out_parts(lowered_model, parts))
        # Images of too few different ones judge what they taught: there is nothing else.
        all_indices = tuple(range(min(len(dataset), count)))
        self.held_out_indices = (
            tuple(i for fold in self.folds for i in fold.held_out_indices) or all_indices
        )
        self.expected = self._compute_float_outputs()

    def _compute_float_outputs(self) -> StackedOutputs:
        """Return the floats' outputs of the images that judge, seen already where kept whole."""
        kinds = {
            o.name: self.lowered_model.graph.types[o.value]
            for o in output_comparison.get_inference_outputs(self.lowered_model)
        }
        if any(kind.elements > MAX_OUTPUTS for kind in kinds.values()):
            return self.run_images(self.lowered_model, self.dataset, self.held_out_indices)
        rows = list(self.held_out_indices)
        return {n: self.statistics.outputs[n][rows].reshape(-1, *k.shape) for n, k in kinds.items()}

    def compute_part_indices(self) -> tuple[NDArray[np.intp], ...]:
        """Return where the images of each part lie in `places`."""
        offsets = np.cumsum([0, *(len(fold.held_out_indices) for fold in self.folds)])
        return tuple(np.arange(start, end) for start, end in pairwise(offsets))

    def compute_outputs(self, fit: Fit) -> StackedOutputs:
        """Return the integer outputs of the images that judge, in the order of `places`.

        Args:
            fit: What is judged.
        """
        if not self.folds:
            return self.run_images(
                quantize(self.lowered_model, fit(self.statistics)),
                self.dataset,
                self.held_out_indices,
            )
        parts = [self._evaluate_fold(fit, fold) for fold in self.folds]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def run_images(self, model: Model, dataset: DataSet, indices: Sequence[int]) -> StackedOutputs:
        """Return the outputs of a model, float or integer, for some images of a set.

        Args:
            model: The float model, or a program, which is optimised: integers come out the same.
            dataset: The set.
            indices: Which images of it.
        """
        (source,) = self.lowered_model.graph.inputs
        run_model = float_program.create_runner(model, optimised=model is not self.lowered_model)
        with ThreadPoolExecutor(self.threads or os.cpu_count()) as pool:
            rows = list(
                pool.map(lambda index: run_model(dataset.read_tensor(index, source)), indices)
            )
        return output_comparison.stack_outputs(self.lowered_model, rows)

    def _evaluate_fold(self, fit: Fit, fold: Fold) -> StackedOutputs:
        # Statistics are of each image by itself: those of a part are taken, not observed again.
        calibration = fit(self.statistics.select_images(fold.fit_indices))
        release_freed_memory()
        return self.run_images(
            quantize(self.lowered_model, calibration), self.dataset, fold.held_out_indices
        )


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSplit:
    """Images to learn from, with what was seen of them, and others to judge by."""

    fit_set: DataSet
    statistics: Statistics
    held_out: DataSet


def split_dataset(lowered_model: Model, dataset: DataSet, options: RunOptions) -> CalibrationSplit:
    """Return a data set in two parts, by the images' contents, the first of them observed.

    Args:
        lowered_model: The ready model, which the first part is run through.
        dataset: All the images.
        options: How to run them.
    """
    # By contents: names, folders and their order choose nothing.
    fit_set, held_out = dataset.split()
    return CalibrationSplit(fit_set, observe(lowered_model, fit_set, options), held_out)
