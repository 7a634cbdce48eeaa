"""The options that name targets, and what they are built at."""

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from tcc.compiler.support.diagnostics import fail, typed

if TYPE_CHECKING:
    from tcc.compiler.frontend.spec import Spec


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
