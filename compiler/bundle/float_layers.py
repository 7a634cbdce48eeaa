"""Whether the layers that a manifest lists as inexact are there, and are those in float.

They are looked for in the bundle's printed program, and in the artifact where its file has names:
an ONNX file those of its operators, a TFLite file those of the tensors that they give. What they
let an artifact be off follows from where they stand in it: see `tolerance.earned`.
"""

import re
from collections.abc import Container, Sequence
from pathlib import Path

from tcc.compiler.support import regular_files

PROGRAM = "graph/int8.txt"
"""The printed integer program of a bundle, by its path there."""
MAX_BYTES = 1 << 26
"""Most of it that is read: twenty thousand nodes take some 6 MB."""
_NODE = re.compile(r"^  %(\S+) = ", re.MULTILINE)
_END = re.compile(r"[:/]|_*\Z")
"""Where a layer's name may end; a tensor whose name was taken has underscores behind it."""
_OUTPUT = re.compile(r"^  output (\S+) = %(\S+)", re.MULTILINE)


def problem(folder: Path, inexact: Sequence[str], in_float: frozenset[str] | None) -> str | None:
    """Say which layer is listed and is not there, or is in float and is not listed.

    Args:
        folder: The bundle's.
        inexact: The layers as the manifest lists them.
        in_float: The artifact's operators that give floats; None where its file names none.
    """
    if not inexact:  # then nothing may be off at all
        return None
    try:
        with regular_files.opened(folder / PROGRAM) as file:
            text = file.read(MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError):
        return f"calibration/inexact: the layers are those of {PROGRAM}, which cannot be read"
    outputs = dict(_OUTPUT.findall(text))
    # An operator between conversions is called after its node, with this behind it.
    layers = {name.removesuffix(":float") for name in _NODE.findall(text)}
    for name in inexact:
        if name not in layers:
            return f"calibration/inexact: `{name[:40]}` is no layer of {PROGRAM}"
    if in_float is None:
        return None
    seen = set()
    for name in sorted(in_float):
        found = {_layer(name, layers), outputs.get(name)} & set(inexact)
        if not found:
            return f"calibration/inexact: `{name[:40]}` is in float, and is not there"
        # Both ways: a layer in float that is not listed, and one that is listed and is not in
        # float.
        seen |= found
    lacking = next((name for name in inexact if name not in seen), None)
    return lacking and f"calibration/inexact: `{lacking[:40]}` is there, and is not in float"


def _layer(operator: str, layers: Container[str]) -> str | None:
    """Return the layer that an operator is of: `fc:x/y` is one of `fc`, unless that is a layer."""
    ends = [found.start() for found in _END.finditer(operator)]
    stems = (operator[:end] for end in reversed(ends))
    return next((stem for stem in stems if stem in layers), None)
