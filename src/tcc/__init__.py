"""tcc: from a declarative network to device artifacts that agree with each other.

    import tcc

    spec = tcc.load("ddsnet", classes=5)
    bundle = tcc.build(spec, "arm-a7", weights="weights.safetensors")

Wrong input raises `tcc.UserError`, whose `diagnostics` say where and what; a tool that is not
installed raises `tcc.MissingTool`.
"""

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.source import Diagnostic, UserError
from tcc.compiler.tools import MissingTool
from tcc.compiler.version import __version__

if TYPE_CHECKING:
    from tcc.compiler.bundle import Bundle
    from tcc.compiler.frontend.build import Spec

__all__ = ["Diagnostic", "MissingTool", "UserError", "__version__", "build", "load"]


def load(spec: str | PathLike[str], **params: object) -> "Spec":
    """Return a compiled spec: its graph, parameters and digest.

    Args:
        spec: A spec file, or the name of a spec of the package, such as `ddsnet`.
        **params: Parameters of the spec: numbers, strings, booleans or lists of these.

    Raises:
        UserError: There is no such spec, or something is wrong with it.
    """
    from tcc.compiler import known
    from tcc.compiler.frontend.build import load as compiled
    from tcc.compiler.pipeline import setting
    from tcc.compiler.source import whole_file

    path = known.find_spec(str(spec), whole_file("tcc.load"))
    return compiled(path, {name: setting(value) for name, value in params.items()})


def build(
    spec: "Spec | str | PathLike[str]",
    target: str,
    weights: str | PathLike[str] | None = None,
    out: str | PathLike[str] = "build",
    *,
    precision: str = "fp32",
    seed: int = 0,
) -> "Bundle":
    """Compile a spec for a target and write its bundle, in place of an older one.

    Args:
        spec: What `load` returned, or what it takes.
        target: A target's name; the command `tcc targets` lists them.
        weights: A safetensors file; without it the weights are random, and the bundle says so.
        out: The folder to write the bundle's folder into.
        precision: A precision that the target offers.
        seed: The seed of random weights.

    Returns:
        The bundle, as read back from the disk.

    Raises:
        UserError: The input is wrong, or the target refuses the network.
        MissingTool: Building needs a tool that is not here.
    """
    from tcc.compiler import bundle, pipeline
    from tcc.compiler.cli import devices
    from tcc.compiler.source import whole_file

    chosen = load(spec) if isinstance(spec, str | PathLike) else spec
    here = whole_file("tcc.build")
    bound = devices.find_all([(target, here)], (precision, here))
    if weights is None:
        given = pipeline.random_weights(chosen.graph, seed)
    else:
        given = pipeline.read_weights(Path(weights), chosen.graph)
    (contents,) = pipeline.build(chosen, given, bound, precision, pipeline.unwatched)
    return bundle.read(bundle.write(contents, Path(out)))
