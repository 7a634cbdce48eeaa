"""What the floor of an integer program is judged by: different images, and bounds for unseen ones.

A figure over the images at hand says little of others where these are few. So a floor is held
against the end of the 95 % interval that is worse for the user, and never by fewer than `ENOUGH`
different images unless the user allows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.data.pictures import pictures
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.calibration_document import CalibrationDocument
from tcc.compiler.quant.image_variety import variety
from tcc.compiler.quant.program.measured_program import MeasuredProgram
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference.accuracy_floor import ENOUGH, Bounds, TooFewImages, worst_bounds
from tcc.compiler.reference.expected_loss import ExpectedLoss
from tcc.compiler.reference.output_comparison import (
    ComparisonImages,
    all_outputs,
    comparison_images,
    judged_outputs,
)
from tcc.compiler.reference.quality_bounds import (
    estimated_bounds,
    rounded_bounds,
    stated_bounds,
)
from tcc.compiler.support.diagnostics import Diagnostic, whole_file

CHOOSERS = 4
"""Fewest images that choose layers for float beside those that judge."""


@dataclass(frozen=True, slots=True)
class JudgingImages:
    """Images that choose layers for float, those that judge a program, and how many differ.

    `learned` of those that judge taught the calibration its scales; they chose nothing else.
    """

    choose: DataSet
    judge: ComparisonImages
    different: int
    learned: int = 0


def different_images(ready: Model, images: DataSet) -> DataSet:
    """Return the images that differ by their pixels as the network sees them.

    Raises:
        UserError: An image is damaged.
    """
    return pictures(images, variety(ready, images).repeats)


def judging_images(learn: DataSet, judge: DataSet, *, mixed: bool) -> JudgingImages:
    """Return which images judge a program.

    Args:
        learn: Images that the calibration learnt from, or the same as `judge`.
        judge: Images that judge; of few, all do both.
        mixed: Whether layers are to be chosen: by images that do not judge.
    """
    different = len({*learn.digests, *judge.digests})
    if not mixed:
        return JudgingImages(learn, comparison_images(judge, learn), different)
    if set(learn.digests) == set(judge.digests):
        learn, judge = judge.split()
    known = set(judge.digests)
    rest = [item for item in learn.items if item.digest not in known]
    lacking = max(0, min(ENOUGH - len(judge), len(rest) - CHOOSERS))
    kept = len(rest) - lacking
    whole = replace(judge, items=(*judge.items, *rest[kept:]))
    # Fewer images than choose and judge are allowed where the user says so: then they do both.
    choose = replace(learn, items=tuple(rest[:kept])) if kept else learn
    return JudgingImages(choose, comparison_images(whole, choose), different, lacking)


def require_images(different: int, least: int, name: str, *, mixed: bool) -> None:
    """Refuse to judge a floor by too few different images.

    Args:
        different: How many there are.
        least: The fewest that judge; 0 is any.
        name: The file or folder that is to blame, for the message.
        mixed: Whether some of them choose layers, which cannot judge.

    Raises:
        TooFewImages: There are fewer than it takes (E0722).
    """
    needed = least + CHOOSERS if mixed else least
    if different >= needed or not least:
        return
    verb = "is" if different == 1 else "are"
    label = f"{different} {verb} different"
    if mixed:
        label += f"; `--mixed` chooses layers by {CHOOSERS} or more, and {least} others judge"
    message = f"fewer than {needed} different images to judge the accuracy floor by"
    help = (
        f"give {needed} or more with --data, or say --allow-few: the manifest then warns that"
        " nothing is known of other images"
    )
    raise TooFewImages((Diagnostic("E0722", message, whole_file(name), label, help=help),))


def stated_losses(document: CalibrationDocument, ready: Model) -> Mapping[str, ExpectedLoss]:
    """Return what a calibration states of unseen images, if it does so for every output."""
    stated = {name: one for name, one in document.expected.items() if one.quality}
    return stated if all(o.name in stated for o in judged_outputs(ready)) else {}


def calibration_bounds(document: CalibrationDocument, ready: Model) -> Bounds:
    """Return the bounds that a calibration states, if enough images judged every output."""
    stated = stated_losses(document, ready)
    enough = all(one.images >= ENOUGH for one in stated.values())
    return stated_bounds(stated) if enough else {}


def program_bounds(
    document: CalibrationDocument,
    ready: Model,
    made: MeasuredProgram,
    images: ComparisonImages,
    *,
    others: bool,
) -> Bounds:
    """Return what a program keeps on unseen images, by output.

    The calibration speaks of the program of its own scales that ends in real numbers; of others
    the images that these were compared over do.

    Args:
        document: The calibration.
        ready: The float model.
        made: Its program, compared with floats.
        images: Those that it was compared over.
        others: Whether these are not the calibration's: then both count.
    """
    stated = {} if made.steps else calibration_bounds(document, ready)
    if made.calibration.real_ends:
        measured = made.comparison.bounds
        return worst_bounds(stated, measured) if others or not stated else stated
    program = quantize(ready, replace(made.calibration, real_ends=True))
    floats, real, rounded = (all_outputs(m, images.data) for m in (ready, program, made.program))
    if others or not stated:
        stated = worst_bounds(stated, estimated_bounds(ready, floats, real, images))
    return rounded_bounds(ready, stated, (floats, real, rounded))
