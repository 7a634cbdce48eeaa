"""One changed weight or scale in a consistent bundle: `tcc verify` names it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import forged_bundles
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tcc.compiler.bundle import manifest, replay
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.support.diagnostics import make_file_span

ONNX = ("fp32", "fp16", "dynamic", "int8", "int8-i8", "int8-u8u8", "int8-qdq")
TFLITE = ("fp32", "fp16", "dynamic", "int8", "int8-i8", "int8-u8")
DIFFERENCE_MESSAGE = "differs from the network: layer"


@pytest.fixture
def build(tcc, home, images, state):
    """Build the example for a target at a precision, and skip what this machine cannot build."""

    def run(target: str, precision: str, *args: str) -> Path:
        build_args: tuple[object, ...] = ("--target", target, "--precision", precision, *args)
        if precision.startswith("int8"):
            build_args = (*build_args, "--data", images, "--floor", "min_cosine=0.1")
        outcome = tcc("build", "tiny.yaml", *build_args, "-q")
        if outcome.code == 3:
            pytest.skip(outcome.err.splitlines()[0])
        assert outcome.code == 0, outcome.err
        return home / f"build/tiny-{target}-{precision}"

    return run


def write_goldens(folder: Path, target: str) -> None:
    """Replace the goldens by the outputs of the changed artifact, and reseal the bundle."""
    from tcc.compiler.targets import devices

    forged_bundles.forge_bundle(folder, target)
    bundle_manifest = manifest.decode((folder / manifest.NAME).read_bytes(), "manifest")
    bundle, device = Bundle(folder, bundle_manifest), devices.find(target, make_file_span(target))
    tensors = [replay.read_input_tensor(bundle, case) for case in bundle_manifest.goldens.cases]
    for case, outputs in zip(
        bundle_manifest.goldens.cases,
        device.infer(bundle.model, bundle.input, tensors),
        strict=True,
    ):
        for name, path in case.outputs.items():
            (folder / path).write_bytes(outputs[name].astype("<f4").tobytes())
    forged_bundles.forge_bundle(folder, target)


def change_onnx(path: Path, is_wanted: Callable[[str, np.ndarray], bool]) -> str:
    """Change the last bit of one number of a tensor, and return the tensor's name."""
    model = onnx.load_model_from_string(path.read_bytes())
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if is_wanted(tensor.name, values):
            raw = values.reshape(-1).view(np.uint8)
            raw[0] ^= 1
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            path.write_bytes(model.SerializeToString(deterministic=True))
            return tensor.name
    raise AssertionError("no such tensor")


