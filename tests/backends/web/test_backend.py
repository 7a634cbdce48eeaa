"""The target `web`: its files, and what its code computes in Node."""

import json
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from web_node import run_node

from tcc.backends.web.backend import FP16, INT8, Web
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.precision import FP32
from tcc.compiler.ops import Relu
from tcc.compiler.passes import INFERENCE, run
from tcc.compiler.reference import float_program, integer_program
from tcc.compiler.support.diagnostics import UserError
from tcc.testing.int8_models import build_int8_model, sample_input
from tcc.testing.nets import build_dense, build_gated
from tcc.testing.op_cases import CASES, build_one_input_model, sample_inputs, sample_weights

BACKEND = Web()
(TARGET,) = BACKEND.targets
RUN_ALL = """
import { readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
const folder = process.argv[2];
const { Network } = await import(pathToFileURL(folder + '/network.js').href);
const runtime = new Uint8Array(readFileSync(folder + '/onnxruntime/ort-wasm-simd-threaded.wasm'));
const found = {};
for (const [name, input] of Object.entries(JSON.parse(readFileSync(folder + '/inputs.json')))) {
  try {
    const model = new Uint8Array(readFileSync(`${folder}/${input.file}.onnx`));
    const network = await Network.open({ runtime, model, input });
    const values = readFileSync(`${folder}/${input.file}.bin`);
    const given = new Float32Array(values.buffer.slice(values.byteOffset, values.byteOffset + values.length));
    const outputs = await network.run(given);
    found[name] = outputs.map(({ name: output, dims, data }) => ({ output, dims, data: Array.from(data) }));
  } catch (error) {
    found[name] = String(error);
  }
}
process.stdout.write(JSON.stringify(found), () => process.exit(0));
"""


def write_artifact(folder, artifact):
    for name, content in artifact.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def build_page(folder, precision=FP32):
    """Build the page of a small network. Return it, its input and the reference outputs."""
    graph = build_dense() if precision.integer else build_gated()
    if precision.integer:
        program = build_int8_model(graph, sample_weights(graph))
        x = sample_input(program.graph)
        (expected,) = integer_program.run(program, [x])
        return (
            write_artifact(folder, BACKEND.emit(TARGET, program, precision)),
            program,
            x,
            expected,
        )
    model = run(Model(graph, sample_weights(graph)), INFERENCE)
    x = sample_inputs(model, batch=1)[0][0]
    (expected,) = float_program.run(model, [x])
    return write_artifact(folder, BACKEND.emit(TARGET, model, precision)), model, x, expected


def test_target_properties():
    assert (TARGET.name, TARGET.calibrates, TARGET.runs) == ("web", True, True)
    assert [tool.name for tool in BACKEND.tools(TARGET)] == ["onnxruntime-web", "node"]


def test_artifact_contains_page_network_and_runtime(runtime):
    graph = build_gated()
    model = Model(graph, sample_weights(graph))
    first_files, second_files = BACKEND.emit(TARGET, model).files, BACKEND.emit(TARGET, model).files
    assert first_files == second_files
    assert {"index.html", "app.js", "model.onnx", "LICENSE-onnxruntime.txt"} < first_files.keys()
    assert {name for name in first_files if "/" in name} == {
        f"onnxruntime/{name}" for name in runtime
    }
    assert "levels.bin" not in first_files
    half = onnx.load_from_string(BACKEND.emit(TARGET, model, FP16).files["model.onnx"])
    assert onnx.TensorProto.FLOAT16 in {tensor.data_type for tensor in half.graph.initializer}


ALL = [
    p if p in (FP32, INT8) else pytest.param(p, marks=pytest.mark.slow) for p in TARGET.precisions
]


@pytest.mark.parametrize("precision", ALL, ids=lambda p: p.name)
def test_page_outputs_match_the_reference(tmp_path, runtime, precision):
    folder, model, x, expected = build_page(tmp_path, precision)
    first_outputs, second_outputs = BACKEND.infer(TARGET, folder, model.graph.inputs[0], [x, x])
    assert first_outputs.keys() == expected.keys()
    for name, reference in expected.items():
        assert (first_outputs[name].shape, first_outputs[name].dtype) == (
            reference.shape,
            np.float32,
        )
        assert first_outputs[name].tobytes() == second_outputs[name].tobytes()
        if precision.exact:
            assert first_outputs[name].tobytes() == reference.astype(np.float32).tobytes()
        else:
            bound = {FP32: 1e-5, FP16: 1e-2}[precision] * max(1.0, float(np.abs(reference).max()))
            np.testing.assert_allclose(first_outputs[name], reference, rtol=0, atol=bound)


