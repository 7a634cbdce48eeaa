"""Calibration of a lowered model on a dataset."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from tcc.compiler.data.confined_images import PixelCache
from tcc.compiler.data.dataset import (
    DAMAGED_CODES,
    HELD_OUT_INTERVAL,
    DataSet,
    check_dataset,
    remove_repeats,
)
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant import methods
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.image_variety import ImageVariety, measure_variety
from tcc.compiler.quant.methods.cross_fitting import MAX_HELD_OUT, count_held_out_images
from tcc.compiler.quant.methods.method import CalibrationResult, Method
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.program.saturated_values import measure_saturation
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.quant.scale_groups import compute_scale, find_output_values, find_scale_groups
from tcc.compiler.reference import output_comparison
from tcc.compiler.reference.expected_loss import ExpectedLoss, estimate_losses
from tcc.compiler.support.diagnostics import Span, UserError, fail, find_nearest_name

MAX_MEDIAN_SPREAD = 0.05
"""Median relative error of the ranges above which a notice is given."""
MANY_IMAGES = 128
"""With at least this many images, uncertain ranges come from outliers, not from too few images."""


def find_method(name: str | None, at: Span) -> Method:
    """Return the method with a name; the default for None.

    Raises:
        UserError: There is no such method (E0617).
    """
    by_name = {method.name: method for method in methods.METHODS}
    if name is None:
        return methods.DEFAULT
    if name in by_name:
        return by_name[name]
    suggestion = find_nearest_name(name, by_name)
    known_methods = f"known methods: {', '.join(by_name)}"
    help = f"did you mean `{suggestion}`? {known_methods}" if suggestion else known_methods
    raise fail("E0617", f"there is no calibration method `{name[:80]}`", at, help=help)


def calibrate(
    lowered_model: Model, dataset: DataSet, method: Method, options: RunOptions | None = None
) -> CalibrationResult:
    """Calibrate a lowered model with a method.

    The result does not depend on `options`, nor on the names or the order of the images.

    Args:
        lowered_model: A model after the passes before calibration.
        dataset: Images, uint8 pixels or float tensors of the network's input.
        method: One of `methods.METHODS`.
        options: How to run the images.

    Raises:
        UserError: The images do not fit the network, a value is not finite (E0720), or there are
            fewer different images than `options.min_images` (E0721).
    """
    network_input = lowered_model.graph.inputs[0]
    check_dataset(dataset, network_input)
    # Held-out images run through every candidate.
    dataset = replace(dataset, pixel_cache=PixelCache())
    # First, since checking the images is cheap.
    image_variety, run_options = measure_variety(lowered_model, dataset), options or RunOptions()
    image_variety.require(run_options.min_images, str(dataset.items[0].path.parent))
    # Each image counts once, even if several files contain it: ranges, the choice of a method and
    # the estimates for unseen images assume independent samples.
    dataset = remove_repeats(dataset, image_variety.repeats)
    try:
        calibration_result = add_headroom(
            lowered_model, method.find(lowered_model, dataset, run_options)
        )
    except UserError as error:
        if (
            error.diagnostics[0].code in DAMAGED_CODES
        ):  # raised for one image: list all damaged images
            raise dataset.collect_errors(network_input) from None
        raise
    # Cross-validating methods already have an estimate; guarded methods have held-out images.
    if (
        not calibration_result.expected
        and calibration_result.held_out
        and image_variety.distinct_count >= HELD_OUT_INTERVAL
    ):
        calibration_result = replace(
            calibration_result,
            expected=_estimate_held_out_loss(
                lowered_model, dataset, calibration_result.calibration
            ),
        )
    notices = (
        *calibration_result.notices,
        *image_variety.collect_notices(),
        *_collect_notices(calibration_result, image_variety),
    )
    # On held-out images if there are any: images that set the ranges do not exceed them.
    saturation_images = dataset.split()[1] if calibration_result.held_out else dataset
    saturation = measure_saturation(
        lowered_model,
        calibration_result.calibration,
        saturation_images.select_first(count_held_out_images(lowered_model)),
    )
    return replace(
        calibration_result, notices=notices, repeats=image_variety.repeats, saturation=saturation
    )


def _estimate_held_out_loss(
    lowered_model: Model, dataset: DataSet, calibration: Calibration
) -> Mapping[str, ExpectedLoss]:
    """Return the expected loss, estimated from held-out images that influenced no choice."""
    _, held_out = dataset.split()
    images = held_out.select_first(MAX_HELD_OUT)
    expected, actual = (
        output_comparison.compute_outputs(model, images)
        for model in (lowered_model, quantize(lowered_model, calibration))
    )
    # Guarded methods use searched scales or min-max's.
    return estimate_losses(lowered_model, expected, actual, clipped=True)


def _collect_notices(
    calibration_result: CalibrationResult, image_variety: ImageVariety
) -> Iterator[str]:
    """Yield notices on how reliable the calibration is."""
    if (
        calibration_result.qualities_by_candidate
        and image_variety.distinct_count < HELD_OUT_INTERVAL
    ):
        yield (
            f"{_format_image_count(image_variety.distinct_count)}: too few to hold any out, so"
            " that the candidates were evaluated on the images that they were fitted to; give"
            f" {HELD_OUT_INTERVAL} different images or more"
        )
    spreads = [
        trace.spread for trace in calibration_result.traces.values() if trace.spread is not None
    ]
    median_spread = float(np.median(spreads)) if spreads else 0.0
    if median_spread > MAX_MEDIAN_SPREAD:
        is_small = image_variety.distinct_count < MANY_IMAGES
        cause = (
            f"{_format_image_count(image_variety.distinct_count)} are few, give more"
            if is_small
            else "single images have a large influence, check for outliers"
        )
        yield (
            f"half of the ranges have a standard error (jackknife) of {median_spread:.0%} or more:"
            f" {cause}"
        )


def _format_image_count(count: int) -> str:
    return "one image" if count == 1 else f"{count} images"


def add_headroom(lowered_model: Model, calibration_result: CalibrationResult) -> CalibrationResult:
    """Return a result whose output ranges cover the peaks estimated for unseen images.

    An 8-bit output clips larger values, and users read outputs, so that every method gets this
    headroom. It only affects programs with 8-bit outputs (TFLite and ARM): float outputs have no
    range.

    Args:
        lowered_model: The lowered model.
        calibration_result: A method's result, with the estimated peak of each value.
    """
    ranges, traces = dict(calibration_result.calibration.ranges), dict(calibration_result.traces)
    output_values = find_output_values(lowered_model.graph)
    for group in find_scale_groups(lowered_model.graph):
        peaks = [traces[name].reach or 0.0 for name in group if name in traces]
        peak = max(peaks, default=0.0)
        value_range = ranges[group[0]]
        # Only if the full group is outputs: a wider scale would cost layers resolution.
        if output_values.issuperset(group) and peak > value_range.scale * value_range.limits[1]:
            wider_range = value_range.with_scale(compute_scale(peak, value_range.signed))
            ranges |= dict.fromkeys(group, wider_range)
            threshold = wider_range.scale * wider_range.limits[1]
            traces |= {
                name: replace(traces[name], threshold=threshold) for name in group if name in traces
            }
    return replace(
        calibration_result,
        calibration=replace(calibration_result.calibration, ranges=ranges),
        traces=traces,
    )
