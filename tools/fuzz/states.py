"""Generate a small network, its weights, and the state dicts that training programs save."""

import io
from collections import OrderedDict
from functools import cache
from random import Random
from typing import Any

SPEC = b"""tcc: 1
name: net
input: {image: {shape: [2, 8, 8]}}
graph:
  - conv: {filters: 3, kernel: 3, bias: false}
  - batch_norm
  - conv: {filters: 4, kernel: 1}
  - relu
  - global_avg_pool
  - flatten
  - linear: {units: 5}
output: {logits: {activation: softmax}}
"""
WEIGHT_NAMES = (
    ("conv_1.weight", "net.0.weight", (3, 2, 3, 3)),
    ("batch_norm.weight", "net.1.weight", (3,)),
    ("batch_norm.bias", "net.1.bias", (3,)),
    ("batch_norm.mean", "net.1.running_mean", (3,)),
    ("batch_norm.var", "net.1.running_var", (3,)),
    ("conv_2.weight", "net.2.weight", (4, 3, 1, 1)),
    ("conv_2.bias", "net.2.bias", (4,)),
    ("linear.weight", "net.6.weight", (5, 4)),
    ("linear.bias", "net.6.bias", (5,)),
)
"""tcc's names of the weights, other names, and shapes."""
State = dict[str, Any]


@cache
def make_values() -> dict[str, Any]:
    """The weights by tcc's names: distinct numbers that float16 represents exactly."""
    import numpy as np

    arrays, count = {}, 1
    for name, _, shape in WEIGHT_NAMES:
        size = int(np.prod(shape))
        arrays[name] = (np.arange(count, count + size, dtype=np.float32) / 64).reshape(shape)
        count += size
    return arrays


def make_state_dict() -> State:
    """Return the weights as another program would save them."""
    import torch

    state: State = OrderedDict(
        (other_name, torch.from_numpy(make_values()[our_name]))
        for our_name, other_name, _ in WEIGHT_NAMES
    )
    state["net.1.num_batches_tracked"] = torch.tensor(3)
    return state


def save_state(checkpoint: object, numbers: Random) -> bytes:
    """Return what `torch.save` writes for a value, in its old or new format."""
    import torch

    file = io.BytesIO()
    torch.save(checkpoint, file, _use_new_zipfile_serialization=numbers.random() < 0.6)
    return file.getvalue()


def wrap_state(state: State, numbers: Random) -> object:
    """Wrap a state dict as training programs do; every form must be accepted."""
    import argparse

    import torch

    def make_average() -> State:
        return OrderedDict((k, v + 1) for k, v in state.items())

    def add_prefix(prefix: str) -> State:
        return OrderedDict((prefix + k, v) for k, v in state.items())

    return numbers.choice(
        (
            lambda: state,
            lambda: {"state_dict": state, "args": argparse.Namespace(lr=0.1), "epoch": 3},
            lambda: {"model": state, "model_ema": make_average()},
            lambda: {"state_dict": {**add_prefix("model."), "criterion.weight": torch.ones(5)}},
            lambda: add_prefix("module._orig_mod."),
            lambda: {"ema_state_dict": make_average(), "state_dict": state, "scaler": {}},
            lambda: {k: v.double() for k, v in state.items()},
            lambda: {k: v.half() for k, v in state.items()},
            lambda: {k: torch.nn.Parameter(v.float()) for k, v in state.items()},
            lambda: {k: _make_view(v, numbers) for k, v in state.items()},
            lambda: {**state, "aux.fc.weight": torch.ones(2, 2)},
        )
    )()


def _make_view(tensor: Any, numbers: Random) -> Any:
    """Return the same numbers in another memory layout."""
    import torch

    pad = torch.full((numbers.randint(0, 9),), 7.0, dtype=tensor.dtype)
    joined = torch.cat([pad, tensor.ravel(), pad])
    inside = joined[pad.numel() : pad.numel() + tensor.numel()].view(tensor.shape)
    axes = tuple(reversed(range(tensor.dim())))
    transposed = tensor.permute(axes).contiguous().permute(axes)
    return numbers.choice((tensor, inside, transposed))
