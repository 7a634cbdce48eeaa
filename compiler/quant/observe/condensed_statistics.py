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
from tcc.compiler.support.memory_limit import give_back_freed

Parts = Sequence[Sequence[int]]
"""The places of the images of each part."""

LARGEST = 1 << 22
"""Most weights of a layer that moments are taken for; images tell too little of a larger one's."""
BLOCK = 256
"""Most taps whose products are taken together; more taps are split into blocks of so many."""
TOGETHER = 1 << 19
"""Numbers that are read by groups worked on together: what fits a processor's cache."""


def condensed(seen: Iterable[Statistics], parts: Parts, threads: int | None = None) -> Statistics:
    """Return what was seen of all parts of the images: extremes, outputs, and moments of each part.

    Each convolution is worked on by one thread, so that their number does not change a bit.

    Args:
        seen: What was seen of each part, with windows.
        parts: Of the images, each in one.
        threads: How many convolutions are worked on side by side; None is one a processor.
    """
    count = threads or os.cpu_count()  # not more, since each holds what a part's outputs read
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(count) as pool:

        def looked(one: Statistics) -> tuple[Statistics, Mapping[str, TapSums]]:
            told = {n: w for n, w in one.windows.items() if w.op.filters * _taps(w) <= LARGEST}
            sums = dict(zip(told, pool.map(_sums, told.values()), strict=True))
            give_back_freed()
            return _bare(one), sums

        # `map` holds no part while the next is looked at, as a loop would.
        tables, sums = zip(*map(looked, seen), strict=True)
    places = [tuple(part) for part in parts]
    moments = {
        name: TapMoments({part: own[name] for part, own in zip(places, sums, strict=True)})
        for name in sums[0]
    }
    return replace(_joined(tables, np.argsort(np.concatenate(places))), moments=moments)


def _bare(seen: Statistics) -> Statistics:
    """Return statistics without samples and windows, which take most of the memory."""
    values = {
        name: ValueStatistics(
            value.lows,
            value.highs,
            ImageParts(np.empty((0, value.lows.shape[1]), np.float32), ()),
        )
        for name, value in seen.seen.items()
    }
    return Statistics(seen.images, values, {}, seen.outputs)


def _joined(tables: Sequence[Statistics], order: NDArray[np.intp]) -> Statistics:
    """Return bare statistics of all images of several, in an order of their rows."""
    first, *_ = tables
    images = [one for table in tables for one in table.images]
    lows, highs = (
        {name: np.concatenate([which(t.seen[name]) for t in tables])[order] for name in first.seen}
        for which in (attrgetter("lows"), attrgetter("highs"))
    )
    values = {n: ValueStatistics(lows[n], highs[n], one.kept) for n, one in first.seen.items()}
    outputs = {n: np.concatenate([t.outputs[n] for t in tables])[order] for n in first.outputs}
    return Statistics(tuple(images[place] for place in order), values, {}, outputs)


def _sums(windows: InputWindows) -> TapSums:
    """Return the sums over all outputs whose inputs windows hold."""
    taps, groups = _taps(windows), windows.op.groups
    blocks = np.array_split(np.arange(taps), -(-taps // BLOCK))
    if not len(windows.parts):  # hashes chose windows of no image of a part
        sizes = [(groups, len(block), len(block)) for block in blocks]
        return TapSums(0, np.zeros((groups, taps)), tuple(map(np.zeros, sizes)))
    spans, count = [], 0
    for start, end in _spans(windows, taps):
        read = windows.of_groups(start, end).patches()
        count = read.shape[1]
        spans.append([_block(read[..., block[0] : block[-1] + 1]) for block in blocks])
    # Of each block the groups of all spans.
    found = [
        tuple(map(np.concatenate, zip(*block, strict=True))) for block in zip(*spans, strict=True)
    ]
    totals, products = zip(*found, strict=True)
    return TapSums(count, np.concatenate(totals, axis=1), products)


def _block(read: NDArray[np.float32]) -> tuple[Float64, Float64]:
    """Return sums of (groups, outputs, taps): of taps (groups, taps), and of products of two."""
    wide = read.astype(np.float64)
    # As a product: sums of columns take longer.
    total = np.matmul(np.ones(wide.shape[1]), wide)
    return total, np.matmul(wide.transpose(0, 2, 1), wide)


def _taps(windows: InputWindows) -> int:
    op = windows.op
    return int(windows.parts.shape[1] // op.groups * op.kernel[0] * op.kernel[1])


def _spans(windows: InputWindows, taps: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the end of groups that are worked on together."""
    groups = windows.op.groups
    # A window's numbers are each read by about as many outputs as a filter has taps.
    numbers = max(1, windows.parts[:, :1].size * taps)
    step = max(1, TOGETHER // numbers)
    return ((start, min(start + step, groups)) for start in range(0, groups, step))
