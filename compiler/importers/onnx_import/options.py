"""Options of an import: settings of the spec, and the runner for the untrusted model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from tcc.compiler.importers.onnx_import.sandbox import TaskResult


@dataclass(frozen=True, slots=True)
class PreprocessOptions:
    """How an image becomes the input; `mode` is how it is resized, `none` for no resize."""

    color: str = "rgb"
    mode: str = "stretch"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: str = "255"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The user's options for an import.

    `preprocess`: the preprocessing to write to the spec, if any. `shape`: channels, height and
    width, if the file does not define them. `until`: names of values to use as outputs. `fold`:
    whether equal runs of steps become repeats. `json`: write the spec as JSON at any size.
    """

    name: str = ""
    labels: tuple[str, ...] = ()
    preprocess: PreprocessOptions | None = None
    shape: tuple[int, int, int] | None = None
    until: tuple[str, ...] = ()
    fold: bool = True
    json: bool = False


@dataclass(frozen=True, slots=True)
class ModelRunner:
    """Runs native libraries on the untrusted model: `sandbox`, or a replacement."""

    clean: "Callable[[onnx.ModelProto], tuple[onnx.ModelProto, TaskResult]]"
    run: (
        "Callable[[onnx.ModelProto, Sequence[Mapping[str, np.ndarray]]],"
        " tuple[list[Mapping[str, np.ndarray]], TaskResult]]"
    )
