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
MAX_DIFFERENCES = 1000
"""Differences of one file that are kept: who reads more of them has the wrong network."""


@dataclass(frozen=True, slots=True)
class ConstantDifference:
    """A constant tensor of a file that is not what the network gives.

    `layer` is the first that reads the tensor. `index` is the first that differs, with the `actual`
    value and the `expected` one; `differing` is how many do.
    """

    layer: str
    tensor: str
    index: tuple[int, ...]
    actual: str
    expected: str
    differing: int

    def __str__(self) -> str:
        """Return where it is and what it holds."""
        position = ", ".join(map(str, self.index))
        rest_of_tensor = f", and {self.differing - 1:,} more of it" if self.differing > 1 else ""
        tensor_text = f"[{position}] is {self.actual}, not {self.expected}{rest_of_tensor}"
        return f"layer `{self.layer}`, tensor `{self.tensor}`{tensor_text}"


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
        self, layer: str, tensor: str, expected: "NDArray[Any]", actual: "NDArray[Any]"
    ) -> None:
        """Compare a tensor that a layer reads, bit by bit."""
        import numpy as np

        self.tensors += 1
        self.values += expected.size
        if (expected.shape, expected.dtype) != (actual.shape, actual.dtype):
            kinds = [f"{a.dtype} {a.shape}" for a in (actual, expected)]
            self.fail(f"tensor `{tensor}` of layer `{layer}` is {kinds[0]}, not {kinds[1]}")
            return
        if expected.tobytes() == actual.tobytes():
            return
        # By bytes: NaN is itself, and 0.0 and -0.0 differ.
        element_bytes = (expected.nbytes // max(expected.size, 1),)
        rows = [
            np.frombuffer(a.tobytes(), np.uint8).reshape(-1, *element_bytes)
            for a in (expected, actual)
        ]
        positions = np.flatnonzero((rows[0] != rows[1]).any(axis=1))
        index = np.unravel_index(int(positions[0]), expected.shape) if expected.shape else ()
        if len(self.differences) < MAX_DIFFERENCES:
            element_texts = (str(actual[index]), str(expected[index]))
            position = tuple(map(int, index))
            self.differences.append(
                ConstantDifference(layer, tensor, position, *element_texts, len(positions))
            )

    def fail(self, problem: str) -> None:
        """Note the first thing that makes the file another one."""
        self.problem = self.problem or problem

    def finish(self, expected: bytes, actual: bytes, *, same_tools: bool) -> ConstantCheck:
        """Return what was found, and whether the files' other bytes differ.

        Args:
            expected: The file that the network gives.
            actual: The artifact's file.
            same_tools: Whether the same releases wrote both, so that they have the same bytes.
        """
        if same_tools and not self.differences and expected != actual:
            self.fail("its constants are the network's, and other bytes of the file are not")
        return ConstantCheck(
            self.file, self.tensors, self.values, tuple(self.differences), self.problem
        )


@dataclass(frozen=True, slots=True)
class ConstantSources:
    """What an artifact is built from, as far as that is known.

    `float_model` is the model after the target's passes, `integer_program` the integer program.
    `same_tools`: the artifact was written by the releases that are here.
    """

    float_model: Model | None
    integer_program: Model | None
    precision: Precision
    same_tools: bool

    @property
    def start_model(self) -> Model | None:
        """What a target that is no package is emitted from."""
        return self.integer_program if self.precision.integer else self.float_model


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
