"""From a ready model and a data set to its calibration, by a method."""

from dataclasses import replace

import numpy as np

from tcc.compiler.data.dataset import DAMAGED, HELD_OUT, DataSet, check
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant import methods
from tcc.compiler.quant.methods.method import CalibrationResult, Method, RunOptions
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
        UserError: The network does not take these images, or gives no finite numbers for them.
    """
    source = ready.graph.inputs[0]
    check(data, source)
    try:
        found = method.find(ready, data, options or RunOptions())
    except UserError as error:
        if error.diagnostics[0].code in DAMAGED:  # found in a part of the images: list all of them
            raise data.damaged(source) from None
        raise
    return _noticed(found, data)


def _noticed(found: CalibrationResult, data: DataSet) -> CalibrationResult:
    """Return the result with what is to be said of the data set."""
    different = len(set(data.digests))
    notices = []
    if found.held_out and different < HELD_OUT:
        notices.append(f"with {_images(different)}, what is learnt from is also what judges")
    spreads = [trace.spread for trace in found.traces.values() if trace.spread is not None]
    middle = float(np.median(spreads)) if spreads else 0.0
    if not spreads:
        notices.append("one image says nothing of how much the scales depend on the images")
    elif middle > ENOUGH:
        said = f"{_images(different)} are few" if different < MANY else "single images decide much"
        notices.append(
            f"{said}: by the jackknife, half of the ranges are uncertain by {middle:.0%} or more"
        )
    return replace(found, notices=(*found.notices, *notices))


def _images(count: int) -> str:
    return "one image" if count == 1 else f"{count} images"
