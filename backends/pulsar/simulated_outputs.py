"""What the tools gave for a bundle's goldens when they simulated the NPU."""

from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcc.backends.pulsar.chips import Toolchain
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import fail, whole_file

FOLDER = "gt"
INNER = {Toolchain.PULSAR: "joint", Toolchain.PULSAR2: ""}
"""Where in a golden's folder the NPU's outputs are."""
LAST = {Toolchain.PULSAR: True, Toolchain.PULSAR2: False}
"""Whether maps have their channels last."""
MOST = 64
"""Goldens that are looked for."""
Values = NDArray[np.float32]


def paths(toolchain: Toolchain, golden: int, outputs: Iterable[str]) -> dict[str, str]:
    """Return where the outputs for a golden lie beside the log, by name."""
    inner = "/".join(filter(None, (FOLDER, str(golden), INNER[toolchain])))
    return {name: f"{inner}/{name}.bin" for name in outputs}


def read(
    toolchain: Toolchain, folder: Path, outputs: Mapping[str, tuple[int, ...]]
) -> dict[str, dict[str, Values]]:
    """Return the raw outputs, of their shapes, by golden and name; none where there is no folder.

    Raises:
        UserError: A file has not the size of its output (E0671).
    """
    found: dict[str, dict[str, Values]] = {}
    for number in range(1, MOST + 1):
        listed = paths(toolchain, number, outputs)
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
