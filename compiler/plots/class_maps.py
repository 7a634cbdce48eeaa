"""Class localisation: Grad-CAM of any layer, and class-activation maps."""

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
    """Evidence map (height, width) for one class, with that class and the network's logits.

    `heat` is at least 0 for Grad-CAM. In a class-activation map, negative values are evidence
    against the class.
    """

    heat: FloatArray
    class_index: int
    logits: FloatArray


def compute_gradcam(
    model: Model, output: str, layer: str, tensor: FloatArray, class_index: int | None
) -> ClassMap:
    """Return the Grad-CAM (Selvaraju et al. 2017) of a layer for one input tensor.

    The weight of each feature map is the mean gradient of the class's logit over that map. The
    result is the ReLU of the weighted sum.

    Args:
        model: The fp32 model.
        output: The name of its class output.
        layer: The layer that gives the feature maps.
        tensor: The input, without a batch axis.
        class_index: The class; None for the predicted class.

    Raises:
        UserError: The layer has no feature maps, or the output does not depend on it (E1281).
    """
    graph = model.graph
    kind = graph.types[layer]
    if not is_map(kind.shape):
        message = f"layer `{layer[:120]}` has no feature maps: its shape is {kind}"
        help = "choose a layer before the global pooling; `tcc show` lists the layers"
        raise fail("E1281", message, make_file_span(graph.name), help=help)
    network = create_module(graph, model.weights).eval()
    captured: dict[str, torch.Tensor] = {}
    source = _find_source_module(graph, layer)

    def capture_maps(_: Any, __: Any, output_maps: torch.Tensor) -> None:
        captured["maps"] = output_maps

    handle = network.get_submodule(source).register_forward_hook(capture_maps) if source else None
    # The input needs a gradient too: it may be the layer that the caller chose.
    input_tensor = torch.from_numpy(np.array(tensor[None], np.float32)).requires_grad_(True)
    logits = network(input_tensor)[output][0]
    if handle:
        handle.remove()
    maps = captured.get("maps", input_tensor)
    index = int(logits.argmax()) if class_index is None else class_index
    (gradient,) = torch.autograd.grad(logits[index], maps, allow_unused=True)
    if gradient is None:
        message = f"output `{output}` does not depend on layer `{layer[:120]}`"
        help = "choose a layer that leads to this output; `tcc show` lists the layers"
        raise fail("E1281", message, make_file_span(graph.name), help=help)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    # Negative values mostly belong to other classes (section 3 of the paper).
    heat = torch.relu((weights * maps).sum(dim=1))[0]
    return ClassMap(heat.detach().numpy(), index, logits.detach().numpy())


def _find_source_module(graph: Graph, layer: str) -> str | None:
    """Return the name of the module that computes a value; None for the input."""
    return None if layer in {network_input.name for network_input in graph.inputs} else layer


def find_head(model: Model, output: str) -> tuple[str, Node | None]:
    """Return the value before the global average pooling, and the linear layer after it, if any.

    Operations without effect at inference, such as dropout, are ignored.

    Raises:
        UserError: The output is not a global average pooling plus at most one linear layer (E1283).
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
        # A convolution of a one-pixel map is a linear layer too.
        is_pointwise = isinstance(node.op, Conv) and node.type.shape[1:] == (1, 1)
        if (isinstance(node.op, Linear) or is_pointwise) and linear is None:
            linear = node
        elif not isinstance(node.op, Flatten):
            break
        name = node.inputs[0]
    message = (
        f"class-activation maps need global average pooling and then at most one linear layer,"
        f" but output `{output}` is computed in another way"
    )
    help = "use `tcc plot gradcam`, which works for any network"
    at = make_file_span(inference_graph.name)
    raise fail("E1283", message, at, help=help)


def _is_global_average(node: Node, graph: Graph) -> bool:
    """Whether an average pooling's window covers the full map."""
    size = graph.types[node.inputs[0]].shape[1:]
    return isinstance(node.op, AvgPool) and node.op.kernel == size and not any(node.op.pads)


def compute_activation_map(
    model: Model, maps: FloatArray, linear: Node | None, logits: FloatArray, class_index: int | None
) -> ClassMap:
    """Return the class-activation map (Zhou et al. 2016): feature maps times the class's weights.

    Args:
        model: The network.
        maps: The input of the global average pooling, (channels, height, width).
        linear: The layer after the pooling, as `find_head` returns it.
        logits: The network's output.
        class_index: The class; None for the predicted class.
    """
    index = int(logits.argmax()) if class_index is None else class_index
    if linear is None:
        return ClassMap(maps[index], index, logits)
    weights = model.weights[linear.params[0]].reshape(len(logits), -1)[index]
    return ClassMap(np.tensordot(weights, maps, 1).astype(np.float32), index, logits)
