"""What keeps kl-cosine from being worse than min-max: both are judged by the model's own outputs.

The thresholds of the coarse search may be so low that the whole network suffers, though each layer
by itself looks well. So the paper's scales, the same with none below `FLOOR` of min-max's, and
min-max itself are tried on images that none of them has seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.calibration import Calibration, Range
from tcc.compiler.quant.methods.held_out import convened
from tcc.compiler.quant.methods.value_ranges import Found, find, round_at
from tcc.compiler.quant.observe.statistics import Statistics
from tcc.compiler.reference.quality import Qualities, agreement, loss

PAPER, RAISED, SAFE = "kl-cosine", "kl-cosine, raised", "minmax"
FLOOR = 0.8
"""The least share of min-max's scale that `RAISED` keeps: below it, what a layer's own cosine says
has little to do with the network's."""
MARGIN = 0.9
"""Min-max stands unless another's loss is below this share of its own: a difference of a few images
may be chance."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who won, what each found, and how each did on the images held out."""

    winner: str
    found: Mapping[str, Found]
    judged: Mapping[str, Qualities]


def guarded(
    ready: Model, seen: Statistics, held_out: DataSet, threads: int | None = None
) -> Verdict:
    """Return the verdict over what was learnt from `seen`, on other images."""
    paper, safe = (find(method, ready, seen, threads) for method in (PAPER, SAFE))
    found = {SAFE: safe, PAPER: paper, RAISED: raised(ready, paper, safe)}
    jury = convened(ready, held_out, threads=threads)
    judged = {
        name: jury.qualities(Calibration(one.ranges, one.rounded)) for name, one in found.items()
    }
    return Verdict(_winner(judged), found, judged)


def raised(ready: Model, paper: Found, safe: Found) -> Found:
    """Return the paper's scales where they are at least `FLOOR` of min-max's, else that share."""
    ranges, traces = {}, {}
    for name, own in paper.ranges.items():
        least = float(np.float32(safe.ranges[name].scale * FLOOR))
        ranges[name] = Range(max(own.scale, least), own.signed)
        threshold = ranges[name].scale * own.limits[1]
        traces[name] = replace(paper.traces[name], threshold=threshold)
    weights = {name: rounded.scale for name, rounded in paper.rounded.items()}
    return Found(ranges, traces, dict(round_at(ready, ranges, weights)))


def _winner(judged: Mapping[str, Qualities]) -> str:
    safe = judged[SAFE]
    best = min((PAPER, RAISED), key=lambda name: loss(judged[name]))
    found = judged[best]
    better = loss(found) < MARGIN * loss(safe)
    return best if better and agreement(found) >= agreement(safe) else SAFE
