"""ONNX files that were damaged; what is imported all the same computes what its file does."""

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from case import Case, Front, Outcome

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto, NodeProto

TOLERANCE = 2e-3
"""Largest difference of an output, relative to what the inputs change of it, or to rounding."""
ROUNDING = 1e-4
PASSING = ("Identity", "Dropout")
PASSING_ALONE = ("Clip", "Max", "Mean", "Min", "Sum")
"""Operators that give their input as it is, always or where it is the only one."""
OPTIONS: tuple[tuple[str, ...], ...] = (
    (), (), (), ("--flat",), ("--shape", "3,12,12"), ("--shape", "3,16,20"), ("--until", "r"),
    ("--labels", "a,b,c,d,e"), ("--color", "bgr", "--mean", "0.5", "--std", ".1,.2,.3"),
)  # fmt: skip


def _damaged(numbers: Random) -> Case:
    import foreign_changes
    import foreign_nets
    from onnx import ModelProto

    content = numbers.choice(foreign_nets.nets())
    if numbers.random() < 0.2:
        content = foreign_changes.flipped(content, numbers)
    else:
        model = ModelProto.FromString(content)
        for _ in range(numbers.choice((0, 1, 1, 1, 2, 3))):
            numbers.choice(foreign_changes.CHANGES)(model, numbers)
        content = model.SerializeToString(deterministic=True)
    files = {"net.onnx": content, foreign_nets.BESIDE: foreign_nets.beside()}
    words = ("import", "net.onnx", "--quiet", *numbers.choice(OPTIONS))
    seed = numbers.randrange(1 << 30)
    until = words[words.index("--until") + 1 :] if "--until" in words else ()
    return Case(words, files, check=lambda ended, folder: _wrong(ended, folder, seed, until))


def _wrong(ended: Outcome, folder: Path, seed: int, until: tuple[str, ...]) -> str:
    """Return what is wrong with what was imported, or with what was left where nothing was."""
    spec, values = folder / "net.yaml", folder / "weights.safetensors"
    if ended.code != 0:
        return "a refusal left a file" if spec.exists() or values.exists() else ""
    import numpy as np
    import onnx

    from tcc.compiler.data import weights
    from tcc.compiler.frontend.spec import load
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.reference import float_program
    from tcc.compiler.reference.output_activations import apply_activation

    graph = load(spec).graph
    model = Model(graph, weights.read_weights(values, graph))
    numbers = np.random.default_rng(seed)
    inputs = [
        (numbers.standard_normal(graph.inputs[0].type.shape) * size).astype(np.float32)
        for size in (1, 1, 0.1, 20)
    ]
    file = onnx.load(folder / "net.onnx")
    try:
        theirs = _run(file, inputs, until)
    except Exception as error:  # whatever ONNX Runtime says of a file that it does not take
        return f"ONNX Runtime does not run it: {error}"
    ours = float_program.run(model, inputs)
    for position, end in enumerate(graph.outputs):
        own = [apply_activation(end.activation, run[end.name]) for run in ours]
        if wrong := _apart(own, [run[position] for run in theirs]):
            return f"{end.name}: {wrong}"
        raw = [run[end.name].astype(np.float64) for run in ours]
        before = [run[len(graph.outputs) + position] for run in theirs]
        if end.activation != "none" and (wrong := _apart(raw, before)):
            return f"{end.name} before its {end.activation}: {wrong}"
    return ""


def _run(
    file: "ModelProto", inputs: "list[np.ndarray]", until: tuple[str, ...]
) -> "list[list[Any]]":
    """Return the file's outputs, then what enters the operators that make them, of each input."""
    import numpy as np
    import onnxruntime
    from onnx import helper

    makers = {name: node for node in file.graph.node for name in node.output}
    known = [*until] or [output.name for output in file.graph.output]
    before = [_making(makers, name).input[0] for name in known]
    if until:
        del file.graph.output[:]  # the file was cut there: what it says of others is not read
    there = {output.name for output in file.graph.output}
    for name in dict.fromkeys((*known, *before)):
        if name not in there:
            file.graph.output.append(helper.make_tensor_value_info(name, 1, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(file.SerializeToString(), options)
    (source,) = session.get_inputs()
    last = len(source.shape) == 4 and source.shape[3] == inputs[0].shape[0] != source.shape[1]
    found = []
    for tensor in inputs:
        given = np.moveaxis(tensor, 0, -1) if last else tensor
        found.append(session.run([*known, *before], {source.name: given[None]}))
    return found


def _making(makers: "Mapping[str, NodeProto]", name: str) -> "NodeProto":
    """Return what makes a value, but for what passes it on as it is."""
    node = makers[name]
    alone = not any([*node.input[1:], *node.attribute])
    if node.op_type in PASSING or (node.op_type in PASSING_ALONE and alone):
        return _making(makers, node.input[0]) if node.input[0] in makers else node
    return node


def _apart(own: "list[np.ndarray]", theirs: "list[np.ndarray]") -> str:
    """Return how far outputs are apart, if too far."""
    import numpy as np

    for mine, given in zip(own, theirs, strict=True):
        their = np.asarray(given, np.float64).reshape(-1)
        if their.size != mine.size:
            return f"it has {mine.size} values, {their.size} in the file"
        change = np.abs(their - np.asarray(theirs[0], np.float64).reshape(-1)).max()
        allowed = TOLERANCE * change + ROUNDING * np.abs(their).max()
        difference = np.abs(mine.reshape(-1) - their)
        if not (difference <= allowed).all() and not np.array_equal(
            mine.reshape(-1), their, equal_nan=True
        ):
            return f"off by {difference.max():.2g} of {np.abs(their).max():.2g}"
    return ""


def _warm() -> None:
    import foreign_nets
    import onnx_graphsurgeon  # noqa: F401

    import tcc.compiler.cli.import_network
    import tcc.compiler.importers.onnx_import.conversion
    import tcc.compiler.importers.onnx_import.output_check
    import tcc.compiler.importers.onnx_import.spec_rebuild  # noqa: F401

    foreign_nets.nets()


ONNX = Front("onnx", 2000, _damaged, _warm)
