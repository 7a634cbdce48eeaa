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
from tcc.backends.pulsar.scripts import DONE, FIRST, PERMIT
from tcc.compiler.ir.target import LayerCosine, NetworkPart, ToolReport
from tcc.compiler.support import regular_files
from tcc.compiler.support.decimal_numbers import parse_float
from tcc.compiler.support.diagnostics import fail, whole_file

LARGEST = 1 << 26
"""Bytes of a log that are read."""
SHOWN = 200
"""Characters of a command that are shown."""
_LAYER = re.compile(r"\s*(\S+)\s+2-norm RE:\s*[\d.]+%\s+cosine-sim:\s*([-\w.+]+)")
_VERSION = re.compile(r"^(\d+\.\d+\.\d+(?:\.\d+)?)\s*$|^tools version: (\S+)", re.MULTILINE)
_PART = re.compile(r"\bpart_(\d+)\.(neu|lava|onnx|axe)\b")
_TOOK = re.compile(r"\bRun (NEU|ONNX|AXE) took\b")
_NODE = re.compile(r'Node "([^"\n]+)": type "([^"\n]+)"')
_VERSION2 = re.compile(r"Pulsar2 Version:\s*(\S+)")
_COMMAND = re.compile(r"^\+ (.+?)\r?$", re.MULTILINE)
_DONE = re.compile(rf"^{re.escape(DONE)}\r?$", re.MULTILINE)
_RULE = re.compile(r"[│┃|]")
NPU_PARTS = {"neu": "NPU", "lava": "NPU"}
NPU_NODE = "neu mode"


def read(path: Path) -> str:
    """Return the text of a log.

    Raises:
        UserError: It cannot be read (E0671).
    """
    where = whole_file(str(path))
    try:
        with regular_files.opened(path) as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise fail("E0671", "cannot read the log", where, label=text[:160]) from None
    if len(data) > LARGEST:
        raise fail("E0671", f"the log is larger than {LARGEST >> 20} MiB", where)
    return data.decode(errors="replace")


def report(toolchain: Toolchain, text: str, outputs: Collection[str], name: str) -> ToolReport:
    """Return what a log says; `outputs` are the network's, `name` stands for the log in errors.

    Raises:
        UserError: It says nothing of any layer, or nothing of an output (E0671), though it is none
            that ends at a command of `compile.sh`.
    """
    lines = {Toolchain.PULSAR: _layers, Toolchain.PULSAR2: _table}[toolchain]
    parts = {Toolchain.PULSAR: _parts, Toolchain.PULSAR2: _nodes}[toolchain]
    least: dict[str, float] = {}
    for layer, cosine in lines(text):
        # A log may hold several runs and images; the worst is what must not be missed.
        least[layer] = min(cosine, least.get(layer, 1.0))
    stopped = _stopped(text)
    if not (least or stopped):
        message = f"the log has no line of {toolchain.value} that compares layers"
        help = "give the whole log.txt that build.sh wrote"
        raise fail("E0671", message, whole_file(name), help=help)
    if (lacking := sorted(set(outputs) - least.keys())) and not stopped:
        message = f"the log says nothing of the network's output `{lacking[0]}`"
        help = "give the log of this very package"
        raise fail("E0671", message, whole_file(name), help=help)
    found = [LayerCosine(*each) for each in least.items()]
    version = {Toolchain.PULSAR: _VERSION, Toolchain.PULSAR2: _VERSION2}[toolchain].search(text)
    return ToolReport(
        toolchain.value,
        next(filter(None, version.groups()), "") if version else "",
        tuple(found),
        tuple(each for each in found if each.name in outputs),
        tuple(dict.fromkeys(parts(text))),
        stopped,
    )


def _stopped(text: str) -> str:
    """Return the last command of a log that ends before all were done; nothing of other logs."""
    commands = [line for line in _COMMAND.findall(text) if line != PERMIT]
    return commands[-1][:SHOWN] if FIRST in commands and not _DONE.search(text) else ""


