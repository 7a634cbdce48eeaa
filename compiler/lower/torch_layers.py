"""The torch layer of an op, or a module of tcc if torch has none."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.op import Argument, Call
from tcc.compiler.ir.types import Shape

Options = Mapping[str, Any]
Shapes = Mapping[str, Shape]
"""Shapes of an op's inputs, without the batch axis: inputs as `x0`..., weights by role."""


class RunningStatistics(nn.Module):
    """A torch batch norm that stores its statistics under the spec's names, `mean` and `var`.

    Torch's tools still find them under torch's names.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, features: int, **options: Any) -> None:
        # Without tracking, torch creates no buffers under its own names. Then the flag is set, so
        # that its forward pass uses the statistics.
        super().__init__(features, track_running_stats=False, **options)
        self.track_running_stats = True
        for role, start in (("mean", 0.0), ("var", 1.0)):
            del self._buffers[f"running_{role}"]
            self.register_buffer(role, torch.full((features,), start))
        # Not a weight of the spec: the counter for cumulative averages, such as in `update_bn`.
        del self._buffers["num_batches_tracked"]
        self.register_buffer("num_batches_tracked", torch.tensor(0), persistent=False)

    @property
    def running_mean(self) -> Tensor:
        """The mean of each channel."""
        return self.mean

    @running_mean.setter
    def running_mean(self, value: Tensor) -> None:
        self.mean = value

    @property
    def running_var(self) -> Tensor:
        """The variance of each channel."""
        return self.var

    @running_var.setter
    def running_var(self, value: Tensor) -> None:
        self.var = value

    def _load_from_state_dict(self, *args: Any) -> None:
        # The method of torch's batch norm would require the counter in a state dict without
        # version.
        nn.Module._load_from_state_dict(self, *args)


class BatchNorm1d(RunningStatistics, nn.BatchNorm1d):  # type: ignore[misc]
    """Torch's batch norm of vectors."""


class BatchNorm2d(RunningStatistics, nn.BatchNorm2d):  # type: ignore[misc]
    """Torch's batch norm of feature maps."""


class Padded(nn.Module):
    """A torch layer after padding that its own `padding` cannot express.

    `border` is (left, right, top, bottom); `fill` is its value.
    """

    border: tuple[int, int, int, int]
    fill: float

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output for the padded input."""
        # torch's `padding` is one number for both sides of an axis.
        padded = functional.pad(x, self.border, value=self.fill)
        y: Tensor = super().forward(padded)
        return y

    def extra_repr(self) -> str:
        """Return torch's text for the layer, and the padding."""
        return f"{super().extra_repr()}, border={self.border}"


class PaddedConv2d(Padded, nn.Conv2d):
    """A convolution with more padding on one side."""


class PaddedMaxPool2d(Padded, nn.MaxPool2d):
    """A max pooling with more padding on one side."""


class PaddedAvgPool2d(Padded, nn.AvgPool2d):
    """An average pooling with more padding on one side."""


@dataclass(frozen=True, slots=True)
class TorchCall:
    """One function call; `arguments` and `output` name values.

    `freed_values` are the values that no later call reads.
    """

    function: Callable[..., Tensor]
    arguments: tuple[str, ...]
    output: str
    options: Options
    trains: bool
    packed: bool
    freed_values: tuple[str, ...]

    def run(self, values: dict[str, Tensor], training: bool) -> None:
        """Add the result to the values, and remove values that are not read again."""
        tensors = [values[name] for name in self.arguments]
        arguments = [tensors] if self.packed else tensors
        # The functions for dropout and batch norm take the mode as an argument; it may change
        # between calls.
        mode = {"training": training} if self.trains else {}
        values[self.output] = self.function(*arguments, **self.options, **mode)
        for name in self.freed_values:
            del values[name]