def change_tflite(path: Path, *, scale: bool) -> None:
    """Change a byte of the largest constant, or one of its scales."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    tensors = [t for t in model.subgraphs[0].tensors if model.buffers[t.buffer].data is not None]
    if scale:
        tensors = [t for t in tensors if t.quantization and t.quantization.scale is not None]
    tensor = max(tensors, key=lambda t: len(model.buffers[t.buffer].data))
    if scale:
        scales = np.array(tensor.quantization.scale, np.float32)
        scales[-1] *= np.float32(1.01)
        tensor.quantization.scale = scales
    else:
        data = np.array(model.buffers[tensor.buffer].data, np.uint8)
        data[-1] ^= 1
        model.buffers[tensor.buffer].data = data
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def verify_changed(tcc, folder: Path, *args: str) -> str:
    """Verify against the network, expect exit code 4, and return the error text."""
    plain_outcome = tcc("verify", folder, "--trust")
    assert plain_outcome.code == 0, plain_outcome.err  # its goldens are its own outputs
    assert "weights and scales not compared: to compare them, give --spec SPEC" in plain_outcome.out
    outcome = tcc("verify", folder, "--trust", *(args or ("--spec", "tiny.yaml")))
    assert outcome.code == 4, outcome.out
    assert DIFFERENCE_MESSAGE in outcome.err
    return outcome.err


@pytest.mark.parametrize("precision", ONNX)
def test_changed_onnx_weight_is_named(tcc, build, precision):
    folder = build("onnxruntime", precision)
    good = tcc("verify", folder, "--spec", "tiny.yaml", "--json")
    assert good.code == 0, good.err
    (file,) = good.document["bundles"][0]["constants"]
    assert (file["holds"], file["differences"]) == (True, [])
    name = change_onnx(folder / "model/model.onnx", lambda n, v: v.size > 30 and v.ndim > 1)
    write_goldens(folder, "onnxruntime")
    error = verify_changed(tcc, folder)
    assert f"tensor `{name}`[0, 0" in error
    assert "layer `" in error


@pytest.mark.parametrize("precision", ["int8", "int8-i8", "int8-qdq", "dynamic"])
def test_changed_onnx_channel_scale_is_named(tcc, build, precision):
    folder = build("onnxruntime", precision)
    is_channel_scale = lambda n, v: v.dtype == np.float32 and v.ndim == 1 and v.size > 3  # noqa: E731
    name = change_onnx(folder / "model/model.onnx", is_channel_scale)
    write_goldens(folder, "onnxruntime")
    assert f"tensor `{name}`[0" in verify_changed(tcc, folder)


@pytest.mark.parametrize("precision", TFLITE)
def test_changed_tflite_weight_is_named(tcc, build, precision):
    pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    folder = build("tflite", precision)
    assert tcc("verify", folder, "--spec", "tiny.yaml").code == 0
    change_tflite(folder / "model/model.tflite", scale=False)
    write_goldens(folder, "tflite")
    error = verify_changed(tcc, folder)
    # The layer has the name of the rectifier at its end, in the file as in the program.
    assert "layer `relu`, tensor `" in error
    assert "`[3, 2, 2, 2] is" in error


@pytest.mark.parametrize("precision", ["dynamic", "int8", "int8-i8"])
def test_changed_tflite_channel_scale_is_named(tcc, build, precision):
    pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    folder = build("tflite", precision)
    change_tflite(folder / "model/model.tflite", scale=True)
    write_goldens(folder, "tflite")
    assert "scale`[3] is" in verify_changed(tcc, folder)


@pytest.mark.parametrize("target", ["onnxruntime", "tflite"])
def test_program_in_the_bundle_replaces_the_spec(tcc, build, target):
    folder = build(target, "int8", "--probes")
    outcome = tcc("verify", folder)
    assert outcome.code == 0, outcome.err
    assert "all equal the network's" in outcome.out


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        pytest.param("host", "fp32", marks=pytest.mark.slow),
        ("host", "int8"),
        pytest.param("arm-a7", "fp32", marks=pytest.mark.slow),
        pytest.param("arm-a7", "int8", marks=pytest.mark.slow),
        pytest.param("arm-a53", "int8", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("files", [("tiny-run",), ("libtiny.a", "libtiny.so", "tiny-run")])
def test_changed_weight_and_scale_in_the_libraries_are_named(tcc, build, target, precision, files):
    """The libraries have the bytes as kernels read them, without a table of names."""
    from tcc.compiler.frontend.spec import load

    folder = build(target, precision)
    constants = tcc("verify", folder, "--spec", "tiny.yaml", "--json").document["bundles"][0]
    assert [constant["file"] for constant in constants["constants"]] == [
        "libtiny.a", "libtiny.so", "tiny-run",
    ]  # fmt: skip
    assert all(constant["holds"] for constant in constants["constants"])
    for layer, number in (("conv", 0), ("linear", -1)):
        changed = shutil.copytree(folder, folder.with_name(f"changed-{layer}"))
        tensor = read_largest_constant(folder, target, layer)
        for file in files:
            path = changed / "model" / file
            data = path.read_bytes()
            assert data.count(tensor) == 1, file
            raw = bytearray(tensor)
            raw[number] ^= 1
            path.write_bytes(data.replace(tensor, bytes(raw)))
        forged_bundles.forge_bundle(changed, target)
        outcome = tcc("verify", changed, "--trust", "--spec", "tiny.yaml", "--json")
        assert outcome.code == 4
        constant_by_file = {
            constant["file"]: constant for constant in outcome.document["bundles"][0]["constants"]
        }
        for file in files:
            (difference,) = constant_by_file[file]["differences"]
            assert difference["layer"] in load(Path("tiny.yaml")).graph.types
            assert difference["differing"] == 1
        assert all(
            constant["holds"] for name, constant in constant_by_file.items() if name not in files
        )


def read_largest_constant(folder: Path, target: str, layer: str) -> bytes:
    """Return the bytes of a layer's constant as the artifact stores them."""
    from tcc.backends.arm.execute import stored_constants
    from tcc.backends.arm.machine import MACHINES
    from tcc.compiler.driver import bundle_program
    from tcc.compiler.frontend.spec import load
    from tcc.compiler.targets import devices

    bundle_manifest = manifest.decode((folder / manifest.NAME).read_bytes(), "manifest")
    bundle, device, spec = (
        Bundle(folder, bundle_manifest),
        devices.find(target, make_file_span(target)),
        load(Path("tiny.yaml")),
    )
    program = bundle_program.rebuild_program(bundle, device, spec, None)
    sources = bundle_program.find_constant_sources(bundle, device, spec, None, program)
    assert sources.start_model
    machine = next(candidate for candidate in MACHINES if candidate.target.name == target)
    constants, _ = stored_constants.place_constants(machine, sources.start_model)
    layer_constants = [
        candidate
        for candidate in constants
        if layer in (candidate.layer, *candidate.name.split(".")) or True
    ]
    return max(layer_constants, key=lambda candidate: candidate.tensor.nbytes).tensor.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_changed_weight_of_a_page_is_detected(tcc, build, precision):
    folder = build("web", precision)
    assert tcc("verify", folder, "--spec", "tiny.yaml").code == 0
    name = change_onnx(folder / "model/model.onnx", lambda n, v: v.size > 30 and v.ndim > 1)
    forged_bundles.forge_bundle(folder, "web")
    outcome = tcc("verify", folder, "--spec", "tiny.yaml")
    assert outcome.code == 4
    assert (
        f"tensor `{name}`" in outcome.err or "does not reproduce its golden outputs" in outcome.err
    )
    assert f"tensor `{name}`[0, 0" in outcome.out


def test_replaced_operator_is_detected(tcc, build):
    folder = build("onnxruntime", "fp32")
    path = folder / "model/model.onnx"
    model = onnx.load_model_from_string(path.read_bytes())
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    node.op_type = "Elu"
    path.write_bytes(model.SerializeToString(deterministic=True))
    write_goldens(folder, "onnxruntime")
    outcome = tcc("verify", folder, "--spec", "tiny.yaml")
    assert outcome.code == 4
    assert "operator Relu of layer `relu` differs" in outcome.err


def test_other_passes_are_reported_as_not_compared(tcc, build):
    folder = build("onnxruntime", "fp32", "--passes", "fused")
    outcome = tcc("verify", folder, "--spec", "tiny.yaml")
    assert outcome.code == 0, outcome.err
    assert "weights and scales not compared" in outcome.out
