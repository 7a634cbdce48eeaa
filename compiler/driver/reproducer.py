"""A layer that an artifact computes otherwise, by itself: a spec that both runtimes can run.

Its integers are those of the layer to the bit: weights, scales and clamp. A layer of several inputs
reads parts of one, which 1x1 convolutions by 1 bring to the scale of each.
"""

import io
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler import passes
from tcc.compiler.bundle.float_check import FloatDivergence
from tcc.compiler.bundle.manifest import WeightsOrigin
from tcc.compiler.bundle.program_check import Divergence
from tcc.compiler.data import dataset, weights
from tcc.compiler.driver import float_reproducer, layer_form
from tcc.compiler.driver.layer_form import UnspokenError
from tcc.compiler.driver.pipeline import network
from tcc.compiler.foreign.onnx_import import spec_rebuild
from tcc.compiler.foreign.onnx_import.options import ImportOptions
from tcc.compiler.ir.graph import Graph, Model, Node, Output, verify
from tcc.compiler.quant import calibration_document, calibration_file
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.methods.method import CalibrationResult
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import integer_program
from tcc.compiler.support import atomic_files
from tcc.compiler.support.diagnostics import UserError

Array = NDArray[Any]
ABOUT = "reproducer.json"
SPEC, WEIGHTS, CALIBRATION, INPUT = (
    "spec.yaml", "weights.safetensors", "calibration.json", "input.npz",
)  # fmt: skip
PRECISION = "int8-i8"
NO_FLOOR = "--min-cosine 0 --max-drop 1 --min-correlation 0 --max-error 1e9 --allow-few"


@dataclass(frozen=True, slots=True)
class Reproducer:
    """A folder that was written, and the command that runs it; none where no spec can say it."""

    folder: Path
    layer: str
    command: str


def write(
    found: Divergence | FloatDivergence, network: Model, target: str, out: Path
) -> Reproducer:
    """Write a reproducer of a layer into a folder of its own below `out`.

    Args:
        found: Where an artifact differs from what it is built from.
        network: The integer program, or the network in floats.
        target: What the artifact is built for.
        out: The folder around it.

    Raises:
        UserError: The path cannot be written, or holds something else.
    """
    graph, name = network.graph, found.layer.name
    # Cut, as a path may be longer than a file's name may be.
    folder = out / f"{graph.name}-{target}-{name.replace('/', '.').replace(':', '.')}"[:120]
    right = found.right[name]
    about = {
        **asdict(found.layer), "target": target, "golden": found.golden,
        "dtype": right.dtype.name, "shape": list(right.shape),
    }  # fmt: skip
    files = {
        "expected.bin": np.ascontiguousarray(right).tobytes(),
        "found.bin": np.ascontiguousarray(found.found).tobytes(),
        ABOUT: (json.dumps(about, indent=2) + "\n").encode(),
    }
    command = ""
    try:
        files |= _of_kind(found, network, target)
        command = _command(folder, found)
        here = _command(Path(), found)
        files["README.txt"] = f"{_ABOUT.format(layer=name, command=here)}\n".encode()
    except (UnspokenError, UserError):
        # Without a spec the levels themselves are left for others to look at.
        inputs = [value for value in _of(graph, name).inputs if value in found.right]
        arrays = {f"input_{i}": found.right[value] for i, value in enumerate(inputs)}
        files[INPUT] = _npz(**arrays)
    atomic_files.write_tree(folder, files, frozenset(), _replaceable)
    return Reproducer(folder, name, command)


_ABOUT = """The layer `{layer}` by itself. expected.bin is what its definition gives for input.npz,
found.bin what the artifact gave: numbers, row by row, as reproducer.json says. To run it on both
runtimes, in this folder, and compare each with the definition:

    {command}

Where both agree with it, it is the artifact that is damaged; where one does not, its runtime or
the code for it is wrong."""


def _command(folder: Path, found: Divergence | FloatDivergence) -> str:
    spec, file, scales, given, built = (
        shlex.quote(str(folder / name)) for name in (SPEC, WEIGHTS, CALIBRATION, INPUT, "built")
    )
    integers = f" --calibration {scales} --precision {PRECISION} --passes plain {NO_FLOOR}"
    more = integers if isinstance(found, Divergence) else ""
    return (
        f"tcc build {spec} --weights {file} --data {given} --agree 1{more}"
        f" --target onnxruntime,tflite -o {built}"
    )


def _replaceable(folder: Path) -> str | None:
    if not folder.is_dir():
        return "it is not a folder"
    held = {path.name for path in folder.iterdir()}
    return None if not held or ABOUT in held else "it is no reproducer"


def _of_kind(
    found: Divergence | FloatDivergence, network: Model, target: str
) -> Mapping[str, bytes]:
    if isinstance(found, Divergence):
        return _sources(found, network, target)
    spec, file, tensor = float_reproducer.sources(found, network, target)
    return {SPEC: spec.encode(), WEIGHTS: file, INPUT: _npz(tensors=tensor[None])}


def _sources(found: Divergence, program: Model, target: str) -> Mapping[str, bytes]:
    """Return spec, weights, calibration and input, which give the expected levels."""
    graph, name = program.graph, found.layer.name
    nodes, ends = layer_form.segment(graph, name, found.shown - {name})
    # Paths are no names that a spec may give.
    said = {value: f"input_{i}" for i, value in enumerate(ends)}
    said |= {node.name: f"step_{i}" for i, node in enumerate(nodes)}
    made = layer_form.SpokenLayer(said, {})
    tensor = layer_form.enter(made, graph, ends, found.right)
    for node in nodes:
        layer_form.place(made, program, node)
    output = Output("levels", said[name])
    lean = verify(Graph("layer", tuple(made.inputs), tuple(made.nodes), (output,)))
    label = Path(f"the layer {name.replace('/', '.')} for {target}")
    spoken = spec_rebuild.rebuild(Model(lean, made.weights), label, ImportOptions())
    paths = spoken.paths
    calibration = Calibration(
        {paths[value]: own for value, own in made.ranges.items()},
        {paths[node]: own for node, own in made.rounded.items()},
        real_ends=False,
    )
    ready = passes.run(Model(spoken.spec.graph, spoken.weights), passes.PLAIN)
    integers = quantize(ready, calibration)
    (given,) = integer_program.run(integers, [tensor], every=True)
    # What it is for is these very levels: a spec that gives others would accuse the wrong layer.
    if not np.array_equal(given[paths[said[name]]], found.right[name]):
        raise UnspokenError
    data = _npz(tensors=tensor[None])
    origin = WeightsOrigin("file", weights.digest(spoken.weights), None, None, None)
    about = calibration_file.Provenance(
        "reproducer", "any", passes.spell(passes.PLAIN), network(spoken.spec), origin
    )
    with_data = _data(data)
    result = CalibrationResult(calibration, {}, "reproducer")
    document = calibration_file.document(about, ready, result, with_data)
    return {
        SPEC: spoken.text.encode(),
        WEIGHTS: weights.encode(spoken.weights),
        CALIBRATION: calibration_document.encode(document),
        INPUT: data,
    }


def _data(data: bytes) -> dataset.DataSet:
    from tcc.compiler.support import atomic_files

    with atomic_files.scratch_folder() as folder:
        (folder / INPUT).write_bytes(data)
        return dataset.read(folder / INPUT)


def _npz(**arrays: Array) -> bytes:
    """Return arrays as an .npz file, whose bytes are the same each time."""
    file = io.BytesIO()
    # numpy opens the entries of an archive without the time.
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _of(graph: Graph, name: str) -> Node:
    return next(node for node in graph.nodes if node.name == name)
