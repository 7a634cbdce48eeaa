"""Reads the tools' results: cosines and parts from their logs, and simulated outputs.

Formats, in this order: `pulsar run` and boards (AXERA-TECH/pulsar-docs, quick start); the
precision table of `pulsar2 build`, whose columns differ between versions, and `onnx inspect`
(pulsar2-docs).
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
"""Largest size of a log in bytes."""
MAX_COMMAND_CHARS = 200
"""Characters of a command in a report."""
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
        UserError: The log cannot be read (E0671).
    """
    at = make_file_span(str(path))
    try:
        with regular_files.open_file(path) as file:
            content = file.read(MAX_LOG_BYTES + 1)
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise fail("E0671", "cannot read the log", at, label=text[:160]) from None
    if len(content) > MAX_LOG_BYTES:
        raise fail(
            "E0671",
            f"the log is larger than {MAX_LOG_BYTES >> 20} MiB",
            at,
            help="pass the log of one build",
        )
    return content.decode(errors="replace")


def parse_log(toolchain: Toolchain, text: str, outputs: Collection[str], name: str) -> ToolReport:
    """Return the report of a log; `outputs` are the network's, `name` is the log in errors.

    Raises:
        UserError: The log compares no layer, or lacks one of the outputs, and does not end at a
            command of `compile.sh` (E0671).
    """
    parse_layers = {Toolchain.PULSAR: _parse_layers, Toolchain.PULSAR2: _parse_table}[toolchain]
    parse_parts = {Toolchain.PULSAR: _parse_parts, Toolchain.PULSAR2: _parse_nodes}[toolchain]
    cosine_by_layer: dict[str, float] = {}
    for layer, cosine in parse_layers(text):
        # A log may have several runs and images; report the worst.
        cosine_by_layer[layer] = min(cosine, cosine_by_layer.get(layer, 1.0))
    last_command = _find_last_command(text)
    if not (cosine_by_layer or last_command):
        message = f"the log has no line of {toolchain.value} that compares layers"
        help = "pass the complete log.txt that build.sh wrote"
        raise fail("E0671", message, make_file_span(name), help=help)
    if (missing_outputs := sorted(set(outputs) - cosine_by_layer.keys())) and not last_command:
        message = f"the log has no comparison of the network's output `{missing_outputs[0]}`"
        help = "pass the log of this package, not of another one"
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
    """Return the last command of a `compile.sh` log that ends early, and "" for other logs."""
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
    """Yield the rows of the precision tables; the headings give the columns."""
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
        # NaN means that one of the two tensors is all zeros or has NaN.
        similarity = 0.0 if cosine.lstrip("+-").lower() == "nan" else parse_float(cosine)
    except ValueError:
        return
    # Outside this range it is another column; 0.01 is the margin for rounding.
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
"""The subfolder of a golden's folder with the NPU's outputs."""
CHANNELS_LAST = {Toolchain.PULSAR: True, Toolchain.PULSAR2: False}
"""Whether feature maps are stored channels last."""
MAX_GOLDENS = 64
"""Largest number of goldens to read."""
FloatArray = NDArray[np.float32]


def build_output_paths(toolchain: Toolchain, golden: int, outputs: Iterable[str]) -> dict[str, str]:
    """Return the paths of a golden's outputs, relative to the log's folder, by output name."""
    inner = "/".join(filter(None, (OUTPUT_FOLDER, str(golden), OUTPUT_SUBFOLDERS[toolchain])))
    return {name: f"{inner}/{name}.bin" for name in outputs}


def read_outputs(
    toolchain: Toolchain, folder: Path, outputs: Mapping[str, tuple[int, ...]]
) -> dict[str, dict[str, FloatArray]]:
    """Return the raw outputs in their shapes, by golden and name; empty without such files.

    Raises:
        UserError: A file does not have the size of its output (E0671).
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
    """Return one output; `channels_last` is the order of feature maps in the file."""
    with regular_files.open_file(path) as file:
        # Read one more byte than expected, which detects a longer file.
        content = file.read(4 * prod(shape) + 1)
    if len(content) != 4 * prod(shape):
        message = "the output file does not have the size of the network's output"
        label = f"{'x'.join(map(str, shape))} float32 values need {4 * prod(shape):,} bytes"
        raise fail("E0671", message, make_file_span(str(path)), label=label)
    elements = np.frombuffer(content, "<f4").astype(np.float32)
    if channels_last and len(shape) == 3:
        channels, height, width = shape
        return elements.reshape(height, width, channels).transpose(2, 0, 1)
    return elements.reshape(shape)
