"""What the tools leave: what their logs say of layers, outputs and parts, and simulated outputs.

Forms, in order: `pulsar run` and boards (AXERA-TECH/pulsar-docs, quick start); `pulsar2 build`'s
table of precision, whose columns changed between versions, and `onnx inspect` (pulsar2-docs).
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcc.backends.pulsar.chips import Toolchain
from tcc.backends.pulsar.scripts import DONE_LINE, FIRST_COMMAND, PERMIT_COMMAND
from tcc.compiler.ir.target import LayerCosine, NetworkPart, ToolReport
from tcc.compiler.support import regular_files
from tcc.compiler.support.decimal_numbers import parse_float
from tcc.compiler.support.diagnostics import fail, make_file_span

MAX_LOG_BYTES = 1 << 26
"""Bytes of a log that are read."""
MAX_COMMAND_CHARS = 200
"""Characters of a command that are shown."""
_LAYER = re.compile(r"\s*(\S+)\s+2-norm RE:\s*[\d.]+%\s+cosine-sim:\s*([-\w.+]+)")
_VERSION = re.compile(r"^(\d+\.\d+\.\d+(?:\.\d+)?)\s*$|^tools version: (\S+)", re.MULTILINE)
_PART = re.compile(r"\bpart_(\d+)\.(neu|lava|onnx|axe)\b")
_TOOK = re.compile(r"\bRun (NEU|ONNX|AXE) took\b")
_NODE = re.compile(r'Node "([^"\n]+)": type "([^"\n]+)"')
_VERSION2 = re.compile(r"Pulsar2 Version:\s*(\S+)")
_COMMAND = re.compile(r"^\+ (.+?)\r?$", re.MULTILINE)
_DONE_LINE = re.compile(rf"^{re.escape(DONE_LINE)}\r?$", re.MULTILINE)
_RULE = re.compile(r"[│┃|]")
NPU_PARTS = {"neu": "NPU", "lava": "NPU"}
NPU_NODE = "neu mode"


def read_log(path: Path) -> str:
    """Return the text of a log.

    Raises:
        UserError: It cannot be read (E0671).
    """
    at = make_file_span(str(path))
    try:
        with regular_files.open_file(path) as file:
            content = file.read(MAX_LOG_BYTES + 1)
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise fail("E0671", "cannot read the log", at, label=text[:160]) from None
    if len(content) > MAX_LOG_BYTES:
        raise fail("E0671", f"the log is larger than {MAX_LOG_BYTES >> 20} MiB", at)
    return content.decode(errors="replace")


def parse_log(toolchain: Toolchain, text: str, outputs: Collection[str], name: str) -> ToolReport:
    """Return what a log says; `outputs` are the network's, `name` stands for the log in errors.

    Raises:
        UserError: It says nothing of any layer, or nothing of an output (E0671), though it is none
            that ends at a command of `compile.sh`.
    """
    parse_layers = {Toolchain.PULSAR: _parse_layers, Toolchain.PULSAR2: _parse_table}[toolchain]
    parse_parts = {Toolchain.PULSAR: _parse_parts, Toolchain.PULSAR2: _parse_nodes}[toolchain]
    cosine_by_layer: dict[str, float] = {}
    for layer, cosine in parse_layers(text):
        # A log may hold several runs and images; the worst is what must not be missed.
        cosine_by_layer[layer] = min(cosine, cosine_by_layer.get(layer, 1.0))
    last_command = _find_last_command(text)
    if not (cosine_by_layer or last_command):
        message = f"the log has no line of {toolchain.value} that compares layers"
        help = "give the whole log.txt that build.sh wrote"
        raise fail("E0671", message, make_file_span(name), help=help)
    if (missing_outputs := sorted(set(outputs) - cosine_by_layer.keys())) and not last_command:
        message = f"the log says nothing of the network's output `{missing_outputs[0]}`"
        help = "give the log of this very package"
        raise fail("E0671", message, make_file_span(name), help=help)
    cosines = [LayerCosine(*cosine_entry) for cosine_entry in cosine_by_layer.items()]
    version = {Toolchain.PULSAR: _VERSION, Toolchain.PULSAR2: _VERSION2}[toolchain].search(text)
    return ToolReport(
        toolchain.value,
        next(filter(None, version.groups()), "") if version else "",
        tuple(cosines),
        tuple(cosine_entry for cosine_entry in cosines if cosine_entry.name in outputs),
        tuple(dict.fromkeys(parse_parts(text))),
        last_command,
    )


def _find_last_command(text: str) -> str:
    """Return the last command of a log that ends before all were done; nothing of other logs."""
    commands = [line for line in _COMMAND.findall(text) if line != PERMIT_COMMAND]
    return (
        commands[-1][:MAX_COMMAND_CHARS]
        if FIRST_COMMAND in commands and not _DONE_LINE.search(text)
        else ""
    )


def _parse_layers(text: str) -> Iterator[tuple[str, float]]:
    for line in text.splitlines():
        if layer_match := _LAYER.match(line.partition("Layer:")[2]):
            yield from _parse_cosine(*layer_match.groups())


def _parse_table(text: str) -> Iterator[tuple[str, float]]:
    """Yield the rows of the tables of precision, whose heads say which column is which."""
    columns: tuple[int, int] | None = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in _RULE.split(line)]
        has_headings = {"Operator", "Output Tensor"} <= set(cells)
        if has_headings and any(cell.startswith("Cosin") for cell in cells):
            cosine = next(n for n, cell in enumerate(cells) if cell.startswith("Cosin"))
            columns = cells.index("Output Tensor"), cosine
        elif columns and len(cells) > max(columns):
            yield from _parse_cosine(cells[columns[0]], cells[columns[1]])


def _parse_cosine(layer: str, cosine: str) -> Iterator[tuple[str, float]]:
    try:
        # Without one, one of the two is nothing but zeros, or no number itself.
        similarity = 0.0 if cosine.lstrip("+-").lower() == "nan" else parse_float(cosine)
    except ValueError:
        return
    # Beyond that it is another column; a hundredth is left for rounding.
    if layer and -1.01 <= similarity <= 1.01:
        yield layer, similarity


def _parse_parts(text: str) -> Iterator[NetworkPart]:
    for number, kind in _PART.findall(text):
        yield NetworkPart(f"part_{number}.{kind}", "NPU" if kind in NPU_PARTS else "CPU")
    for kind in _TOOK.findall(text):
        yield NetworkPart(kind.lower(), "NPU" if kind == "NEU" else "CPU")


def _parse_nodes(text: str) -> Iterator[NetworkPart]:
    for node, kind in _NODE.findall(text):
        yield NetworkPart(node, "NPU" if kind == NPU_NODE else "CPU")


OUTPUT_FOLDER = "gt"
OUTPUT_SUBFOLDERS = {Toolchain.PULSAR: "joint", Toolchain.PULSAR2: ""}
"""Where in a golden's folder the NPU's outputs are."""
CHANNELS_LAST = {Toolchain.PULSAR: True, Toolchain.PULSAR2: False}
"""Whether maps have their channels last."""
MAX_GOLDENS = 64
"""Goldens that are looked for."""
FloatArray = NDArray[np.float32]


def build_output_paths(toolchain: Toolchain, golden: int, outputs: Iterable[str]) -> dict[str, str]:
    """Return where the outputs for a golden lie beside the log, by name."""
    inner = "/".join(filter(None, (OUTPUT_FOLDER, str(golden), OUTPUT_SUBFOLDERS[toolchain])))
    return {name: f"{inner}/{name}.bin" for name in outputs}


def read_outputs(
    toolchain: Toolchain, folder: Path, outputs: Mapping[str, tuple[int, ...]]
) -> dict[str, dict[str, FloatArray]]:
    """Return the raw outputs, of their shapes, by golden and name; none where there is no folder.

    Raises:
        UserError: A file has not the size of its output (E0671).
    """
    outputs_by_golden: dict[str, dict[str, FloatArray]] = {}
    for number in range(1, MAX_GOLDENS + 1):
        relative_paths = build_output_paths(toolchain, number, outputs)
        files = {name: folder / path for name, path in relative_paths.items()}
        if all(path.is_file() for path in files.values()):
            outputs_by_golden[str(number)] = {
                name: _read_output(path, outputs[name], channels_last=CHANNELS_LAST[toolchain])
                for name, path in files.items()
            }
    return outputs_by_golden


def _read_output(path: Path, shape: tuple[int, ...], *, channels_last: bool) -> FloatArray:
    """Return an output of a shape; maps in the file may have their channels `channels_last`."""
    with regular_files.open_file(path) as file:
        # One byte more than is right, so that a longer file is seen and not read.
        content = file.read(4 * prod(shape) + 1)
    if len(content) != 4 * prod(shape):
        message = "this is not what the network gives"
        label = f"{'x'.join(map(str, shape))} float32 take {4 * prod(shape):,} bytes"
        raise fail("E0671", message, make_file_span(str(path)), label=label)
    elements = np.frombuffer(content, "<f4").astype(np.float32)
    if channels_last and len(shape) == 3:
        channels, height, width = shape
        return elements.reshape(height, width, channels).transpose(2, 0, 1)
    return elements.reshape(shape)
