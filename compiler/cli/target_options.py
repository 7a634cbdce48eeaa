"""The options that name targets, and what they are built at."""

from typing import Annotated

import typer


def _target_names(incomplete: str) -> list[str]:
    from tcc.compiler.cli import devices

    before, comma, last = incomplete.rpartition(",")
    names = [device.name for device in devices.every()]
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="T[,T...]",
        show_default=False,
        autocompletion=_target_names,
        help="What to build for (see `tcc targets`); may be repeated.",
    ),
]
Precision = Annotated[
    str | None, typer.Option(metavar="P", show_default=False, help="Precision; fp32 by default.")
]
