"""Condensed statistics: moments of taps replace windows and samples."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tcc.compiler.quant.observe.statistics import (
    Float64,
    ImageParts,
    InputWindows,
    Statistics,
    TapMoments,
    TapSums,
    ValueStatistics,
)
from tcc.compiler.support.memory_limit import release_freed_memory

Parts = Sequence[Sequence[int]]
"""Indices of the images of each part."""

MAX_WEIGHTS = 1 << 22
"""Maximum weights of a layer for moments; images determine those of a larger layer poorly."""
MAX_BLOCK_TAPS = 256
"""Maximum taps in a block of products; more taps are split into several blocks."""
MAX_GROUP_NUMBERS = 1 << 19
"""Maximum numbers read by groups that are processed together, to fit a processor's cache."""


def condense_statistics(
    part_statistics: Iterable[Statistics], parts: Parts, threads: int | None = None
) -> Statistics:
    """Return the extremes and outputs of all images, and the tap moments of each part.

    Each convolution is processed on one thread, so that the result does not depend on the number of
    threads.

    Args:
        part_statistics: Statistics of each part, with windows.
        parts: Image indices of each part; each image is in one part.
        threads: Number of convolutions processed in parallel; None for one per processor.
    """
    count = threads or os.cpu_count()  # not more: each thread has the patches of a part in memory
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(count) as pool:

        def process_part(statistics: Statistics) -> tuple[Statistics, Mapping[str, TapSums]]:
            windows = {
                n: w
                for n, w in statistics.windows.items()
                if w.op.filters * _count_taps(w) <= MAX_WEIGHTS
            }
            sums = dict(zip(windows, pool.map(_compute_sums, windows.values()), strict=True))
            release_freed_memory()
            return _remove_samples(statistics), sums

        # Unlike a loop, `map` keeps no reference to a part while the next one is processed.
        tables, sums = zip(*map(process_part, part_statistics), strict=True)
    part_indices = [tuple(part) for part in parts]
    moments = {
        name: TapMoments(
            {part: part_sums[name] for part, part_sums in zip(part_indices, sums, strict=True)}
        )
        for name in sums[0]
    }
    return replace(_join_tables(tables, np.argsort(np.concatenate(part_indices))), moments=moments)


def _remove_samples(statistics: Statistics) -> Statistics:
    """Return statistics without samples and windows, which take most of the memory."""
    by_value = {
        name: ValueStatistics(
            value_statistics.lows,
            value_statistics.highs,
            ImageParts(np.empty((0, value_statistics.lows.shape[1]), np.float32), ()),
        )
        for name, value_statistics in statistics.by_value.items()
    }
    return Statistics(statistics.images, by_value, {}, statistics.outputs)


def _join_tables(tables: Sequence[Statistics], order: NDArray[np.intp]) -> Statistics:
    """Return the joined statistics of several parts, with rows in a given order."""
    first_table, *_ = tables
    images = [member for table in tables for member in table.images]
    lows, highs = (
        {
            name: np.concatenate([get_extremes(t.by_value[name]) for t in tables])[order]
            for name in first_table.by_value
        }
        for get_extremes in (attrgetter("lows"), attrgetter("highs"))
    )
    by_value = {
        n: ValueStatistics(lows[n], highs[n], member.sample_parts)
        for n, member in first_table.by_value.items()
    }
    outputs = {
        n: np.concatenate([t.outputs[n] for t in tables])[order] for n in first_table.outputs
    }
    return Statistics(tuple(images[index] for index in order), by_value, {}, outputs)


def _compute_sums(windows: InputWindows) -> TapSums:
    """Return the tap sums over all outputs in the windows."""
    taps, groups = _count_taps(windows), windows.op.groups
    blocks = np.array_split(np.arange(taps), -(-taps // MAX_BLOCK_TAPS))
    if not len(windows.parts):  # no image of the part was sampled
        sizes = [(groups, len(block), len(block)) for block in blocks]
        return TapSums(0, np.zeros((groups, taps)), tuple(map(np.zeros, sizes)))
    spans, count = [], 0
    for start, end in _split_groups(windows, taps):
        patches = windows.select_groups(start, end).extract_patches()
        count = patches.shape[1]
        spans.append(
            [_compute_block_sums(patches[..., block[0] : block[-1] + 1]) for block in blocks]
        )
    # For each block, the groups of all spans.
    block_sums = [
        tuple(map(np.concatenate, zip(*block, strict=True))) for block in zip(*spans, strict=True)
    ]
    totals, products = zip(*block_sums, strict=True)
    return TapSums(count, np.concatenate(totals, axis=1), products)


def _compute_block_sums(patches: NDArray[np.float32]) -> tuple[Float64, Float64]:
    """Return the sums over outputs of patches (groups, outputs, taps) and of products of taps."""
    float64_patches = patches.astype(np.float64)
    # A matrix product is faster than a sum over columns.
    total = np.matmul(np.ones(float64_patches.shape[1]), float64_patches)
    return total, np.matmul(float64_patches.transpose(0, 2, 1), float64_patches)


def _count_taps(windows: InputWindows) -> int:
    op = windows.op
    return int(windows.parts.shape[1] // op.groups * op.kernel[0] * op.kernel[1])


def _split_groups(windows: InputWindows, taps: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the groups that are processed together."""
    groups = windows.op.groups
    # About `taps` outputs read each number of a window.
    numbers = max(1, windows.parts[:, :1].size * taps)
    step = max(1, MAX_GROUP_NUMBERS // numbers)
    return ((start, min(start + step, groups)) for start in range(0, groups, step))
