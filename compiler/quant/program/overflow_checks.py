"""What must hold before a network becomes integers: scales are numbers, and sums fit 32 bits."""

from collections.abc import Iterator, Mapping

import numpy as np

from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.calibration import Calibration, RoundedWeights
from tcc.compiler.quant.rounding.nearest_rounding import largest_level
from tcc.compiler.quant.scale_groups import SMALLEST
from tcc.compiler.support.diagnostics import Diagnostic, UserError, whole_file

HELP = "calibrate again, with images that the network is meant for"


def check_scales(model: Model, calibration: Calibration) -> None:
    """Refuse scales that are no normal number, listing every such value and layer.

    Raises:
        UserError: E0801 for each.
    """
    _raise(_scale_problems(model, calibration))


def check_sums(
    model: Model, calibration: Calibration, rounded: Mapping[str, RoundedWeights]
) -> None:
    """Refuse weights and biases whose sums could overflow: an input within its type's limits.

    Args:
        model: A ready model.
        calibration: The ranges of what its convolutions read.
        rounded: Their integer weights and biases by name.

    Raises:
        UserError: E0802 for each layer.
    """
    _raise(_sum_problems(model, calibration, rounded))


def _raise(found: Iterator[Diagnostic]) -> None:
    problems = tuple(found)
    if problems:
        raise UserError(problems)


def _scale_problems(model: Model, calibration: Calibration) -> Iterator[Diagnostic]:
    places = {node.name: node.at for node in model.graph.nodes}
    for name, found in calibration.ranges.items():
        if not SMALLEST <= found.scale < np.inf:
            message = f"the scale of `{name}` is {found.scale:g}"
            at = places.get(name, whole_file(model.graph.name))
            label = "this layer's output" if name in places else "the network's input"
            yield Diagnostic("E0801", message, at, label, help=HELP)
    for name, own in calibration.rounded.items():
        if not ((own.scale >= SMALLEST) & np.isfinite(own.scale)).all():
            message = f"a weight scale of `{name}` is no normal number"
            yield Diagnostic("E0801", message, places[name], "this layer's weights", help=HELP)


def _sum_problems(
    model: Model, calibration: Calibration, rounded: Mapping[str, RoundedWeights]
) -> Iterator[Diagnostic]:
    at = {node.name: node for node in model.graph.nodes}
    for name, own in rounded.items():
        x = calibration.ranges[at[name].inputs[0]]
        # The worst input has the largest level everywhere, with its weight's sign. No partial sum,
        # in whatever order a runtime adds, exceeds the sum of magnitudes either. int64, so that it
        # is seen.
        total = np.abs(own.weight.reshape(len(own.weight), -1).astype(np.int64)).sum(axis=1)
        most = total * largest_level(x) + np.abs(own.bias.astype(np.int64))
        if (most >= 1 << 31).any():
            message = f"the sums of `{name}` could overflow 32 bits"
            label = f"they may reach {int(most.max()):,}"
            yield Diagnostic("E0802", message, at[name].at, label, help=HELP)
