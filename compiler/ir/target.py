"""Targets, and what is said of them: what they refuse, and what is made for them."""

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
"""The cosine below which AXERA's manuals say to look for the reason. The papers' networks keep it,
and calibration asks the same of integers of our own."""


class LayerCosine(Record, frozen=True):
    """The cosine similarity of what a layer gives after quantising with what it gave before."""

    name: str
    cosine: float


class NetworkPart(Record, frozen=True):
    """A stretch of the network that runs in one place."""

    name: str
    processor: Literal["NPU", "CPU"] = msgspec.field(name="where")


class ToolReport(Record, frozen=True):
    """What a log says; `version` is empty where it does not say it.

    `stopped` is the command at which the log ends, where not all were done.
    """

    tool: str
    version: str
    layers: tuple[LayerCosine, ...]
    outputs: tuple[LayerCosine, ...]
    parts: tuple[NetworkPart, ...]
    stopped: OmitDefault[str] = ""

    @property
    def low_outputs(self) -> tuple[LayerCosine, ...]:
        """The outputs below the threshold."""
        # Not `<`: a cosine that is NaN, of an output that is all zeros say, is low as well.
        return tuple(output for output in self.outputs if not output.cosine >= MIN_COSINE)

    @property
    def on_cpu(self) -> tuple[str, ...]:
        """The parts that the NPU did not take."""
        return tuple(part.name for part in self.parts if part.processor == "CPU")


@dataclass(frozen=True, slots=True)
class Target:
    """One word after `--target`.

    Its backend is a `Builder` if it has precisions, and a `Runner` if it `runs`. What has no
    precision is not built, only calibrated for.
    """

    name: str
    title: str
    precisions: tuple[Precision, ...] = ()
    aliases: tuple[str, ...] = ()
    calibrates: bool = False
    runs: bool = False
    """Whether there is anything that runs its artifacts here; it may lack a tool."""

    def find_precision(self, name: str) -> Precision | None:
        """Return the precision of a name, if the target is built at it."""
        return next((precision for precision in self.precisions if precision.name == name), None)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A node that a target cannot run: what breaks a rule, what would fit, and the rule itself.

    A `rule` has its source, where documents of others are what says it.
    """

    node: Node
    reason: str
    help: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Remark:
    """A node that a target runs slowly, or else may not run, and why; as `Refusal` says it."""

    node: Node
    reason: str
    help: str
    rule: str
    slow: bool


class Memory(Record, frozen=True):
    """Bytes that a program has of a network: `arena` is all that changes while it runs.

    No arena could be smaller than `bound`, the values that are in use at once; `weights` are
    constants of the program.
    """

    arena: int
    bound: int
    weights: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """Files by relative path; the caller alone writes them. `executable` ones get the x bit.

    `compiled` is what a maker's own tool said where one was run, and `uncompiled` why none was;
    `memory` what running takes, where that is known beforehand; `layers` what computes each layer,
    where kernels of the target do.
    """

    files: Mapping[str, bytes]
    executable: frozenset[str] = field(default=frozenset())
    compiled: ToolReport | None = None
    memory: Memory | None = None
    layers: Mapping[str, str] = field(default_factory=dict)
    uncompiled: str = ""


@dataclass(frozen=True, slots=True)
class PackageSources:
    """What a package is made of, for a tool elsewhere that compiles it.

    `float_model` is the model after the target's passes, `integer_program` the integer program.
    `samples` gives what to calibrate with and `golden_inputs` the inputs of the bundle's goldens,
    float32 of the input's
    shape: grey levels where the input contract has one scale for all images, or what the network
    reads. `name` is the bundle's. `compiles`: have the tool compile it, if it is here.
    """

    float_model: Model
    integer_program: Model
    samples: "Callable[[], Iterator[np.ndarray]]"
    golden_inputs: "Sequence[np.ndarray]"
    name: str
    compiles: bool = True


@dataclass(frozen=True, slots=True)
class ToolResults:
    """What a tool's log says, and what it gave for goldens: raw outputs by golden and name."""

    report: ToolReport
    outputs: "Mapping[str, Outputs]"
