"""Backends whose artifacts hold the network's weights: a protocol beside those of `backend`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.precision import Precision
from tcc.compiler.ir.target import Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNKNOWN = "the network that it was built from is not known"
"""Why a file was not compared."""
MOST = 1000
"""Differences of one file that are kept: who reads more of them has the wrong network."""


@dataclass(frozen=True, slots=True)
class ConstantDifference:
    """A constant tensor of a file that is not what the network gives.

    `layer` is the first that reads the tensor. `index` is the first that differs, with the `stored`
    value and the `expected` one; `differing` is how many do.
    """

    layer: str
    tensor: str
    index: tuple[int, ...]
    stored: str
    expected: str
    differing: int

    def __str__(self) -> str:
        """Return where it is and what it holds."""
        place = ", ".join(map(str, self.index))
        more = f", and {self.differing - 1:,} more of it" if self.differing > 1 else ""
        value = f"[{place}] is {self.stored}, not {self.expected}{more}"
        return f"layer `{self.layer}`, tensor `{self.tensor}`{value}"


@dataclass(frozen=True, slots=True)
class ConstantCheck:
    """How the constants of one file of an artifact compare with those that the network gives.

    `problem` is what else makes the file another one, and `uncompared` why it was not compared.
    """

    file: str
    tensors: int = 0
    values: int = 0
    differences: tuple[ConstantDifference, ...] = ()
    problem: str = ""
    uncompared: str = ""

    @property
    def holds(self) -> bool:
        """Whether nothing differs; a file that was not compared says nothing."""
        return not self.differences and not self.problem


@dataclass
class ConstantComparison:
    """A file's constants while they are compared, one tensor after another."""

    file: str
    tensors: int = 0
    values: int = 0
    differences: list[ConstantDifference] = field(default_factory=list)
    problem: str = ""

    def compare(
        self, layer: str, tensor: str, expected: "NDArray[Any]", stored: "NDArray[Any]"
    ) -> None:
        """Compare a tensor that a layer reads, bit by bit."""
        import numpy as np

        self.tensors += 1
        self.values += expected.size
        if (expected.shape, expected.dtype) != (stored.shape, stored.dtype):
            kinds = [f"{a.dtype} {a.shape}" for a in (stored, expected)]
            self.fail(f"tensor `{tensor}` of layer `{layer}` is {kinds[0]}, not {kinds[1]}")
            return
        if expected.tobytes() == stored.tobytes():
            return
        # By bytes: NaN is itself, and 0.0 and -0.0 differ.
        raw = (expected.nbytes // max(expected.size, 1),)
        rows = [np.frombuffer(a.tobytes(), np.uint8).reshape(-1, *raw) for a in (expected, stored)]
        places = np.flatnonzero((rows[0] != rows[1]).any(axis=1))
        index = np.unravel_index(int(places[0]), expected.shape) if expected.shape else ()
        if len(self.differences) < MOST:
            values = (str(stored[index]), str(expected[index]))
            place = tuple(map(int, index))
            self.differences.append(ConstantDifference(layer, tensor, place, *values, len(places)))

    def fail(self, problem: str) -> None:
        """Note the first thing that makes the file another one."""
        self.problem = self.problem or problem

    def finish(self, expected: bytes, stored: bytes, *, same_tools: bool) -> ConstantCheck:
        """Return what was found, and whether the files' other bytes differ.

        Args:
            expected: The file that the network gives.
            stored: The artifact's file.
            same_tools: Whether the same releases wrote both, so that they have the same bytes.
        """
        if same_tools and not self.differences and expected != stored:
            self.fail("its constants are the network's, and other bytes of the file are not")
        return ConstantCheck(
            self.file, self.tensors, self.values, tuple(self.differences), self.problem
        )


@dataclass(frozen=True, slots=True)
class ConstantSources:
    """What an artifact is built from, as far as that is known.

    `floats` is the model after the target's passes, `program` the integer program. `same_tools`:
    the artifact was written by the releases that are here.
    """

    floats: Model | None
    program: Model | None
    precision: Precision
    same_tools: bool

    @property
    def start(self) -> Model | None:
        """What a target that is no package is emitted from."""
        return self.program if self.precision.integer else self.floats


@runtime_checkable
class ConstantChecker(Protocol):
    """A backend that can compare the constants of its artifacts with a network's."""

    def check_constants(
        self, target: Target, folder: Path, sources: ConstantSources
    ) -> Iterator[ConstantCheck]:
        """Compare weights, scales and tables in the files of the artifact in `folder`.

        Args:
            target: One of the backend's.
            folder: Where the artifact's files are.
            sources: What it is built from.

        Yields:
            What was found in each file that has constants.

        Raises:
            MissingTool: What writes or reads the files is not here.
        """
        ...
