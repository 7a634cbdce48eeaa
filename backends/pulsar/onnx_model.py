"""The ONNX model that a chip's toolchain is given."""

from collections.abc import Iterator, Mapping
from typing import Any

import onnx
from onnx import helper

from tcc.backends.pulsar.chips import Chip, Toolchain
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.lower.onnx import lower, outline
from tcc.compiler.support.diagnostics import UnhandledError

HALF_PIXEL = {
    "coordinate_transformation_mode": "half_pixel",
    "nearest_mode": "round_prefer_ceil",
}
"""Nearest pixels as Pulsar2 has them. Enlarged by a whole number, a pixel's middle is never as far
from one of the input as from another, so that they are those that rounding down finds."""


def npu_onnx(model: Model, chip: Chip) -> onnx.ModelProto:
    """Return a model after the chip's passes as its toolchain reads it: a batch of one image.

    Raises:
        UserError: The weights exceed what an ONNX file holds (E0450).
    """
    return _spelled(lower(model, chip.opset, batch=1), chip)


def npu_outline(graph: Graph, chip: Chip) -> onnx.ModelProto:
    """Return the same of a graph whose weights nobody has yet; they have no numbers."""
    return _spelled(outline(graph, chip.opset, batch=1), chip)


def _spelled(model: onnx.ModelProto, chip: Chip) -> onnx.ModelProto:
    """Write attributes that mean the same in several ways in that of a toolchain; in place."""
    for node in model.graph.node:
        given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        spelled = dict(_attributes(node.op_type, given, chip.toolchain))
        if spelled != given:
            del node.attribute[:]
            node.attribute.extend(
                # In the order of names, for equal bytes.
                helper.make_attribute(name, spelled[name])
                for name in sorted(spelled)
            )
    return model


def _attributes(
    kind: str, given: Mapping[str, Any], toolchain: Toolchain
) -> Iterator[tuple[str, Any]]:
    """Yield an operator's attributes as a toolchain has them.

    Without a border, the mean of a window is the same whether that counts or not.
    """
    match kind, toolchain:
        # Pulsar's list has no `count_include_pad`; without a border it would say nothing.
        case "AveragePool", Toolchain.PULSAR if not (
            any(given["pads"]) and given.get("count_include_pad")
        ):
            yield from ((k, v) for k, v in given.items() if k != "count_include_pad")
        case "AveragePool", Toolchain.PULSAR2 if not any(given["pads"]):
            yield from {**given, "count_include_pad": 1}.items()
        case "Resize", Toolchain.PULSAR2 if given["mode"] == b"nearest":
            yield from {**given, **HALF_PIXEL}.items()
        case _, Toolchain.PULSAR | Toolchain.PULSAR2:
            yield from given.items()
        case _:
            raise UnhandledError("toolchain", toolchain.value)
