"""The floor of an integer program without images: what its calibration states, and a few inputs."""

from collections.abc import Mapping

from tcc.compiler.bundle.manifest import Measured
from tcc.compiler.ir.graph import Model
from tcc.compiler.passes.validate import sample
from tcc.compiler.reference import (
    float_program,
    output_comparison,
    output_quality,
)
from tcc.compiler.reference.accuracy_floor import AccuracyFloor, BelowFloor
from tcc.compiler.reference.expected_loss import ExpectedLoss
from tcc.compiler.reference.quality_bounds import compute_bounds
from tcc.compiler.support.diagnostics import fail, whole_file

TRIED = 4
"""Inputs that a program is tried on where there are no images."""


def check_stated(
    name: str, floor: AccuracyFloor, losses: Mapping[str, ExpectedLoss]
) -> Measured | None:
    """Return how good a calibration file states that its program is; None where it does not say.

    Args:
        name: The file's name, for errors.
        floor: That of each output.
        losses: What the file states of the program; it knows nothing of one that ends in integers.

    Raises:
        BelowFloor: It is below the floor.
        UserError: It states nothing, and the floor was not given up (E0618).
    """
    if losses:
        quality = {output: loss.quality for output, loss in losses.items() if loss.quality}
        bounds = compute_bounds(losses)
        if broken := floor.broken(quality, bounds):
            raise BelowFloor(broken, quality, ())
        images = min(loss.images for loss in losses.values())
        return Measured("as the calibration says", quality, bounds, images)
    # A floor that nobody can look at is not kept in silence: it must be given up in so many words.
    if floor.cosine != 0 or floor.drop not in (None, 1):
        help = "give images with --data, or --min-cosine 0 --max-drop 1 to build without"
        raise fail("E0618", "the accuracy floor needs images", whole_file(name), help=help)
    return None


def refuse_collapsed(model: Model, program: Model) -> None:
    """Refuse a program that gives one answer for pixels dark and bright, whatever was said of it.

    Raises:
        BelowFloor: Floats tell these well apart.
    """
    (source,) = model.graph.inputs
    # From dark to bright, since a collapsed network keeps a constant answer over noise as well.
    tensors = [sample(source, seed, (seed + 1) / TRIED) for seed in range(TRIED)]
    floats, outputs = (
        output_comparison.stacked_outputs(model, float_program.run(network, tensors))
        for network in (model, program)
    )
    frozen = [name for name in floats if output_quality.frozen(floats[name], outputs[name])]
    if frozen:
        reasons = (
            f"`{name}` is the same for {TRIED} inputs that floats tell apart" for name in frozen
        )
        raise BelowFloor(tuple(reasons), output_comparison.qualities(model, floats, outputs), ())
