"""From a calibration to an integer program that keeps its floor, or a refusal that names layers."""

from dataclasses import dataclass

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.comparison import Comparison, compare
from tcc.compiler.quant.program.mixed_precision import Step, search
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference.quality import BelowFloor, Culprit, Floor
from tcc.compiler.reference.similarity import Panel
from tcc.compiler.support.diagnostics import NOWHERE
from tcc.compiler.support.progress import Progress


@dataclass(frozen=True, slots=True)
class Made:
    """An integer program, its calibration, how it compares with floats, and how floats got in."""

    program: Model
    calibration: Calibration
    comparison: Comparison
    steps: tuple[Step, ...] = ()


def make(ready: Model, calibration: Calibration, images: Panel, progress: Progress) -> Made:
    """Return the integer program of a calibration, compared with floats over images."""
    program = quantize(ready, calibration)
    return Made(program, calibration, compare(ready, program, calibration, images, progress))


def above(
    ready: Model, made: Made, floor: Floor, learn: DataSet, judge: Panel, progress: Progress
) -> Made:
    """Return the program, with layers in float where the floor needs them.

    Their order comes from the images to learn from; how many it takes, from the others.
    """
    if floor.holds(made.comparison.quality):
        return made
    mixed, steps = search(ready, made.calibration, made.comparison, (learn, judge), floor, progress)
    again = make(ready, mixed, judge, progress)
    return Made(again.program, again.calibration, again.comparison, steps)


def check(made: Made, floor: Floor) -> Made:
    """Return the program, if it keeps the floor.

    Raises:
        BelowFloor: It does not; the layers that lose the most are named.
    """
    comparison = made.comparison
    broken = floor.broken(comparison.quality)
    if broken:
        places = {node.name: node.at for node in made.program.graph.nodes}
        culprits = [
            Culprit(o.name, f"{o.snr:.1f} dB, cosine {o.cosine:.4f}", places.get(o.name, NOWHERE))
            for o in comparison.worst()
        ]
        raise BelowFloor(broken, comparison.quality, culprits)
    return made
