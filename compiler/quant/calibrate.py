"""From a ready model and a data set to its calibration, by a method."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from tcc.compiler.data.confined_images import ReadImages
from tcc.compiler.data.dataset import DAMAGED, HELD_OUT, DataSet, check, pictures
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant import methods
from tcc.compiler.quant.calibration import Calibration, Range
from tcc.compiler.quant.image_variety import ImageVariety, variety
from tcc.compiler.quant.methods.cross_fitting import MOST, judging_images
from tcc.compiler.quant.methods.method import CalibrationResult, Method
from tcc.compiler.quant.program.level_ends import count_usual
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.quant.scale_groups import end_values, scale_for, scale_groups
from tcc.compiler.reference import output_comparison
from tcc.compiler.reference.expected_loss import ExpectedLoss, expected_losses
from tcc.compiler.support.diagnostics import Span, UserError, fail, nearest

ENOUGH = 0.05
"""The median spread of the ranges above which a data set is said to be too small."""
MANY = 128
"""From so many images on, uncertain ranges come from odd images, not from too few of them."""


def known(name: str | None, at: Span) -> Method:
    """Return the method of a name, or the default without one.

    Raises:
        UserError: There is no such method (E0617).
    """
    by_name = {method.name: method for method in methods.METHODS}
    if name is None:
        return methods.DEFAULT
    if name in by_name:
        return by_name[name]
    close = nearest(name, by_name)
    listed = f"known methods: {', '.join(by_name)}"
    help = f"did you mean `{close}`? {listed}" if close else listed
    raise fail("E0617", f"there is no method `{name[:80]}`", at, help=help)


def calibrate(
    ready: Model, data: DataSet, method: Method, options: RunOptions | None = None
) -> CalibrationResult:
    """Return what a method makes of a ready model and images.

    Args:
        ready: A model after the passes that go before calibration.
        data: Images, uint8 pixels or float tensors of the network's input.
        method: One of `methods.METHODS`.
        options: How to run them; neither these nor the images' names or order change a bit.

    Raises:
        UserError: The network does not take these images, or gives no finite numbers for them; or
            fewer of them are different than the options ask for (E0721).
    """
    source = ready.graph.inputs[0]
    check(data, source)
    # Those that judge run through every candidate.
    data = replace(data, read_already=ReadImages())
    # Before any work: what the set cannot tell is cheap to see.
    shown, how = variety(ready, data), options or RunOptions()
    shown.require(how.least, str(data.items[0].path.parent))
    # A picture counts once, however many files show it: ranges, the choice and what is stated of
    # unseen images take each for one that was drawn by itself.
    data = pictures(data, shown.repeats)
    try:
        found = with_headroom(ready, method.find(ready, data, how))
    except UserError as error:
        if error.diagnostics[0].code in DAMAGED:  # found in a part of the images: list all of them
            raise data.damaged(source) from None
        raise
    # Methods that judge in turn have an estimate already; guarded ones have images held out.
    if not found.expected and found.held_out and shown.different >= HELD_OUT:
        found = replace(found, expected=_of_held_out(ready, data, found.calibration))
    notices = (*found.notices, *shown.notices(), *_notices(found, shown))
    # Of images held out, if any were: what was learnt from ends where the ranges do.
    own = data.split()[1] if found.held_out else data
    usual = count_usual(ready, found.calibration, own.first(judging_images(ready)))
    return replace(found, notices=notices, repeats=shown.repeats, usual=usual)


def _of_held_out(
    ready: Model, data: DataSet, calibration: Calibration
) -> Mapping[str, ExpectedLoss]:
    """Return what is lost on images held out, which no choice has looked at."""
    _, held_out = data.split()
    few = held_out.first(MOST)
    expected, found = (
        output_comparison.all_outputs(model, few) for model in (ready, quantize(ready, calibration))
    )
    # Guarded methods have scales of their own, or min-max's.
    return expected_losses(ready, expected, found, clipped=True)


def _notices(found: CalibrationResult, shown: ImageVariety) -> Iterator[str]:
    """Yield what is to be said of how much the set told."""
    if found.judged and shown.different < HELD_OUT:
        yield f"with {_images(shown.different)}, what is learnt from is also what judges"
    spreads = [trace.spread for trace in found.traces.values() if trace.spread is not None]
    middle = float(np.median(spreads)) if spreads else 0.0
    if middle > ENOUGH:
        few = shown.different < MANY
        said = f"{_images(shown.different)} are few" if few else "single images decide much"
        yield f"{said}: by the jackknife, half of the ranges are uncertain by {middle:.0%} or more"


def _images(count: int) -> str:
    return "one image" if count == 1 else f"{count} images"


def with_headroom(ready: Model, found: CalibrationResult) -> CalibrationResult:
    """Return a result whose outputs reach as far as unseen images are expected to need.

    Outputs are what somebody reads, so that they have it by whatever method. Where outputs that
    are 8-bit integers end, a larger number is not told apart. Only programs whose ends are integers
    have it, those of TFLite and ARM: real ends have no range.

    Args:
        ready: The ready model.
        found: What a method found, with how far each value is expected to reach.
    """
    ranges, traces = dict(found.calibration.ranges), dict(found.traces)
    ends = end_values(ready.graph)
    for group in scale_groups(ready.graph):
        told = [traces[name].reach or 0.0 for name in group if name in traces]
        reach = max(told, default=0.0)
        own = ranges[group[0]]
        # Only where the whole group ends: a wider scale for what layers read would cost them
        # resolution.
        if ends.issuperset(group) and reach > own.scale * own.limits[1]:
            wide = Range(scale_for(reach, own.signed), own.signed)
            ranges |= dict.fromkeys(group, wide)
            threshold = wide.scale * wide.limits[1]
            traces |= {
                name: replace(traces[name], threshold=threshold) for name in group if name in traces
            }
    return replace(found, calibration=replace(found.calibration, ranges=ranges), traces=traces)