class TorchCalls(nn.Module):
    """An op without a torch layer: its calls in order, weights by their roles."""

    def __init__(self, op_name: str, calls: tuple[Call, ...]) -> None:
        super().__init__()
        self.op_name = op_name
        arguments = [tuple(map(_check_tensor_name, call.inputs)) for call in calls]
        freed_by_call = find_last_uses(arguments, {calls[-1].output})
        self.calls = tuple(
            TorchCall(
                _find_function(c), a, c.output, c.attributes, c.trains, c.packed, freed_values
            )
            for c, a, freed_values in zip(calls, arguments, freed_by_call, strict=True)
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the output for the op's inputs (N, *shape)."""
        values = {f"x{i}": x for i, x in enumerate(inputs)}
        values |= {role: getattr(self, role) for role in (*self._parameters, *self._buffers)}
        for call in self.calls:
            call.run(values, self.training)
        return values[self.calls[-1].output]

    def extra_repr(self) -> str:
        """Return the op's keyword in specs."""
        return self.op_name


def find_last_uses(
    names_by_step: Iterable[tuple[str, ...]], outputs: Iterable[str]
) -> tuple[tuple[str, ...], ...]:
    """Return, for each step, the values that no later step reads, except the outputs.

    They can be dropped after the step, which keeps memory use as low as in a handwritten module.
    """
    # One walk backwards, in linear time.
    used_later = set(outputs)
    # Going backwards, the first step with a value is the last one that reads it.
    freed = []
    for names in reversed(list(names_by_step)):
        unique_names = dict.fromkeys(names)
        freed.append(tuple(name for name in unique_names if name not in used_later))
        used_later.update(unique_names)
    return tuple(reversed(freed))


def create_layer(graph: Graph, node: Node) -> nn.Module:
    """Return the module of a node, from its inputs (N, *shape) to its output.

    Its weights have their roles' names and shapes, and no values yet.
    """
    types = graph.get_input_types(node)
    params = node.op.params(*types)
    calls = tuple(node.op.torch(*types))
    shapes = {f"x{i}": x.shape for i, x in enumerate(types)} | {p.role: p.shape for p in params}
    module = _create_torch_layer(calls, shapes) or TorchCalls(node.op.keyword, calls)
    for param in params:
        tensor = torch.empty(param.shape)
        if param.trainable:
            # Replaces the layer's own tensor, which is on the meta device: it takes no memory, and
            # no initialization is wasted.
            module.register_parameter(param.role, nn.Parameter(tensor))
        else:
            module.register_buffer(param.role, tensor)
    return module


def _create_torch_layer(calls: tuple[Call, ...], shapes: Shapes) -> nn.Module | None:
    match calls:
        # A single call becomes torch's own layer, if there is one, because torch's tools know it.
        case (Call(function=name, attributes=options),) if name in LAYERS:
            return LAYERS[name](options, shapes)
        case (Call(function="pad", attributes=border), Call(function=name, attributes=options)) if (
            name in PADDED_LAYERS
        ):
            module = PADDED_LAYERS[name](options, shapes)
            module.border, module.fill = border["pad"], border.get("value", 0.0)
            return module
        case _:
            return None


def _create_constructor(kind: type[nn.Module]) -> Callable[[Options, Shapes], nn.Module]:
    return lambda options, _: kind(**options)


def _create_conv_constructor(kind: type[nn.Conv2d]) -> Callable[[Options, Shapes], nn.Conv2d]:
    def create_conv(options: Options, shapes: Shapes) -> nn.Conv2d:
        filters, depth, *kernel = shapes["weight"]
        arguments = {
            "kernel_size": tuple(kernel),
            "bias": "bias" in shapes,
            "device": "meta",
            **options,
        }
        # torch stores only a filter's own channels; the layer counts those of all groups.
        return kind(depth * options["groups"], filters, **arguments)

    return create_conv


def _create_conv_transpose(options: Options, shapes: Shapes) -> nn.ConvTranspose2d:
    channels, depth, *kernel = shapes["weight"]
    arguments = {
        "kernel_size": tuple(kernel),
        "bias": "bias" in shapes,
        "device": "meta",
        **options,
    }
    # A transposed convolution's tensor has the input's channels first, so here the groups divide
    # the filters.
    return nn.ConvTranspose2d(channels, depth * options["groups"], **arguments)


def _create_linear(options: Options, shapes: Shapes) -> nn.Linear:
    units, features = shapes["weight"]
    return nn.Linear(features, units, bias="bias" in shapes, device="meta", **options)


def _create_batch_norm(options: Options, shapes: Shapes) -> nn.Module:
    kind = BatchNorm1d if len(shapes["x0"]) == 1 else BatchNorm2d
    return kind(shapes["weight"][0], **options)


def _create_dropout(options: Options, _: Shapes) -> nn.Module:
    return nn.Dropout(**options) if options["p"] else nn.Identity()


LAYERS: Mapping[str, Callable[[Options, Shapes], nn.Module]] = {
    "conv2d": _create_conv_constructor(nn.Conv2d),
    "conv_transpose2d": _create_conv_transpose,
    "linear": _create_linear,
    "batch_norm": _create_batch_norm,
    "dropout": _create_dropout,
    "relu": _create_constructor(nn.ReLU),
    "relu6": _create_constructor(nn.ReLU6),
    "leaky_relu": _create_constructor(nn.LeakyReLU),
    "sigmoid": _create_constructor(nn.Sigmoid),
    "tanh": _create_constructor(nn.Tanh),
    "silu": _create_constructor(nn.SiLU),
    "gelu": _create_constructor(nn.GELU),
    "hardsigmoid": _create_constructor(nn.Hardsigmoid),
    "hardswish": _create_constructor(nn.Hardswish),
    "softmax": _create_constructor(nn.Softmax),
    "max_pool2d": _create_constructor(nn.MaxPool2d),
    "avg_pool2d": _create_constructor(nn.AvgPool2d),
    "adaptive_avg_pool2d": _create_constructor(nn.AdaptiveAvgPool2d),
    "adaptive_max_pool2d": _create_constructor(nn.AdaptiveMaxPool2d),
    "interpolate": _create_constructor(nn.Upsample),
    "flatten": _create_constructor(nn.Flatten),
    "channel_shuffle": _create_constructor(nn.ChannelShuffle),
    "pad": lambda options, _: nn.ConstantPad2d(options["pad"], options["value"]),
    "unflatten": lambda options, _: nn.Unflatten(options["dim"], options["sizes"]),
}
"""The torch layers that equal one function call, by the function's name."""
PADDED_LAYERS: Mapping[str, Callable[[Options, Shapes], nn.Module]] = {
    "conv2d": _create_conv_constructor(PaddedConv2d),
    "max_pool2d": _create_constructor(PaddedMaxPool2d),
    "avg_pool2d": _create_constructor(PaddedAvgPool2d),
}
"""Those of a function call after `pad`."""


def _check_tensor_name(argument: Argument) -> str:
    match argument:
        case str():
            return argument
    raise TypeError("a torch call takes only tensors; literals are its attributes")


def _find_function(call: Call) -> Callable[..., Tensor]:
    # The functional form first: `torch` has some of the same names with other arguments, such as
    # `torch.dropout`.
    function: Callable[..., Tensor] | None = getattr(functional, call.function, None)
    return function or getattr(torch, call.function)
