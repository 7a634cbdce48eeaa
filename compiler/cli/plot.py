"""`tcc plot`: pictures of training, of what networks tell apart, and of what integers lose."""

from collections.abc import Callable

import typer

from tcc.compiler.cli import plot_cosines, plot_networks, plot_precision
from tcc.compiler.cli.parameters import Command, CommandGroup

KINDS: dict[str, Callable[..., None]] = {
    "curves": plot_networks.curves,
    "confusion": plot_networks.confusion,
    "tsne": plot_networks.tsne,
    "gradcam": plot_networks.gradcam,
    "cam": plot_networks.cam,
    "features": plot_precision.features,
    "filters": plot_precision.filters,
    "weights": plot_precision.weight_histograms,
    "scatter": plot_precision.scatter,
    "errors": plot_precision.errors,
    "cosines": plot_cosines.cosines,
}
"""The kinds of pictures, in the order in which help lists them."""

plot = typer.Typer(cls=CommandGroup, no_args_is_help=True, rich_markup_mode=None)
"""The command `tcc plot` with a sub-command for each kind of picture."""


@plot.callback()
def kinds() -> None:
    """Draw pictures of training and of networks, as PNG or SVG."""


# Registered here and not by decorators, so that the kinds are one table in the order of help.
for _name, _function in KINDS.items():
    plot.command(_name, cls=Command)(_function)
