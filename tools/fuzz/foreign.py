"""Fuzz damaged ONNX files: an imported network must compute the same as its file."""

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from case import Case, Front, Outcome

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto, NodeProto

TOLERANCE = 2e-3
"""The allowed output difference, relative to the outputs' variation over inputs."""
ROUNDING = 1e-4
"""Additional allowed difference, relative to the largest output."""
PASSING = ("Identity", "Dropout")
PASSING_ALONE = ("Clip", "Max", "Mean", "Min", "Sum")
"""Operators that return their input unchanged, always or if it is their only input."""
OPTIONS: tuple[tuple[str, ...], ...] = (
    (), (), (), ("--flat",), ("--shape", "3,12,12"), ("--shape", "3,16,20"), ("--until", "r"),
    ("--labels", "a,b,c,d,e"), ("--color", "bgr", "--mean", "0.5", "--std", ".1,.2,.3"),
)  # fmt: skip


def _make_case(numbers: Random) -> Case:
    import foreign_changes
    import foreign_nets
    from onnx import ModelProto

    content = numbers.choice(foreign_nets.make_models())
    if numbers.random() < 0.2:
        content = foreign_changes.replace_bytes(content, numbers)
    else:
        model = ModelProto.FromString(content)
        for _ in range(numbers.choice((0, 1, 1, 1, 2, 3))):
            numbers.choice(foreign_changes.CHANGES)(model, numbers)
        content = model.SerializeToString(deterministic=True)
    files = {"net.onnx": content, foreign_nets.EXTERNAL_FILE: foreign_nets.make_external_file()}
    arguments = ("import", "net.onnx", "--quiet", *numbers.choice(OPTIONS))
    seed = numbers.randrange(1 << 30)
    until = arguments[arguments.index("--until") + 1 :] if "--until" in arguments else ()
    return Case(
        arguments, files, check=lambda outcome, folder: _check_import(outcome, folder, seed, until)
    )


def _check_import(outcome: Outcome, folder: Path, seed: int, until: tuple[str, ...]) -> str:
    """Return what is wrong with an imported network, or with the files after a refusal."""
    spec, weights_path = folder / "net.yaml", folder / "weights.safetensors"
    if outcome.code != 0:
        return "a refused import left a file" if spec.exists() or weights_path.exists() else ""
    import numpy as np
    import onnx

    from tcc.compiler.data import weights
    from tcc.compiler.frontend.spec import load
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.reference import float_program
    from tcc.compiler.reference.output_activations import apply_activation

    graph = load(spec).graph
    model = Model(graph, weights.read_weights(weights_path, graph))
    numbers = np.random.default_rng(seed)
    inputs = [
        (numbers.standard_normal(graph.inputs[0].type.shape) * size).astype(np.float32)
        for size in (1, 1, 0.1, 20)
    ]
    file = onnx.load(folder / "net.onnx")
    try:
        onnx_outputs = _run(file, inputs, until)
    except Exception as error:  # ONNX Runtime may refuse the file with any error
        return f"ONNX Runtime cannot run the file: {error}"
    tcc_outputs = float_program.run(model, inputs)
    for position, graph_output in enumerate(graph.outputs):
        activated = [
            apply_activation(graph_output.activation, run[graph_output.name]) for run in tcc_outputs
        ]
        if wrong := _compare_outputs(activated, [run[position] for run in onnx_outputs]):
            return f"{graph_output.name}: {wrong}"
        raw = [run[graph_output.name].astype(np.float64) for run in tcc_outputs]
        onnx_logits = [run[len(graph.outputs) + position] for run in onnx_outputs]
        if graph_output.activation != "none" and (wrong := _compare_outputs(raw, onnx_logits)):
            return f"{graph_output.name} before its {graph_output.activation}: {wrong}"
    return ""


def _run(
    file: "ModelProto", inputs: "list[np.ndarray]", until: tuple[str, ...]
) -> "list[list[Any]]":
    """For each input, return the file's outputs, and the inputs of their operators."""
    import numpy as np
    import onnxruntime
    from onnx import helper

    makers = {name: node for node in file.graph.node for name in node.output}
    output_names = [*until] or [output.name for output in file.graph.output]
    input_names = [_find_maker(makers, name).input[0] for name in output_names]
    if until:
        del file.graph.output[:]  # the import stopped there, so the file's own outputs are not read
    graph_outputs = {output.name for output in file.graph.output}
    for name in dict.fromkeys((*output_names, *input_names)):
        if name not in graph_outputs:
            file.graph.output.append(helper.make_tensor_value_info(name, 1, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(file.SerializeToString(), options)
    (source,) = session.get_inputs()
    is_channels_last = (
        len(source.shape) == 4 and source.shape[3] == inputs[0].shape[0] != source.shape[1]
    )
    outputs = []
    for tensor in inputs:
        ordered_tensor = np.moveaxis(tensor, 0, -1) if is_channels_last else tensor
        outputs.append(
            session.run([*output_names, *input_names], {source.name: ordered_tensor[None]})
        )
    return outputs


def _find_maker(makers: "Mapping[str, NodeProto]", name: str) -> "NodeProto":
    """Return the operator that computes a value, ignoring operators that pass it on unchanged."""
    node = makers[name]
    has_one_input = not any([*node.input[1:], *node.attribute])
    if node.op_type in PASSING or (node.op_type in PASSING_ALONE and has_one_input):
        return _find_maker(makers, node.input[0]) if node.input[0] in makers else node
    return node


def _compare_outputs(tcc_outputs: "list[np.ndarray]", onnx_outputs: "list[np.ndarray]") -> str:
    """Return the difference of outputs if it exceeds the tolerance."""
    import numpy as np

    for tcc_output, onnx_output in zip(tcc_outputs, onnx_outputs, strict=True):
        expected = np.asarray(onnx_output, np.float64).reshape(-1)
        if expected.size != tcc_output.size:
            return f"tcc gives {tcc_output.size} values, the file {expected.size}"
        change = np.abs(expected - np.asarray(onnx_outputs[0], np.float64).reshape(-1)).max()
        allowed = TOLERANCE * change + ROUNDING * np.abs(expected).max()
        difference = np.abs(tcc_output.reshape(-1) - expected)
        if not (difference <= allowed).all() and not np.array_equal(
            tcc_output.reshape(-1), expected, equal_nan=True
        ):
            return f"off by {difference.max():.2g} (largest value {np.abs(expected).max():.2g})"
    return ""


def _prepare() -> None:
    import foreign_nets
    import onnx_graphsurgeon  # noqa: F401

    import tcc.compiler.cli.import_network
    import tcc.compiler.importers.onnx_import.conversion
    import tcc.compiler.importers.onnx_import.output_check
    import tcc.compiler.importers.onnx_import.spec_rebuild  # noqa: F401

    foreign_nets.make_models()


ONNX = Front("onnx", 2000, _make_case, _prepare)
