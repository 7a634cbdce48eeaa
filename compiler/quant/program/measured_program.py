"""From a calibration to an integer program that keeps its floor, or a refusal that names layers."""

from dataclasses import dataclass

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.float_comparison import FloatComparison, compare
from tcc.compiler.quant.program.mixed_precision import FloatLayer, search
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference.accuracy_floor import AccuracyFloor, BelowFloor, FloorBounds, LossyLayer
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
    choose: DataSet,
    judge: ComparisonImages,
    progress: Progress,
) -> MeasuredProgram:
    """Return the program with layers in float, as many as the floor needs.

    Args:
        ready: The ready float model.
        made: Its integer program as measured, which does not keep the floor.
        floor: What it is to keep.
        choose: Images that choose layers.
        judge: Images that judge what was chosen.
        progress: Told how far the search is.
    """
    images = choose, judge
    mixed, steps = search(ready, made.calibration, made.comparison, images, floor, progress)
    again = measured(ready, mixed, judge, progress)
    return MeasuredProgram(again.program, again.calibration, again.comparison, steps)


def require_floor(
    program: MeasuredProgram, floor: AccuracyFloor, bounds: FloorBounds, *, mixed: bool
) -> MeasuredProgram:
    """Return the program, if it keeps the floor.

    Args:
        program: It as measured.
        floor: What it is to keep.
        bounds: What unseen images keep, by output.
        mixed: Whether layers were kept in float for the floor already.

    Raises:
        BelowFloor: It does not; the layers that lose the most are named.
    """
    comparison = program.comparison
    broken = floor.broken(comparison.quality, bounds)
    if broken:
        span_by_node = {node.name: node.at for node in program.program.graph.nodes}
        culprits = [
            LossyLayer(
                # By the layer's own loss in signal to noise, worst first, which is where to look.
                o.name,
                f"{o.snr:.1f} dB, cosine {o.cosine:.4f}",
                span_by_node.get(o.name, NOWHERE),
            )
            for o in comparison.worst()
        ]
        raise BelowFloor(broken, comparison.quality, culprits, mixed=mixed)
    return program