def _layers(text: str) -> Iterator[tuple[str, float]]:
    for line in text.splitlines():
        if found := _LAYER.match(line.partition("Layer:")[2]):
            yield from _known(*found.groups())


def _table(text: str) -> Iterator[tuple[str, float]]:
    """Yield the rows of the tables of precision, whose heads say which column is which."""
    columns: tuple[int, int] | None = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in _RULE.split(line)]
        named = {"Operator", "Output Tensor"} <= set(cells)
        if named and any(cell.startswith("Cosin") for cell in cells):
            cosine = next(n for n, cell in enumerate(cells) if cell.startswith("Cosin"))
            columns = cells.index("Output Tensor"), cosine
        elif columns and len(cells) > max(columns):
            yield from _known(cells[columns[0]], cells[columns[1]])


def _known(layer: str, cosine: str) -> Iterator[tuple[str, float]]:
    try:
        # Without one, one of the two is nothing but zeros, or no number itself.
        value = 0.0 if cosine.lstrip("+-").lower() == "nan" else parse_float(cosine)
    except ValueError:
        return
    # Beyond that it is another column; a hundredth is left for rounding.
    if layer and -1.01 <= value <= 1.01:
        yield layer, value


def _parts(text: str) -> Iterator[NetworkPart]:
    for number, kind in _PART.findall(text):
        yield NetworkPart(f"part_{number}.{kind}", "NPU" if kind in NPU_PARTS else "CPU")
    for kind in _TOOK.findall(text):
        yield NetworkPart(kind.lower(), "NPU" if kind == "NEU" else "CPU")


def _nodes(text: str) -> Iterator[NetworkPart]:
    for node, kind in _NODE.findall(text):
        yield NetworkPart(node, "NPU" if kind == NPU_NODE else "CPU")


FOLDER = "gt"
INNER = {Toolchain.PULSAR: "joint", Toolchain.PULSAR2: ""}
"""Where in a golden's folder the NPU's outputs are."""
LAST = {Toolchain.PULSAR: True, Toolchain.PULSAR2: False}
"""Whether maps have their channels last."""
MOST_GOLDENS = 64
"""Goldens that are looked for."""
Values = NDArray[np.float32]


def output_paths(toolchain: Toolchain, golden: int, outputs: Iterable[str]) -> dict[str, str]:
    """Return where the outputs for a golden lie beside the log, by name."""
    inner = "/".join(filter(None, (FOLDER, str(golden), INNER[toolchain])))
    return {name: f"{inner}/{name}.bin" for name in outputs}


def read_outputs(
    toolchain: Toolchain, folder: Path, outputs: Mapping[str, tuple[int, ...]]
) -> dict[str, dict[str, Values]]:
    """Return the raw outputs, of their shapes, by golden and name; none where there is no folder.

    Raises:
        UserError: A file has not the size of its output (E0671).
    """
    found: dict[str, dict[str, Values]] = {}
    for number in range(1, MOST_GOLDENS + 1):
        listed = output_paths(toolchain, number, outputs)
        files = {name: folder / path for name, path in listed.items()}
        if all(path.is_file() for path in files.values()):
            found[str(number)] = {
                name: _values(path, outputs[name], last=LAST[toolchain])
                for name, path in files.items()
            }
    return found


def _values(path: Path, shape: tuple[int, ...], *, last: bool) -> Values:
    """Return an output of a shape; maps in the file may have their channels `last`."""
    with regular_files.opened(path) as file:
        # One byte more than is right, so that a longer file is seen and not read.
        data = file.read(4 * prod(shape) + 1)
    if len(data) != 4 * prod(shape):
        message = "this is not what the network gives"
        label = f"{'x'.join(map(str, shape))} float32 take {4 * prod(shape):,} bytes"
        raise fail("E0671", message, whole_file(str(path)), label=label)
    values = np.frombuffer(data, "<f4").astype(np.float32)
    if last and len(shape) == 3:
        channels, height, width = shape
        return values.reshape(height, width, channels).transpose(2, 0, 1)
    return values.reshape(shape)
