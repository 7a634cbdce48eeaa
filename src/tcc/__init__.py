"""tcc: from a declarative network to device artifacts that agree with each other.

    import tcc

    spec = tcc.load("ddsnet", classes=5)
    bundle = tcc.build(spec, "arm-a7", weights="weights.safetensors")
    scales = tcc.calibrate(spec, "images", weights="weights.safetensors", out="scales.json")

Wrong input raises `tcc.UserError`, whose `diagnostics` say where and what; what is doubtful about a
spec is in its `warnings`, and Python warns of it (`tcc.SpecWarning`), as of what is doubtful about
a calibration (`tcc.CalibrationWarning`). A tool that is not installed raises `tcc.MissingTool`;
integers that lose too much raise `tcc.BelowFloor`, and what does not agree `tcc.Disagreement`.

What `__all__` lists, and the fields of what these functions return, is the public interface; all
else may change in any version.
"""

# Before all else: a checkout without links gets one sentence.
import tcc.source_links as _  # noqa: F401, I001
from typing import TYPE_CHECKING

from tcc.bundles import build, evaluate, run, verify
from tcc.calibrations import calibrate
from tcc.compiler.support import process_setup
from tcc.compiler.support.diagnostics import CalibrationWarning, Diagnostic, SpecWarning, UserError
from tcc.compiler.support.external_tools import MissingTool
from tcc.compiler.support.value_views import set_renderer
from tcc.compiler.version import __version__
from tcc.networks import check, load, lower, save_weights, torch, train
from tcc.notebook_views import render

if TYPE_CHECKING:
    import tcc.plot as plot  # noqa: PLR0402 - the other form is a circle
    from tcc.compiler.bundle.agreement import Disagreement
    from tcc.compiler.reference.accuracy_floor import BelowFloor

# Importing this package imports no runtime, so that each of them still finds the switches.
process_setup.disable_telemetry()
set_renderer(render)


_LATER = {
    "BelowFloor": "tcc.compiler.reference.accuracy_floor",
    "Disagreement": "tcc.compiler.bundle.agreement",
    "plot": "tcc.plot",
}
"""Names that are imported when they are asked for, and their modules."""


def __getattr__(name: str) -> object:
    """Return a name of `_LATER`."""
    if name not in _LATER:
        raise AttributeError(f"module 'tcc' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(_LATER[name])
    return module if name == "plot" else getattr(module, name)


def __dir__() -> list[str]:
    """Return the names of the public interface."""
    return __all__


__all__ = [
    "BelowFloor",
    "CalibrationWarning",
    "Diagnostic",
    "Disagreement",
    "MissingTool",
    "SpecWarning",
    "UserError",
    "__version__",
    "build",
    "calibrate",
    "check",
    "evaluate",
    "load",
    "lower",
    "plot",
    "run",
    "save_weights",
    "torch",
    "train",
    "verify",
]