@pytest.mark.slow
def test_quantized_values_match_onnx_runtime(tmp_path, runtime):
    from tcc.compiler.lower.onnx_inspection import INTEGERS, add_inner_outputs
    from tcc.compiler.reference.onnxruntime_session import create_session

    folder, model, x, _ = build_page(tmp_path, INT8)
    data, names = add_inner_outputs((folder / "model.onnx").read_bytes(), INTEGERS)
    appended = (folder / "model.onnx").read_bytes() + (folder / "levels.bin").read_bytes()
    assert onnx.load_from_string(appended) == onnx.load_from_string(data)
    source = model.graph.inputs[0]
    (inner_values,) = BACKEND.trace_quantized_values(TARGET, folder, source, [x])
    feed = {source.name: x[None].astype(source.type.dtype.value)}
    reference_values = create_session(data, deterministic=True, exact_products=True).run(
        list(names), feed
    )
    assert len(names) > 3
    assert {name: inner_values[name].tobytes() for name in names} == {
        name: array.tobytes() for name, array in zip(names, reference_values, strict=True)
    }


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(dict(list(CASES.items())[::5]), marks=pytest.mark.slow, id="some"),
        pytest.param(CASES, marks=pytest.mark.nightly, id="all"),
    ],
)
def test_every_op_case_is_computed(tmp_path, runtime, cases):
    """In one process: starting Node takes most of the time."""
    graph = build_gated()
    write_artifact(tmp_path, BACKEND.emit(TARGET, Model(graph, sample_weights(graph))))
    inputs, expected = {}, {}
    for number, (name, case) in enumerate(cases.items()):
        model = build_one_input_model(case)
        assert list(BACKEND.refusals(TARGET, model.graph)) == []
        (x,) = sample_inputs(model, batch=1)
        (source,) = model.graph.inputs
        (tmp_path / f"{number}.bin").write_bytes(x.tobytes())
        (tmp_path / f"{number}.onnx").write_bytes(BACKEND.emit(TARGET, model).files["model.onnx"])
        shape = {"name": source.name, "shape": source.type.shape, "dtype": "float32"}
        inputs[name] = {"file": str(number), **shape}
        (expected[name],) = float_program.run(model, [x[0]])
    (tmp_path / "inputs.json").write_text(json.dumps(inputs))
    computed = run_node(RUN_ALL, tmp_path, tmp_path)
    assert computed.keys() == cases.keys()
    for name, outputs in computed.items():
        assert isinstance(outputs, list), (name, outputs)
        for output in outputs:
            reference = expected[name][output["output"]]
            assert output["dims"][1:] == list(reference.shape), name
            bound = 2e-5 * max(1.0, float(np.abs(reference).max()))
            np.testing.assert_allclose(
                np.array(output["data"]), reference.reshape(-1), rtol=2e-5, atol=bound, err_msg=name
            )


def test_an_op_without_a_rule_is_refused():
    @dataclass(frozen=True, slots=True)
    class Odd(Relu):
        keyword = "odd"

    graph = build_gated()
    nodes = tuple(replace(n, op=Odd()) if n.op == Relu() else n for n in graph.nodes)
    refusals = list(BACKEND.refusals(TARGET, replace(graph, nodes=nodes)))
    assert [(r.node.name, r.reason) for r in refusals] == [
        ("shrink_relu", "ONNX Runtime has no rule for odd")
    ]


def test_a_folder_without_a_page_is_a_user_error(tmp_path, runtime):
    folder, model, x, _ = build_page(tmp_path)
    source = model.graph.inputs[0]
    model_bytes = (folder / "model.onnx").read_bytes()
    changes = [
        ("model.onnx", b"not a model"),
        ("model.onnx", model_bytes[:-40]),
        ("network.js", b"no("),
    ]
    changes.append(("network.js", b"process.stdout.write('[]');process.exit(0)"))
    for name, content in changes:
        original = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        with pytest.raises(UserError) as caught:
            BACKEND.infer(TARGET, folder, source, [x])
        (diagnostic,) = caught.value.diagnostics
        assert (diagnostic.code, diagnostic.message) == (
            "E0651",
            "the page's code failed in Node",
        )
        (folder / name).write_bytes(original)
