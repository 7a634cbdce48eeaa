"""The network's contract for a package's programs: input format, outputs and their labels."""

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Literal

from tcc.backends.pulsar.calibration_data import has_pixel_input
from tcc.compiler.ir.graph import Graph, Input, Output
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.support.diagnostics import UnhandledError


def read_device_file(name: str) -> bytes:
    """Return a file of the folder `device/`."""
    return (files("tcc.backends.pulsar") / "device" / name).read_bytes()


def list_outputs(graph: Graph) -> tuple[Output, ...]:
    """Return the outputs of a network that are not only for training."""
    return tuple(output for output in graph.outputs if not output.train_only)


def get_colors(network_input: Input) -> str:
    """Return the contract's colours; empty where the input is not an image."""
    return (
        network_input.preprocess.color
        if network_input.preprocess and has_pixel_input(network_input)
        else ""
    )


def get_color_name(pre: Preprocess) -> Literal["RGB", "BGR", "GRAY"]:
    """Return the manuals' name of a contract's colours; both toolchains use the same."""
    match pre.color:
        case "rgb":
            return "RGB"
        case "bgr":
            return "BGR"
        case "gray":
            return "GRAY"
        case _:
            raise UnhandledError("colour", pre.color)


def render_header(graph: Graph) -> bytes:
    """Return the contract as a C++ header; non-ASCII text is escaped."""
    return "\n".join([*_render_header_lines(graph), ""]).encode()


def _render_header_lines(graph: Graph) -> Iterator[str]:
    (network_input,) = graph.inputs
    color = get_colors(network_input)
    channels, height, width = network_input.type.shape if color else (0, 0, 0)
    yield "/* The network's input and outputs. */"
    yield "#pragma once"
    yield "#include <cstddef>"
    yield f"#define INPUT_IS_IMAGE {int(bool(color))}"
    yield f"#define INPUT_IS_BGR {int(color == 'bgr')}"
    yield f"#define INPUT_CHANNELS {channels}"
    yield f"#define INPUT_HEIGHT {height}"
    yield f"#define INPUT_WIDTH {width}"
    yield "enum class Activation { none, softmax, sigmoid };"
    yield (
        "struct Output { const char* name; Activation activation; size_t count;"
        " const char* const* labels; };"
    )
    graph_outputs = list_outputs(graph)
    for output in (output for output in graph_outputs if output.labels):
        label_literals = ", ".join(map(_quote, output.labels))
        yield f"static const char* const LABELS_{output.name}[] = {{{label_literals}}};"
    yield "static const Output OUTPUTS[] = {"
    for output in graph_outputs:
        labels = f"LABELS_{output.name}" if output.labels else "nullptr"
        count = graph.types[output.value].elements
        yield f'    {{"{output.name}", Activation::{output.activation}, {count}, {labels}}},'
    yield "};"


def _quote(text: str) -> str:
    """Return a text as a C literal with octal escapes, which have at most three digits."""
    escaped = "".join(
        # `?` is escaped too: two of them start a trigraph in C++ before 17.
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{escaped}"'


def encode_contract(graph: Graph) -> bytes:
    """Return the contract as JSON."""
    (network_input,) = graph.inputs
    output_fields = {
        output.name: {"activation": output.activation, "labels": list(output.labels)}
        for output in list_outputs(graph)
    }
    fields = {
        "image": bool(get_colors(network_input)),
        "color": get_colors(network_input),
        "outputs": output_fields,
    }
    return _encode_json(fields)


def encode_labels(graph: Graph) -> bytes:
    """Return the labels of each output that has labels, as JSON."""
    return _encode_json(
        {output.name: list(output.labels) for output in list_outputs(graph) if output.labels}
    )


def _encode_json(content: object) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
