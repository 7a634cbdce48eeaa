"""The libraries of the extra `slides`, each loaded here, so that a missing one is told as that."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from tcc.compiler.support.external_tools import MissingTool, Tool

PACKAGES = {"openslide": "openslide-python", "scipy": "scipy", "tifffile": "tifffile"}
"""Packages by their modules."""
NEEDED_FOR = "work with slides"


def require(*modules: str) -> None:
    """Refuse to go on without some of them.

    Raises:
        MissingTool: One is not here.
    """
    for name in modules:
        if find_spec(name) is None:
            raise MissingTool(Tool(PACKAGES[name], NEEDED_FOR, None))


def load(module: str) -> Any:
    """Return a module of one of them.

    Raises:
        MissingTool: It is not here.
    """
    require(module.partition(".")[0])
    return import_module(module)
