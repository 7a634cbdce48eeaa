"""The options that name targets, and what they are built at."""

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.support.diagnostics import fail, typed

if TYPE_CHECKING:
    from tcc.compiler.frontend.spec import Spec


def _target_names(incomplete: str) -> list[str]:
    from tcc.compiler.targets import devices

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
NetworkName = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        show_default=False,
        help="Call the network so in the bundle: the folder, and what a library's C names begin "
        "with; the spec's name by default.",
    ),
]


def renamed(spec: "Spec", name: str | None) -> "Spec":
    """Return a spec whose network is called by the name that the command line gives, if it does.

    Raises:
        UserError: It is no name of a network (E0629).
    """
    from tcc.compiler.frontend.language_schema import NETWORK_NAME

    if name is None:
        return spec
    if not re.fullmatch(NETWORK_NAME, name):
        help = "begin with a letter; then come letters, digits, `_`, `.` and `-`, 64 in all"
        message = f"a network cannot be called `{name[:80]}`"
        raise fail("E0629", message, typed(f"--name {name}"), help=help)
    return replace(spec, name=name, graph=replace(spec.graph, name=name))
