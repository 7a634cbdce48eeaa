"""What a caller chooses of an import: what the spec shall say, and what runs the foreign model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from tcc.compiler.importers.onnx_import.sandbox import TaskResult


@dataclass(frozen=True, slots=True)
class PreprocessOptions:
    """How an image becomes the input; `mode` is how it gets the input's size, `none` if at all."""

    color: str = "rgb"
    mode: str = "stretch"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: str = "255"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the user says beside the file.

    `preprocess` is what the spec shall say of it, if anything; `shape` are channels, height and
    width where the file leaves them open; `until` names values to take as outputs; `fold` makes
    repeats of equal runs of steps; `json` asks for a spec in JSON whatever its size.
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
    """What runs native libraries on the foreign model: `sandbox`, or something like it."""

    clean: "Callable[[onnx.ModelProto], tuple[onnx.ModelProto, TaskResult]]"
    run: (
        "Callable[[onnx.ModelProto, Sequence[Mapping[str, np.ndarray]]],"
        " tuple[list[Mapping[str, np.ndarray]], TaskResult]]"
    )
