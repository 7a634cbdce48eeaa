"""PyTorch tensors with NumPy's array protocols, to differentiate the passes over weights.

Passes compute weights with a few NumPy functions. A traced array dispatches these functions to
PyTorch, so that builds and gradients use the same passes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.lib.mixins import NDArrayOperatorsMixin
from torch import Tensor

from tcc.compiler.support.diagnostics import UnhandledError

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class TracedArray(NDArrayOperatorsMixin):
    """A tensor that NumPy functions accept, by NEP 13 and NEP 18."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return tuple(self.tensor.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.tensor.numel()

    def astype(self, dtype: Any) -> "TracedArray":
        """Return the array as float32 or float64."""
        return TracedArray(self.tensor.to(DTYPES[np.dtype(dtype).name]))

    def reshape(self, *shape: Any) -> "TracedArray":
        """Return the array with another shape."""
        return TracedArray(self.tensor.reshape(*shape))

    def sum(self, axis: tuple[int, ...]) -> "TracedArray":
        """Return the sums over axes."""
        return TracedArray(self.tensor.sum(axis))

    def any(self) -> bool:
        """Whether a number is not zero."""
        return bool(self.tensor.any())

    def all(self) -> bool:
        """Whether no number is zero."""
        return bool(self.tensor.all())

    def __getitem__(self, index: Any) -> "TracedArray":
        return TracedArray(self.tensor[index])

    def __len__(self) -> int:
        return len(self.tensor)

    def __array__(self, *_: Any, **__: Any) -> Any:
        """Raise an error: the conversion to an array would lose the gradient."""
        # Without this method, NumPy would convert silently.
        raise UnhandledError("use of a traced array", "its numbers")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Apply an elementwise function."""
        # Only listed functions: one with other semantics in PyTorch would give wrong weights.
        if method != "__call__" or options or ufunc not in UFUNCS:
            raise UnhandledError("operation on traced arrays", ufunc.__name__)
        return TracedArray(UFUNCS[ufunc](*(self._to_tensor(operand) for operand in inputs)))

    def __array_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> Any:
        """Apply an array function."""
        if function not in FUNCTIONS:
            raise UnhandledError("function of traced arrays", function.__name__)
        tensors = (
            argument if isinstance(argument, str) else self._to_tensor(argument)
            for argument in arguments
        )
        output = FUNCTIONS[function](*tensors, **keywords)
        return TracedArray(output) if isinstance(output, Tensor) else output

    def _to_tensor(self, operand: Any) -> Tensor:
        match operand:
            case TracedArray(tensor=tensor):
                return tensor
            case _:
                return torch.tensor(np.array(operand), device=self.tensor.device)


def _compute_tensordot(a: Tensor, b: Tensor, axes: int) -> Tensor:
    # NumPy promotes to the wider of two types; PyTorch rejects mixed types.
    kind = torch.promote_types(a.dtype, b.dtype)
    product: Tensor = torch.tensordot(a.to(kind), b.to(kind), dims=axes)
    return product


UFUNCS: Mapping[np.ufunc, Callable[..., Tensor]] = {
    np.add: torch.add,
    np.subtract: torch.sub,
    np.multiply: torch.mul,
    np.true_divide: torch.div,
    np.negative: torch.neg,
    np.sqrt: torch.sqrt,
    np.matmul: torch.matmul,
    np.equal: torch.eq,
}
FUNCTIONS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    np.einsum: torch.einsum,
    np.tensordot: _compute_tensordot,
    np.array_equal: torch.equal,
}
