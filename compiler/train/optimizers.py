"""Optimisers, and which tensors decay."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, assert_never

from torch import Tensor, optim

OptimizerKind = Literal["sgd", "adam", "adamw"]
"""Which optimiser."""


@dataclass(frozen=True, slots=True)
class Optimizer:
    """The recipe's `optimizer:`."""

    kind: OptimizerKind = field(
        default="sgd",
        metadata={
            "description": "`adam` adds the decay to the gradient, `adamw` takes it off the "
            "weights."
        },
    )
    momentum: float = field(
        default=0.9,
        metadata={"minimum": 0, "exclusiveMaximum": 1, "description": "The momentum (sgd)."},
    )
    nesterov: bool = field(
        default=True, metadata={"description": "Whether it looks a step ahead (sgd)."}
    )
    beta1: float = field(
        default=0.9,
        metadata={
            "minimum": 0,
            "exclusiveMaximum": 1,
            "description": "The decay of the mean of gradients (adam, adamw).",
        },
    )
    beta2: float = field(
        default=0.999,
        metadata={
            "minimum": 0,
            "exclusiveMaximum": 1,
            "description": "The decay of the mean of their squares (adam, adamw).",
        },
    )
    weight_decay: float = field(
        default=0.0005,
        metadata={
            "minimum": 0,
            "description": "The decay of tensors of two and more dimensions: of kernels and "
            "matrices, not of biases and batch norms.",
        },
    )


def made(record: Optimizer, weights: Mapping[str, Tensor]) -> optim.Optimizer:
    """Return the optimiser of weights by name, in two groups: those that decay, and the others.

    The learning rate is set before each step, and is 0 until then.
    """
    matrices = [tensor for tensor in weights.values() if tensor.dim() >= 2]
    vectors = [tensor for tensor in weights.values() if tensor.dim() < 2]
    groups = [
        {"params": tensors, "weight_decay": decay}
        for tensors, decay in ((matrices, record.weight_decay), (vectors, 0.0))
        if tensors
    ]
    betas = (record.beta1, record.beta2)
    match record.kind:
        case "sgd":
            nesterov = record.nesterov and record.momentum > 0
            return optim.SGD(groups, lr=0.0, momentum=record.momentum, nesterov=nesterov)
        case "adam":
            return optim.Adam(groups, lr=0.0, betas=betas)
        case "adamw":
            return optim.AdamW(groups, lr=0.0, betas=betas)
        case _:
            assert_never(record.kind)
