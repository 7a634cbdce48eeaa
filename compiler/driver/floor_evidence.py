"""Evidence for the accuracy floor of an int8 model: images, and bounds for unseen images.

The mean over a few images says little about others. So the floor is compared with the worse end of
the 95 % confidence interval. It needs at least `MIN_IMAGES` different images unless the user allows
fewer. Without images, the figures stored in the calibration count.
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
"""Fewest images for choosing float layers, in addition to those for evaluation."""


@dataclass(frozen=True, slots=True)
class JudgingImages:
    """Images for choosing float layers, images for evaluation, and the number of different ones.

    `learned_count` of the evaluation images were also in the calibration's fit set.
    """

    selection_set: DataSet
    judging_set: ComparisonImages
    different_count: int
    learned_count: int = 0


def filter_different(model: Model, images: DataSet) -> DataSet:
    """Return the images with distinct pixels, as the network sees them.

    Raises:
        UserError: An image is damaged.
    """
    return remove_repeats(images, measure_variety(model, images).repeats)


def split_images(fit_images: DataSet, held_out_images: DataSet, *, mixed: bool) -> JudgingImages:
    """Return which images evaluate a program.

    Args:
        fit_images: The calibration's fit set, or the same as `held_out_images`.
        held_out_images: The held-out set; with few images, all are in both sets.
        mixed: Whether float layers are chosen, by images that do not evaluate.
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
    # Fewer images than both need are allowed if the user asks for it; then they do both.
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
    """Refuse to check a floor with too few different images.

    Args:
        different_count: How many there are.
        min_images: The fewest for evaluation; 0 allows any number.
        name: The file or folder to name in the error.
        mixed: Whether some of them choose float layers and so cannot evaluate.

    Raises:
        TooFewImages: There are too few (E0722).
    """
    needed = min_images + MIN_SELECTION_IMAGES if mixed else min_images
    if different_count >= needed or not min_images:
        return
    verb = "is" if different_count == 1 else "are"
    label = f"{different_count} {verb} different"
    if mixed:
        label += (
            f"; `--mixed` needs {MIN_SELECTION_IMAGES} to choose layers, and {min_images} others "
            "for evaluation"
        )
    message = f"the accuracy floor needs at least {needed} different images"
    help = (
        f"give {needed} or more with --data, or use --allow-few: the manifest then warns that"
        " the accuracy on other images is unknown"
    )
    raise TooFewImages((Diagnostic("E0722", message, make_file_span(name), label, help=help),))


def read_stated_losses(document: CalibrationDocument, model: Model) -> Mapping[str, ExpectedLoss]:
    """Return the expected losses that a calibration states; empty if an output has none."""
    stated = {name: loss for name, loss in document.expected.items() if loss.quality}
    return stated if all(o.name in stated for o in get_inference_outputs(model)) else {}


def compute_calibration_bounds(document: CalibrationDocument, model: Model) -> FloorBounds:
    """Return the bounds that a calibration states, if enough images support each output."""
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
    """Return the bounds of a program for unseen images, by output.

    The calibration's own bounds are for the program with its scales and float outputs. For other
    programs, bounds are estimated from the compared images.

    Args:
        document: The calibration.
        model: The float model.
        measured: Its program, compared with the float model.
        images: The images of that comparison.
        user_images: Whether these are not the calibration's; then both bounds count.
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
"""Number of random inputs to try a program on if there are no images."""


def check_stated(
    name: str, floor: AccuracyFloor, losses: Mapping[str, ExpectedLoss]
) -> Measured | None:
    """Return the quality that a calibration file states for its program; None if it states none.

    Args:
        name: The file's name, for errors.
        floor: The accuracy floor of each output.
        losses: The expected losses in the file; empty for a program with quantized outputs.

    Raises:
        BelowFloor: The stated quality is below the floor.
        UserError: The file states none, and the floor is not turned off (E0618).
    """
    if losses:
        quality = {output: loss.quality for output, loss in losses.items() if loss.quality}
        bounds = compute_bounds(losses)
        if broken := floor.find_violations(quality, bounds):
            raise BelowFloor(broken, quality, ())
        images = min(loss.images for loss in losses.values())
        return Measured("according to the calibration file", quality, bounds, images)
    # A floor that cannot be checked must be turned off explicitly.
    if floor.cosine != 0 or floor.drop not in (None, 1):
        help = (
            "give images with --data, or turn the floor off: --floor min_cosine=0 --floor"
            " max_drop=1"
        )
        raise fail("E0618", "the accuracy floor needs images", make_file_span(name), help=help)
    return None


def refuse_collapsed(model: Model, program: Model) -> None:
    """Refuse a program with the same output for dark and bright pixels.

    Raises:
        BelowFloor: The float model separates these inputs.
    """
    (network_input,) = model.graph.inputs
    # From dark to bright: a collapsed network has a constant output for noise too.
    tensors = [sample(network_input, seed, (seed + 1) / TRIAL_COUNT) for seed in range(TRIAL_COUNT)]
    floats, outputs = (
        output_comparison.stack_outputs(model, float_program.run(network, tensors))
        for network in (model, program)
    )
    frozen = [name for name in floats if output_quality.is_frozen(floats[name], outputs[name])]
    if frozen:
        reasons = (
            f"`{name}` is the same for {TRIAL_COUNT} inputs that the fp32 model separates"
            for name in frozen
        )
        raise BelowFloor(
            tuple(reasons), output_comparison.compute_qualities(model, floats, outputs), ()
        )


def resolve_floor(spec: Spec, requested: Accuracy, *, allow_few: bool = False) -> AccuracyFloor:
    """Return the accuracy floor: the requested bounds, else the spec's, else the defaults.

    Args:
        spec: The network, with its accuracy bounds.
        requested: Bounds from the user.
        allow_few: Whether any number of images is enough.
    """
    bounds = requested.merge_defaults(spec.accuracy)
    correlation = MIN_CORRELATION if bounds.min_correlation is None else bounds.min_correlation
    min_images = 0 if allow_few else MIN_IMAGES
    return AccuracyFloor(
        bounds.min_cosine, bounds.max_drop, correlation, bounds.max_error, min_images
    )
