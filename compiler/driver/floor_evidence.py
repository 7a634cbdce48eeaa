"""The floor of an integer program, and what it is judged by: images, and bounds for unseen ones.

A figure over the images at hand says little of others where these are few. So a floor is held
against the end of the 95 % interval that is worse for the user, and never by fewer than
`MIN_IMAGES` different images unless the user allows it. Without images, what the calibration states
holds it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tcc.compiler.bundle.manifest import Measured
from tcc.compiler.data.dataset import DataSet, remove_repeats
from tcc.compiler.frontend.accuracy_bounds import Accuracy
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.ir.graph import Model
from tcc.compiler.passes.validate import sample
from tcc.compiler.quant.calibration_document import CalibrationDocument
from tcc.compiler.quant.image_variety import measure_variety
from tcc.compiler.quant.program.floor_program import MeasuredProgram
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import float_program, output_comparison, output_quality
from tcc.compiler.reference.accuracy_floor import (
    MIN_CORRELATION,
    MIN_IMAGES,
    AccuracyFloor,
    BelowFloor,
    FloorBounds,
    TooFewImages,
    merge_bounds,
)
from tcc.compiler.reference.expected_loss import (
    ExpectedLoss,
    add_rounding,
    compute_bounds,
    estimate_bounds,
)
from tcc.compiler.reference.output_comparison import (
    ComparisonImages,
    compute_outputs,
    get_inference_outputs,
    select_comparison_images,
)
from tcc.compiler.support.diagnostics import Diagnostic, fail, make_file_span

MIN_SELECTION_IMAGES = 4
"""Fewest images that choose layers for float beside those that judge."""


@dataclass(frozen=True, slots=True)
class JudgingImages:
    """Images that choose layers for float, those that judge a program, and how many differ.

    `learned_count` of those that judge taught the calibration its scales; they chose nothing else.
    """

    selection_set: DataSet
    judging_set: ComparisonImages
    different_count: int
    learned_count: int = 0


def filter_different(model: Model, images: DataSet) -> DataSet:
    """Return the images that differ by their pixels as the network sees them.

    Raises:
        UserError: An image is damaged.
    """
    return remove_repeats(images, measure_variety(model, images).repeats)


def split_images(fit_images: DataSet, held_out_images: DataSet, *, mixed: bool) -> JudgingImages:
    """Return which images judge a program.

    Args:
        fit_images: Images that the calibration learnt from, or the same as `held_out_images`.
        held_out_images: Images that judge; of few, all do both.
        mixed: Whether layers are to be chosen: by images that do not judge.
    """
    different_count = len({*fit_images.digests, *held_out_images.digests})
    if not mixed:
        return JudgingImages(
            fit_images, select_comparison_images(held_out_images, fit_images), different_count
        )
    if one_set := set(fit_images.digests) == set(held_out_images.digests):
        fit_images, held_out_images = held_out_images.split()
    judge_digests = set(held_out_images.digests)
    remaining = [item for item in fit_images.items if item.digest not in judge_digests]
    lacking = max(0, min(MIN_IMAGES - len(held_out_images), len(remaining) - MIN_SELECTION_IMAGES))
    choosers = len(remaining) - lacking
    held_out_images = replace(
        held_out_images, items=(*held_out_images.items, *remaining[choosers:])
    )
    # Fewer images than choose and judge are allowed where the user says so: then they do both.
    selection_set = (
        replace(fit_images, items=tuple(remaining[:choosers])) if choosers else fit_images
    )
    learned_count = 0 if one_set else lacking
    return JudgingImages(
        selection_set,
        select_comparison_images(held_out_images, selection_set),
        different_count,
        learned_count,
    )


def require_images(different_count: int, min_images: int, name: str, *, mixed: bool) -> None:
    """Refuse to judge a floor by too few different images.

    Args:
        different_count: How many there are.
        min_images: The fewest that judge; 0 is any.
        name: The file or folder that is to blame, for the message.
        mixed: Whether some of them choose layers, which cannot judge.

    Raises:
        TooFewImages: There are fewer than it takes (E0722).
    """
    needed = min_images + MIN_SELECTION_IMAGES if mixed else min_images
    if different_count >= needed or not min_images:
        return
    verb = "is" if different_count == 1 else "are"
    label = f"{different_count} {verb} different"
    if mixed:
        label += (
            f"; `--mixed` chooses layers by {MIN_SELECTION_IMAGES} or more, and {min_images} "
            "others judge"
        )
    message = f"fewer than {needed} different images to judge the accuracy floor by"
    help = (
        f"give {needed} or more with --data, or say --allow-few: the manifest then warns that"
        " nothing is known of other images"
    )
    raise TooFewImages((Diagnostic("E0722", message, make_file_span(name), label, help=help),))


def read_stated_losses(document: CalibrationDocument, model: Model) -> Mapping[str, ExpectedLoss]:
    """Return what a calibration states of unseen images, if it does so for every output."""
    stated = {name: loss for name, loss in document.expected.items() if loss.quality}
    return stated if all(o.name in stated for o in get_inference_outputs(model)) else {}


def compute_calibration_bounds(document: CalibrationDocument, model: Model) -> FloorBounds:
    """Return the bounds that a calibration states, if enough images judged every output."""
    stated = read_stated_losses(document, model)
    enough = all(loss.images >= MIN_IMAGES for loss in stated.values())
    return compute_bounds(stated) if enough else {}


def estimate_program_bounds(
    document: CalibrationDocument,
    model: Model,
    measured: MeasuredProgram,
    images: ComparisonImages,
    *,
    user_images: bool,
) -> FloorBounds:
    """Return what a program keeps on unseen images, by output.

    The calibration speaks of the program of its own scales that ends in real numbers; of others
    the images that these were compared over do.

    Args:
        document: The calibration.
        model: The float model.
        measured: Its program, compared with floats.
        images: Those that it was compared over.
        user_images: Whether these are not the calibration's: then both count.
    """
    stated = {} if measured.steps else compute_calibration_bounds(document, model)
    if measured.calibration.float_io:
        bounds = measured.comparison.bounds
        return merge_bounds(stated, bounds) if user_images or not stated else stated
    program = quantize(model, replace(measured.calibration, float_io=True))
    models = (model, program, measured.program)
    floats, real, rounded = (compute_outputs(network, images.dataset) for network in models)
    if user_images or not stated:
        stated = merge_bounds(stated, estimate_bounds(model, floats, real, images))
    return add_rounding(model, stated, (floats, real, rounded))


TRIAL_COUNT = 4
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
        if broken := floor.find_violations(quality, bounds):
            raise BelowFloor(broken, quality, ())
        images = min(loss.images for loss in losses.values())
        return Measured("as the calibration says", quality, bounds, images)
    # A floor that nobody can look at is not kept in silence: it must be given up in so many words.
    if floor.cosine != 0 or floor.drop not in (None, 1):
        help = (
            "give images with --data, or --floor min_cosine=0 --floor max_drop=1 to build without"
        )
        raise fail("E0618", "the accuracy floor needs images", make_file_span(name), help=help)
    return None


def refuse_collapsed(model: Model, program: Model) -> None:
    """Refuse a program that gives one answer for pixels dark and bright, whatever was said of it.

    Raises:
        BelowFloor: Floats tell these well apart.
    """
    (source,) = model.graph.inputs
    # From dark to bright, since a collapsed network keeps a constant answer over noise as well.
    tensors = [sample(source, seed, (seed + 1) / TRIAL_COUNT) for seed in range(TRIAL_COUNT)]
    floats, outputs = (
        output_comparison.stack_outputs(model, float_program.run(network, tensors))
        for network in (model, program)
    )
    frozen = [name for name in floats if output_quality.is_frozen(floats[name], outputs[name])]
    if frozen:
        reasons = (
            f"`{name}` is the same for {TRIAL_COUNT} inputs that floats tell apart"
            for name in frozen
        )
        raise BelowFloor(
            tuple(reasons), output_comparison.compute_qualities(model, floats, outputs), ()
        )


def resolve_floor(spec: Spec, requested: Accuracy, *, allow_few: bool = False) -> AccuracyFloor:
    """Return the floor: what is asked for, or else the spec's, or else the default.

    Args:
        spec: The network, with what it asks of integers.
        requested: What the user asks.
        allow_few: Judge by however few images there are.
    """
    bounds = requested.merge_defaults(spec.accuracy)
    correlation = MIN_CORRELATION if bounds.min_correlation is None else bounds.min_correlation
    min_images = 0 if allow_few else MIN_IMAGES
    return AccuracyFloor(
        bounds.min_cosine, bounds.max_drop, correlation, bounds.max_error, min_images
    )
