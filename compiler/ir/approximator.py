"""Backends that compute floats faster by rounding in more steps."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tcc.compiler.ir.graph import Model, Node
from tcc.compiler.ir.precision import Precision
from tcc.compiler.ir.target import Target

if TYPE_CHECKING:
    import numpy as np


@runtime_checkable
class Approximator(Protocol):
    """A backend some of whose float kernels round in more steps than sums of products do."""

    def plain(self, precision: Precision) -> Precision | None:
        """Return the precision that is built without them; None where none has them."""
        ...

    def approximate_layers(self, target: Target, model: Model) -> tuple[Node, ...]:
        """Return the nodes that they compute of a model after `passes`."""
        ...

    def approximate_outputs(
        self, target: Target, model: Model, tensor: "np.ndarray"
    ) -> "Mapping[str, np.ndarray]":
        """Return the raw outputs, by name, of such a model with such kernels.

        Args:
            target: One of the backend's.
            model: The model after `passes`.
            tensor: float32 of the input's shape, without a batch axis.
        """
        ...
