"""The precisions of the target `onnxruntime`: their files and outputs."""

import json
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tcc.backends.onnxruntime.backend import MODEL_FILE, OnnxRuntime
from tcc.compiler.bundle import goldens
from tcc.compiler.data import images
from tcc.compiler.frontend.spec import load
from tcc.compiler.importers.checkpoint import import_checkpoint
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.preprocess import PixelResize, Preprocess, apply
from tcc.compiler.ir.target import Artifact
from tcc.compiler.ops import Conv, Flatten, Linear, Relu
from tcc.compiler.passes import INT8, run
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import float_program, integer_program
from tcc.testing.int8_models import (
    build_int8_model,
    calibrate_on_input,
    lower_for_int8,
    sample_input,
)
from tcc.testing.nets import NetBuilder, build_dense, build_gated
from tcc.testing.op_cases import sample_weights

BACKEND = OnnxRuntime()
(TARGET,) = BACKEND.targets
INTEGER = ("int8", "int8-i8", "int8-u8u8", "int8-qdq")
NAMES = tuple(precision.name for precision in TARGET.precisions)
SMALL = ("fp16", "dynamic")
nets = pytest.mark.parametrize("graph", [build_dense(), build_gated()], ids=lambda g: g.name)


def write_artifact(folder: Path, artifact: Artifact) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in artifact.files.items():
        (folder / name).write_bytes(content)
    return folder


def prepare_model(graph: Graph, precision: str) -> Model:
    """Return the model that the pipeline gives the backend at a precision."""
    if precision in INTEGER:
        return build_int8_model(graph, sample_weights(graph))
    return run(
        Model(graph, sample_weights(graph)), BACKEND.passes(TARGET.find_precision(precision))
    )


def test_precision_names() -> None:
    assert ("fp32", *SMALL, *INTEGER) == NAMES


@nets
@pytest.mark.parametrize("precision", NAMES)
def test_each_precision_gives_its_golden_outputs(
    tmp_path: Path, graph: Graph, precision: str
) -> None:
    model = prepare_model(graph, precision)
    assert list(BACKEND.refusals(TARGET, model.graph)) == []
    folder = write_artifact(tmp_path, BACKEND.emit(TARGET, model, TARGET.find_precision(precision)))
    original_model = Model(graph, sample_weights(graph))
    kind = TARGET.find_precision(precision)
    golden_set, _ = (
        goldens.build_exact_goldens(model, kind)
        if kind.integer
        else goldens.build_goldens(original_model, kind)
    )
    source = model.graph.inputs[0]
    xs = [sample_input(model.graph, seed) for seed in range(4)]
    expected = (
        integer_program.run(model, xs) if kind.integer else float_program.run(original_model, xs)
    )
    for actual, reference in zip(BACKEND.infer(TARGET, folder, source, xs), expected, strict=True):
        assert actual.keys() == reference.keys()
        for name, y in reference.items():
            scale = max(1.0, float(np.abs(y).max()))
            assert np.abs(actual[name] - y).max() <= golden_set.tolerance.relative * scale


@nets
def test_int8_artifacts_are_bit_exact(graph: Graph) -> None:
    for precision in ("int8", "int8-u8u8"):
        program, kind = prepare_model(graph, precision), TARGET.find_precision(precision)
        assert goldens.build_exact_goldens(program, kind)[0].tolerance.relative == 0


@nets
@pytest.mark.parametrize("precision", NAMES)
def test_builds_are_reproducible_and_valid(graph: Graph, precision: str) -> None:
    first_artifact, second_artifact = (
        BACKEND.emit(TARGET, prepare_model(graph, precision), TARGET.find_precision(precision))
        for _ in range(2)
    )
    assert first_artifact.files == second_artifact.files
    onnx.checker.check_model(
        onnx.load_from_string(first_artifact.files[MODEL_FILE]), full_check=True
    )


def test_file_sizes_match_the_weight_sizes() -> None:
    add = NetBuilder(32, 4, 4)
    add("conv", Conv(512, (3, 3)))
    graph = add.build()
    size = {
        p: len(
            BACKEND.emit(TARGET, prepare_model(graph, p), TARGET.find_precision(p)).files[
                MODEL_FILE
            ]
        )
        for p in NAMES
    }
    assert size["fp16"] < 0.52 * size["fp32"]
    for precision in ("dynamic", *INTEGER):
        assert size[precision] < 0.28 * size["fp32"]


@pytest.mark.parametrize("precision", INTEGER)
def test_raw_inputs_take_grey_levels(tmp_path: Path, precision: str) -> None:
    contract = Preprocess(resize=PixelResize((16, 16)), mean=(0.5,), std=(0.25,))
    graph = build_dense()
    graph = replace(graph, inputs=(replace(graph.inputs[0], preprocess=contract),))
    program = build_int8_model(graph, sample_weights(graph))
    source = program.graph.inputs[0]
    assert source.preprocess is not None
    assert source.preprocess.raw
    folder = write_artifact(
        tmp_path, BACKEND.emit(TARGET, program, TARGET.find_precision(precision))
    )
    lowered = onnx.load(folder / MODEL_FILE)
    assert lowered.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    (actual,) = Device(BACKEND, TARGET).run(folder, source, [image])
    x = apply(source.preprocess, image, (3, 16, 16))
    (expected,) = integer_program.run(program, [x])
    bound = 0.1 if precision == "int8-qdq" else 0.0
    assert np.abs(actual["logits"] - expected["logits"]).max() <= bound


def test_files_document_processor_requirements() -> None:
    for precision in NAMES:
        data = BACKEND.emit(
            TARGET, prepare_model(build_gated(), precision), TARGET.find_precision(precision)
        ).files[MODEL_FILE]
        needs = precision in {"int8", "int8-i8", "int8-qdq"}
        assert ("session.x64quantprecision" in onnx.load_from_string(data).doc_string) is needs


