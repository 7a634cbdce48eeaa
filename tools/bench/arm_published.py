"""Compare the cycle model with published times of a real Cortex-A7, for docs/measuring.md.

ncnn publishes single-thread times of its own benchmark networks on an AX620A with four Cortex-A7 at
1 GHz. The same networks run in qemu, with the options of ncnn's benchmark. Their descriptions,
`benchmark/*.param` in ncnn's repository, are not part of tcc; the caller names their folder.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from arm_peers import Peers

GUEST = Path(__file__).parent / "arm_guests" / "ncnn_guest.py"
WEIGHTS = 300 << 20
"""The size of the zeros that replace weights; ncnn's benchmark has no weights either."""


class Published(NamedTuple):
    """The side of a network's input and its time in milliseconds (ncnn's benchmark/README.md)."""

    side: int
    milliseconds: float


AX620A: Mapping[str, Published] = {
    "squeezenet": Published(227, 532.22),
    "squeezenet_int8": Published(227, 359.86),
    "mobilenet": Published(224, 920.52),
    "mobilenet_int8": Published(224, 532.81),
    "mobilenet_v2": Published(224, 609.18),
    "mobilenet_v3": Published(224, 531.90),
    "shufflenet": Published(224, 299.06),
    "shufflenet_v2": Published(224, 288.79),
    "mnasnet": Published(224, 590.63),
    "googlenet": Published(224, 1740.81),
    "googlenet_int8": Published(224, 1168.54),
    "resnet18": Published(224, 1584.97),
    "resnet18_int8": Published(224, 917.16),
    "efficientnet_b0": Published(224, 1042.61),
    "blazeface": Published(128, 86.92),
}


class Fit(NamedTuple):
    """The ratios of published to modelled times: their mean, scatter and extremes.

    `rms` and `worst` describe the ratios' logarithms after subtracting their mean.
    """

    factor: float
    rms: float
    worst: float
    low: float
    high: float


def fit(ratios: Mapping[str, float]) -> Fit:
    """Return the fit of the ratios of published to modelled times."""
    logarithms = [math.log(number) for number in ratios.values()]
    mean = sum(logarithms) / len(logarithms)
    residuals = [number - mean for number in logarithms]
    rms = math.sqrt(sum(number**2 for number in residuals) / len(residuals))
    worst = math.expm1(max(map(abs, residuals)))
    return Fit(math.exp(mean), rms, worst, min(ratios.values()), max(ratios.values()))


def validate(peers: Peers, descriptions: Path) -> None:
    """Count the networks with a description in a folder; print them, and the fit."""
    weights = peers.folder / "zeros"
    if not weights.exists():
        with weights.open("wb") as file:
            file.truncate(WEIGHTS)
    ratios: dict[str, float] = {}
    print(f"{'network':18}{'M instructions':>16}{'M cycles':>10}{'ms, AX620A':>12}{'ratio':>7}")
    for name, published in AX620A.items():
        if not (descriptions / f"{name}.param").is_file():
            raise SystemExit(
                f"{descriptions} has no {name}.param; give the folder `benchmark` of ncnn"
            )
        instructions, cycles = _count_network(
            peers, descriptions / f"{name}.param", weights, published.side
        )
        ratio = published.milliseconds * 1e6 / cycles
        ratios[name] = ratio
        figures = f"{instructions / 1e6:16.1f}{cycles / 1e6:10.1f}{published.milliseconds:12.2f}"
        print(f"{name:18}{figures}{ratio:7.2f}", flush=True)
    ratio_fit = fit(ratios)
    int8_ratios = {name: ratio for name, ratio in ratios.items() if name.endswith("_int8")}
    float_ratios = {name: ratio for name, ratio in ratios.items() if name not in int8_ratios}
    print(
        f"published / modelled {ratio_fit.factor:.2f} ({ratio_fit.low:.2f} to "
        f"{ratio_fit.high:.2f}); scatter about it"
        f" {ratio_fit.rms:.0%} RMS, worst {ratio_fit.worst:.0%}; int8 times underestimated by"
        f" {fit(int8_ratios).factor / fit(float_ratios).factor - 1:.0%} relative to fp32"
    )


def _count_network(peers: Peers, param: Path, weights: Path, side: int) -> tuple[int, int]:
    """Return instructions and cycles of one run; earlier counts are cached in the folder."""
    cache_file = peers.folder / f"{param.stem}.json"
    if not cache_file.exists():
        run, _ = peers.count(GUEST, param.resolve(), weights, side, side, "-", "fp16")
        cache_file.write_text(json.dumps(run.network))
    instructions, cycles = json.loads(cache_file.read_text())
    return instructions, cycles
