"""Statistics without windows and samples: moments of taps say all that rounding asks of them."""

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
"""The places of the images of each part."""

MAX_WEIGHTS = 1 << 22
"""Most weights of a layer that moments are taken for; images tell too little of a larger one's."""
MAX_BLOCK_TAPS = 256
"""Most taps whose products are taken together; more taps are split into blocks of so many."""
MAX_GROUP_NUMBERS = 1 << 19
"""Numbers that are read by groups worked on together: what fits a processor's cache."""


def condense_statistics(
    part_statistics: Iterable[Statistics], parts: Parts, threads: int | None = None
) -> Statistics:
    """Return what was seen of all parts of the images: extremes, outputs, and moments of each part.

    Each convolution is worked on by one thread, so that their number does not change a bit.

    Args:
        part_statistics: What was seen of each part, with windows.
        parts: Of the images, each in one.
        threads: How many convolutions are worked on side by side; None is one a processor.
    """
    count = threads or os.cpu_count()  # not more, since each holds what a part's outputs read
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

        # `map` holds no part while the next is looked at, as a loop would.
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
    """Return bare statistics of all images of several, in an order of their rows."""
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
    """Return the sums over all outputs whose inputs windows hold."""
    taps, groups = _count_taps(windows), windows.op.groups
    blocks = np.array_split(np.arange(taps), -(-taps // MAX_BLOCK_TAPS))
    if not len(windows.parts):  # hashes chose windows of no image of a part
        sizes = [(groups, len(block), len(block)) for block in blocks]
        return TapSums(0, np.zeros((groups, taps)), tuple(map(np.zeros, sizes)))
    spans, count = [], 0
    for start, end in _split_groups(windows, taps):
        patches = windows.select_groups(start, end).extract_patches()
        count = patches.shape[1]
        spans.append(
            [_compute_block_sums(patches[..., block[0] : block[-1] + 1]) for block in blocks]
        )
    # Of each block the groups of all spans.
    block_sums = [
        tuple(map(np.concatenate, zip(*block, strict=True))) for block in zip(*spans, strict=True)
    ]
    totals, products = zip(*block_sums, strict=True)
    return TapSums(count, np.concatenate(totals, axis=1), products)


def _compute_block_sums(patches: NDArray[np.float32]) -> tuple[Float64, Float64]:
    """Return sums of (groups, outputs, taps): of taps (groups, taps), and of products of two."""
    float64_patches = patches.astype(np.float64)
    # As a product: sums of columns take longer.
    total = np.matmul(np.ones(float64_patches.shape[1]), float64_patches)
    return total, np.matmul(float64_patches.transpose(0, 2, 1), float64_patches)


def _count_taps(windows: InputWindows) -> int:
    op = windows.op
    return int(windows.parts.shape[1] // op.groups * op.kernel[0] * op.kernel[1])


def _split_groups(windows: InputWindows, taps: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the end of groups that are worked on together."""
    groups = windows.op.groups
    # A window's numbers are each read by about as many outputs as a filter has taps.
    numbers = max(1, windows.parts[:, :1].size * taps)
    step = max(1, MAX_GROUP_NUMBERS // numbers)
    return ((start, min(start + step, groups)) for start in range(0, groups, step))