SATURATING = """
import sys
from pathlib import Path
import numpy, onnxruntime
from tcc.backends.onnxruntime.backend import MODEL_FILE as FILE
from tcc.backends.onnxruntime.backend import OnnxRuntime
from tcc.compiler.support import cpu as processor
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.types import TensorType
backend, home = OnnxRuntime(), Path(sys.argv[1])
processor.CPUINFO = home / "cpuinfo"  # the emulator shows that of the machine below it
x = numpy.load(home / "x.npy")
source = Input("image", TensorType(x.shape[1:]))
for precision in ("int8", "int8-u8u8", "int8-qdq", "dynamic"):
    found = backend.infer(backend.targets[0], home / precision, source, list(x))
    numpy.save(home / f"{precision}.npy", [y["logits"] for y in found])
session = onnxruntime.InferenceSession(home / "int8" / FILE)
numpy.save(home / "trap.npy", session.run(["logits"], {"image": x})[0])
"""


def make_positive_model() -> Model:
    """Return a network with large products of 8-bit integers."""
    add = NetBuilder(16, 6, 6)
    add("first", Conv(16, (3, 3)))
    add("relu", Relu())
    add("second", Conv(8, (3, 3)))
    add("flat", Flatten())
    add("fc", Linear(5))
    graph = add.build()
    return Model(graph, {name: np.abs(tensor) for name, tensor in sample_weights(graph).items()})


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="it is about x86-64 processors")
@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="needs qemu-x86_64")
def test_saturating_processors_give_the_same_outputs(tmp_path: Path) -> None:
    model = make_positive_model()
    xs = np.stack([np.abs(sample_input(model.graph, seed)) for seed in range(2)])
    np.save(tmp_path / "x.npy", xs)
    (tmp_path / "cpuinfo").write_text("flags : fpu sse2 avx avx2 fma")
    lowered_model = lower_for_int8(model.graph, model.weights)
    program = quantize(lowered_model, calibrate_on_input(lowered_model, xs[0]))
    for precision in INTEGER:
        write_artifact(
            tmp_path / precision, BACKEND.emit(TARGET, program, TARGET.find_precision(precision))
        )
    write_artifact(
        tmp_path / "dynamic", BACKEND.emit(TARGET, model, TARGET.find_precision("dynamic"))
    )
    command = ["qemu-x86_64", "-cpu", "Haswell", sys.executable, "-c", SATURATING, str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=900)
    expected = np.stack([y["logits"] for y in integer_program.run(program, list(xs))])
    np.testing.assert_array_equal(np.load(tmp_path / "int8.npy"), expected)
    np.testing.assert_array_equal(np.load(tmp_path / "int8-u8u8.npy"), expected)
    np.testing.assert_allclose(np.load(tmp_path / "int8-qdq.npy"), expected, rtol=0.02)
    real = np.stack([y["logits"] for y in float_program.run(model, list(xs))])
    np.testing.assert_allclose(np.load(tmp_path / "dynamic.npy"), real, rtol=0.02)
    assert (np.load(tmp_path / "trap.npy") != expected).any()  # without the session option


TOLERANCES = {"fp16": (0.999999, 3e-3), "dynamic": (0.9997, 5e-2), "int8": (0.998, 0.15)}
"""Minimum cosine and maximum difference relative to the largest logit: twice the measured ones."""


@pytest.mark.parametrize(
    ("name", "picture_", "classes"), [("GC", "GC.png", 6), ("Sipak", "Sipak.bmp", 5)]
)
def test_ddsnet_checkpoints_are_close_in_every_precision(
    shared: Path, root: Path, tmp_path: Path, name: str, picture_: str, classes: int
) -> None:
    checkpoint_folder = shared / "data" / "ddsnet_checkpoints"
    facts = json.loads((shared / "facts" / "ddsnet_reference.json").read_text())[name]
    graph = load(root / "spec" / "ddsnet.yaml", {"classes": str(classes)}).graph
    model = Model(graph, import_checkpoint(checkpoint_folder / facts["checkpoint"], graph).weights)
    image = images.read_image(checkpoint_folder / picture_)
    views = [np.ascontiguousarray(np.rot90(image, quarter_turns)) for quarter_turns in range(2)]
    xs = [apply(graph.inputs[0].preprocess, view, (3, 224, 224)) for view in views]
    expected = [y["logits"] for y in float_program.run(model, xs)]
    lowered_model = run(model, INT8)
    contract = lowered_model.graph.inputs[0].preprocess
    program = quantize(
        lowered_model, calibrate_on_input(lowered_model, apply(contract, views[0], (3, 224, 224)))
    )
    for precision, (min_cosine, max_difference) in TOLERANCES.items():
        prepared_model = (
            program
            if precision == "int8"
            else run(model, BACKEND.passes(TARGET.find_precision(precision)))
        )
        folder = write_artifact(
            tmp_path / precision,
            BACKEND.emit(TARGET, prepared_model, TARGET.find_precision(precision)),
        )
        view_outputs = Device(BACKEND, TARGET).run(folder, prepared_model.graph.inputs[0], views)
        for actual, y in zip(
            (outputs["logits"] for outputs in view_outputs), expected, strict=True
        ):
            assert actual @ y / np.linalg.norm(actual) / np.linalg.norm(y) > min_cosine
            assert np.abs(actual - y).max() < max_difference * np.abs(y).max()
            assert actual.argmax() == y.argmax()
    reference_outputs = integer_program.run(
        program, [apply(contract, view, (3, 224, 224)) for view in views]
    )
    for actual, y in zip(view_outputs, reference_outputs, strict=True):
        np.testing.assert_array_equal(actual["logits"], y["logits"])
