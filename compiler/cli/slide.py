"""`tcc slide`: whole slides, what of them is tissue, and what a network says of it."""

from collections.abc import Callable

import typer

from tcc.compiler.cli import slide_eval, slide_mask, slide_patches, slide_run, slide_view
from tcc.compiler.cli.parameters import Command, CommandGroup

KINDS: dict[str, Callable[..., None]] = {
    "run": slide_run.run,
    "mask": slide_mask.mask,
    "view": slide_view.view,
    "eval": slide_eval.evaluate,
    "patches": slide_patches.patches,
}
"""The sub-commands, in the order in which help lists them."""

slide = typer.Typer(cls=CommandGroup, no_args_is_help=True, rich_markup_mode=None)
"""The command `tcc slide` with its sub-commands."""


@slide.callback()
def kinds() -> None:
    """Find the tissue of whole slides, and classify it patch by patch."""


for _name, _function in KINDS.items():
    slide.command(_name, cls=Command)(_function)
