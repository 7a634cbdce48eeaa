"""From a calibration to an integer program that keeps its floor, or a refusal that names layers."""

from dataclasses import dataclass

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.float_comparison import FloatComparison, compare
from tcc.compiler.quant.program.mixed_precision import FloatLayer, search
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference.accuracy_floor import AccuracyFloor, BelowFloor, LossyLayer
from tcc.compiler.reference.output_comparison import ComparisonImages
from tcc.compiler.support.diagnostics import NOWHERE
from tcc.compiler.support.progress import Progress


@dataclass(frozen=True, slots=True)
class MeasuredProgram:
    """An integer program, its calibration, how it compares with floats, and how floats got in."""

    program: Model
    calibration: Calibration
    comparison: FloatComparison
    steps: tuple[FloatLayer, ...] = ()


def measured(
    ready: Model, calibration: Calibration, images: ComparisonImages, progress: Progress
) -> MeasuredProgram:
    """Return the integer program of a calibration, compared with floats over images.

    Args:
        ready: The ready float model.
        calibration: Its calibration.
        images: Those to compare over.
        progress: Told how many images are done.
    """
    program = quantize(ready, calibration)
    return MeasuredProgram(
        program, calibration, compare(ready, program, calibration, images, progress)
    )


def with_float_layers(
    ready: Model,
    made: MeasuredProgram,
    floor: AccuracyFloor,
    learn: DataSet,
    judge: ComparisonImages,
    progress: Progress,
) -> MeasuredProgram:
    """Return the program, with layers in float where the floor needs them.

    Their order comes from the images to learn from; how many it takes, from the others.

    Args:
        ready: The ready float model.
        made: Its integer program as measured.
        floor: What it is to keep.
        learn: Images from which the order of layers comes.
        judge: Images that say how many it takes.
        progress: Told how far the search is.
    """
    # Floats cost time on every device: none where the floor is kept without.
    if floor.holds(made.comparison.quality):
        return made
    mixed, steps = search(ready, made.calibration, made.comparison, (learn, judge), floor, progress)
    again = measured(ready, mixed, judge, progress)
    return MeasuredProgram(again.program, again.calibration, again.comparison, steps)


def require_floor(made: MeasuredProgram, floor: AccuracyFloor) -> MeasuredProgram:
    """Return the program, if it keeps the floor.

    Raises:
        BelowFloor: It does not; the layers that lose the most are named.
    """
    comparison = made.comparison
    broken = floor.broken(comparison.quality)
    if broken:
        places = {node.name: node.at for node in made.program.graph.nodes}
        culprits = [
            LossyLayer(
                # By the layer's own loss in signal to noise, worst first, which is where to look.
                o.name,
                f"{o.snr:.1f} dB, cosine {o.cosine:.4f}",
                places.get(o.name, NOWHERE),
            )
            for o in comparison.worst()
        ]
        raise BelowFloor(broken, comparison.quality, culprits)
    return made
