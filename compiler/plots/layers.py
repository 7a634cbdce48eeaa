"""The layers of a network by their paths in the spec, and what is in them for an image."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Input, Model, Node, Output
from tcc.compiler.ir.rewrite import eliminate_dead, for_inference
from tcc.compiler.ir.types import Shape
from tcc.compiler.ops import Conv
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.reference import float_program, integer_program
from tcc.compiler.support.diagnostics import fail, nearest, whole_file

Values = NDArray[np.float32]
SHOWN = 12
"""Layers that an error lists."""


@dataclass(frozen=True)
class Quantised:
    """A network ready for integers, and the integer program of it."""

    ready: Model
    program: Model
    calibration: Calibration


def find(graph: Graph, path: str, where: str) -> str:
    """Return the value of a layer's path.

    Args:
        graph: The network.
        path: The path of a step of the spec.
        where: What the network is called in errors.

    Raises:
        UserError: There is none (E1281); the nearest is named, or those below the path.
    """
    lean = for_inference(graph)
    names = [node.name for node in lean.nodes]
    if path in names:
        return path
    below = [name for name in names if name.startswith(f"{path}.")]
    close = nearest(path, set(names))
    if below:
        help = f"below it are {', '.join(below[:SHOWN])}"
    elif close:
        help = f"did you mean `{close}`?"
    else:
        help = f"it has {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"
    help += "; `tcc show` lists them"
    raise fail("E1281", f"there is no layer `{path[:120]}`", whole_file(where), help=help)


def last_map(graph: Graph, where: str) -> str:
    """Return the last value that is a map.

    Raises:
        UserError: There is none (E1281).
    """
    nodes = for_inference(graph).nodes
    maps = [node.name for node in nodes if is_map(node.type.shape)]
    if not maps:
        raise fail("E1281", "this network has no feature maps", whole_file(where))
    return maps[-1]


def is_map(shape: Shape) -> bool:
    """Whether values have places: one that is 1x1 has none."""
    return len(shape) == 3 and shape[1:] != (1, 1)


def convolutions(graph: Graph, where: str) -> tuple[Node, ...]:
    """Return the first and the last convolution, or the only one.

    Raises:
        UserError: There is none (E1281).
    """
    found = [node for node in graph.nodes if isinstance(node.op, Conv)]
    if not found:
        raise fail("E1281", "this network has no convolution", whole_file(where))
    return tuple(dict.fromkeys((found[0], found[-1])))


def floats(model: Model, value: str) -> Callable[[Values], Values]:
    """Return what gives a value of a network for an input tensor."""
    graph = replace(model.graph, outputs=(Output("plotted", value),))
    run = float_program.prepared(eliminate_dead(Model(graph, model.weights)))
    return lambda tensor: np.asarray(run(tensor)["plotted"])


def integers(made: Quantised, tensor: Values) -> Mapping[str, Values]:
    """Return every value of an integer program, as real numbers; its input is the ready model's."""
    (found,) = integer_program.run(made.program, [tensor], every=True)
    types = made.program.graph.types
    return {
        name: _real(values, types[name].scale, made.calibration.factors.get(name))
        for name, values in found.items()
    }


def _real(values: NDArray[np.generic], scale: float | None, factor: Values | None) -> Values:
    found = values.astype(np.float32) * np.float32(scale or 1)
    if factor is not None:  # of channels that were equalised
        found = found * factor.reshape(-1, *(1 for _ in found.shape[1:]))
    return found


def folded(graph: Graph, made: Quantised, node: Node) -> str:
    """Return the convolution that integers compute in place of one: what follows is folded in."""
    convs = {each.name for each in made.ready.graph.nodes if isinstance(each.op, Conv)}
    return _follow(graph, node.name, convs)


def compared(graph: Graph, made: Quantised, node: Node) -> str:
    """Return the first value after a convolution that both floats and integers have."""
    types = made.program.graph.types
    both = {name for name in made.ready.graph.types if name in types and types[name].scale}
    return _follow(graph, node.name, both)


def _follow(graph: Graph, name: str, wanted: Collection[str]) -> str:
    while name not in wanted:
        readers = graph.readers[name]
        if not readers:
            raise fail("E1281", f"integers have no layer `{name[:120]}`", whole_file(graph.name))
        name = readers[0].name
    return name


def filters(made: Quantised, name: str) -> tuple[Values, Values | None]:
    """Return a convolution's weights in float, and as the integers have them in real numbers.

    The integers' are None where the layer stays in float.

    Args:
        made: The network in both forms.
        name: The convolution, as `folded` names it.
    """
    (node,) = (each for each in made.ready.graph.nodes if each.name == name)
    own = made.ready.weights[node.params[0]].astype(np.float32)
    convs = {each.name: each for each in made.program.graph.nodes if len(each.params) > 1}
    other = convs.get(
        _follow(made.ready.graph, name, {*convs, *(o.value for o in made.ready.graph.outputs)})
    )
    if other is None or made.program.weights[other.params[0]].shape != own.shape:
        return own, None
    weight, factor, _ = (made.program.weights[each] for each in other.params)
    share = factor.astype(np.float32)
    if made.program.graph.types[other.name].scale is None:  # of a last layer, its input's as well
        share = share / np.float32(made.program.graph.types[other.inputs[0]].scale)
    stored = weight.astype(np.float32)
    return own, _unequalised(
        made, other, stored * share.reshape(-1, *(1 for _ in stored.shape[1:]))
    )


def _unequalised(made: Quantised, node: Node, weight: Values) -> Values:
    """Return a convolution's weights between real channels, where channels were equalised."""
    after, before = (made.calibration.factors.get(name) for name in (node.name, node.inputs[0]))
    sides = (1 for _ in weight.shape[2:])
    if after is not None:
        weight = weight * after.reshape(-1, 1, *(1 for _ in weight.shape[2:]))
    if before is not None:
        # Of grouped convolutions each filter reads the channels of its own group alone.
        groups = before.size // weight.shape[1]
        own = np.repeat(before.reshape(groups, -1), len(weight) // groups, axis=0)
        weight = weight / own.reshape(*weight.shape[:2], *sides)
    return weight


def pixels(source: Input, tensor: Values) -> NDArray[np.float32]:
    """Return an input as a picture, (height, width, 3) from 0 to 1."""
    found: NDArray[Any] = tensor.astype(np.float32)
    contract = source.preprocess
    if contract is not None and contract.raw:
        found = found / 255
    elif contract is not None:
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (contract.mean, contract.std))
        # The contract's last steps backwards.
        found = found * std + mean
    else:
        low, high = float(found.min()), float(found.max())
        found = (found - low) / (high - low or 1)
    if contract is not None and contract.color == "bgr":
        found = found[::-1]
    if found.shape[0] != 3:
        found = np.repeat(found[:1], 3, axis=0)
    return np.clip(found, 0, 1).transpose(1, 2, 0).astype(np.float32)
