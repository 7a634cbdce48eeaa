"""tcc compiles declarative networks into device artifacts that agree with each other.

    import tcc

    spec = tcc.load("ddsnet", classes=5)
    bundle = tcc.build(spec, "arm-a7", weights="weights.safetensors")
    scales = tcc.calibrate(spec, "images", weights="weights.safetensors", out="scales.json")

Wrong input raises `tcc.UserError`. Its `diagnostics` give the location and the cause of each error.
Probable mistakes in a spec are in its `warnings`, and Python warns about them (`tcc.SpecWarning`).
Python also warns about a doubtful calibration (`tcc.CalibrationWarning`). A missing tool raises
`tcc.MissingTool`, an int8 model below its accuracy floor `tcc.BelowFloor`, and an artifact that
does not match the reference `tcc.Disagreement`.

The public interface is `__all__` and the fields of the values that these functions return.
Everything else can change in any version.
"""

# First, so that a checkout without symbolic links fails with one clear message.
import tcc.source_links as _  # noqa: F401, I001
from typing import TYPE_CHECKING

from tcc.bundles import build, evaluate, guard, run, verify
from tcc.calibrations import calibrate
from tcc.compiler.support import process_setup
from tcc.compiler.support.diagnostics import CalibrationWarning, Diagnostic, SpecWarning, UserError
from tcc.compiler.support.external_tools import MissingTool
from tcc.compiler.support.value_views import set_renderer
from tcc.compiler.version import __version__
from tcc.networks import check, load, lower, save_weights, torch, train
from tcc.notebook_views import render

if TYPE_CHECKING:
    import tcc.plot as plot  # noqa: PLR0402 - the other form is a circular import
    from tcc.compiler.bundle.agreement import Disagreement
    from tcc.compiler.reference.accuracy_floor import BelowFloor

# No runtime is imported yet, so each of them still reads these switches.
process_setup.disable_telemetry()
set_renderer(render)


_LATER = {
    "BelowFloor": "tcc.compiler.reference.accuracy_floor",
    "Disagreement": "tcc.compiler.bundle.agreement",
    "plot": "tcc.plot",
}
"""Names that are imported on first use, and their modules."""


def __getattr__(name: str) -> object:
    """Import a name of `_LATER` on first use."""
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
    "guard",
    "load",
    "lower",
    "plot",
    "run",
    "save_weights",
    "torch",
    "train",
    "verify",
]
