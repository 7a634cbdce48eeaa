"""Targets, refused nodes, and the artifacts that are built for targets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec

from tcc.compiler.ir.graph import Model, Node
from tcc.compiler.ir.precision import Precision
from tcc.compiler.support.json_records import OmitDefault, Record

if TYPE_CHECKING:
    import numpy as np

    Outputs = dict[str, np.ndarray]


MIN_COSINE = 0.98
"""The cosine below which AXERA's manuals recommend an investigation. The papers' networks reach it,
and calibration requires it of tcc's own int8 models too."""


class LayerCosine(Record, frozen=True):
    """The cosine similarity of a layer's output after and before quantization."""

    name: str
    cosine: float


class NetworkPart(Record, frozen=True):
    """A part of the network that runs on one processor."""

    name: str
    processor: Literal["NPU", "CPU"] = msgspec.field(name="where")


class ToolReport(Record, frozen=True):
    """The content of a toolchain's log; `version` is empty if the log does not show it.

    `stopped` is the last command in the log, if not all were completed.
    """

    tool: str
    version: str
    layers: tuple[LayerCosine, ...]
    outputs: tuple[LayerCosine, ...]
    parts: tuple[NetworkPart, ...]
    stopped: OmitDefault[str] = ""

    @property
    def inaccurate_outputs(self) -> tuple[LayerCosine, ...]:
        """The outputs with a cosine to the reference below `MIN_COSINE`."""
        # Not `<`: a cosine of NaN, for example of an output of zeros, is not accurate either.
        return tuple(output for output in self.outputs if not output.cosine >= MIN_COSINE)

    @property
    def on_cpu(self) -> tuple[str, ...]:
        """The parts that the NPU does not run."""
        return tuple(part.name for part in self.parts if part.processor == "CPU")


@dataclass(frozen=True, slots=True)
class Target:
    """A target, as in `--target`.

    Its backend is a `Builder` if it has precisions, and a `Runner` if it `runs`. A target without
    precisions is not built; it can only be calibrated for.
    """

    name: str
    title: str
    precisions: tuple[Precision, ...] = ()
    aliases: tuple[str, ...] = ()
    calibrates: bool = False
    runs: bool = False
    """Whether a tool can run its artifacts on this machine; it may not be installed."""

    def find_precision(self, name: str) -> Precision | None:
        """Return the precision with a name, if the target supports it."""
        return next((precision for precision in self.precisions if precision.name == name), None)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A node that a target cannot run: the reason, how to fix it, and the violated rule.

    `rule` includes its source if it comes from a vendor's document.
    """

    node: Node
    reason: str
    help: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Remark:
    """A node that a target runs slowly, or may not run, with the fields of a `Refusal`."""

    node: Node
    reason: str
    help: str
    rule: str
    slow: bool


class Memory(Record, frozen=True):
    """Memory of a program for a network, in bytes: `arena` is all that changes while it runs.

    `bound` is a lower bound of the arena: the values that are in use at the same time. `weights`
    are constants of the program.
    """

    arena: int
    bound: int
    weights: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """Files by relative path, which only the caller writes. `executable` ones get the x bit.

    `compiled` is the report of a vendor toolchain if it ran, and `uncompiled` why it did not.
    `memory` is what a run needs, if known in advance; `layers` names the kernel of each layer, if
    the target has such kernels.
    """

    files: Mapping[str, bytes]
    executable: frozenset[str] = field(default=frozenset())
    compiled: ToolReport | None = None
    memory: Memory | None = None
    layers: Mapping[str, str] = field(default_factory=dict)
    uncompiled: str = ""


@dataclass(frozen=True, slots=True)
class PackageSources:
    """The content of a package for a vendor toolchain on another machine.

    `float_model` is the model after the target's passes, `integer_program` the integer program.
    `samples` yields calibration data and `golden_inputs` are the inputs of the bundle's test
    vectors, float32 of the input's shape: 8-bit pixel values if the input contract has one scale
    for all images, otherwise the network's input. `name` is the bundle's. `compiles`: run the
    toolchain, if it is installed.
    """

    float_model: Model
    integer_program: Model
    samples: "Callable[[], Iterator[np.ndarray]]"
    golden_inputs: "Sequence[np.ndarray]"
    name: str
    compiles: bool = True


@dataclass(frozen=True, slots=True)
class ToolResults:
    """A toolchain's report, and its raw outputs for the test vectors, by vector and name."""

    report: ToolReport
    outputs: "Mapping[str, Outputs]"
