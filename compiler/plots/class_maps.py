"""Where in an image a class is seen: Grad-CAM of any layer, and class-activation maps."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Model, Node
from tcc.compiler.lower.torch import create_module
from tcc.compiler.ops import AvgPool, Conv, Flatten, GlobalAvgPool, Linear
from tcc.compiler.passes.drop_identity import drop_identity
from tcc.compiler.passes.drop_train_only import drop_train_only
from tcc.compiler.plots.layers import is_map
from tcc.compiler.support.diagnostics import fail, make_file_span

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class ClassMap:
    """A map (height, width) of how much each place speaks for a class, and what was predicted.

    `heat` is 0 or more for Grad-CAM; a class-activation map has places that speak against it.
    """

    heat: FloatArray
    class_index: int
    logits: FloatArray


def compute_gradcam(
    model: Model, output: str, layer: str, tensor: FloatArray, class_index: int | None
) -> ClassMap:
    """Return the Grad-CAM (Selvaraju et al. 2017) of a layer's maps, for an input tensor.

    The gradient of a class's raw output, averaged over each map, weights it; what is below 0 goes.

    Args:
        model: The network in floats.
        output: The name of its row of classes.
        layer: The value whose maps are weighted.
        tensor: The input, without a batch axis.
        class_index: The class; None for the one that is predicted.

    Raises:
        UserError: The value is no feature map (E1281), or does not bear on the output.
    """
    graph = model.graph
    kind = graph.types[layer]
    if not is_map(kind.shape):
        message = f"`{layer[:120]}` is {kind}, and no feature maps"
        help = "name a layer before the pooling over the whole map"
        raise fail("E1281", message, make_file_span(graph.name), help=help)
    network = create_module(graph, model.weights).eval()
    captured: dict[str, torch.Tensor] = {}
    source = _find_source_module(graph, layer)

    def capture_maps(_: Any, __: Any, output_maps: torch.Tensor) -> None:
        captured["maps"] = output_maps

    handle = network.get_submodule(source).register_forward_hook(capture_maps) if source else None
    # The input takes part, since it may be the layer that is asked for.
    input_tensor = torch.from_numpy(np.array(tensor[None], np.float32)).requires_grad_(True)
    logits = network(input_tensor)[output][0]
    if handle:
        handle.remove()
    maps = captured.get("maps", input_tensor)
    index = int(logits.argmax()) if class_index is None else class_index
    (gradient,) = torch.autograd.grad(logits[index], maps, allow_unused=True)
    if gradient is None:
        message = f"the output `{output}` does not depend on `{layer[:120]}`"
        raise fail("E1281", message, make_file_span(graph.name))
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    # What speaks against a class mostly speaks for others (section 3 of the paper).
    heat = torch.relu((weights * maps).sum(dim=1))[0]
    return ClassMap(heat.detach().numpy(), index, logits.detach().numpy())


def _find_source_module(graph: Graph, layer: str) -> str | None:
    """Return the name of the module that gives a value, None for the input."""
    return None if layer in {source.name for source in graph.inputs} else layer


def find_head(model: Model, output: str) -> tuple[str, Node | None]:
    """Return the value that a network averages over its whole map, and the layer behind that.

    What does nothing at inference, such as dropout, may stand anywhere.

    Raises:
        UserError: It does not end in an average, with at most one linear layer behind it (E1283).
    """
    inference_graph = drop_identity(drop_train_only(model)).graph
    nodes = {node.name: node for node in inference_graph.nodes}
    (name,) = (
        graph_output.value
        for graph_output in inference_graph.outputs
        if graph_output.name == output
    )
    linear = None
    while (node := nodes.get(name)) is not None:
        if isinstance(node.op, GlobalAvgPool) or _is_global_average(node, inference_graph):
            return node.inputs[0], linear
        # A convolution of a map of one pixel is a linear layer as well.
        is_pointwise = isinstance(node.op, Conv) and node.type.shape[1:] == (1, 1)
        if (isinstance(node.op, Linear) or is_pointwise) and linear is None:
            linear = node
        elif not isinstance(node.op, Flatten):
            break
        name = node.inputs[0]
    message = f"`{output}` is no linear layer of a mean over feature maps"
    help = "`tcc plot gradcam` does without"
    at = make_file_span(inference_graph.name)
    raise fail("E1283", message, at, help=help)


def _is_global_average(node: Node, graph: Graph) -> bool:
    """Whether a node is the mean of a window as large as the map."""
    size = graph.types[node.inputs[0]].shape[1:]
    return isinstance(node.op, AvgPool) and node.op.kernel == size and not any(node.op.pads)


def compute_activation_map(
    model: Model, maps: FloatArray, linear: Node | None, logits: FloatArray, class_index: int | None
) -> ClassMap:
    """Return the class-activation map (Zhou et al. 2016): maps by a class's weights.

    Args:
        model: The network.
        maps: What is averaged, (channels, height, width).
        linear: The layer behind the mean, as `find_head` finds it.
        logits: The outputs.
        class_index: The class; None for the one that is predicted.
    """
    index = int(logits.argmax()) if class_index is None else class_index
    if linear is None:
        return ClassMap(maps[index], index, logits)
    weights = model.weights[linear.params[0]].reshape(len(logits), -1)[index]
    return ClassMap(np.tensordot(weights, maps, 1).astype(np.float32), index, logits)
