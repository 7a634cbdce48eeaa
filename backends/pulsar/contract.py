"""What a package's programs know of its network: the input contract, the outputs, their labels."""

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Literal

from tcc.backends.pulsar.calibration_data import takes_levels
from tcc.compiler.ir.graph import Graph, Input, Output
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.support.diagnostics import UnhandledError


def device_file(name: str) -> bytes:
    """Return a program of the folder `device/`."""
    return (files("tcc.backends.pulsar") / "device" / name).read_bytes()


def outputs(graph: Graph) -> tuple[Output, ...]:
    """Return what a network gives outside of training."""
    return tuple(each for each in graph.outputs if not each.train_only)


def colors(source: Input) -> str:
    """Return the contract's colours; nothing where no image comes in."""
    return source.preprocess.color if source.preprocess and takes_levels(source) else ""


def color_word(pre: Preprocess) -> Literal["RGB", "BGR", "GRAY"]:
    """Return what the manuals of both toolchains call a contract's colours."""
    match pre.color:
        case "rgb":
            return "RGB"
        case "bgr":
            return "BGR"
        case "gray":
            return "GRAY"
        case _:
            raise UnhandledError("colour", pre.color)


def header(graph: Graph) -> bytes:
    """Return the contract for C++; texts of any script are written in ASCII."""
    return "\n".join([*_header(graph), ""]).encode()


def _header(graph: Graph) -> Iterator[str]:
    (source,) = graph.inputs
    color = colors(source)
    channels, height, width = source.type.shape if color else (0, 0, 0)
    yield "/* What the network takes and gives. */"
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
    found = outputs(graph)
    for each in (each for each in found if each.labels):
        listed = ", ".join(map(_quoted, each.labels))
        yield f"static const char* const LABELS_{each.name}[] = {{{listed}}};"
    yield "static const Output OUTPUTS[] = {"
    for each in found:
        labels = f"LABELS_{each.name}" if each.labels else "nullptr"
        count = graph.types[each.value].elements
        yield f'    {{"{each.name}", Activation::{each.activation}, {count}, {labels}}},'
    yield "};"


def _quoted(text: str) -> str:
    """Return a text as a literal of C: octal digits, of which each escape takes three at most."""
    plain = "".join(
        # `?` as well: two of them begin a trigraph in C++ before 17.
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{plain}"'


def document(graph: Graph) -> bytes:
    """Return the contract as JSON."""
    (source,) = graph.inputs
    given = {
        each.name: {"activation": each.activation, "labels": list(each.labels)}
        for each in outputs(graph)
    }
    plain = {"image": bool(colors(source)), "color": colors(source), "outputs": given}
    return _json(plain)


def labels(graph: Graph) -> bytes:
    """Return the labels of each output that has some, as JSON."""
    return _json({each.name: list(each.labels) for each in outputs(graph) if each.labels})


def _json(plain: object) -> bytes:
    return (json.dumps(plain, indent=2, ensure_ascii=False) + "\n").encode()
