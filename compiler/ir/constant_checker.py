"""The protocol of backends that can check the constants in their artifacts."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.precision import Precision
from tcc.compiler.ir.target import Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNKNOWN = "the network that it was built from is unknown"
"""Why a file was not compared."""
MAX_DIFFERENCES = 1000
"""Differences of one file that are kept; with more, it is the wrong network."""


@dataclass(frozen=True, slots=True)
class ConstantDifference:
    """A constant tensor of a file that differs from the network's.

    `layer` is the first layer that reads the tensor. `index` is the first element that differs,
    with the `actual` and the `expected` value; `differing` is the number of differing elements.
    """

    layer: str
    tensor: str
    index: tuple[int, ...]
    actual: str
    expected: str
    differing: int

    def __str__(self) -> str:
        """Return the location and both values."""
        position = ", ".join(map(str, self.index))
        rest_of_tensor = (
            f"; {self.differing - 1:,} other elements differ" if self.differing > 1 else ""
        )
        tensor_text = f"[{position}] is {self.actual}, not {self.expected}{rest_of_tensor}"
        return f"layer `{self.layer}`, tensor `{self.tensor}`{tensor_text}"


@dataclass(frozen=True, slots=True)
class ConstantCheck:
    """The comparison of the constants in one file of an artifact with the network's.

    `problem` is any other difference of the file, and `uncompared` why it was not compared.
    """

    file: str
    tensors: int = 0
    values: int = 0
    differences: tuple[ConstantDifference, ...] = ()
    problem: str = ""
    uncompared: str = ""

    @property
    def holds(self) -> bool:
        """Whether there is no difference; also true for a file that was not compared."""
        return not self.differences and not self.problem


@dataclass
class ConstantComparison:
    """The running comparison of a file's constants."""

    file: str
    tensors: int = 0
    values: int = 0
    differences: list[ConstantDifference] = field(default_factory=list)
    problem: str = ""

    def compare(
        self, layer: str, tensor: str, expected: "NDArray[Any]", actual: "NDArray[Any]"
    ) -> None:
        """Compare a tensor that a layer reads bit by bit."""
        import numpy as np

        self.tensors += 1
        self.values += expected.size
        if (expected.shape, expected.dtype) != (actual.shape, actual.dtype):
            kinds = [f"{a.dtype} {a.shape}" for a in (actual, expected)]
            self.fail(f"tensor `{tensor}` of layer `{layer}` is {kinds[0]}, not {kinds[1]}")
            return
        if expected.tobytes() == actual.tobytes():
            return
        # As bytes: NaN equals itself, and 0.0 and -0.0 differ.
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
        """Record a problem of the file; the first one is kept."""
        self.problem = self.problem or problem

    def finish(self, expected: bytes, actual: bytes, *, same_tools: bool) -> ConstantCheck:
        """Return the result, after comparing the files' other bytes.

        Args:
            expected: The file that the network gives.
            actual: The artifact's file.
            same_tools: Whether the same tool versions wrote both, so that all bytes must be equal.
        """
        if same_tools and not self.differences and expected != actual:
            self.fail("its constants match the network, but other bytes of the file differ")
        return ConstantCheck(
            self.file, self.tensors, self.values, tuple(self.differences), self.problem
        )


@dataclass(frozen=True, slots=True)
class ConstantSources:
    """The models that an artifact is built from, if they are known.

    `float_model` is the model after the target's passes, `integer_program` the integer program.
    `same_tools`: the artifact was written by the installed tool versions.
    """

    float_model: Model | None
    integer_program: Model | None
    precision: Precision
    same_tools: bool

    @property
    def start_model(self) -> Model | None:
        """The model that is emitted for a target, except for packages."""
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
            folder: The folder of the artifact's files.
            sources: The models that it is built from.

        Yields:
            The result for each file with constants.

        Raises:
            MissingTool: A tool that writes or reads the files is missing.
        """
        ...
