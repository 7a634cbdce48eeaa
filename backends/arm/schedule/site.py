"""What a rule may look at to choose a kernel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tcc.backends.arm.kernels.base import Kernel, KernelArgument, KernelCall, Shape3, Value
from tcc.backends.arm.kernels.epilogue import Epilogue, Finish, fused, shape3
from tcc.backends.arm.kernels.pointwise import PointwiseOp
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.schedule.partition import FusionGroup
from tcc.compiler.ir.graph import Graph
from tcc.compiler.ir.types import TensorType

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Site:
    """A group where it stands: all that a rule may look at."""

    graph: Graph
    weights: "Mapping[str, NDArray[Any]]"
    machine: Machine
    group: FusionGroup

    @property
    def read(self) -> TensorType:
        """The type of the first value that is read."""
        return self.graph.types[self.group.read]

    @property
    def source(self) -> Shape3:
        """The shape of the first value that is read."""
        return shape3(self.read.shape)

    @property
    def dtype(self) -> str:
        """The type of numbers in the first value that is read."""
        return self.read.dtype.value

    @property
    def result(self) -> Shape3:
        """The shape of the group's value."""
        return shape3(self.group.result.type.shape)

    @property
    def tensors(self) -> "list[NDArray[Any]]":
        """The anchor's weights."""
        return [self.weights[name] for name in self.group.anchor.params]

    def epilogue(
        self, finish: PointwiseOp | None = None, factor: "NDArray[Any] | None" = None
    ) -> tuple[Epilogue, tuple[KernelArgument, ...]]:
        """Return what is fused behind the anchor, and its operands.

        `finish`, if given, comes first, and reads `factor`, which broadcasts.
        """
        # The anchor is the kernel itself; what follows is what it does to its results before they
        # are stored.
        first, *rest = self.group.nodes
        before = None if finish is None or factor is None else Finish(finish, factor)
        return fused(self.graph, self.weights, rest, first.name, before)

    def prologue(self) -> tuple[Epilogue, tuple[KernelArgument, ...]]:
        """Return what is done to what the anchor reads, and its operands."""
        return fused(self.graph, self.weights, self.group.ahead, self.group.read)

    def call(self, kernel: Kernel, *arguments: KernelArgument) -> KernelCall:
        """Return the call of a kernel that reads the group's first value and then these."""
        return KernelCall(kernel, (Value(self.group.read), *arguments), self.group.result.name)
