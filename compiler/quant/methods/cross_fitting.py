"""Evaluation on held-out images and by cross-fitting, never on images of the fit set."""

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
"""Computes outputs by name from an input tensor."""

MIN_HELD_OUT, MAX_HELD_OUT = 8, 64
"""Number of images that evaluate a candidate, as `MAX_MACS` allows."""
MAX_MACS = 1 << 36
"""Maximum multiply-accumulates for evaluating a candidate."""


def count_held_out_images(lowered_model: Model) -> int:
    """Return the number of images that evaluate candidates of a model."""
    # 2^36 multiply-accumulates are about 300 images of DDSNet: small networks use all 64.
    return min(
        MAX_HELD_OUT, max(MIN_HELD_OUT, MAX_MACS // max(compute_cost(lowered_model.graph).macs, 1))
    )


def create_evaluator(
    lowered_model: Model, held_out: DataSet, threads: int | None = None
) -> "HeldOutEvaluator":
    """Return an evaluator on held-out images, with as many images as the network's size allows.

    Args:
        lowered_model: The lowered fp32 model, which is the reference.
        held_out: Images that no candidate was fitted to.
        threads: Number of images run in parallel; None for one per processor.
    """
    return HeldOutEvaluator(
        lowered_model, held_out.select_first(count_held_out_images(lowered_model)), threads
    )


class HeldOutEvaluator:
    """Tensors of held-out images, with the fp32 outputs for them."""

    def __init__(self, lowered_model: Model, held_out: DataSet, threads: int | None) -> None:
        (network_input,) = lowered_model.graph.inputs
        self.lowered_model, self.threads = lowered_model, threads
        self.tensors = [held_out.read_tensor(i, network_input) for i in range(len(held_out))]
        self.expected = self._run_images(float_program.create_runner(lowered_model))

    def compute_qualities(self, calibration: Calibration) -> Qualities:
        """Return the quality of a calibration's outputs against the fp32 model's."""
        return output_comparison.compute_qualities(
            self.lowered_model, self.expected, self.compute_outputs(calibration)
        )

    def compute_outputs(self, calibration: Calibration) -> StackedOutputs:
        """Return the outputs of a calibration's int8 program for all images."""
        program = quantize(self.lowered_model, calibration)
        # Optimised for speed. The int8 results are the same (tests compare them).
        return self._run_images(float_program.create_runner(program, optimised=True))

    def _run_images(self, run: Run) -> StackedOutputs:
        # Images in parallel, each on one runtime thread, so that sums keep their order.
        with ThreadPoolExecutor(self.threads or os.cpu_count()) as pool:
            return output_comparison.stack_outputs(
                self.lowered_model, list(pool.map(run, self.tensors))
            )


Fit = Callable[[Statistics], Calibration]
"""Fits a calibration to statistics."""

FOLDS = 4
"""Number of folds. With fewer, the fit sets are too small: with halves of 48 images, one outlier
lost 20 times as much as with three fourths. More folds take longer.
"""
MAX_SMALL_WEIGHTS = 1 << 21
"""Maximum weights of a network for which all folds are evaluated, not only the first."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Indices of the held-out images and of the fit images of one fold."""

    held_out_indices: tuple[int, ...]
    fit_indices: tuple[int, ...]


def observe_folds(
    lowered_model: Model, dataset: DataSet, options: RunOptions, *, samples: bool = False
) -> Statistics:
    """Return statistics of images, condensed per fold.

    Args:
        lowered_model: The lowered model.
        dataset: Images for the model.
        options: How to run them.
        samples: Whether to keep samples of values.
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
    """Return the indices of the held-out images of each fold, and those never held out."""
    held_out_parts = [
        fold.held_out_indices for fold in make_folds(digests, FOLDS * len(digests), parts)
    ]
    held_out_indices = {index for part in held_out_parts for index in part}
    remaining = tuple(index for index in range(len(digests)) if index not in held_out_indices)
    return (*held_out_parts, remaining) if remaining else tuple(held_out_parts)


def _count_held_out_parts(lowered_model: Model, parts: int) -> int:
    # The time of a fit grows with the number of weights.
    is_small = sum(tensor.size for tensor in lowered_model.weights.values()) <= MAX_SMALL_WEIGHTS
    return parts if is_small else 1


def make_folds(
    digests: Sequence[str], max_images: int = MAX_HELD_OUT, parts: int = FOLDS
) -> tuple[Fold, ...]:
    """Return the folds of a set of images. Equal images are in the same fold.

    Args:
        digests: Digest of each image.
        max_images: Maximum number of held-out images of all folds together.
        parts: Number of folds to return; fewer than `FOLDS` take less time.

    Returns:
        The folds; empty if all images are equal. With fewer different images than `FOLDS`, there is
        one fold per image.
    """
    # By digest: the folds do not depend on file names, and duplicates are in one fold. Every n-th
    # of the sorted digests is a random sample, and reproducible.
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
    """Cross-fitting: evaluates each candidate on images that it was not fitted to."""

    def __init__(
        self,
        lowered_model: Model,
        dataset: DataSet,
        statistics: Statistics,
        threads: int | None,
        parts: int = FOLDS,
    ) -> None:
        """Choose the folds, and get the fp32 outputs of their held-out images.

        Args:
            lowered_model: The lowered model.
            dataset: The images.
            statistics: Statistics of the images, in the same order.
            threads: Number of images run in parallel; None for one per processor.
            parts: Number of folds to evaluate; networks above `MAX_SMALL_WEIGHTS` use one.
        """
        count = count_held_out_images(lowered_model)
        self.lowered_model, self.dataset, self.statistics, self.threads = (
            lowered_model,
            dataset,
            statistics,
            threads,
        )
        self.folds = make_folds(dataset.digests, count, _count_held_out_parts(lowered_model, parts))
        # Too few different images for folds: evaluate on the fit set.
        all_indices = tuple(range(min(len(dataset), count)))
        self.held_out_indices = (
            tuple(i for fold in self.folds for i in fold.held_out_indices) or all_indices
        )
        self.expected = self._compute_float_outputs()

    def _compute_float_outputs(self) -> StackedOutputs:
        """Return the fp32 outputs of held-out images, from the statistics if they are complete."""
        kinds = {
            o.name: self.lowered_model.graph.types[o.value]
            for o in output_comparison.get_inference_outputs(self.lowered_model)
        }
        if any(kind.elements > MAX_OUTPUTS for kind in kinds.values()):
            return self.run_images(self.lowered_model, self.dataset, self.held_out_indices)
        rows = list(self.held_out_indices)
        return {n: self.statistics.outputs[n][rows].reshape(-1, *k.shape) for n, k in kinds.items()}

    def compute_part_indices(self) -> tuple[NDArray[np.intp], ...]:
        """Return the positions of each fold's images in `held_out_indices`."""
        offsets = np.cumsum([0, *(len(fold.held_out_indices) for fold in self.folds)])
        return tuple(np.arange(start, end) for start, end in pairwise(offsets))

    def compute_outputs(self, fit: Fit) -> StackedOutputs:
        """Return the int8 outputs of held-out images, in the order of `held_out_indices`.

        Args:
            fit: The fit to evaluate.
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
        """Return the outputs of a model for some images of a dataset.

        Args:
            model: The fp32 model, or an int8 program. The latter runs optimised, with equal
                results.
            dataset: The dataset.
            indices: Indices of the images.
        """
        (network_input,) = self.lowered_model.graph.inputs
        run_model = float_program.create_runner(model, optimised=model is not self.lowered_model)
        with ThreadPoolExecutor(self.threads or os.cpu_count()) as pool:
            rows = list(
                pool.map(
                    lambda index: run_model(dataset.read_tensor(index, network_input)), indices
                )
            )
        return output_comparison.stack_outputs(self.lowered_model, rows)

    def _evaluate_fold(self, fit: Fit, fold: Fold) -> StackedOutputs:
        # Statistics are per image, so that those of a fold need no second run.
        calibration = fit(self.statistics.select_images(fold.fit_indices))
        release_freed_memory()
        return self.run_images(
            quantize(self.lowered_model, calibration), self.dataset, fold.held_out_indices
        )


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSplit:
    """A fit set with its statistics, and a held-out set."""

    fit_set: DataSet
    statistics: Statistics
    held_out: DataSet


def split_dataset(lowered_model: Model, dataset: DataSet, options: RunOptions) -> CalibrationSplit:
    """Split a dataset by file digest, and collect statistics of the fit set.

    Args:
        lowered_model: The lowered model.
        dataset: All images.
        options: How to run them.
    """
    # By digest: names, folders and order have no influence.
    fit_set, held_out = dataset.split()
    return CalibrationSplit(fit_set, observe(lowered_model, fit_set, options), held_out)
