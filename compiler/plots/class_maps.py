"""Where in an image a class is seen: Grad-CAM of any layer, and class-activation maps."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Model, Node
from tcc.compiler.lower.torch import module
from tcc.compiler.ops import AvgPool, Conv, Flatten, GlobalAvgPool, Linear
from tcc.compiler.passes.drop_identity import drop_identity
from tcc.compiler.passes.drop_train_only import drop_train_only
from tcc.compiler.plots.layers import is_map
from tcc.compiler.support.diagnostics import fail, whole_file

Values = NDArray[np.float32]


@dataclass(frozen=True)
class ClassMap:
    """A map (height, width) of how much each place speaks for a class, and what was predicted.

    `heat` is 0 or more for Grad-CAM; a class-activation map has places that speak against it.
    """

    heat: Values
    shown: int
    raw: Values


def gradcam(model: Model, output: str, layer: str, tensor: Values, shown: int | None) -> ClassMap:
    """Return the Grad-CAM (Selvaraju et al. 2017) of a layer's maps, for an input tensor.

    The gradient of a class's raw output, averaged over each map, weights it; what is below 0 goes.

    Args:
        model: The network in floats.
        output: The name of its row of classes.
        layer: The value whose maps are weighted.
        tensor: The input, without a batch axis.
        shown: The class; None for the one that is predicted.

    Raises:
        UserError: The value is no feature map (E1281), or does not bear on the output.
    """
    graph = model.graph
    kind = graph.types[layer]
    if not is_map(kind.shape):
        message = f"`{layer[:120]}` is {kind}, and no feature maps"
        help = "name a layer before the pooling over the whole map"
        raise fail("E1281", message, whole_file(graph.name), help=help)
    network = module(graph, model.weights).eval()
    kept: dict[str, torch.Tensor] = {}
    source = _source(graph, layer)

    def keep(_: Any, __: Any, result: torch.Tensor) -> None:
        kept["maps"] = result

    handle = network.get_submodule(source).register_forward_hook(keep) if source else None
    # The input takes part, since it may be the layer that is asked for.
    given = torch.from_numpy(np.array(tensor[None], np.float32)).requires_grad_(True)
    raw = network(given)[output][0]
    if handle:
        handle.remove()
    maps = kept.get("maps", given)
    index = int(raw.argmax()) if shown is None else shown
    (gradient,) = torch.autograd.grad(raw[index], maps, allow_unused=True)
    if gradient is None:
        message = f"the output `{output}` does not depend on `{layer[:120]}`"
        raise fail("E1281", message, whole_file(graph.name))
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    # What speaks against a class mostly speaks for others (section 3 of the paper).
    heat = torch.relu((weights * maps).sum(dim=1))[0]
    return ClassMap(heat.detach().numpy(), index, raw.detach().numpy())


def _source(graph: Graph, layer: str) -> str | None:
    """Return the name of the module that gives a value, None for the input."""
    return None if layer in {source.name for source in graph.inputs} else layer


def head(model: Model, output: str) -> tuple[str, Node | None]:
    """Return the value that a network averages over its whole map, and the layer behind that.

    What does nothing at inference, such as dropout, may stand anywhere.

    Raises:
        UserError: It does not end in an average, with at most one linear layer behind it (E1283).
    """
    lean = drop_identity(drop_train_only(model)).graph
    nodes = {node.name: node for node in lean.nodes}
    (name,) = (each.value for each in lean.outputs if each.name == output)
    linear = None
    while (node := nodes.get(name)) is not None:
        if isinstance(node.op, GlobalAvgPool) or _covers(node, lean):
            return node.inputs[0], linear
        # A convolution of a map of one pixel is a linear layer as well.
        one = isinstance(node.op, Conv) and node.type.shape[1:] == (1, 1)
        if (isinstance(node.op, Linear) or one) and linear is None:
            linear = node
        elif not isinstance(node.op, Flatten):
            break
        name = node.inputs[0]
    message = f"`{output}` is no linear layer of a mean over feature maps"
    help = "`tcc plot gradcam` does without"
    where = whole_file(lean.name)
    raise fail("E1283", message, where, help=help)


def _covers(node: Node, graph: Graph) -> bool:
    """Whether a node is the mean of a window as large as the map."""
    size = graph.types[node.inputs[0]].shape[1:]
    return isinstance(node.op, AvgPool) and node.op.kernel == size and not any(node.op.pads)


def activation_map(
    model: Model, maps: Values, linear: Node | None, raw: Values, shown: int | None
) -> ClassMap:
    """Return the class-activation map (Zhou et al. 2016): maps by a class's weights.

    Args:
        model: The network.
        maps: What is averaged, (channels, height, width).
        linear: The layer behind the mean, as `head` finds it.
        raw: The outputs.
        shown: The class; None for the one that is predicted.
    """
    index = int(raw.argmax()) if shown is None else shown
    if linear is None:
        return ClassMap(maps[index], index, raw)
    weights = model.weights[linear.params[0]].reshape(len(raw), -1)[index]
    return ClassMap(np.tensordot(weights, maps, 1).astype(np.float32), index, raw)
